"""Asking the CRMs for what their events don't say, and publishing the answers as they came.

A wish (`store.rereads`) goes from the table only after Kafka has an answer that was asked for
later, so that a kill anywhere only asks once more. What an answer says is read behind its topic,
like any request; here it is read only to know which records are in it.
"""

import asyncio
import random
import secrets
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import httpx
import msgspec
import structlog

from kit.clock import Micros, real_micros
from kit.database import Database
from kit.jobs import Job
from kit.publisher import MessageTooLargeError, Publisher, PublishError
from schemas.crm import Backfilled
from services.ingest import telemetry
from services.ingest.crms import CLIENTS
from services.ingest.crms.base import Asking, Client
from services.ingest.crms.grants import Grants
from services.ingest.crms.transport import (
    Answer,
    CrmError,
    LimitedError,
    RefusedError,
    Session,
    new_client,
)
from services.ingest.domain import answers, values
from services.ingest.domain.facts import Fact, Unreadable
from services.ingest.domain.sources import Source
from services.ingest.gateway import Sources
from services.ingest.pacing import read_aside
from services.ingest.store import rereads

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
METADATA_SECONDS = 60.0  # how often it is looked whether the CRM's own must be read again,
METADATA_AGE = timedelta(hours=1)  # which it is after so long
MEASURE_SECONDS = 15.0
LEASE = timedelta(minutes=5)  # longer than a turn takes; after a kill others go on then
AGAIN = timedelta(seconds=5)  # after an answer to an earlier wish than the latest
LEAST_LEASED = 20
AT_ONCE = 8  # sources that one process asks side by side
TURN_SECONDS = 60.0  # of a run with the same connections
FIRST_RETRY_SECONDS = 10.0
LAST_RETRY_SECONDS = 6 * 3600.0
PARKED_SECONDS = 7 * 86_400.0  # then once more: it may have been shared with us, or made readable
MAX_PAGES = 100  # of a type of which single records are wanted and that can only be read whole
MAX_BODY_BYTES = 1536 * 1024  # in base64 2 MiB; larger answers are cut between records
MAX_PROBLEM = 400
MICROSECOND = timedelta(microseconds=1)
_MISSING = (
    "the CRM's answer has nothing of it: it is gone for good, or not shared with the account that "
    "we ask with"
)
_UNREADABLE = "what the CRM answered can't be read: see the quarantine"


class _Place(msgspec.Struct, frozen=True):
    """How far the reading of a type has come, and when (µs) it began."""

    since: int = 0
    cursor: str = ""


@dataclass(slots=True)
class _Turn:
    """One source's wishes in hand."""

    source: Source
    client: Client
    session: Session
    open: dict[rereads.Pair, rereads.Leased] = field(default_factory=dict)

    def asking(self, kind: str, vendor_type: str = "", fields: Sequence[str] = ()) -> Asking:
        return Asking(self.source, kind, vendor_type, (), tuple(fields))


@dataclass(frozen=True, slots=True)
class _Published:
    """What is on its way: the records in it, by id, and whether some of it can't be read."""

    ids: frozenset[str]
    unreadable: bool


