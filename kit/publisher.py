"""Publish states to their topics: by key, batched per partition, acknowledged by all replicas.

`publish` returns only when Kafka has everything; it raises `PublishError` otherwise, and the caller
must act as if nothing was sent (sending a state twice is harmless). A producer that met an error is
replaced behind the caller's back, because an idempotent one never recovers from a fatal error by
itself; until then every caller hears at once that Kafka is away.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from prometheus_client import Counter

from kit import telemetry
from kit.kafka import partition_for
from kit.settings import KitSettings
from schemas.base import State
from schemas.topics import BY_NAME

log = structlog.get_logger(__name__)

TIMEOUT_SECONDS = 10.0  # a healthy cluster acknowledges in milliseconds
STOP_SECONDS = 5.0  # aiokafka's own stop waits for ever while the broker is down
# aiokafka takes one ready-made batch per partition at a time, so callers that each bring one would
# wait for each other's round trips; single messages share batches, at five times the CPU.
FEW = 8
MAX_BATCH_BYTES = 512 * 1024  # half of Kafka's default message.max.bytes
MAX_MESSAGE_BYTES = 3 * 1024 * 1024  # the largest max.message.bytes in the registry

Header = tuple[str, bytes]


class PublishError(Exception):
    """Kafka has not acknowledged; nothing may be assumed to be there. Try again."""


class MessageTooLargeError(ValueError):
    """A message that no topic of ours takes; trying again won't help."""


class Publisher:
    """The process's way onto Kafka."""

    def __init__(self, settings: KitSettings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._replacing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect; raises KafkaError when no broker answers."""
        self._producer = self._new_producer()
        await self._producer.start()

    async def stop(self) -> None:
        """Disconnect, within a bounded time."""
        if self._replacing is not None:
            self._replacing.cancel()
            await asyncio.wait([self._replacing])
        if self._producer is not None:
            await _stop(self._producer)
            self._producer = None

    async def publish(self, states: Iterable[State], *, within: float = TIMEOUT_SECONDS) -> None:
        """Put each state onto its topic and wait until all are acknowledged, for some seconds."""
        grouped: dict[tuple[str, int], list[tuple[bytes, bytes, list[Header]]]] = defaultdict(list)
        for state in states:
            key = state.key.encode()
            topic = BY_NAME[state.topic]
            trace = getattr(state, "trace", "")
            headers = [("traceparent", trace.encode())] if trace else []
            slot = (topic.name, partition_for(key, topic.partitions))
            grouped[slot].append((key, state.encode(), headers))
        await self._send(grouped, within)

    async def publish_raw(
        self, topic: str, messages: Sequence[tuple[bytes, bytes, list[Header]]]
    ) -> None:
        """Put bytes onto the single partition of a dead-letter topic."""
        await self._send({(topic, 0): list(messages)}, TIMEOUT_SECONDS)

    async def _send(
        self,
        grouped: dict[tuple[str, int], list[tuple[bytes, bytes, list[Header]]]],
        within: float,
    ) -> None:
        if not grouped:
            return
        producer = self._producer
        if producer is None:
            raise PublishError("the publisher is not started")
        began = time.perf_counter()
        try:
            async with asyncio.timeout(within):
                waiting = [
                    future
                    for (topic, partition), messages in grouped.items()
                    for future in await self._enqueue(producer, topic, partition, messages)
                ]
                if len(waiting) == 1:  # a request's: gathering costs as much as sending
                    await waiting[0]
                else:
                    await asyncio.gather(*waiting)
        except MessageSizeTooLargeError as error:
            raise MessageTooLargeError(f"the broker refuses it for its size: {error}") from error
        except (KafkaError, TimeoutError) as error:
            telemetry.PUBLISH_FAILURES.inc()
            self._replace(producer, error)
            raise PublishError(f"Kafka did not acknowledge: {error!r}") from error
        telemetry.PUBLISH_SECONDS.observe(time.perf_counter() - began)
        for (topic, _), messages in grouped.items():
            _published(topic).inc(len(messages))

    async def _enqueue(
        self,
        producer: AIOKafkaProducer,
        topic: str,
        partition: int,
        messages: list[tuple[bytes, bytes, list[Header]]],
    ) -> list["asyncio.Future[object]"]:
        """Hand few messages to the producer one by one, many in as few batches as fit."""
        name = self._settings.topic_prefix + topic
        futures: list[asyncio.Future[object]] = []
        if len(messages) <= FEW:
            for key, value, headers in messages:
                _check_size(topic, key, value)
                futures.append(
                    await producer.send(name, value, key=key, partition=partition, headers=headers)
                )
            return futures
        batch, size = producer.create_batch(), 0
        for key, value, headers in messages:
            length = _check_size(topic, key, value)
            if size and size + length > MAX_BATCH_BYTES:
                futures.append(await producer.send_batch(batch, name, partition=partition))
                batch, size = producer.create_batch(), 0
            batch.append(timestamp=None, key=key, value=value, headers=headers)
            size += length
        futures.append(await producer.send_batch(batch, name, partition=partition))
        return futures

    def _new_producer(self) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            bootstrap_servers=self._settings.kafka,
            acks="all",
            enable_idempotence=True,
            compression_type="zstd",
            max_batch_size=MAX_BATCH_BYTES,  # a larger message goes alone
            max_request_size=MAX_MESSAGE_BYTES + 128 * 1024,
            request_timeout_ms=int(TIMEOUT_SECONDS * 1000),
        )

    def _replace(self, broken: AIOKafkaProducer, error: BaseException) -> None:
        if self._producer is not broken:
            return  # another publication has replaced it already
        if self._replacing is None or self._replacing.done():
            log.warning("producer_replaced", error=repr(error))
            self._replacing = asyncio.create_task(self._replace_now(broken))

    async def _replace_now(self, broken: AIOKafkaProducer) -> None:
        await _stop(broken)
        fresh = self._new_producer()
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await fresh.start()
        except (KafkaError, TimeoutError):
            await _stop(fresh)
            return  # the broken one stays in place; the next failure tries again
        except asyncio.CancelledError:
            await _stop(fresh)
            raise
        self._producer = fresh


@cache
def _published(topic: str) -> Counter:
    return telemetry.PUBLISHED.labels(topic)


def _check_size(topic: str, key: bytes, value: bytes) -> int:
    """The bytes that a message takes; raises when no topic takes so many."""
    length = len(key) + len(value) + 128
    if length > MAX_MESSAGE_BYTES:
        raise MessageTooLargeError(f"{topic}: a message of {length} bytes")
    return length


async def _stop(producer: AIOKafkaProducer) -> None:
    stopping = asyncio.create_task(producer.stop())
    await asyncio.wait([stopping], timeout=STOP_SECONDS)
    if not stopping.done():
        # It waits for messages that nobody will take. Without its sender it closes connections.
        log.warning("producer_stop_forced")
        producer._sender.sender_task.cancel()  # noqa: SLF001  # aiokafka has no other way
        await asyncio.wait([stopping], timeout=STOP_SECONDS)
    if stopping.done() and (error := stopping.exception()) is not None:
        log.warning("producer_stop_failed", error=repr(error))
