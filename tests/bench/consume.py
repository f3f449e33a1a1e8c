"""Consumer stages: ours (the real consumer, no jobs) and a floor that decides nothing.

Ours runs first; then its rows are read back, and the floor writes exactly those rows, spread over
the same number of transactions, and produces as many messages of the same bytes.
"""

import asyncio
import resource
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from kit.consumer import MAX_RECORDS, Consumer
from kit.kafka import partition_for
from kit.publisher import Publisher
from kit.service import Service
from kit.settings import KitSettings
from schemas.base import State
from schemas.topics import BY_NAME
from tests.bench.measure import Measurement

IDLE_SECONDS = 1.0  # without a new batch for so long, a consumer has finished
PUBLISH_AT_ONCE = 5000


@dataclass(frozen=True, slots=True)
class Table:
    """A table's rows by column, as they were written."""

    name: str
    names: list[str]
    types: list[str]
    columns: list[list[Any]]

    @property
    def rows(self) -> int:
        """How many rows were written."""
        return len(self.columns[0]) if self.columns else 0

    def slice(self, start: float, end: float) -> list[list[Any]]:
        """The rows of this part of the run, fractions of the whole."""
        first, last = round(self.rows * start), round(self.rows * end)
        return [column[first:last] for column in self.columns]


@dataclass(slots=True)
class Watch:
    """Notes when batches of a processor begin and end."""

    began: float = 0.0
    ended: float = 0.0
    cpu_began: float = 0.0
    cpu_ended: float = 0.0
    messages: int = 0
    batches: list[int] = field(default_factory=list)

    def around(self, service: Service) -> None:
        """Put the watch around the service's processor."""
        process = service.processor.process

        async def watched(raws: Sequence[Any], *, emit: bool = True) -> None:
            if not self.messages:
                self.began, self.cpu_began = time.perf_counter(), cpu_seconds()
            await process(raws, emit=emit)
            self.messages += len(raws)
            self.batches.append(len(raws))
            self.ended, self.cpu_ended = time.perf_counter(), cpu_seconds()

        service.processor.process = watched  # type: ignore[method-assign]

    def measurement(self, events: int) -> Measurement:
        """What the watched run took."""
        return Measurement(events, self.ended - self.began, self.cpu_ended - self.cpu_began)


def cpu_seconds() -> float:
    """CPU time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def preload(settings: KitSettings, states: Sequence[State]) -> None:
    """Put the stage's input onto its topic."""
    publisher = Publisher(settings)
    await publisher.start()
    for start in range(0, len(states), PUBLISH_AT_ONCE):
        await publisher.publish(states[start : start + PUBLISH_AT_ONCE])
    await publisher.stop()


async def ours(service: Service, *, messages: int, events: int) -> tuple[Measurement, Watch]:
    """Run the service's consumer over its preloaded topics until it has taken all messages."""
    watch = Watch()
    async with service.connected():
        watch.around(service)
        consumer = Consumer(service.settings, service=service.name, processor=service.processor)
        await consumer.start()
        try:
            await _until(lambda: watch.messages >= messages, consumer)
        finally:
            await consumer.stop()
    return watch.measurement(events), watch


async def _until(done: Callable[[], bool], consumer: Consumer) -> None:
    while not done():
        if consumer.halted:
            raise RuntimeError(consumer.halted)
        await asyncio.sleep(0.05)


async def rows_of(dsn: str, tables: Sequence[str]) -> list[Table]:
    """What a run has written into these tables."""
    connection = await asyncpg.connect(dsn)
    found = []
    for name in tables:
        described = await connection.fetch(
            "SELECT attname, format_type(atttypid, atttypmod) AS kind FROM pg_attribute"
            " WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped"
            " AND attgenerated = '' AND attidentity = '' ORDER BY attnum",
            name,
        )
        names = ", ".join(f'"{row["attname"]}"' for row in described)
        records = await connection.fetch(f"SELECT {names} FROM {name}")
        columns = [list(column) for column in zip(*records, strict=True)]
        kinds = [row["kind"] for row in described]
        found.append(Table(name, [row["attname"] for row in described], kinds, columns))
    await connection.close()
    return found


