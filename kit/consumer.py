"""Batches of states into one transaction, their results out again, then the offsets.

A batch is what one poll gives; where it follows on another, a second poll adds what came meanwhile
(decision 0021). What happens to it, in this order:

1. Every message is decoded; one that can't be is put aside as a dead letter, alone.
2. Per key only the highest version is kept: it says everything.
3. `apply(transaction, batch)` runs inside one transaction, which is committed.
4. What it returned, the current state of every key the batch touches, is published and
   acknowledged.
5. Dead letters are published, and the offsets are committed.

A crash anywhere repeats the batch, which changes nothing twice, because `apply` compares versions.
A transient error (database or broker away, deadlock) is retried here with backoff. Any other error
is narrowed down by halves to the message that causes it, which becomes a dead letter. Too many of
those in a row mean that the fault is ours: consumption halts, with nothing put aside and no offset
moved.
"""

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import chain, groupby
from operator import attrgetter
from typing import Any, TypeVar

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import ConsumerStoppedError, KafkaError
from faststream import AckPolicy, StreamMessage
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaAckableMessage
from prometheus_client import Gauge

from kit import telemetry
from kit.database import Database, Transaction, is_transient
from kit.publisher import Header, Publisher, PublishError
from kit.settings import KitSettings
from schemas.base import State
from schemas.topics import BY_NAME, consumed_by, dead_letter_name

log = structlog.get_logger(__name__)

# Of messages that are applied at once: one of ingest may hold hundreds of events, and all of them
# are in memory together, ten times as large as on the wire.
MAX_BYTES = 2 * 1024 * 1024
MAX_RECORDS = 2000  # per batch; 500 costs a third of the throughput, more gains nothing
FEW_RECORDS = 10  # are polled at once however large they are
POLL_MS = 20  # FastStream waits this long twice when idle; it bounds the latency of the first event
# How long a broker holds a fetch that it has nothing for. While it does, aiokafka asks it for no
# other partition, so that this bounds what a message waits for because others have none.
FETCH_WAIT_MS = 20
BUSY_SECONDS = 0.02  # after a batch: what is polled sooner was fetched before that batch began
MEANWHILE_MS = 30  # a fetch under way for other partitions, and a round trip
FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 5.0
PATIENCE_SECONDS = 120.0  # then the batch is handed back to Kafka; below max_poll_interval
GRACE_SECONDS = 20.0  # a stopping process finishes its batch within this, or abandons it whole
STUCK_SECONDS = 240.0  # a batch in hand for longer means that the process must be restarted
MAX_POLL_INTERVAL_MS = 300_000
DEAD_IN_A_ROW = 25  # more consecutive failures than bad data explains: halt
DEAD_RATIO = 0.5  # of the last DEAD_WINDOW messages
DEAD_WINDOW = 1000

ATTEMPT_HEADER = "dead.attempt"
SOURCE_HEADER = "dead.source"  # topic/partition/offset

S = TypeVar("S", bound=State)
Raw = ConsumerRecord[bytes | None, bytes | None]
_TOPIC_OF: Callable[[Raw], str] = attrgetter("topic")
_TIMESTAMP_OF: Callable[[Raw], int] = attrgetter("timestamp")


@dataclass(frozen=True, slots=True)
class Batch:
    """Decoded messages, at most one (the newest) per message key and topic."""

    states: Sequence[State]

    def of(self, kind: type[S]) -> list[S]:
        """The states of one type, in the order in which they came."""
        return [state for state in self.states if isinstance(state, kind)]


Apply = Callable[[Transaction, Batch], Awaitable[Iterable[State]]]
# The states of the same keys as the store holds them now; those that are no newer may be left out.
Current = Callable[[Transaction, Sequence[State]], Awaitable[Sequence[State]]]


# What is entered before a batch of so many messages, and left after it.
AroundBatch = Callable[[int], AbstractAsyncContextManager[None]]


def nothing_around(_messages: int) -> AbstractAsyncContextManager[None]:
    """For a lane that gives way to none."""
    return nullcontext()


class HaltedError(Exception):
    """So many messages failed that the fault must be ours; consumption has stopped."""


