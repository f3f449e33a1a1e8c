"""Quix Streams: a state per record, a repartition by cell, a state per cell, its PostgreSQL sink.

As its documentation has it: `exactly-once` covers state and topics; the sink writes at least once,
which for the absolute totals of a cell (`upsert_on_primary_key`) comes to the same. Checkpoints,
and with them the sink's writes, are every second instead of every five, so that the last results
don't wait. State is in its RocksDB store with changelog topics.
"""

from typing import Any
from urllib.parse import urlsplit

from quixstreams import Application, State  # type: ignore[import-not-found]  # in an own venv
from quixstreams.sinks.community.postgresql import (  # type: ignore[import-not-found]  # same
    PostgreSQLSink,
)

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


def deltas(record: dict[str, Any], state: State) -> list[dict[str, Any]]:
    """What a record's new version changes in which cells."""
    last = state.get("last", {"version": -1, "cell": "", "totals": NOTHING})
    if last["version"] >= record["version"]:
        return []
    cell, totals = contribution(record)
    state.set("last", {"version": record["version"], "cell": cell, "totals": totals})
    before = (last["cell"], tuple(last["totals"]))
    return [{"cell": c, "totals": t} for c, t in changes(before, (cell, totals))]


def added(delta: dict[str, Any], state: State) -> dict[str, Any]:
    """The cell's row after this change."""
    sums = [a + b for a, b in zip(state.get("sums", NOTHING), delta["totals"], strict=True)]
    state.set("sums", sums)
    person, _, day = delta["cell"].partition("/")
    return {"person": person, "day": day, "deals": sums[0], "revenue": sums[1], "calls": sums[2]}


def main() -> None:
    """Follow the topic for ever."""
    app = Application(
        broker_address=KAFKA,
        consumer_group=GROUP,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_interval=1.0,
        state_dir=STATE,
        consumer_extra_config={"session.timeout.ms": SESSION_SECONDS * 1000},
        # One process, so one id: by it a restarted one ends what the killed one had under way.
        producer_extra_config={"transactional.id": GROUP},
        loglevel="WARNING",
    )
    database = urlsplit(DATABASE)
    sink = PostgreSQLSink(
        host=database.hostname,
        port=database.port,
        dbname=database.path.lstrip("/"),
        user=database.username,
        password=database.password or "",
        table_name="result",
        schema_auto_update=False,
        primary_key_columns=["person", "day"],
        upsert_on_primary_key=True,
        include_metadata=False,
    )
    records = app.topic(TOPIC, key_deserializer="str", value_deserializer="json")
    frame = app.dataframe(records)
    frame = frame.apply(deltas, stateful=True, expand=True).group_by("cell")
    frame.apply(added, stateful=True).sink(sink)
    app.run()


if __name__ == "__main__":
    main()
