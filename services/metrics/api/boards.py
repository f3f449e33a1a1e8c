"""Boards: the list, a snapshot, and the stream of what changes."""

from collections.abc import AsyncIterator
from datetime import date
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Header, Query, Request
from pydantic import BaseModel
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from kit import pages
from kit.auth import Principal, Role
from kit.http import Problem, json_response
from services.metrics import telemetry
from services.metrics.api.parts import (
    FIRST_YEAR,
    LAST_YEAR,
    PROBLEMS,
    Parts,
    metric_of,
)
from services.metrics.domain.leaderboard import Definition

SEEING: tuple[Role, ...] = ("rep", "manager", "finance", "ops")


class ColumnOut(BaseModel):
    """Another metric beside the ranked one; money is in the board's currency."""

    id: str
    title: str
    unit: str


class DefinitionOut(BaseModel):
    """What a board ranks."""

    id: str
    title: str
    metric: str
    metric_title: str
    grain: str
    subjects: str
    columns: list[ColumnOut]
    rank_by: str
    limit: int


class RowOut(BaseModel):
    """A subject's row; null is no data."""

    rank: int | None
    subject: str
    name: str
    team: str
    value: str | None
    count: int
    target: str | None
    attainment: str | None
    gap_to_next: str | None
    movement: int | None
    columns: dict[str, str | None]


class BoardOut(BaseModel):
    """A board as it is shown; `version` is opaque."""

    board: str
    title: str
    metric: str
    unit: str
    period: str
    version: str
    as_of: str
    rows: list[RowOut]


def add(routes: APIRouter, parts: Parts) -> None:
    """GET /boards, /boards/{id} and /boards/{id}/events."""

    @routes.get("/boards", response_model=dict[str, list[DefinitionOut]], responses=PROBLEMS)
    async def boards(principal: Annotated[Principal, Depends(parts.principal)]) -> Response:
        """All boards of the organisation."""
        principal.require(*SEEING)
        definitions = parts.boards.definitions.values()
        return json_response({"boards": [_shown(parts, each) for each in definitions]})

    @routes.get("/boards/{board}", response_model=BoardOut, responses=PROBLEMS)
    async def board(
        request: Request,
        principal: Annotated[Principal, Depends(parts.principal)],
        board: str,
        date: Annotated[date | None, Query(description="As of this day, not today.")] = None,
    ) -> Response:
        """A board as it is now. The ETag is its version."""
        principal.require(*SEEING)
        definition = _definition(parts, board)
        if date is not None and not FIRST_YEAR <= date.year <= LAST_YEAR:
            detail = f"date: expected a year from {FIRST_YEAR} to {LAST_YEAR}"
            raise Problem(422, "invalid-date", detail)
        version = await parts.leaderboards.version(principal.tenant, date)
        if pages.has(request, f'"{version}"'):
            return Response(status_code=304, headers={"ETag": f'"{version}"'})
        telemetry.BOARDS.labels("snapshot").inc()
        with telemetry.BOARD_SECONDS.time():
            computed = await parts.leaderboards.board(principal.tenant, definition, date)
        return pages.tagged(request, msgspec.to_builtins(computed), computed.version)

    @routes.get(
        "/boards/{board}/events",
        response_class=EventSourceResponse,
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
        """Server-Sent Events: a `snapshot`, then an `update` for each change of today's board."""
        principal.require(*SEEING)
        _definition(parts, board)
        if parts.hub.viewers >= parts.settings.stream_limit:
            detail = "This replica has as many viewers as it takes; try again shortly."
            raise Problem(503, "too-many-viewers", detail, headers={"Retry-After": "5"})

        async def stream() -> AsyncIterator[ServerSentEvent]:
            async for event in parts.hub.watch(principal.tenant, board, last_event_id or since):
                yield ServerSentEvent(data=event.data, event=event.kind, id=event.version)

        return EventSourceResponse(
            stream(),
            ping=parts.settings.stream_ping_seconds,
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )


def _definition(parts: Parts, board: str) -> Definition:
    found = parts.boards.definitions.get(board)
    if found is None:
        known = ", ".join(parts.boards.definitions)
        raise Problem(404, "unknown-board", f"There is no board {board!r}; there are {known}.")
    return found


def _shown(parts: Parts, board: Definition) -> dict[str, object]:
    columns = [metric_of(parts, column) for column in board.columns]
    return {
        "id": board.id,
        "title": board.title,
        "metric": board.metric,
        "metric_title": metric_of(parts, board.metric).title,
        "grain": board.grain,
        "subjects": board.subjects,
        "columns": [{"id": m.id, "title": m.title, "unit": m.unit} for m in columns],
        "rank_by": board.rank_by,
        "limit": board.limit,
    }