async def floor(
    settings: KitSettings,
    dsn: str,
    *,
    topic: str,
    messages: int,
    events: int,
    tables: Sequence[Table],
    out_topic: str | None = None,
    out: Sequence[tuple[bytes, bytes]] = (),
) -> Measurement:
    """Read the same topic, write the same rows, produce the same messages; decide nothing."""
    connection = await asyncpg.connect(dsn)
    statements = [_insert(table) for table in tables]
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka, group_id="bench-floor", enable_auto_commit=False
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka,
        acks="all",
        enable_idempotence=True,
        compression_type="zstd",
    )
    await consumer.start()
    await producer.start()
    name = settings.topic_prefix + topic
    partitions = [TopicPartition(name, number) for number in range(BY_NAME[topic].partitions)]
    consumer.assign(partitions)
    await consumer.seek_to_beginning(*partitions)
    seen = 0
    began, cpu_began = 0.0, 0.0
    while seen < messages:
        found = await consumer.getmany(timeout_ms=200, max_records=MAX_RECORDS)
        if not began:
            began, cpu_began = time.perf_counter(), cpu_seconds()
        taken = sum(len(records) for records in found.values())
        if not taken:
            continue
        start, end = seen / messages, min(1.0, (seen + taken) / messages)
        async with connection.transaction():
            for table, statement in zip(tables, statements, strict=True):
                await connection.execute(statement, *table.slice(start, end))
        part = out[round(len(out) * start) : round(len(out) * end)]
        if out_topic and part:
            await _produce(producer, settings, out_topic, part)
        await consumer.commit()
        seen += taken
    measured = Measurement(events, time.perf_counter() - began, cpu_seconds() - cpu_began)
    await consumer.stop()
    await producer.stop()
    await connection.close()
    return measured


def _insert(table: Table) -> str:
    arrays = ", ".join(f"${number + 1}::{kind}[]" for number, kind in enumerate(table.types))
    names = ", ".join(f'"{name}"' for name in table.names)
    return f"INSERT INTO {table.name} ({names}) SELECT * FROM unnest({arrays})"


async def _produce(
    producer: AIOKafkaProducer,
    settings: KitSettings,
    topic: str,
    messages: Sequence[tuple[bytes, bytes]],
) -> None:
    partitions = BY_NAME[topic].partitions
    batches: dict[int, Any] = {}
    waiting: list[Awaitable[Any]] = []
    name = settings.topic_prefix + topic
    for key, value in messages:
        partition = partition_for(key, partitions)
        batch = batches.get(partition) or batches.setdefault(partition, producer.create_batch())
        if batch.append(timestamp=None, key=key, value=value) is None:
            waiting.append(await producer.send_batch(batch, name, partition=partition))
            batch = batches[partition] = producer.create_batch()
            batch.append(timestamp=None, key=key, value=value)
    for partition, batch in batches.items():
        waiting.append(await producer.send_batch(batch, name, partition=partition))
    await asyncio.gather(*waiting)


async def messages_of(settings: KitSettings, topic: str) -> list[tuple[bytes, bytes]]:
    """Everything that a run has produced onto a topic."""
    reader = AIOKafkaConsumer(bootstrap_servers=settings.kafka, auto_offset_reset="earliest")
    await reader.start()
    name = settings.topic_prefix + topic
    partitions = [TopicPartition(name, number) for number in range(BY_NAME[topic].partitions)]
    reader.assign(partitions)
    await reader.seek_to_beginning(*partitions)
    ends = await reader.end_offsets(partitions)
    found: list[tuple[bytes, bytes]] = []
    while len(found) < sum(ends.values()):
        for records in (await reader.getmany(timeout_ms=500)).values():
            found += [(record.key or b"", record.value or b"") for record in records]
    await reader.stop()
    return found
