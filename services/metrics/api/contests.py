"""Contests: the list, one with its standings or result, and a tenant's own definitions."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from kit import pages
from kit.auth import Principal
from kit.clock import real_micros
from kit.database import Transaction
from kit.http import Problem, json_response
from schemas.spm import ContestResult, ContestRow, ContestState
from services.metrics import contests as referee
from services.metrics.api import documents
from services.metrics.api.boards import MOST_AROUND, SEEING, level_of
from services.metrics.api.parts import PROBLEMS, Parts
from services.metrics.domain import boards as domain
from services.metrics.domain import leaderboard, ranking
from services.metrics.domain.catalogue import Catalogue
from services.metrics.domain.contests import Contest, Times

MAX_ROWS = 1_000
ROWS = 100
_TIMES = (datetime,)  # which the JSON encoder writes itself


class ContestRowOut(BaseModel):
    """A subject's place; null is no data, or kept from who asks."""

    place: int | None
    subject: str
    name: str
    score: str | None
    values: dict[str, str | None]
    reached_at: datetime | None = None
    left_in: int | None = None
    prize: str | None = None


class AnnouncementOut(BaseModel):
    """Something that was told, under an id of its own."""

    id: str
    kind: str
    at: datetime
    text: str
    subjects: list[str]


class ResultOut(BaseModel):
    """What a final result is of."""

    at: datetime
    credits: int
    input: str
    outcome: str
    total: int


class ContestOut(BaseModel):
    """A contest and where it is; `definition` is as in boards.yaml."""

    id: str
    title: str
    phase: str
    starts: datetime
    ends: datetime
    grace_ends: datetime
    origin: str
    definition: dict[str, Any]


class StandingsOut(ContestOut):
    """A contest with its standings; those of a final one stay."""

    currency: str
    total: int
    rows: list[ContestRowOut]
    announcements: list[AnnouncementOut]
    result: ResultOut | None


class CheckOut(BaseModel):
    """Whether a final contest would have another outcome now, and which rows would be others."""

    would_differ: bool
    input_changed: bool
    input: str
    outcome: str
    credits: int
    rows: list[ContestRowOut]


def add(routes: APIRouter, parts: Parts) -> None:
    """What there is under /contests."""
    _add_reads(routes, parts)
    _add_writes(routes, parts)


def _add_reads(routes: APIRouter, parts: Parts) -> None:
    @routes.get("/contests", response_model=dict[str, list[ContestOut]], responses=PROBLEMS)
    async def contests(principal: Annotated[Principal, Depends(parts.principal)]) -> Response:
        """All contests of the organisation, the latest first."""
        principal.require(*SEEING)
        async with parts.database.transaction() as transaction:
            found = await parts.contests.all(transaction, principal.tenant)
            listed = [
                _shown(parts, each, await parts.contests.times(transaction, principal.tenant, each))
                for each in found.values()
            ]
        listed.sort(key=lambda each: (each["starts"], each["id"]), reverse=True)
        return json_response({"contests": listed})

    @routes.get("/contests/{contest}", response_model=StandingsOut, responses=PROBLEMS)
    async def contest(
        request: Request,
        principal: Annotated[Principal, Depends(parts.principal)],
        contest: str,
        around: Annotated[
            str, Query(description="Only the rows around this subject, e.g. `person:p1`.")
        ] = "",
        rows: Annotated[
            int, Query(ge=0, le=MOST_AROUND, description="How many on each side of it.")
        ] = 5,
        limit: Annotated[int, Query(ge=1, le=MAX_ROWS, description="The first rows.")] = ROWS,
    ) -> Response:
        """A contest with its standings now, or with its result once it is final."""
        principal.require(*SEEING)
        async with parts.database.transaction() as transaction:
            found, when, state = await _found(parts, transaction, principal, contest)
            catalogue = await parts.context.catalogue_of(transaction, principal.tenant)
            result = state.result if state is not None else None
            if result is not None:
                every, total, currency = result.rows, result.total, result.currency
            else:
                held = await parts.contests.held(transaction, principal.tenant, found)
                every = held.table.rows()
                total, currency = len(every), held.currency
        order = {row.subject: row for row in every}
        chosen = ranking.around(list(order), around, rows) if around else list(order)[:limit]
        body = _shown(parts, found, when) | {
            "currency": currency,
            "total": total,
            "rows": [_row(principal, catalogue, found, order[s]) for s in chosen],
            "announcements": [] if state is None else _plain(state.announcements),
            "result": None if result is None else _result(result),
        }
        return pages.tagged(request, body)

    @routes.get("/contests/{contest}/check", response_model=CheckOut, responses=PROBLEMS)
    async def check(
        principal: Annotated[Principal, Depends(parts.principal)], contest: str
    ) -> Response:
        """Compute a final contest again from today's records; the result stays what it is."""
        principal.require("ops", "finance")
        async with parts.database.transaction() as transaction:
            _, _, state = await _found(parts, transaction, principal, contest)
            result = state.result if state is not None else None
            if result is None:
                detail = f"The contest {contest} isn't final yet; there is nothing to compare with."
                raise Problem(409, "not-final", detail)
            catalogue = await parts.context.catalogue_of(transaction, principal.tenant)
            then, wrong = domain.read_contest(result.document, catalogue)
            if then is None:
                detail = f"It can't be computed any more: {'; '.join(map(str, wrong))}"[:1000]
                raise Problem(409, "not-computable", detail)
            held = await parts.contests.result(transaction, principal.tenant, then)
        found = referee.difference(result, held)
        return json_response(
            {
                "would_differ": found.differs,
                "input_changed": found.input != result.input,
                "input": found.input,
                "outcome": found.outcome,
                "credits": found.credits,
                "rows": _plain(found.rows),
            }
        )