@dataclass(slots=True)
class FloodGuard:
    """Counts failures over what was seen, and says when it is no longer a matter of bad data."""

    in_a_row: int = 0
    recent: list[bool] = field(default_factory=list)

    def would_flood(self, outcomes: Sequence[bool]) -> str | None:
        """The reason to halt if these outcomes (True is a failure) were added, else None."""
        in_a_row = self.in_a_row
        for failed in outcomes:
            in_a_row = in_a_row + 1 if failed else 0
            if in_a_row > DEAD_IN_A_ROW:
                return f"more than {DEAD_IN_A_ROW} messages in a row could not be applied"
        recent = [*self.recent, *outcomes][-DEAD_WINDOW:]
        if len(recent) == DEAD_WINDOW and sum(recent) > DEAD_RATIO * DEAD_WINDOW:
            return f"over {DEAD_RATIO:.0%} of the last {DEAD_WINDOW} messages could not be applied"
        return None

    def add(self, outcomes: Sequence[bool]) -> None:
        """Remember the outcomes of a finished batch."""
        if any(outcomes):
            for failed in outcomes:
                self.in_a_row = self.in_a_row + 1 if failed else 0
        elif outcomes:
            self.in_a_row = 0
        self.recent = [*self.recent, *outcomes][-DEAD_WINDOW:]


@dataclass(frozen=True, slots=True)
class _Failure:
    raw: Raw
    error: BaseException


class Processor:
    """Steps 1 to 5 without Kafka's consumer: live consumption and rebuilds share it."""

    def __init__(
        self,
        *,
        service: str,
        prefix: str,
        database: Database,
        publisher: Publisher,
        apply: Apply,
        current: Current | None = None,
        applied: Callable[[], None] = lambda: None,
    ) -> None:
        self._service = service
        self._prefix = prefix
        self._database = database
        self._publisher = publisher
        self._apply = apply
        self._current = current
        self._applied = applied  # called after each commit
        self._guard = FloodGuard()

    async def process(self, raws: Sequence[Raw], *, emit: bool = True) -> None:
        """Apply a batch for good; raises `HaltedError`, or a transient error that outlasts us."""
        began = time.perf_counter()
        by_topic: dict[str, list[Raw]] = {}
        for topic, some in groupby(raws, _TOPIC_OF):
            by_topic.setdefault(topic, []).extend(some)
        decoded, failures = self._decode(by_topic)
        failures += await self._apply_isolating(decoded, emit=emit)
        await self._bury(raws, failures)
        telemetry.BATCH_SECONDS.observe(time.perf_counter() - began)
        telemetry.BATCH_MESSAGES.observe(len(raws))
        now = time.time()
        for topic, taken in by_topic.items():
            oldest = min(map(_TIMESTAMP_OF, taken)) / 1000
            age = telemetry.DELIVERY_AGE_SECONDS.labels(topic.removeprefix(self._prefix))
            age.observe(max(0.0, now - oldest))

    def _decode(
        self, by_topic: dict[str, list[Raw]]
    ) -> tuple[list[tuple[Raw, State]], list[_Failure]]:
        found: list[tuple[Raw, State]] = []
        failures: list[_Failure] = []
        for name, raws in by_topic.items():
            topic = name.removeprefix(self._prefix)
            telemetry.CONSUMED.labels(topic).inc(len(raws))
            decode = BY_NAME[topic].event.decode
            newest: dict[bytes | str | None, tuple[Raw, State]] = {}
            for raw in raws:
                if raw.value is None:
                    continue  # a tombstone: compaction's business, our states say `deleted`
                try:
                    state = decode(raw.value)
                except (msgspec.DecodeError, KeyError, ValueError) as error:
                    failures.append(_Failure(raw, error))
                    continue
                key: bytes | str | None = raw.key  # at hand; making the state's own costs 2 µs
                known = newest.get(key)
                if known is not None and known[1].key != state.key:
                    key = state.key  # not keyed by our publisher: two things must not become one
                    known = newest.get(key)
                if known is None or known[1].version < state.version:
                    newest[key] = (raw, state)
            found += newest.values()
        return found, failures

    async def _apply_isolating(
        self, pairs: list[tuple[Raw, State]], *, emit: bool
    ) -> list[_Failure]:
        """Apply all in one transaction; on a permanent error, each half in its own."""
        if not pairs:
            return []
        try:
            await self._apply_patiently(pairs, emit=emit)
        except Exception as error:  # whatever the handler raises is the message's
            if _retriable(error):
                raise
            if len(pairs) == 1:
                return [_Failure(pairs[0][0], error)]
            middle = len(pairs) // 2
            failures = await self._apply_isolating(pairs[:middle], emit=emit)
            return failures + await self._apply_isolating(pairs[middle:], emit=emit)
        return []

    async def _apply_patiently(self, pairs: list[tuple[Raw, State]], *, emit: bool) -> None:
        delay, deadline = FIRST_RETRY_SECONDS, time.monotonic() + PATIENCE_SECONDS
        batch = Batch([state for _, state in pairs])
        while True:
            try:
                async with self._database.transaction() as transaction:
                    touched = list(await self._apply(transaction, batch))
                self._applied()
                if emit:
                    await self.publish(touched)
            except Exception as error:
                if not _retriable(error) or time.monotonic() + delay > deadline:
                    raise
                telemetry.RETRIES.labels(type(error).__name__).inc()
                log.warning("batch_retried", error=repr(error)[:300], after_seconds=delay)
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311  # jitter
                delay = min(delay * 2, LAST_RETRY_SECONDS)
            else:
                return

    async def publish(self, states: Sequence[State]) -> None:
        """Publish, and publish again what somebody else has meanwhile replaced.

        Compaction keeps the last message of a key, not the highest version. Two replicas that
        change the same key may publish in the other order than they committed; whoever publishes
        last looks once more, so that the last message is what the store holds.
        """
        while states:
            await self._publisher.publish(states)
            if self._current is None:
                return
            said = {state.key: state.version for state in states}
            async with self._database.transaction() as transaction:
                now = await self._current(transaction, states)
            states = [state for state in now if state.version > said[state.key]]

    async def _bury(self, raws: Sequence[Raw], failures: list[_Failure]) -> None:
        if not failures:
            self._guard.add([False] * len(raws))
            return
        failed = {(f.raw.topic, f.raw.partition, f.raw.offset) for f in failures}
        outcomes = [(raw.topic, raw.partition, raw.offset) in failed for raw in raws]
        reason = self._guard.would_flood(outcomes)
        if reason:
            last = failures[-1]
            raise HaltedError(f"{reason}; the last: {last.error!r}") from last.error
        for failure in failures:
            await self._put_aside(failure)
        self._guard.add(outcomes)

    async def _put_aside(self, failure: _Failure) -> None:
        raw, kind = failure.raw, type(failure.error).__name__
        topic = raw.topic.removeprefix(self._prefix)
        log.error(
            "message_put_aside",
            topic=topic,
            partition=raw.partition,
            offset=raw.offset,
            error=kind,
            reason=str(failure.error)[:500],
            exc_info=failure.error if not isinstance(failure.error, ValueError) else None,
        )
        earlier = dict(raw.headers).get(ATTEMPT_HEADER, b"0")
        attempt = 1 + (int(earlier) if earlier.isdigit() else 0)
        headers: list[Header] = [
            *((name, value) for name, value in raw.headers if not name.startswith("dead.")),
            ("dead.reason", str(failure.error)[:2000].encode()),
            ("dead.error", kind.encode()),
            (ATTEMPT_HEADER, str(attempt).encode()),
            (SOURCE_HEADER, f"{topic}/{raw.partition}/{raw.offset}".encode()),
        ]
        dead = dead_letter_name(topic, self._service)
        await self._publisher.publish_raw(dead, [(raw.key or b"", raw.value or b"", headers)])
        telemetry.DEAD_LETTERS.labels(topic, kind).inc()


