"""Answers what happened to events, from what the tables and Kafka say."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.errors import KafkaError

from kit.database import Database
from kit.settings import KitSettings
from schemas.crm import Discard, Received, Record
from schemas.topics import BY_NAME
from services.ingest.domain import canonical, merge, readers, values
from services.ingest.domain.facts import Ignored, Outcome
from services.ingest.domain.sources import Source
from services.ingest.store import events, records, trace
from services.ingest.store.events import Event
from services.ingest.tracing.messages import Kafka, Located, UnavailableError, received_us, ref
from services.ingest.tracing.model import (
    Discarded,
    Duplicate,
    Quarantined,
    Reached,
    Request,
    Skipped,
    Step,
    Trace,
)

SECONDS = 15.0  # for all of one trace
AT_ONCE = 2  # traces; each has connections of its own
MAX_PUT_ASIDE = 1000  # items of one request


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
                given_up = await trace.discarded(transaction, tenant, request, limit=MAX_PUT_ASIDE)
                found = await events.of_request(
                    transaction, tenant, request, after=after, limit=limit
                )
            reached = await self._reached(kafka, tenant, found)
            steps = await self._steps(tenant, found)
        if found or put_aside or given_up:
            state = "read"  # also when the raw log no longer has it
        skipped = [] if located is None else self._skipped(located.received)
        about = Request(
            id=request,
            received_at=_when(request),
            state=state,
            message=None if located is None else located.ref,
            quarantined=[Quarantined(f"{request}.{one.index}", one.reason) for one in put_aside],
            discarded=[_discarded(one) for one in given_up],
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

    async def _reached(self, kafka: Kafka, tenant: str, found: Sequence[Event]) -> list[Reached]:
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
                    message=None if at is None else ref(BY_NAME[Record.topic], *at),
                    applied=kafka.applied(at),
                    reread=reread,
                )
            )
        return reached

    @asynccontextmanager
    async def _kafka(self) -> AsyncIterator[Kafka]:
        """Kafka, for as long as one trace may take; raises UnavailableError."""
        kafka = Kafka(self._settings)
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


def _discarded(one: Discard) -> Discarded:
    number = f"{one.received}.{one.index}"
    return Discarded(number, one.reason, one.by, values.written(one.version))


def _when(request: str) -> str | None:
    at = received_us(request)
    return None if at is None else values.aware(at).isoformat()