class Rereading:
    """The jobs that serve wishes, in as many processes as there are."""

    def __init__(
        self,
        database: Database,
        publisher: Publisher,
        sources: Sources,
        *,
        clients: Mapping[str, Client] = CLIENTS,
        now_us: Micros = real_micros,
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._sources = sources
        self._clients = clients
        self._now_us = now_us
        self._grants = Grants(database, sources.seal)
        self._sessions: dict[tuple[str, str], Session] = {}

    def jobs(self) -> list[Job]:
        """Asking; having the CRMs' own users and stages read; measuring what waits."""
        return [
            Job("reread", LOOK_SECONDS, self.run),
            Job("want-metadata", METADATA_SECONDS, self.want_metadata),
            Job("measure-rereads", MEASURE_SECONDS, self.measure),
        ]

    async def run(self) -> bool:
        """Ask for what is due; returns whether there may be more."""
        due = await self._due()
        if not due:
            return False
        until = time.monotonic() + TURN_SECONDS
        async with new_client() as http:
            while due and time.monotonic() < until:
                turns = [self._serve(source, http) for source in due]
                failed = [
                    one
                    for one in await asyncio.gather(*turns, return_exceptions=True)
                    if isinstance(one, BaseException)
                ]
                if failed:
                    raise failed[0]
                due = await self._due()
        return bool(due)

    async def want_metadata(self) -> None:
        """Have the stages and users of each source read, when they haven't been for a while."""
        now = self._now_us()
        types = [
            (source.tenant, source.id, kind)
            for source in self._askable()
            for kind in self._clients[source.vendor].metadata
        ]
        async with self._database.transaction() as transaction:
            since = now - METADATA_AGE // MICROSECOND
            stale = await rereads.unread(transaction, types, since=since)
            wishes = [rereads.Wish(*each, "", rereads.METADATA, now) for each in stale]
            await rereads.want(transaction, wishes, now=values.aware(now), delay=timedelta())

    async def measure(self) -> None:
        """Show how many wishes wait, and since when the oldest that can be asked for."""
        pairs = [(source.tenant, source.id) for source in self._askable()]
        async with self._database.transaction() as transaction:
            found = await rereads.by_reason(transaction, pairs)
        telemetry.REREADS_WAITING.clear()
        for reason, count, _ in found:
            telemetry.REREADS_WAITING.labels(reason).set(count)
        oldest = min((at for *_, at in found if at is not None), default=None)
        now = values.aware(self._now_us())
        age = 0.0 if oldest is None else max(0.0, (now - oldest).total_seconds())
        telemetry.REREADS_OLDEST_SECONDS.set(age)

    def _askable(self) -> list[Source]:
        return [
            source
            for source in self._sources.with_api()
            if source.vendor in self._clients and not source.paused
        ]

    async def _due(self) -> list[Source]:
        """Some of the sources for which there is something to ask, and who may be asked."""
        askable = {(one.tenant, one.id): one for one in self._askable()}
        ready = [pair for pair, source in askable.items() if not self._session(source).paused]
        if not ready:
            return []
        async with self._database.transaction() as transaction:
            due = await rereads.due(transaction, ready, now=values.aware(self._now_us()))
        return [askable[pair] for pair in random.sample(due, min(len(due), AT_ONCE))]

    def _session(self, source: Source) -> Session:
        """The source's own, made anew when its credentials have changed."""
        key = (source.tenant, source.id)
        confined = not self._sources.in_file(source.id)  # the file is the operators' own
        session = self._sessions.get(key)
        if session is None or (session.source.api, session.confined) != (source.api, confined):
            door = self._clients[source.vendor].door
            session = Session(
                source, door, confined=confined, places=self._grants.of, now_us=self._now_us
            )
            self._sessions[key] = session
        return session

    async def _serve(self, source: Source, http: httpx.AsyncClient) -> None:
        """Ask for some of what is wanted of one source."""
        session, client = self._session(source), self._clients[source.vendor]
        session.http = http
        now = values.aware(self._now_us())
        async with self._database.transaction() as transaction:
            leased = await rereads.lease(
                transaction,
                source.tenant,
                source.id,
                now=now,
                until=now + LEASE,
                limit=max(LEAST_LEASED, client.batch),
            )
        turn = _Turn(source, client, session, {(one.type, one.id): one for one in leased})
        _count(turn, "asked", len(leased))
        try:
            await self._ask_for(turn, leased)
        except LimitedError as error:
            _count(turn, "limited", len(turn.open))
            await self._put_off(turn, list(turn.open), str(error), error.seconds)
        except (CrmError, PublishError) as error:
            await self._put_off(turn, list(turn.open), str(error))

    async def _ask_for(self, turn: _Turn, leased: Sequence[rereads.Leased]) -> None:
        groups: dict[tuple[str, str], list[rereads.Leased]] = defaultdict(list)
        for one in leased:
            if not one.id:
                await self._ask_for_page(turn, one)
            elif one.type in turn.client.whole:
                groups[one.type, ""].append(one)
            else:
                groups[one.type, one.vendor_type].append(one)
        for (kind, vendor_type), wishes in groups.items():
            if kind in turn.client.whole:
                await self._ask_for_list(turn, kind, [one.id for one in wishes])
                continue
            for start in range(0, len(wishes), turn.client.batch):
                some = wishes[start : start + turn.client.batch]
                named = {name for one in some for name in one.fields}
                asking = turn.asking(kind, vendor_type, sorted(named))
                await self._ask_for_records(turn, asking, [one.id for one in some])

    async def _ask_for_records(self, turn: _Turn, asking: Asking, ids: Sequence[str]) -> None:
        """A batch; one that is refused is asked for in halves, so that one record fails alone.

        A CRM that knows some of them by other ids, because they were merged, says so only where
        one is asked for alone.
        """
        prefix = f"{turn.source.id}:"
        asking = _with_ids(asking, [number.removeprefix(prefix) for number in ids])
        alone = asking.ids[0] if len(ids) == 1 else ""
        began, known, unreadable = self._now_us(), set[str](), False
        try:
            async for answer in turn.client.records(turn.session, asking):
                published = await self._publish(turn.source, answer, {answers.ASKED: alone})
                known |= published.ids
                unreadable |= published.unreadable
        except RefusedError as error:
            rest = [number for number in ids if number not in known]
            await self._settle(turn, asking.type, known.intersection(ids), began)
            if len(rest) <= 1 or not error.divisible:
                keys = [(asking.type, number) for number in rest]
                await self._put_off(turn, keys, str(error), refused=error.divisible)
                return
            half = len(rest) // 2
            await self._ask_for_records(turn, asking, rest[:half])
            await self._ask_for_records(turn, asking, rest[half:])
            return
        await self._settle(turn, asking.type, known.intersection(ids), began)
        missing = [number for number in ids if number not in known]
        if not alone and known.difference(ids):
            for number in missing:
                await self._ask_for_records(turn, asking, [number])
            return
        problem = _UNREADABLE if unreadable else _MISSING
        keys = [(asking.type, number) for number in missing]
        await self._put_off(turn, keys, problem, refused=True)

    async def _ask_for_list(self, turn: _Turn, kind: str, ids: Sequence[str]) -> None:
        """Records of a type that can only be read whole."""
        began, known, cursor = self._now_us(), set[str](), ""
        try:
            for _ in range(MAX_PAGES):
                page = await turn.client.page(turn.session, turn.asking(kind), cursor)
                for answer in page.answers:
                    known |= (await self._publish(turn.source, answer, {})).ids
                cursor = page.cursor
                if not cursor:
                    break
        except RefusedError as error:
            await self._put_off(turn, [(kind, number) for number in ids], str(error))
            return
        await self._settle(turn, kind, known.intersection(ids), began)
        missing = [(kind, number) for number in ids if number not in known]
        await self._put_off(turn, missing, _MISSING, refused=not cursor)

    async def _ask_for_page(self, turn: _Turn, wish: rereads.Leased) -> None:
        """The next page of a type; whoever comes next goes on from there."""
        place = msgspec.json.decode(wish.place, type=_Place) if wish.place else _Place()
        source, kind = turn.source, wish.type
        since = place.since or self._now_us()
        try:
            asking = turn.asking(kind, wish.vendor_type, wish.fields)
            page = await turn.client.page(turn.session, asking, place.cursor)
            for number, answer in enumerate(page.answers, 1):
                is_last = not page.cursor and number == len(page.answers)
                complete = f"{kind} {since}" if is_last else ""
                await self._publish(source, answer, {answers.COMPLETE: complete})
        except RefusedError as error:
            if place.cursor:  # it may have expired: from the beginning, after a while
                async with self._database.transaction() as transaction:
                    now = values.aware(self._now_us())
                    await rereads.go_on(transaction, source.tenant, source.id, kind, "", now=now)
            await self._put_off(turn, [(kind, "")], str(error))
            return
        if not page.cursor:
            await self._settle(turn, kind, {""}, since)
            return
        further = msgspec.json.encode(_Place(since, page.cursor)).decode()
        async with self._database.transaction() as transaction:
            now = values.aware(self._now_us())
            await rereads.go_on(transaction, source.tenant, source.id, kind, further, now=now)
        turn.open.pop((kind, ""), None)

    async def _settle(self, turn: _Turn, kind: str, ids: set[str], asked: int) -> None:
        """These have been answered, by questions asked since then."""
        if not ids:
            return
        keys = [(kind, number) for number in sorted(ids)]
        async with self._database.transaction() as transaction:
            again = values.aware(self._now_us()) + AGAIN
            place = (turn.source.tenant, turn.source.id)
            await rereads.answered(transaction, *place, keys, asked=asked, again=again)
        _count(turn, "answered", len(keys))
        for key in keys:
            turn.open.pop(key, None)

    async def _put_off(
        self,
        turn: _Turn,
        keys: Sequence[rereads.Pair],
        problem: str,
        seconds: float = 0.0,
        *,
        refused: bool = False,
    ) -> None:
        """Ask for these later, each at a time of its own.

        `seconds`: the CRM has said when. `refused`: it has answered, and not with these.
        """
        if not keys:
            return
        now = values.aware(self._now_us())
        last = rereads.PARKED_AFTER - 1
        parked = [key for key in keys if refused and turn.open[key].refused >= last]
        until = [
            now
            + timedelta(
                seconds=seconds + random.uniform(0, LOOK_SECONDS)  # noqa: S311  # jitter
                if seconds
                else (PARKED_SECONDS if key in parked else backoff(turn.open[key].attempts))
            )
            for key in keys
        ]
        async with self._database.transaction() as transaction:
            await rereads.put_off(
                transaction,
                turn.source.tenant,
                turn.source.id,
                keys,
                problem=problem.replace("\x00", "")[:MAX_PROBLEM],
                until=until,
                failed=not seconds,
                refused=refused,
            )
        _count(turn, "parked", sum(1 for key in parked if turn.open[key].refused == last))
        if not seconds:
            _count(turn, "failed", len(keys))
            log.warning("reread_failed", source=turn.source.id, count=len(keys), problem=problem)
        for key in keys:
            turn.open.pop(key, None)

    async def _publish(
        self, source: Source, answer: Answer, headers: Mapping[str, str]
    ) -> _Published:
        """Put an answer onto its topic, and tell which records are in it.

        What it is said to be in headers is said once, in the last part of it.
        """
        whole = _received(source, answer, answer.body)
        parts = [whole]
        if len(answer.body) > MAX_BODY_BYTES:
            parts = await asyncio.to_thread(_cut, source, answer, whole)
        said = {name: value for name, value in headers.items() if value}
        parts[-1] = msgspec.structs.replace(parts[-1], headers={**whole.headers, **said})
        try:
            await self._publisher.publish(parts)
        except MessageTooLargeError as error:
            words = f"a record in the answer is too large for a message: {error}"
            raise RefusedError(words, divisible=True) from error
        outcomes = [outcome for part in parts for _, outcome in await read_aside(part, source)]
        return _Published(
            frozenset(
                one.id
                for one in outcomes
                if isinstance(one, Fact) and one.id and one.op in rereads.ANSWERS
            ),
            any(isinstance(one, Unreadable) for one in outcomes),
        )


def backoff(attempts: int) -> float:
    """Seconds until the next try: twice as long each time, and not all at once."""
    seconds: float = min(FIRST_RETRY_SECONDS * 2 ** min(attempts, 20), LAST_RETRY_SECONDS)
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311  # jitter


def _received(source: Source, answer: Answer, body: bytes) -> Backfilled:
    return Backfilled(
        tenant=source.tenant,
        version=answer.asked_us,
        source=source.id,
        vendor=source.vendor,
        id=f"{answer.asked_us:014x}{secrets.token_hex(6)}",
        received_at=values.aware(answer.asked_us),
        method=answer.method,
        url=answer.url,
        headers={"content-type": "application/json"},
        body=body,
        auth=f"{source.vendor}{answers.SUFFIX}",
    )


def _cut(source: Source, answer: Answer, whole: Backfilled) -> list[Backfilled]:
    """A large answer as several, none larger than a message may be, unless one record is."""
    try:
        raws = [bytes(raw) for raw in answers.split(whole)]
    except ValueError as error:
        raise RefusedError(f"the answer is not what the CRM's API gives: {error}") from error
    groups: list[list[bytes]] = [[]]
    size = 0
    for raw in raws:
        if groups[-1] and size + len(raw) > MAX_BODY_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(raw)
        size += len(raw) + 1
    return [_received(source, answer, answers.join(whole, group)) for group in groups]


def _with_ids(asking: Asking, ids: Sequence[str]) -> Asking:
    return Asking(asking.source, asking.type, asking.vendor_type, tuple(ids), asking.fields)


def _count(turn: _Turn, outcome: str, count: int) -> None:
    if count:
        telemetry.REREADS.labels(turn.source.vendor, outcome).inc(count)
