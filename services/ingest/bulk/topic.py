"""A Kafka topic as rows: from its beginning to where it ends now, one partition after the other.

How far an import has come is committed in a consumer group of its own, together with when it began
and as what: it goes on from there, and a repeat takes only what has been added since.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from kit.settings import KitSettings
from services.ingest.bulk.checkpoint import CheckpointError
from services.ingest.bulk.messages import MAX_ROWS, Cutter
from services.ingest.bulk.rows import FileError, broken, json_row
from services.ingest.domain.imports import Row

POLL_MS = 200
Offsets = dict[TopicPartition, int]
Record = ConsumerRecord[bytes | None, bytes | None]


class TopicInput:
    """A topic's messages, as many as there are when the import starts."""

    digest = ""

    def __init__(
        self,
        reader: AIOKafkaConsumer,
        starts: Offsets,
        ends: Offsets,
        *,
        began: int,
        identity: str = "",
    ) -> None:
        """With an `identity` (of what is imported as what), how far it has come is committed."""
        self._reader = reader
        self._starts = starts
        self._ends = ends
        self._identity = identity
        self.began = began
        self.done = 0

    @property
    def total(self) -> int:
        """Offsets to pass."""
        return sum(end - self._starts[tp] for tp, end in self._ends.items())

    async def batches(self) -> AsyncIterator[tuple[str, list[Row]]]:
        """The rows of one partition after the other."""
        self._reader.assign(list(self._ends))
        await self._commit(self._starts)  # before the first message: when the import began
        for tp in sorted(self._ends):
            cutter = Cutter()
            async for row in self._rows(tp):
                if full := cutter.add(row):
                    yield str(tp.partition), full
            if rest := cutter.rest():
                yield str(tp.partition), rest

    async def _rows(self, tp: TopicPartition) -> AsyncIterator[Row]:
        self._reader.pause(*(self._ends.keys() - {tp}))
        self._reader.resume(tp)
        passed, end = self._starts[tp], self._ends[tp]
        self._reader.seek(tp, passed)
        while passed < end:
            found = await self._reader.getmany(tp, timeout_ms=POLL_MS, max_records=MAX_ROWS)
            for record in found.get(tp, ()):
                if record.offset < end:
                    yield _row(record)
            position = min(await self._reader.position(tp), end)  # compaction leaves holes
            self.done += position - passed
            passed = position

    async def imported(self, part: str, rows: list[Row]) -> None:
        """Remember that Kafka has these rows."""
        tp = next(tp for tp in self._ends if str(tp.partition) == part)
        await self._commit({tp: rows[-1].row + 1})

    async def finish(self) -> None:
        """Remember that there are no more."""
        await self._commit(self._ends)

    async def _commit(self, offsets: Offsets) -> None:
        if self._identity:
            note = f"{self.began} {self._identity}"
            await self._reader.commit({tp: (at, note) for tp, at in offsets.items()})


def _row(record: Record) -> Row:
    at = max(0, record.timestamp) * 1000  # ms; -1: it has none
    if record.value is None:
        return broken(record.offset, "a message without a value", "", at=at)
    return json_row(record.offset, record.value, at=at)


@asynccontextmanager
async def opened(
    settings: KitSettings, name: str, *, identity: str, group: str, now: int, again: bool = False
) -> AsyncIterator[TopicInput]:
    """The topic from where the import with this name for its group has come to.

    Without a group, all of the topic, and nothing is remembered.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    group = f"{settings.topic_prefix}ingest.import.{group}" if group else ""
    reader: AIOKafkaConsumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka,
        group_id=group or None,
        enable_auto_commit=False,
        isolation_level="read_committed",
    )
    try:
        await admin.start()
        await reader.start()
        partitions = await _partitions(admin, name)
        starts: Offsets = dict(await reader.beginning_offsets(partitions))
        ends: Offsets = dict(await reader.end_offsets(partitions))
        if not group:
            yield TopicInput(reader, starts, ends, began=now)
            return
        known = await admin.list_consumer_group_offsets(group, partitions=partitions)
        began, places = _resumed(known, now=now, identity=identity, again=again)
        starts = {tp: max(start, places.get(tp, 0)) for tp, start in starts.items()}
        yield TopicInput(reader, starts, ends, began=began, identity=identity)
    finally:
        await reader.stop()
        await admin.close()


async def _partitions(admin: AIOKafkaAdminClient, name: str) -> list[TopicPartition]:
    (topic,) = await admin.describe_topics([name])
    if topic["error_code"]:
        raise FileError(f"Kafka has no topic {name!r} that can be read; list them on the broker")
    return [TopicPartition(name, one["partition"]) for one in topic["partitions"]]


def _resumed(
    known: Mapping[TopicPartition, Any], *, now: int, identity: str, again: bool
) -> tuple[int, Offsets]:
    """When the import began, and where it is in each partition."""
    committed = {tp: one for tp, one in known.items() if one.offset >= 0}
    began, _, former = min((one.metadata for one in committed.values()), default="").partition(" ")
    if committed and former != identity and not again:
        raise CheckpointError(
            "The mapping, source or --at is not what this import began with. Import the topic as "
            "another with --as NAME, or all of it with --again."
        )
    # A repeat of the same keeps its messages' ids, so that nothing of it is there twice.
    first = int(began) if committed and former == identity else now
    return first, {} if again else {tp: one.offset for tp, one in committed.items()}
