"""Drop a store and make it again from the topics; list and replay dead letters.

Rebuild and replay run while the service is stopped, through the same code as live batches. A
rebuild reads the context topics (directory, goals, own state) to their end first and then the rest;
emits are suppressed, since what they would say has been said. The group's offsets stay where they
were: what had not been acknowledged before is applied again, and then also published.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from kit.consumer import MAX_RECORDS, SOURCE_HEADER, Raw, group_of, parts
from kit.service import Service
from schemas.topics import Topic, consumed_by, dead_letter_name, lanes

log = structlog.get_logger(__name__)

Progress = Callable[[int, int], None]  # messages done, messages in all
Offsets = dict[TopicPartition, int]


class GroupIsActiveError(Exception):
    """The service is still running: two would work on the same store."""


async def rebuild(service: Service, progress: Progress | None = None) -> str:
    """Make the store again; returns its checksum. The service's replicas must be stopped."""
    await _refuse_while_running(service)
    former = f"before_{datetime.now(UTC):%Y%m%dT%H%M%S}" if service.keeps_history else ""
    await service.database.drop(keep_as=former)
    topics = consumed_by(service.name)
    async with service.connected():
        ends: Offsets = {}
        done = 0
        async with _reader(service) as reader:
            for topic in topics:
                ends |= await _ends(reader, service, topic)
            starts = await reader.beginning_offsets(list(ends))
            total = sum(ends[tp] - starts[tp] for tp in ends)
            for context in (True, False):
                names = {
                    service.settings.topic_prefix + t.name for t in topics if t.context is context
                }
                part = {tp: end for tp, end in ends.items() if tp.topic in names}
                async for records in _read(reader, part, starts):
                    await service.processor.process(records, emit=False)
                    done += len(records)
                    if progress is not None:
                        progress(done, total)
        if service.settle is not None:
            await service.settle()
        return await service.checksum()


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be applied, and why."""

    source: str  # topic/partition/offset
    key: str
    error: str
    reason: str
    at: datetime


async def dead_letters(service: Service, topic: str) -> AsyncIterator[DeadLetter]:
    """A topic's dead letters, oldest first; the service may be running."""
    name = service.settings.topic_prefix + dead_letter_name(topic, service.name)
    source = TopicPartition(name, 0)
    async with _reader(service) as reader:
        reader.assign([source])
        ends, starts = await reader.end_offsets([source]), await reader.beginning_offsets([source])
        async for records in _read(reader, ends, starts):
            for record in records:
                headers = {name: value.decode(errors="replace") for name, value in record.headers}
                yield DeadLetter(
                    source=headers.get(SOURCE_HEADER, ""),
                    key=(record.key or b"").decode(errors="replace"),
                    error=headers.get("dead.error", ""),
                    reason=headers.get("dead.reason", ""),
                    at=datetime.fromtimestamp(record.timestamp / 1000, UTC),
                )


async def replay_dead_letters(service: Service, topic: str) -> int:
    """Apply a topic's dead letters again, oldest first; returns how many were taken.

    What fails again is put aside again, with its new reason.
    """
    await _refuse_while_running(service)
    prefix = service.settings.topic_prefix
    source = TopicPartition(prefix + dead_letter_name(topic, service.name), 0)
    group = f"{prefix}{service.name}.replay"
    taken = 0
    async with service.connected(), _reader(service, group=group) as reader:
        reader.assign([source])
        end = (await reader.end_offsets([source]))[source]
        start = await reader.committed(source)
        if start is None:
            start = (await reader.beginning_offsets([source]))[source]
        async for records in _read(reader, {source: end}, {source: start}):
            originals = [_as_original(record, prefix + topic) for record in records]
            await service.processor.process(originals)
            taken += len(records)
        await reader.commit({source: end})
    return taken


def _as_original(letter: Raw, topic: str) -> Raw:
    """The message where it was on its topic; its headers go on telling how often it has failed."""
    source = dict(letter.headers).get(SOURCE_HEADER, b"").decode(errors="replace")
    match source.rsplit("/", 2):
        case [_, partition, offset]:
            return replace(letter, topic=topic, partition=int(partition), offset=int(offset))
        case _:
            return replace(letter, topic=topic)


@asynccontextmanager
async def _reader(service: Service, group: str | None = None) -> AsyncIterator[AIOKafkaConsumer]:
    reader: AIOKafkaConsumer = AIOKafkaConsumer(
        bootstrap_servers=service.settings.kafka, group_id=group, enable_auto_commit=False
    )
    await reader.start()
    try:
        yield reader
    finally:
        await reader.stop()


async def _ends(reader: AIOKafkaConsumer, service: Service, topic: Topic) -> Offsets:
    name = service.settings.topic_prefix + topic.name
    partitions = [TopicPartition(name, number) for number in range(topic.partitions)]
    reader.assign(partitions)
    return dict(await reader.end_offsets(partitions))


async def _read(
    reader: AIOKafkaConsumer, ends: Offsets, starts: Offsets
) -> AsyncIterator[Sequence[Raw]]:
    """Batches from the starts up to the ends; compaction may leave holes, positions tell."""
    if not ends:
        return
    reader.assign(list(ends))
    for tp in ends:
        reader.seek(tp, starts[tp])
    while True:
        found = await reader.getmany(timeout_ms=200, max_records=MAX_RECORDS)
        records = [r for tp, batch in found.items() for r in batch if r.offset < ends[tp]]
        for part in parts(records):
            yield part
        if not found:
            positions = {tp: await reader.position(tp) for tp in ends}
            if all(positions[tp] >= end for tp, end in ends.items()):
                return


async def _refuse_while_running(service: Service) -> None:
    groups = [group_of(service.settings, service.name, lane) for lane in lanes(service.name)]
    admin = AIOKafkaAdminClient(bootstrap_servers=service.settings.kafka)
    await admin.start()
    try:
        for group in groups:  # one by one: aiokafka misreads an answer about several
            response: Any = (await admin.describe_consumer_groups([group]))[0]
            for _, _, state, *_ in response.groups:
                if state in ("Stable", "PreparingRebalance", "CompletingRebalance"):
                    raise GroupIsActiveError(
                        f"{service.name} is running (its consumer group is {state}); stop all its "
                        "replicas first, or wait for their session to end (10 s after a kill)"
                    )
    finally:
        await admin.close()
