"""Boards: the list, a snapshot, the stream of what changes, and a tenant's own definitions."""

from collections.abc import Callable
from datetime import date
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Header, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from kit import pages
from kit.auth import Principal, Role
from kit.http import Problem, json_response
from kit.streams import EventStream
from services import access
from services.metrics import telemetry
from services.metrics.api import documents
from services.metrics.api.documents import MistakeOut
from services.metrics.api.parts import FIRST_YEAR, LAST_YEAR, PROBLEMS, Parts, metric_of
from services.metrics.boards import Event, Seat
from services.metrics.domain import boards as domain
from services.metrics.domain import leaderboard
from services.metrics.domain.boards import Definition
from services.metrics.domain.catalogue import Catalogue
from services.metrics.domain.leaderboard import Audience, Standings
from services.metrics.store.leaderboards import UnknownBoardError

SEEING: tuple[Role, ...] = ("rep", "manager", "finance", "ops")
MOST_AROUND = 50


class ColumnOut(BaseModel):
    """Another metric beside the ranked one; money is in the board's currency."""

    id: str
    title: str
    unit: str


class DefinitionOut(BaseModel):
    """What a board ranks; `definition` is all of it, as in boards.yaml."""

    id: str
    title: str
    metric: str
    metric_title: str
    grain: str | None
    subjects: str
    columns: list[ColumnOut]
    rank_by: str
    limit: int
    origin: str
    definition: dict[str, Any]


class RowOut(BaseModel):
    """A subject's row; null is no data, or `hidden`. What has no meaning on a board is left out."""

    rank: int | None
    subject: str
    name: str
    team: str
    value: str | None
    count: int | None
    target: str | None
    attainment: str | None
    gap_to_next: str | None
    movement: int | None
    columns: dict[str, str | None]
    score: str | None = None
    reached_at: str | None = None
    band: str | None = None
    band_rank: int | None = None
    hidden: bool = False


class BoardOut(BaseModel):
    """A board as it is shown; `version` is opaque, `total` is how many take part."""

    board: str
    title: str
    metric: str
    unit: str
    period: str
    version: str
    as_of: str
    rows: list[RowOut]
    total: int = 0
    compared_with: str = ""
    since: str = ""


def add(routes: APIRouter, parts: Parts) -> None:
    """What there is under /boards."""
    _add_reads(routes, parts)
    _add_writes(routes, parts)


def level_of(principal: Principal) -> Audience:
    """The most that the principal may see of other people's numbers on boards."""
    if access.sees_all(principal):
        return "finance"
    return "managers" if principal.has("manager") else "everyone"


def _add_reads(routes: APIRouter, parts: Parts) -> None:
    @routes.get("/boards", response_model=dict[str, list[DefinitionOut]], responses=PROBLEMS)
    async def boards(principal: Annotated[Principal, Depends(parts.principal)]) -> Response:
        """All boards of the organisation."""
        principal.require(*SEEING)
        found, catalogue = await parts.leaderboards.all(principal.tenant)
        listed = [_shown(parts, catalogue, each) for each in found.definitions.values()]
        return json_response({"boards": listed})

    @routes.get("/boards/{board}", response_model=BoardOut, responses=PROBLEMS)
    async def board(
        request: Request,
        principal: Annotated[Principal, Depends(parts.principal)],
        board: str,
        date: Annotated[date | None, Query(description="As of this day, not today.")] = None,
        around: Annotated[
            str, Query(description="Only the rows around this subject, e.g. `person:p1`.")
        ] = "",
        rows: Annotated[
            int, Query(ge=0, le=MOST_AROUND, description="How many on each side of it.")
        ] = 5,
        band: Annotated[str, Query(description="Only this band of peers.")] = "",
    ) -> Response:
        """A board as it is now. The ETag is its version, where everybody sees the same."""
        principal.require(*SEEING)
        if date is not None and not FIRST_YEAR <= date.year <= LAST_YEAR:
            detail = f"date: expected a year from {FIRST_YEAR} to {LAST_YEAR}"
            raise Problem(422, "invalid-date", detail)
        telemetry.BOARDS.labels("snapshot").inc()
        with telemetry.BOARD_SECONDS.time():
            standings = await standings_of(parts, principal, board, date)
        audience, own = _sight(principal, standings)
        found = standings.shown(audience, own=own, around=around, rows=rows, band=band)
        alike = not standings.conceals("everyone")
        tag = found.version if alike else f"{found.version}-{audience}-{own}"
        return pages.tagged(request, found, tag)

    @routes.get(
        "/boards/{board}/events",
        response_class=EventStream,
        status_code=200,
        responses=PROBLEMS | {503: {"description": "Too many viewers here; try again."}},
    )
    async def events(
        principal: Annotated[Principal, Depends(parts.principal)],
        board: str,
        last_event_id: Annotated[str, Header(description="The last version seen.")] = "",
        since: Annotated[
            str, Query(alias="last_event_id", description="The same, for who can't set headers.")
        ] = "",
    ) -> Response:
        """Server-Sent Events: a `snapshot`, then an `update` for each change of today's board.

        Where others' numbers are hidden, an event `own` has one's own row, whole: at first and
        whenever it changes. It is to be shown in place of that row.
        """
        principal.require(*SEEING)
        seat = await seated(parts, principal, board, last_event_id or since)
        require_room(parts)
        return stream(parts, principal, {board: seat}, lambda event: event.sent)