def _add_writes(routes: APIRouter, parts: Parts) -> None:
    unavailable: dict[int | str, dict[str, Any]] = {
        409: {"description": "The contest is final."},
        503: {"description": "Kafka is away; nothing was kept."},
    }

    @routes.put(
        "/contests/{contest}",
        response_model=ContestOut,
        responses=PROBLEMS | unavailable,
        openapi_extra=documents.BODY,
    )
    async def put_contest(
        request: Request, principal: Annotated[Principal, Depends(parts.principal)], contest: str
    ) -> Response:
        """Add or change a contest: JSON or YAML, as an entry of boards.yaml."""
        principal.require("ops")
        document = documents.named(await documents.body(request), contest)
        async with parts.database.transaction() as transaction:
            catalogue = await parts.context.catalogue_of(transaction, principal.tenant)
            definition, mistakes = domain.read_contest(document, catalogue)
            documents.refuse(mistakes)
            assert definition is not None
            await _refuse_final(parts, transaction, principal, contest)
            await documents.write(parts, transaction, principal, "contest", contest, document)
            when = await parts.contests.times(transaction, principal.tenant, definition)
        return json_response(_shown(parts, definition, when))

    @routes.delete("/contests/{contest}", status_code=204, responses=PROBLEMS | unavailable)
    async def delete_contest(
        principal: Annotated[Principal, Depends(parts.principal)], contest: str
    ) -> Response:
        """Call an own contest off, or let the shipped one hold again; a final one stays."""
        principal.require("ops")
        async with parts.database.transaction() as transaction:
            state = await _refuse_final(parts, transaction, principal, contest)
            old = await documents.write(parts, transaction, principal, "contest", contest, None)
            if old is None or old.deleted:
                detail = f"There is no own or changed contest {contest!r:.80}."
                raise Problem(404, "not-found", detail)
            if state is not None:
                version = max(real_micros(), state.version + 1)
                gone = msgspec.structs.replace(state, version=version, deleted=True)
                await documents.publish(parts, [gone])
                await parts.context.contests.store(transaction, [gone])
        return Response(status_code=204)


async def _found(
    parts: Parts, transaction: Transaction, principal: Principal, contest: str
) -> tuple[Contest, Times, ContestState | None]:
    """The contest, as it was when it became final if it has."""
    state = (await parts.contests.states(transaction, principal.tenant)).get(contest)
    known = await parts.contests.all(transaction, principal.tenant)
    found = known.get(contest)
    if state is not None and state.result is not None:
        found = msgspec.convert(state.result.document, Contest)
    if found is None:
        listed = ", ".join(sorted(known)) or "none"
        detail = f"There is no contest {contest!r:.80}; there are {listed}."
        raise Problem(404, "unknown-contest", detail)
    return found, await parts.contests.times(transaction, principal.tenant, found), state


async def _refuse_final(
    parts: Parts, transaction: Transaction, principal: Principal, contest: str
) -> ContestState | None:
    """The contest's state; 409 when it has a result, which nothing may change."""
    # As the referee does, who must not make a result of what is being changed.
    await transaction.lock(referee.LOCK)
    state = (await parts.contests.states(transaction, principal.tenant)).get(contest)
    if state is not None and state.result is not None:
        detail = f"The contest {contest} is final and stays as it is; use another id."
        raise Problem(409, "contest-is-final", detail)
    return state


def _row(
    principal: Principal, catalogue: Catalogue, contest: Contest, row: ContestRow
) -> dict[str, Any]:
    """The row as the principal may see it: own ones whole, of others' what is theirs to see."""
    level = level_of(principal)
    concealed = {
        entry.metric
        for entry in contest.metrics
        if (metric := catalogue.find(entry.metric)) is None or leaderboard.hides(metric, level)
    }
    if concealed and row.subject != f"person:{principal.person}":
        values = {m: None if m in concealed else value for m, value in row.values.items()}
        score = row.score if contest.show_scores else None
        row = msgspec.structs.replace(row, values=values, score=score)
    shown: dict[str, Any] = _plain(row)
    return shown


def _result(result: ContestResult) -> dict[str, Any]:
    names = ("at", "credits", "input", "outcome", "total")
    return {name: getattr(result, name) for name in names}


def _shown(parts: Parts, contest: Contest, when: Times) -> dict[str, Any]:
    shipped = parts.leaderboards.shipped("contest", contest.id)
    return {
        "id": contest.id,
        "title": contest.title,
        "phase": when.phase(parts.clock()),
        "starts": when.starts,
        "ends": when.ends,
        "grace_ends": when.grace_ends,
        "origin": "own" if not shipped else "shipped" if shipped == contest else "changed",
        "definition": referee.written(contest),
    }


def _plain(states: object) -> Any:
    return msgspec.to_builtins(states, builtin_types=_TIMES)
