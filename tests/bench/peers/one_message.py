"""The style of tutorials: one message, one transaction, one commit of the offset.

It is done well: the record's former contribution is stored beside its version and taken back in the
same transaction, so that a message that comes again changes nothing.
"""

import asyncio
import json
from datetime import date
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer

from tests.bench.peers.job import (
    DATABASE,
    GROUP,
    KAFKA,
    NOTHING,
    SESSION_SECONDS,
    TOPIC,
    changes,
    contribution,
)

TABLE = """
CREATE TABLE IF NOT EXISTS record (
    key text PRIMARY KEY, version bigint NOT NULL, cell text NOT NULL,
    deals bigint NOT NULL, revenue bigint NOT NULL, calls bigint NOT NULL
)
"""
LAST = "SELECT version, cell, deals, revenue, calls FROM record WHERE key = $1 FOR UPDATE"
KEEP = """
INSERT INTO record VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (key) DO UPDATE SET
    version = EXCLUDED.version, cell = EXCLUDED.cell, deals = EXCLUDED.deals,
    revenue = EXCLUDED.revenue, calls = EXCLUDED.calls
"""
ADD = """
INSERT INTO result VALUES ($1, $2, $3, $4, $5) ON CONFLICT (person, day) DO UPDATE SET
    deals = result.deals + EXCLUDED.deals, revenue = result.revenue + EXCLUDED.revenue,
    calls = result.calls + EXCLUDED.calls
"""


async def apply(connection: Any, key: str, record: dict[str, Any]) -> None:
    """Replace what the record contributes, unless this version or a newer one is known."""
    last = await connection.fetchrow(LAST, key)
    if last is not None and last["version"] >= record["version"]:
        return
    after = contribution(record)
    before = ("", NOTHING) if last is None else (last["cell"], tuple(last)[2:])
    await connection.execute(KEEP, key, record["version"], after[0], *after[1])
    for cell, totals in changes(before, after):
        person, _, day = cell.partition("/")
        await connection.execute(ADD, person, date.fromisoformat(day), *totals)


async def main() -> None:
    """Follow the topic for ever."""
    connection = await asyncpg.connect(DATABASE)
    await connection.execute(TABLE)
    consumer = AIOKafkaConsumer(
        TOPIC,
        bootstrap_servers=KAFKA,
        group_id=GROUP,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=SESSION_SECONDS * 1000,
    )
    await consumer.start()
    async for message in consumer:
        async with connection.transaction():
            await apply(connection, message.key.decode(), json.loads(message.value))
        await consumer.commit()


if __name__ == "__main__":
    asyncio.run(main())