def stream(
    parts: Parts, principal: Principal, seats: dict[str, Seat], written: Callable[[Event], bytes]
) -> Response:
    """What changes on these boards, as Server-Sent Events."""
    return EventStream(
        lambda stream: parts.hub.watch(principal.tenant, seats, stream),
        written,
        keep_alive_seconds=parts.settings.stream_ping_seconds,
    )


def require_room(parts: Parts) -> None:
    """Raise 503 when this replica has as many viewers as it takes."""
    if parts.hub.viewers >= parts.settings.stream_limit:
        detail = "This replica has as many viewers as it takes; try again shortly."
        raise Problem(503, "too-many-viewers", detail, headers={"Retry-After": "5"})


async def seated(parts: Parts, principal: Principal, board: str, known: str) -> Seat:
    """How the principal watches a board who knows this version of it; 404 when there is none."""
    standings = parts.hub.current(principal.tenant, board)
    if standings is None:
        standings = await standings_of(parts, principal, board, None)
    return Seat(known, *_sight(principal, standings))


def _add_writes(routes: APIRouter, parts: Parts) -> None:
    unavailable: dict[int | str, dict[str, Any]] = {
        503: {"description": "Kafka is away; nothing was kept."}
    }

    @routes.put(
        "/boards/{board}",
        response_model=DefinitionOut,
        responses=PROBLEMS | unavailable,
        openapi_extra=documents.BODY,
    )
    async def put_board(
        request: Request, principal: Annotated[Principal, Depends(parts.principal)], board: str
    ) -> Response:
        """Add or change a board: JSON or YAML, as an entry of boards.yaml."""
        principal.require("ops")
        document = documents.named(await documents.body(request), board)
        async with parts.database.transaction() as transaction:
            catalogue = await parts.context.catalogue_of(transaction, principal.tenant)
            definition, mistakes = domain.read_board(document, catalogue)
            documents.refuse(mistakes)
            assert definition is not None
            await documents.write(parts, transaction, principal, "board", board, document)
        return json_response(_shown(parts, catalogue, definition))

    @routes.delete("/boards/{board}", status_code=204, responses=PROBLEMS | unavailable)
    async def delete_board(
        principal: Annotated[Principal, Depends(parts.principal)], board: str
    ) -> Response:
        """Take an own board away, or let the shipped one hold again."""
        principal.require("ops")
        async with parts.database.transaction() as transaction:
            old = await documents.write(parts, transaction, principal, "board", board, None)
        if old is None or old.deleted:
            raise Problem(404, "not-found", f"There is no own or changed board {board!r:.80}.")
        return Response(status_code=204)

    @routes.post(
        "/boards/lint",
        response_model=dict[str, list[MistakeOut]],
        responses=PROBLEMS,
        openapi_extra=documents.BODY,
    )
    async def lint(
        request: Request, principal: Annotated[Principal, Depends(parts.principal)]
    ) -> Response:
        """What would be wrong with a file of boards and contests, or with a single board."""
        principal.require(*SEEING)
        document = await documents.body(request)
        async with parts.database.transaction() as transaction:
            catalogue = await parts.context.catalogue_of(transaction, principal.tenant)
        if document.keys() & {"boards", "contests", "publish"}:
            mistakes = domain.lint(document, catalogue)
        elif "starts" in document:
            _, mistakes = domain.read_contest(document, catalogue)
        else:
            _, mistakes = domain.read_board(document, catalogue)
        return json_response({"mistakes": documents.shown(mistakes)})


async def standings_of(
    parts: Parts, principal: Principal, board: str, day: date | None
) -> Standings:
    """The board of the principal's organisation; 404 when there is none."""
    try:
        return await parts.leaderboards.standings(principal.tenant, board, day)
    except UnknownBoardError as error:
        known = ", ".join(error.known)
        detail = f"There is no {error.kind} {error.name!r:.80}; there are {known or 'none'}."
        raise Problem(404, f"unknown-{error.kind}", detail) from error


def _sight(principal: Principal, standings: Standings) -> tuple[Audience, str]:
    """As which audience the principal sees a board, and whose row is shown whole."""
    level = level_of(principal)
    audience = leaderboard.audience_of(standings.definition, standings.catalogue, level)
    # A team's number is also that of others in it.
    own = principal.person and standings.definition.subjects == "person"
    return audience, f"person:{principal.person}" if own and standings.conceals(audience) else ""


def _shown(parts: Parts, catalogue: Catalogue, board: Definition) -> dict[str, object]:
    columns = [metric_of(catalogue, column) for column in board.columns]
    title = metric_of(catalogue, board.metric).title if board.metric else "Points"
    shipped = parts.leaderboards.shipped("board", board.id)
    return {
        "id": board.id,
        "title": board.title,
        "metric": board.metric,
        "metric_title": title,
        "grain": board.grain,
        "subjects": board.subjects,
        "columns": [{"id": m.id, "title": m.title, "unit": m.unit} for m in columns],
        "rank_by": board.rank_by,
        "limit": board.limit,
        "origin": "own" if not shipped else "shipped" if shipped is board else "changed",
        "definition": msgspec.to_builtins(board),
    }
