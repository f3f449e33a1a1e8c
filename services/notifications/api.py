"""HTTP: one's own inbox and its event stream, team feeds, and what operators look at."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, date
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

import msgspec
from fastapi import APIRouter, Depends, Header, Path, Query, Request
from starlette.responses import Response

from kit import pages
from kit.auth import Principal
from kit.clock import Clock
from kit.database import Database, Transaction
from kit.http import Problem, json_response
from kit.streams import EventStream
from schemas.directory import Directory
from services import access
from services.notifications import store, telemetry
from services.notifications.domain.rules import Rules
from services.notifications.domain.schedule import organisation_day
from services.notifications.store import AlertPlace, DeliveryPlace, Directories, Item, Place

T = TypeVar("T", AlertPlace, DeliveryPlace)

STREAM_BATCH = 500  # messages read from the store at a time
STREAM_QUEUE = 200  # messages that a slow reader may be behind before it is let go to resume
STREAM_PING_SECONDS = 15
DEFAULT_PAGE = 50

# PostgreSQL's text takes no NUL; everything else simply isn't found.
NO_NUL = r"^[^\x00]*$"
Cursor = Annotated[str | None, Query(max_length=600, description="`next` of the page before.")]


class Page(msgspec.Struct, frozen=True, omit_defaults=False):
    """One page of a list; `next` is the cursor of the one after it, null at the end."""

    items: list[Any]
    next: str | None


class Inbox(Page, frozen=True):
    """One's own messages, newest first."""

    unread: int = 0


class Feed:
    """New inbox messages to all open streams of this process, read once for all of them."""

    def __init__(self, database: Database, *, limit: int) -> None:
        self._database = database
        self._limit = limit
        self._last: int | None = None
        self._streams: dict[tuple[str, str], set[asyncio.Queue[Item | None]]] = {}
        self._open = 0

    async def poll(self) -> bool:
        """Hand what is new to whom it is for; returns whether there may be more."""
        if self._last is None or not self._open:
            self._last = None
            return False
        async with self._database.transaction() as transaction:
            found = await store.items_after(transaction, self._last, STREAM_BATCH)
        for tenant, item in found:
            self._last = item.sequence
            for queue in self._streams.get((tenant, item.recipient), set()).copy():
                self._put(queue, item)
        return len(found) == STREAM_BATCH

    def _put(self, queue: asyncio.Queue[Item | None], item: Item) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            # The last place is for the end: the reader connects again and resumes without a gap.
            queue.put_nowait(item if queue.qsize() < STREAM_QUEUE else None)

    def refuse_over_limit(self) -> None:
        """Raise 503 when this process has as many streams as it may."""
        if self._open >= self._limit:
            raise Problem(503, "too-many-streams", "Try again soon.", headers={"Retry-After": "5"})

    async def follow(self, tenant: str, recipient: str, after: int | None) -> AsyncGenerator[Item]:
        """Messages after a sequence number (default: from now on), without a gap, for ever."""
        queue: asyncio.Queue[Item | None] = asyncio.Queue(STREAM_QUEUE + 1)
        self._open += 1
        telemetry.STREAMS.set(self._open)
        streams = self._streams.setdefault((tenant, recipient), set())
        try:
            newest = await self._newest()
            if self._last is None:
                self._last = newest
            streams.add(queue)
            # What is polled from here on is queued, what came before is read now; both may have
            # the same message, and the sequence tells.
            last = newest if after is None else after
            async for item in self._missed(tenant, recipient, last):
                last = item.sequence
                yield item
            while (queued := await queue.get()) is not None:
                if queued.sequence > last:
                    last = queued.sequence
                    yield queued
        finally:
            streams.discard(queue)
            if not streams:
                self._streams.pop((tenant, recipient), None)
            self._open -= 1
            telemetry.STREAMS.set(self._open)

    async def _newest(self) -> int:
        async with self._database.transaction() as transaction:
            return await store.last_sequence(transaction)

    async def _missed(self, tenant: str, recipient: str, after: int) -> AsyncIterator[Item]:
        while True:
            async with self._database.transaction() as transaction:
                found = await store.items_after(
                    transaction, after, STREAM_BATCH, (tenant, recipient)
                )
            for _, item in found:
                after = item.sequence
                yield item
            if len(found) < STREAM_BATCH:
                return


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the routes work with. `principal` is the dependency that says who is asking."""

    database: Database
    directories: Directories
    rules: Rules
    feed: Feed
    clock: Clock
    principal: Callable[..., Any]
    page_limit: int

    async def today(self, transaction: Transaction, tenant: str) -> tuple[Directory, date]:
        """The tenant's directory, and which day it is there."""
        directory = await self.directories.of(transaction, tenant)
        return directory, organisation_day(directory, self.clock())


def routes(parts: Parts) -> APIRouter:
    """The service's routes."""
    router = APIRouter(prefix="/v1")
    _add_own(router, parts)
    _add_shared(router, parts)
    _add_oversight(router, parts)
    return router


