"""What happened to an event: received, read, put aside or ignored, applied, and by whom.

The tables say what was made of it; Kafka says where its message is and how far every consumer has
come. Messages are searched for from the time that their ids or versions name, and no search is
longer than it may be: what can't be found by then is unknown, and said to be.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from kit.consumer import group_of
from kit.database import Database
from kit.kafka import REQUEST_TIMEOUT_MS, partition_for
from kit.settings import KitSettings
from schemas.crm import Backfilled, Received, Record
from schemas.topics import BY_NAME, Topic
from services.ingest.domain import canonical, merge, readers, values
from services.ingest.domain.facts import Ignored, Outcome
from services.ingest.domain.sources import Source
from services.ingest.store import events, records, trace
from services.ingest.store.events import Event

SECONDS = 15.0  # for all of one trace
SEARCH_SECONDS = 8.0  # of these, looking for records' messages
MAX_SCANNED = 20_000  # messages looked at for one that is searched for
SLACK_MS = 10_000  # between two processes' clocks
RECEIVED_WITHIN_MS = 60_000  # a request is published at once, or its sender is told that it isn't
AT_ONCE = 2  # traces; each has connections of its own
MAX_PUT_ASIDE = 1000  # items of one request
TIME_DIGITS = 14  # of a request's id: µs, hexadecimal

State = Literal["applied", "waiting", "unknown"]
Raw = ConsumerRecord[bytes | None, bytes | None]


class Duplicate(msgspec.Struct, frozen=True):
    """Another time that the same fact came in: with the same content, or with another."""

    id: str
    kind: Literal["natural", "synthetic"]


class Step(msgspec.Struct, frozen=True):
    """One fact as it came in and was read."""

    id: str
    request: str
    index: int
    number: int  # of the fact within the request
    source: str
    type: str
    record: str
    op: str
    at: int  # µs: its place in the vendor's order
    occurred_at: str
    received_at: str | None  # None: the request's id doesn't say it
    vendor_event: str
    event_uid: str
    duplicates: list[Duplicate]


class Reached(msgspec.Struct, frozen=True):
    """A record that the events are about, as it is now, and how far it has come."""

    type: str
    id: str
    version: int | None = None  # None: nothing is stored of it
    deleted: bool = False
    merged_into: str | None = None
    message: str | None = None  # topic/partition/offset of the version's message, once found
    applied: dict[str, State] = {}
    reread: trace.Wanted | None = None


class Quarantined(msgspec.Struct, frozen=True):
    """An item that could not be read."""

    id: str
    reason: str


class Skipped(msgspec.Struct, frozen=True):
    """An item that says nothing about records."""

    id: str
    ignored: str


class Request(msgspec.Struct, frozen=True):
    """The request that was asked about. `waiting`: it is on its topic, and nobody has read it."""

    id: str
    received_at: str | None
    state: Literal["read", "waiting", "unknown"]
    raw_ref: str | None
    quarantined: list[Quarantined]
    ignored: list[Skipped]


class Trace(msgspec.Struct, frozen=True):
    """What happened to some events."""

    events: list[Step]
    records: list[Reached]
    request: Request | None = None

    @property
    def nothing(self) -> bool:
        """Whether nothing is known of what was asked about."""
        request = self.request
        return not self.events and (
            request is None or (request.raw_ref is None and not request.quarantined)
        )


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
        return _ref(self.topic, self.partition, self.offset)


def timeline(found: Trace) -> list[tuple[str, str, str, str]]:
    """A trace line by line: when, what, to what, and what else there is to say."""
    lines = []
    if (about := found.request) is not None:
        lines.append((about.received_at or "", f"request {about.state}", about.id, about.raw_ref))
        lines += [("", "quarantined", one.id, one.reason) for one in about.quarantined]
        lines += [("", "ignored", one.id, one.ignored) for one in about.ignored]
    for step in sorted(found.events, key=lambda one: (one.received_at or "", one.id)):
        said = f"{step.op} {step.type} {step.record}".rstrip()
        notes = [f"happened {step.occurred_at}"]
        notes += [f"{one.kind} duplicate of {one.id}" for one in step.duplicates]
        lines.append((step.received_at or "", said, step.id, "; ".join(notes)))
    for record in found.records:
        if record.version is not None:
            notes = [f"{service}: {state}" for service, state in record.applied.items()]
            notes += [f"merged into {record.merged_into}"] * bool(record.merged_into)
            said = "deleted record" if record.deleted else "record"
            since = values.written(record.version)
            lines.append((since, said, f"{record.type}/{record.id}", ", ".join(notes)))
        if record.reread is not None:
            since = record.reread.wanted_at.isoformat()
            notes = [record.reread.reason, record.reread.problem]
            what = f"{record.type}/{record.id or 'all'}"
            lines.append((since, "to be read again", what, ": ".join(filter(None, notes))))
    return [(when, what, which, note or "") for when, what, which, note in lines]


class UnavailableError(Exception):
    """Kafka does not answer, or not in time."""


def received_us(request: str) -> int | None:
    """When a request came in, as its id says; None where ids are made otherwise."""
    try:
        found = int(request[:TIME_DIGITS], 16) if len(request) > TIME_DIGITS else -1
    except ValueError:
        return None
    return found if 0 < found < values.LATEST_US else None


class Tracer:
    """Answers what happened to events, of one tenant at a time."""

    def __init__(
        self,
        settings: KitSettings,
        database: Database,
        *,
        source_of: Callable[[Received], Source],
    ) -> None:
        self._settings = settings
        self._database = database
        self._source_of = source_of
        self._free = asyncio.Semaphore(AT_ONCE)

    async def of_request(self, tenant: str, request: str, after: events.Place, limit: int) -> Trace:
        """What became of a request, by our id of it."""
        async with self._kafka() as kafka:
            # Before the tables: they have all that is known of what ingest has passed.
            located = await kafka.request(tenant, request)
            state = await kafka.is_read(located)
            async with self._database.transaction() as transaction:
                put_aside = await trace.put_aside(transaction, tenant, request, limit=MAX_PUT_ASIDE)
                found = await events.of_request(
                    transaction, tenant, request, after=after, limit=limit
                )
            reached = await self._reached(kafka, tenant, found)
            steps = await self._steps(tenant, found)
        if found or put_aside:
            state = "read"  # also when the raw log no longer has it
        skipped = [] if located is None else self._skipped(located.received)
        about = Request(
            id=request,
            received_at=_when(request),
            state=state,
            raw_ref=None if located is None else located.ref,
            quarantined=[Quarantined(f"{request}.{one.index}", one.reason) for one in put_aside],
            ignored=skipped,
        )
        return Trace(steps, reached, about)

    async def of_vendor_event(
        self, tenant: str, number: str, after: events.Place, limit: int
    ) -> Trace:
        """What became of a vendor's event, each time that it came in."""
        async with self._database.transaction() as transaction:
            found = await events.of_vendor_event(
                transaction, tenant, number, after=after, limit=limit
            )
        return await self._about(tenant, found)

    async def of_record(
        self,
        tenant: str,
        kind: str,
        number: str,
        after: tuple[int, str, int, int] | None,
        limit: int,
    ) -> Trace:
        """What was said of a record and of those that were merged into it, the latest first."""
        async with self._database.transaction() as transaction:
            record = await records.find_record(transaction, tenant, kind, number)
            ids = [number, *merge.merged_from(record.fields if record else {})]
            found = await events.of_record(transaction, tenant, kind, ids, after=after, limit=limit)
        return await self._about(tenant, found)

    async def item(
        self, tenant: str, request: str, index: str
    ) -> tuple[Located, list[dict[str, Any]]] | None:
        """An item's request as it came, and what the item says as it is read today."""
        async with self._database.transaction() as transaction:
            found = await events.of_request(transaction, tenant, request, limit=1)
        async with self._kafka() as kafka:
            located = await kafka.request(tenant, request, source=found[0].source if found else "")
        if located is None:
            return None
        outcomes = self._read(located.received)
        said = [one for one in outcomes if str(one[0]) == index]
        return located, [canonical.outcome(located.received, *one) for one in said]

    def _read(self, received: Received) -> list[tuple[int, Outcome]]:
        return readers.read(received, self._source_of(received))

    def _skipped(self, received: Received) -> list[Skipped]:
        return [
            Skipped(f"{received.id}.{index}", found.kind)
            for index, found in self._read(received)
            if isinstance(found, Ignored)
        ]

    async def _about(self, tenant: str, found: Sequence[Event]) -> Trace:
        steps = await self._steps(tenant, found)
        async with self._kafka() as kafka:
            return Trace(steps, await self._reached(kafka, tenant, found))

    async def _steps(self, tenant: str, found: Sequence[Event]) -> list[Step]:
        async with self._database.transaction() as transaction:
            same = await events.same(transaction, tenant, found) if found else []
        times: dict[bytes, list[Event]] = {}
        for event in same:
            times.setdefault(event.uid, []).append(event)
        return [_step(event, times.get(event.uid, ())) for event in found]

    async def _reached(self, kafka: "_Kafka", tenant: str, found: Sequence[Event]) -> list[Reached]:
        """The records that these events are about, in the events' order."""
        places = list(dict.fromkeys((event.source, event.type, event.id) for event in found))
        async with self._database.transaction() as transaction:
            wanted = await trace.wanted(transaction, tenant, places)
            stored = await records.find_records(
                transaction, [(tenant, kind, number) for _, kind, number in places if number]
            )
        by_key = {(record.type, record.id): record for record in stored}
        messages = await kafka.messages(stored)
        reached = []
        for source, kind, number in places:
            reread = wanted.get((source, kind, number))
            record = by_key.get((kind, number))
            if record is None:
                reached.append(Reached(kind, number, reread=reread))
                continue
            at = messages.get(record.key)
            reached.append(
                Reached(
                    kind,
                    number,
                    version=record.version,
                    deleted=record.deleted,
                    merged_into=merge.survivor(record.fields) or None,
                    message=None if at is None else _ref(BY_NAME[Record.topic], *at),
                    applied=kafka.applied(at),
                    reread=reread,
                )
            )
        return reached

    @asynccontextmanager
    async def _kafka(self) -> AsyncIterator["_Kafka"]:
        """Kafka, for as long as one trace may take; raises UnavailableError."""
        kafka = _Kafka(self._settings)
        try:
            async with asyncio.timeout(SECONDS), self._free:
                try:
                    yield kafka
                finally:
                    await kafka.stop()
        except (KafkaError, TimeoutError) as error:
            raise UnavailableError(str(error) or type(error).__name__) from error


def _step(event: Event, same: Iterable[Event]) -> Step:
    place = (event.received, event.index, event.number)
    return Step(
        id=f"{event.received}.{event.index}",
        request=event.received,
        index=event.index,
        number=event.number,
        source=event.source,
        type=event.type,
        record=event.id,
        op=event.op,
        at=event.at,
        occurred_at=values.written(event.at),
        received_at=_when(event.received),
        vendor_event=event.vendor_event,
        event_uid=event.uid.hex(),
        duplicates=[
            Duplicate(
                f"{other.received}.{other.index}",
                "natural" if other.digest == event.digest else "synthetic",
            )
            for other in same
            if (other.received, other.index, other.number) != place
        ],
    )


def _when(request: str) -> str | None:
    at = received_us(request)
    return None if at is None else values.aware(at).isoformat()


def _ref(topic: Topic, partition: int, offset: int) -> str:
    return f"{topic.name}/{partition}/{offset}"


class _Version(msgspec.Struct):
    version: int


class _Kafka:
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
