"""Faust: a table per record, a topic of changes by cell, a table of cells, a topic of results.

As its documentation has it: tables in RocksDB with changelog topics, uvloop, and `take` for batches
into the database, from a topic of its own since a table may only be written to event by event. It
runs at least once, its default: what was added to a cell but not acknowledged is added again after
a crash. Its `exactly_once` was tried with 0.15.3: it doubled after a SIGKILL as well. Topics are
made before it starts, since it doesn't follow one that it has declared itself and that isn't there
yet when it looks.
"""

import asyncio
from datetime import date
from typing import Any

import asyncpg
import faust  # type: ignore[import-not-found]  # in a virtual environment of its own
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.bench.peers.job import (
    DATABASE,
    GROUP,
    KAFKA,
    NOTHING,
    SESSION_SECONDS,
    STATE,
    TOPIC,
    changes,
    contribution,
)

PARTITIONS = 8  # tables and the topic that they follow must have the same
AT_ONCE, WITHIN_SECONDS = 1000, 0.2
UPSERT = """
INSERT INTO result SELECT * FROM unnest($1::text[], $2::date[], $3::bigint[], $4::bigint[],
    $5::bigint[])
ON CONFLICT (person, day) DO UPDATE SET
    deals = EXCLUDED.deals, revenue = EXCLUDED.revenue, calls = EXCLUDED.calls
"""

app = faust.App(
    GROUP,
    broker=f"kafka://{KAFKA}",
    store="rocksdb://",
    datadir=STATE,
    topic_partitions=PARTITIONS,
    topic_replication_factor=1,
    consumer_auto_offset_reset="earliest",
    broker_session_timeout=SESSION_SECONDS,
    web_enabled=False,
)
records = app.topic(TOPIC, key_type=str, value_serializer="json")
deltas = app.topic(f"{GROUP}-deltas", key_type=str, value_serializer="json", internal=True)
results = app.topic(f"{GROUP}-results", key_type=str, value_serializer="json", internal=True)
OPTIONS = {"driver": "rocksdict"}
known = app.Table("known", key_type=str, partitions=PARTITIONS, options=OPTIONS)
cells = app.Table("cells", key_type=str, partitions=PARTITIONS, options=OPTIONS)


async def follow(stream: Any) -> None:
    """What a record's new version changes in which cells."""
    async for key, record in stream.items():
        version, cell, totals = known.get(key) or (-1, "", NOTHING)
        if version >= record["version"]:
            continue
        before, after = (cell, tuple(totals)), contribution(record)
        known[key] = (record["version"], *after)
        for cell, totals in changes(before, after):
            await deltas.send(key=cell, value=totals)


async def add(stream: Any) -> None:
    """The cell's totals after a change."""
    async for cell, delta in stream.items():
        sums = [a + b for a, b in zip(cells.get(cell) or NOTHING, delta, strict=True)]
        cells[cell] = sums
        await results.send(key=cell, value=[cell, *sums])


async def write(stream: Any) -> None:
    """Batches of totals into PostgreSQL."""
    connection = await asyncpg.connect(DATABASE)
    async for batch in stream.take(AT_ONCE, within=WITHIN_SECONDS):
        last = {cell: sums for cell, *sums in batch}
        people, days = zip(*(cell.split("/") for cell in last), strict=True)
        columns = [list(column) for column in zip(*last.values(), strict=True)]
        await connection.execute(UPSERT, people, list(map(date.fromisoformat, days)), *columns)


for agent, topic in ((follow, records), (add, deltas), (write, results)):
    app.agent(topic)(agent)


async def create_topics() -> None:
    """Those that only it uses; they may be there from before it was killed."""
    admin = AIOKafkaAdminClient(bootstrap_servers=KAFKA)
    await admin.start()
    for name in ("deltas", "results", "known-changelog", "cells-changelog"):
        policy = {"cleanup.policy": "compact" if name.endswith("changelog") else "delete"}
        topic = NewTopic(f"{GROUP}-{name}", PARTITIONS, 1, topic_configs=policy)
        await admin.create_topics([topic])
    await admin.close()


if __name__ == "__main__":
    asyncio.run(create_topics())
    app.main()