class Consumer:
    """A service's member of one lane's consumer group, on FastStream.

    `around_batch`, given the number of messages, is entered before each batch and left after it:
    who must give way to something else waits there. What it raises has the batch come again.
    """

    def __init__(
        self,
        settings: KitSettings,
        *,
        service: str,
        processor: Processor,
        lane: str = "",
        max_records: int = MAX_RECORDS,
        around_batch: AroundBatch = nothing_around,
    ) -> None:
        self._processor = processor
        self._around_batch = around_batch
        self.lane = lane
        self._max_records = max_records
        self._in_hand_since: float | None = None
        self._last_ended = -math.inf
        self._oldest_in_hand: float | None = None
        self._stopping = asyncio.Event()
        self.halted: str | None = None
        self._topics = [
            settings.topic_prefix + topic.name
            for topic in consumed_by(service)
            if topic.lane == lane
        ]
        self.group = group_of(settings, service, lane)
        self._broker = KafkaBroker(
            settings.kafka,
            apply_types=False,  # injected arguments cost a thread hop per call
            graceful_timeout=GRACE_SECONDS,
            allow_auto_create_topics=False,
            logger=logging.getLogger("kit.faststream"),  # "faststream" has a renderer of its own
            log_level=logging.DEBUG,
        )
        self._subscriber = self._broker.subscriber(
            *self._topics,
            batch=True,
            group_id=self.group,
            ack_policy=AckPolicy.NACK_ON_ERROR,
            auto_offset_reset="earliest",
            max_records=max_records,
            batch_timeout_ms=POLL_MS,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
            partition_assignment_strategy=(StickyPartitionAssignor,),
            listener=_FinishFirst(self),
            parser=self._keep_raw,
            decoder=_undecoded,
        )
        self._subscriber(self._handle)
        if not lane:  # how far behind a lane that gives way is, is not an alarm
            gauge: Gauge = telemetry.LAG_SECONDS
            gauge.set_function(self.lag_seconds)
        telemetry.HALTED.labels(lane or "live").set_function(
            lambda: 0.0 if self.halted is None else 1.0
        )

    async def start(self) -> None:
        """Join the group; raises KafkaError when no broker answers."""
        await self._broker.start()

    async def stop(self) -> None:
        """Finish the batch in hand within the grace period, or abandon it whole; then leave."""
        self._stopping.set()
        await self._broker.stop()

    def lag_seconds(self) -> float:
        """Age of the oldest message that is known and not yet applied."""
        now = time.time()
        if self._oldest_in_hand is not None:
            return max(0.0, now - self._oldest_in_hand)
        return 0.0

    def problem(self) -> str | None:
        """Why this consumer isn't ready, None when it is."""
        if self.halted:
            return f"halted: {self.halted}"
        if self._subscriber.consumer is None:
            return "not connected to Kafka"
        return None

    def stuck(self) -> bool:
        """Whether a batch has been in hand for so long that only a restart helps."""
        since = self._in_hand_since
        return (
            since is not None and self.halted is None and time.monotonic() - since > STUCK_SECONDS
        )

    async def _keep_raw(self, records: tuple[Raw, ...]) -> StreamMessage[Any]:
        """Parse nothing: FastStream's own parser drops a batch over one undecodable header."""
        consumer = self._subscriber.consumer
        assert consumer is not None
        size = sum(len(record.value or b"") for record in records)
        # Polled at once is about what is applied at once: two thousand requests would be 50 MB, and
        # what stays in aiokafka's buffers is compressed.
        fitting = MAX_BYTES * len(records) // max(1, size)
        self._subscriber.max_records = max(FEW_RECORDS, min(self._max_records, fitting))
        if time.monotonic() - self._last_ended < BUSY_SECONDS:
            room = self._subscriber.max_records - len(records)
            records += await self._came_meanwhile(consumer, room)
        return KafkaAckableMessage(
            raw_message=records, body=records, headers={}, consumer=consumer, batch_headers=[]
        )

    async def _came_meanwhile(self, consumer: AIOKafkaConsumer, room: int) -> tuple[Raw, ...]:
        """What came while the batch before was in hand, if there is room for it.

        aiokafka fetches a partition again only when what it had of it was taken. What is polled
        first was fetched when the batch before began; everything later would wait one batch more.
        They belong to the message like the others, and are committed or sought back with them.
        """
        if room <= 0:
            return ()
        try:
            found = await consumer.getmany(timeout_ms=MEANWHILE_MS, max_records=room)
        except (KafkaError, ConsumerStoppedError):  # the next poll says it again
            return ()
        return tuple(chain.from_iterable(found.values()))

    async def _handle(self, records: tuple[Raw, ...]) -> None:
        self._oldest_in_hand = min(map(_TIMESTAMP_OF, records)) / 1000  # it waits from now on
        try:
            async with self._around_batch(len(records)):
                await self._process(records)
        finally:
            self._oldest_in_hand = None

    async def _process(self, records: tuple[Raw, ...]) -> None:
        try:
            for part in parts(records):
                self._in_hand_since = time.monotonic()
                await self._processor.process(part)
        except HaltedError as error:
            self.halted = str(error)
            log.critical("consumer_halted", reason=self.halted)
            # Hold the batch, unacknowledged, until somebody restarts us with a fix.
            await self._stopping.wait()
            raise
        finally:
            self._in_hand_since = None
            self._last_ended = time.monotonic()

    async def finish_batch(self) -> None:
        """Wait until the batch in hand is done, so that nobody else works on it at once."""
        lock: Any = self._subscriber.lock
        if self.halted is None and hasattr(lock, "wait_release"):
            await lock.wait_release(GRACE_SECONDS)


def parts(records: Sequence[Raw], most: int = MAX_BYTES) -> Iterator[Sequence[Raw]]:
    """The messages in their order, as many at a time as have up to `most` bytes, or one."""
    start = size = 0
    for number, record in enumerate(records):
        length = len(record.value or b"")
        if size + length > most and number > start:
            yield records[start:number]
            start, size = number, 0
        size += length
    if records:
        yield records[start:]


def group_of(settings: KitSettings, service: str, lane: str = "") -> str:
    """The consumer group of a service's lane."""
    return settings.topic_prefix + (f"{service}.{lane}" if lane else service)


class _FinishFirst(ConsumerRebalanceListener):
    """Before partitions are given away, finish what was taken from them."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        if revoked:
            await self._consumer.finish_batch()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        log.info("partitions_assigned", count=len(assigned))


async def _undecoded(message: StreamMessage[Any]) -> Any:
    return message.body


def _retriable(error: BaseException) -> bool:
    return isinstance(error, PublishError | KafkaError) or is_transient(error)
