"""Several boards on one connection, as Server-Sent Events or over a WebSocket.

Both carry the same messages: `{"board", "event", "version", "data"}`, where event and data are as
in the stream of that board alone. Who comes back says which version of each board it knows, and is
given what it has missed, or a snapshot where that isn't kept. There is no queue per viewer: who
reads too slowly is given a snapshot as well.

A WebSocket is opened by any page that a browser shows, with our cookie: only pages of our own
origin get in. A program may prove itself in its first message, too; an address never holds a token.
"""

import asyncio
from contextlib import aclosing, suppress
from http import HTTPStatus
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

import msgspec
from fastapi import APIRouter, Depends, Header, Query, WebSocket, WebSocketDisconnect
from starlette.requests import HTTPConnection
from starlette.responses import Response

from kit.auth import COOKIE, Principal
from kit.http import Problem
from kit.streams import EventStream
from schemas.base import valid_id
from services.metrics.api.boards import SEEING, require_room, seated, stream
from services.metrics.api.parts import PROBLEMS, Parts
from services.metrics.boards import Event, Seat

MAX_BOARDS = 20  # of one connection
BEGIN_SECONDS = 10.0  # for a WebSocket to say which boards
MAX_PING_CHARACTERS = 100
POLICY_VIOLATION, TRY_AGAIN_LATER = 1008, 1013  # RFC 6455's and IANA's

T = TypeVar("T")


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first message of a WebSocket: boards with the versions known of them, empty for none."""

    boards: dict[str, str]
    token: str = ""


class Ping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Any later message: answered by an event `pong` with the same data."""

    ping: Annotated[str, msgspec.Meta(max_length=MAX_PING_CHARACTERS)]


def add(routes: APIRouter, parts: Parts) -> None:
    """What there is under /feed."""

    @routes.get(
        "/feed",
        response_class=EventStream,
        status_code=200,
        responses=PROBLEMS | {503: {"description": "Too many viewers here; try again."}},
    )
    async def feed(
        principal: Annotated[Principal, Depends(parts.principal)],
        boards: Annotated[str, Query(description="Ids of boards, separated by commas.")],
        last_event_id: Annotated[str, Header(description="The last event's id.")] = "",
        since: Annotated[
            str, Query(alias="last_event_id", description="The same, for who can't set headers.")
        ] = "",
    ) -> Response:
        """Server-Sent Events of several boards; the id of an event holds each board's version."""
        principal.require(*SEEING)
        versions = dict.fromkeys(boards.split(","), "")
        versions |= {b: v for b, v in read_id(last_event_id or since).items() if b in versions}
        seats = await _seats(parts, principal, versions)
        require_room(parts)

        def written(event: Event) -> bytes:
            if event.version:
                versions[event.board] = event.version
            return b"id: " + written_id(versions) + b"\n" + event.sent_of_several

        return stream(parts, principal, seats, written)

    @routes.websocket("/feed/ws")
    async def websocket(websocket: WebSocket) -> None:
        try:
            _require_own_origin(websocket)
            principal = await _known(parts, websocket)
            require_room(parts)
        except Problem as problem:
            await websocket.send_denial_response(problem.response())
            return
        await websocket.accept()
        with suppress(WebSocketDisconnect):
            try:
                await _serve(parts, websocket, principal)
                await websocket.close()  # all boards are gone
            except Problem as problem:
                await _refuse(websocket, problem)


def written_id(versions: dict[str, str]) -> bytes:
    """The id of an event: `board=version,…` of those known."""
    return ",".join(f"{board}={version}" for board, version in versions.items() if version).encode()


def read_id(text: str) -> dict[str, str]:
    """The versions in such an id; what isn't one of ours says nothing."""
    pairs = (pair.partition("=") for pair in text.split(","))
    return {board: version for board, _, version in pairs if version}


async def _serve(parts: Parts, websocket: WebSocket, principal: Principal | None) -> None:
    try:
        async with asyncio.timeout(BEGIN_SECONDS):
            wanted = await _next(websocket, Wanted)
    except TimeoutError:
        detail = f"Say which boards within {BEGIN_SECONDS:.0f} seconds."
        raise Problem(408, "too-late", detail) from None
    if principal is None or wanted.token:
        header = (b"authorization", b"Bearer " + wanted.token.encode())
        principal = await parts.principal(HTTPConnection({"type": "http", "headers": [header]}))
    principal.require(*SEEING)
    seats = await _seats(parts, principal, wanted.boards)
    require_room(parts)
    hearing = asyncio.create_task(_hear(websocket))
    telling = asyncio.create_task(_tell(parts, websocket, principal, seats))
    try:
        done, _ = await asyncio.wait((hearing, telling), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        hearing.cancel()
        telling.cancel()
        await asyncio.gather(hearing, telling, return_exceptions=True)


async def _tell(
    parts: Parts, websocket: WebSocket, principal: Principal, seats: dict[str, Seat]
) -> None:
    async with aclosing(parts.hub.watch(principal.tenant, seats)) as events:
        async for event in events:
            await websocket.send_text(event.message)


async def _hear(websocket: WebSocket) -> None:
    """Answer pings; who sends them without reading is not read from either."""
    while True:
        ping = await _next(websocket, Ping)
        answer = {"event": "pong", "data": ping.ping}
        await websocket.send_text(msgspec.json.encode(answer).decode())


async def _refuse(websocket: WebSocket, problem: Problem) -> None:
    body = bytes(problem.response().body).decode()
    code = TRY_AGAIN_LATER if problem.status == HTTPStatus.SERVICE_UNAVAILABLE else POLICY_VIOLATION
    with suppress(WebSocketDisconnect, RuntimeError):  # gone meanwhile
        await websocket.send_text(f'{{"event":"problem","data":{body}}}')
        await websocket.close(code, problem.kind)


async def _seats(parts: Parts, principal: Principal, versions: dict[str, str]) -> dict[str, Seat]:
    if not 1 <= len(versions) <= MAX_BOARDS or not all(map(valid_id, versions)):
        detail = f"boards: expected ids of 1 to {MAX_BOARDS} boards"
        raise Problem(422, "invalid-boards", detail)
    return {b: await seated(parts, principal, b, known) for b, known in versions.items()}


async def _known(parts: Parts, websocket: WebSocket) -> Principal | None:
    """Who opens the connection; None for who hasn't said so yet."""
    headers = websocket.headers
    if "authorization" in headers or "x-api-key" in headers or COOKIE in websocket.cookies:
        found: Principal = await parts.principal(websocket)
        return found
    return None


def _require_own_origin(websocket: WebSocket) -> None:
    """Raise 403 for a page of another origin; programs name none."""
    origin = websocket.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != websocket.headers.get("host", ""):
        raise Problem(403, "forbidden", "Feeds are for pages of this service's own origin.")


async def _next(websocket: WebSocket, kind: type[T]) -> T:
    """The next message; raises 422 when it isn't of this kind."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    try:
        return msgspec.json.decode(message.get("text") or message.get("bytes") or b"", type=kind)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise Problem(422, "invalid-message", f"{kind.__name__.lower()}: {error}"[:300]) from error