def _add_own(router: APIRouter, parts: Parts) -> None:
    """One's own inbox."""
    database = parts.database
    Asking = Annotated[Principal, Depends(parts.principal)]  # noqa: N806  # a type
    Limit = Annotated[int, Query(ge=1, le=parts.page_limit)]  # noqa: N806  # a type

    @router.get("/inbox", summary="One's own messages, newest first")
    async def inbox(
        request: Request, asking: Asking, limit: Limit = DEFAULT_PAGE, cursor: Cursor = None
    ) -> Response:
        recipient = _own_inbox(asking)
        before = pages.place(cursor, Place)
        async with database.transaction() as transaction:
            items = await store.items(
                transaction, asking.tenant, recipient, before=before, limit=limit + 1
            )
            unread = await store.unread(transaction, asking.tenant, recipient)
        shown = items[:limit]
        after = pages.cursor((shown[-1].sequence, shown[-1].id)) if len(items) > limit else None
        return pages.tagged(request, Inbox(shown, after, unread))

    @router.post("/inbox/{item}/read", summary="Mark one of one's own messages as read")
    async def mark_read(item: UUID, asking: Asking) -> Response:
        async with database.transaction() as transaction:
            found = await store.read(transaction, asking.tenant, _own_inbox(asking), item)
        if found is None:
            raise Problem(404, "not-found", "There is no such message in your inbox.")
        return json_response(found)

    @router.get(
        "/inbox/events",
        summary="One's own new messages, as they come (SSE)",
        response_class=EventStream,
    )
    async def events(
        asking: Asking,
        last_event_id: Annotated[int | None, Header(ge=0, le=2**63 - 1)] = None,
    ) -> Response:
        recipient = _own_inbox(asking)
        parts.feed.refuse_over_limit()
        items = parts.feed.follow(asking.tenant, recipient, last_event_id)
        return EventStream(lambda _: items, _sent, keep_alive_seconds=STREAM_PING_SECONDS)


def _sent(item: Item) -> bytes:
    return b"id: %d\nevent: message\ndata: %b\n\n" % (item.sequence, msgspec.json.encode(item))


def _add_shared(router: APIRouter, parts: Parts) -> None:
    """What teams and everyone may read."""
    database = parts.database
    Asking = Annotated[Principal, Depends(parts.principal)]  # noqa: N806  # a type
    Limit = Annotated[int, Query(ge=1, le=parts.page_limit)]  # noqa: N806  # a type

    @router.get("/feeds/{team}", summary="A team's feed, newest first")
    async def team_feed(
        request: Request,
        team: Annotated[str, Path(max_length=128, pattern=NO_NUL)],
        asking: Asking,
        limit: Limit = DEFAULT_PAGE,
        cursor: Cursor = None,
    ) -> Response:
        before = pages.place(cursor, Place)
        async with database.transaction() as transaction:
            directory, today = await parts.today(transaction, asking.tenant)
            access.require_subject(asking, directory, f"team:{team}", today)
            items = await store.items(
                transaction, asking.tenant, f"team:{team}", before=before, limit=limit + 1
            )
        shown = [msgspec.structs.replace(item, read_at=None) for item in items[:limit]]
        after = pages.cursor((shown[-1].sequence, shown[-1].id)) if len(items) > limit else None
        return pages.tagged(request, Page(shown, after))

    @router.get("/rules", summary="The rules in force")
    async def rules_in_force(request: Request, asking: Asking) -> Response:
        asking.require("rep", "manager", "finance", "ops")
        return pages.tagged(request, {"rules": list(parts.rules.by_id.values())})


def _add_oversight(router: APIRouter, parts: Parts) -> None:
    """What those see who look after people or after the system."""
    database = parts.database
    Asking = Annotated[Principal, Depends(parts.principal)]  # noqa: N806  # a type
    Limit = Annotated[int, Query(ge=1, le=parts.page_limit)]  # noqa: N806  # a type

    @router.get("/alerts", summary="Alerts, newest first; for managers those about their people")
    async def alerts(  # one argument per filter
        request: Request,
        asking: Asking,
        state: Literal["firing", "resolved"] | None = None,
        rule: Annotated[str | None, Query(max_length=128, pattern=NO_NUL)] = None,
        limit: Limit = DEFAULT_PAGE,
        cursor: Cursor = None,
    ) -> Response:
        asking.require("manager", "finance", "ops")
        before = _since(pages.place(cursor, AlertPlace))
        async with database.transaction() as transaction:
            about = None
            if not access.sees_all(asking):
                directory, today = await parts.today(transaction, asking.tenant)
                about = [
                    name
                    for name in directory.people
                    if access.may_see_person(asking, directory, name, today)
                ]
            found = await store.alerts(
                transaction,
                asking.tenant,
                state=state,
                rule=rule,
                about=about,
                before=before,
                limit=limit + 1,
            )
        shown = found[:limit]
        after = None
        if len(found) > limit:
            last = shown[-1]
            after = pages.cursor((last.raised_at, last.rule, last.subject, last.window))
        return pages.tagged(request, Page(shown, after))

    @router.get("/deliveries", summary="Messages and what became of them, newest first")
    async def deliveries(
        asking: Asking,
        state: Literal["due", "sent", "parked", "withdrawn"] | None = None,
        limit: Limit = DEFAULT_PAGE,
        cursor: Cursor = None,
    ) -> Response:
        asking.require("ops")
        before = _since(pages.place(cursor, DeliveryPlace))
        async with database.transaction() as transaction:
            found = await store.sendings(
                transaction, asking.tenant, state=state, before=before, limit=limit + 1
            )
        shown = found[:limit]
        after = pages.cursor((shown[-1].created_at, shown[-1].id)) if len(found) > limit else None
        return json_response(Page(shown, after))


def _own_inbox(asking: Principal) -> str:
    if not asking.person:
        raise Problem(403, "forbidden", "Machines have no inbox; ask with a person's token.")
    return f"person:{asking.person}"


def _since(place: T | None) -> T | None:
    """The place as it is; 422 for an instant so early or late that UTC doesn't have it."""
    if place is not None:
        try:
            place[0].astimezone(UTC)
        except OverflowError as error:
            detail = "Send `next` of the page before as it is, or no cursor for the first page."
            raise Problem(422, "invalid-cursor", detail) from error
    return place
