"""Where a message is on Kafka, and how far every consumer has come.

Messages are searched for from the time that their ids or versions name, and no search is longer
than it may be: what can't be found by then is unknown, and said to be.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from kit.consumer import group_of
from kit.kafka import REQUEST_TIMEOUT_MS, partition_for
from kit.settings import KitSettings
from schemas.crm import Backfilled, Received, Record
from schemas.topics import BY_NAME, Topic
from services.ingest.domain import values
from services.ingest.tracing.model import State

SEARCH_SECONDS = 8.0  # of all that a trace may take, looking for records' messages
MAX_SCANNED = 20_000  # messages looked at for one that is searched for
SLACK_MS = 10_000  # between two processes' clocks
RECEIVED_WITHIN_MS = 60_000  # a request is published at once, or its sender is told that it isn't
TIME_DIGITS = 14  # of a request's id: µs, hexadecimal

Raw = ConsumerRecord[bytes | None, bytes | None]


class UnavailableError(Exception):
    """Kafka does not answer, or not in time."""


@dataclass(frozen=True, slots=True)
class Located:
    """A request as it is on its topic."""

    received: Received
    topic: Topic
    partition: int
    offset: int

    @property
    def ref(self) -> str:
        """Where it is: topic/partition/offset."""
        return ref(self.topic, self.partition, self.offset)


def ref(topic: Topic, partition: int, offset: int) -> str:
    """Where a message is, as it is shown."""
    return f"{topic.name}/{partition}/{offset}"


def received_us(request: str) -> int | None:
    """When a request came in, as its id says; None where ids are made otherwise."""
    try:
        found = int(request[:TIME_DIGITS], 16) if len(request) > TIME_DIGITS else -1
    except ValueError:
        return None
    return found if 0 < found < values.LATEST_US else None


class _Version(msgspec.Struct):
    version: int


class Kafka:
    """One trace's questions to Kafka."""

    def __init__(self, settings: KitSettings) -> None:
        self._settings = settings
        self._reader = AIOKafkaConsumer(bootstrap_servers=settings.kafka, enable_auto_commit=False)
        self._admin = AIOKafkaAdminClient(
            bootstrap_servers=settings.kafka, request_timeout_ms=REQUEST_TIMEOUT_MS
        )
        self._committed: dict[str, dict[TopicPartition, int]] = {}
        self._connected = False

    async def _connect(self) -> None:
        """Connect, once there is something to ask; raises KafkaError when no broker answers."""
        if not self._connected:
            await self._reader.start()
            await self._admin.start()
            self._connected = True

    async def stop(self) -> None:
        """Disconnect."""
        await self._reader.stop()
        await self._admin.close()

    async def request(self, tenant: str, request: str, *, source: str = "") -> Located | None:
        """A request by our id of it; it is found faster where its source is known."""
        at = received_us(request)
        if at is None:
            return None

        def is_it(message: Raw) -> bool:
            match (message.key or b"").decode(errors="replace").split("/"):
                case [owner, _, number]:
                    return owner == tenant and number == request
            return False

        for kind in (Received, Backfilled):
            topic = BY_NAME[kind.topic]
            partitions: Iterable[int] = range(topic.partitions)
            if source:
                key = f"{tenant}/{source}/{request}".encode()
                partitions = [partition_for(key, topic.partitions)]
            found = await self._search(
                topic, partitions, is_it, since=at // 1000, until=at // 1000 + RECEIVED_WITHIN_MS
            )
            if found is not None and found.value is not None:
                return Located(kind.decode(found.value), topic, found.partition, found.offset)
        return None

    async def is_read(self, located: Located | None) -> Literal["read", "waiting", "unknown"]:
        """Whether ingest has passed a request."""
        if located is None:
            return "unknown"
        tp = TopicPartition(self._settings.topic_prefix + located.topic.name, located.partition)
        committed = await self._offsets("ingest", located.topic)
        return "read" if committed.get(tp, -1) > located.offset else "waiting"

    async def messages(self, stored: Iterable[Record]) -> dict[str, tuple[int, int]]:
        """Partition and offset by key of the messages that say these versions or later ones."""
        topic, wanted = BY_NAME[Record.topic], list(stored)
        for service in topic.consumers if wanted else ():
            await self._offsets(service, topic)
        found: dict[str, tuple[int, int]] = {}
        try:
            async with asyncio.timeout(SEARCH_SECONDS):
                for record in wanted:
                    at = await self._message(topic, record)
                    if at is not None:
                        found[record.key] = at
        except TimeoutError:
            pass  # those that are left are unknown
        return found

    async def _message(self, topic: Topic, record: Record) -> tuple[int, int] | None:
        key = record.key.encode()

        def says_it(message: Raw) -> bool:
            return (
                message.key == key
                and message.value is not None
                and _VERSION.decode(message.value).version >= record.version
            )

        partition = partition_for(key, topic.partitions)
        since = max(0, record.version // 1000 - SLACK_MS)
        found = await self._search(topic, [partition], says_it, since=since)
        return None if found is None else (found.partition, found.offset)

    def applied(self, at: tuple[int, int] | None) -> dict[str, State]:
        """Whether each consumer of records has passed the message."""
        topic = BY_NAME[Record.topic]
        states: dict[str, State] = {}
        for service in topic.consumers:
            states[service] = "unknown"
            if at is not None:
                tp = TopicPartition(self._settings.topic_prefix + topic.name, at[0])
                passed = self._committed[service].get(tp, -1) > at[1]
                states[service] = "applied" if passed else "waiting"
        return states

    async def _offsets(self, service: str, topic: Topic) -> dict[TopicPartition, int]:
        """The offsets up to which a service has applied a topic."""
        group = group_of(self._settings, service, topic.lane)
        await self._connect()
        name = self._settings.topic_prefix + topic.name
        asked = [TopicPartition(name, number) for number in range(topic.partitions)]
        found = await self._admin.list_consumer_group_offsets(group, partitions=asked)
        self._committed[service] = {tp: committed.offset for tp, committed in found.items()}
        return self._committed[service]

    async def _search(
        self,
        topic: Topic,
        partitions: Iterable[int],
        is_it: Callable[[Raw], bool],
        *,
        since: int,
        until: int | None = None,
    ) -> Raw | None:
        """The first such message published since an instant (ms), and not long after another."""
        await self._connect()
        name = self._settings.topic_prefix + topic.name
        asked = [TopicPartition(name, number) for number in partitions]
        self._reader.assign(asked)
        ends = await self._reader.end_offsets(asked)
        starts = await self._reader.offsets_for_times(dict.fromkeys(asked, since))
        left = set()
        for tp, start in starts.items():
            if start is not None and start.offset < ends[tp]:
                self._reader.seek(tp, start.offset)
                left.add(tp)
        scanned = 0
        while left and scanned < MAX_SCANNED:
            batches = await self._reader.getmany(*left, timeout_ms=200, max_records=500)
            for tp, batch in batches.items():
                for message in batch:
                    if is_it(message):
                        return message
                    if until is not None and message.timestamp > until:
                        left.discard(tp)
                scanned += len(batch)
            for tp in list(left):
                if await self._reader.position(tp) >= ends[tp]:
                    left.discard(tp)
        return None


_VERSION = msgspec.json.Decoder(_Version)
