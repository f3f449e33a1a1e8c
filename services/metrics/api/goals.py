"""Goals: set, removed, read, imported, with their history.

They are published before they are kept: should we die in between, our own consumer of spm.goals.v1
keeps them, so that the topic and the store can't disagree for long.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from itertools import islice
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from kit import pages, spreadsheet
from kit.auth import Principal
from kit.clock import real_micros
from kit.database import Transaction
from kit.http import Problem, json_response
from kit.publisher import PublishError
from schemas.directory import Directory
from schemas.spm import Days, Goal, Proration, Term
from services.metrics.api.parts import (
    PAGE,
    PROBLEMS,
    Cursor,
    Limit,
    Parts,
    Period,
    PeriodText,
    SubjectText,
    metric_of,
    period_of,
    require_goal,
    require_visible,
    subject_of,
    unit_of,
)
from services.metrics.domain import goals
from services.metrics.domain.catalogue import Base, Catalogue, Metric
from services.metrics.store.goals import store_goals

MAX_GOALS = 2_000  # of one request: a few hundred kilobytes
MAX_TARGET = Decimal(10) ** 15
MAX_WEIGHTS = 100  # the days of a quarter; a goal and its history stay a small message
MAX_RAMP = 60  # months: nobody is new for longer
MAX_FAULTS = 100  # of an import, in one answer

Key = tuple[str, str, str]
Weight = Annotated[Decimal, Field(ge=0, le=10**9, max_digits=15, decimal_places=6)]
Share = Annotated[Decimal, Field(ge=0, le=1, max_digits=7, decimal_places=6)]
UNAVAILABLE: dict[int | str, dict[str, Any]] = {
    503: {"description": "Kafka is away; nothing was kept."}
}


class GoalIn(BaseModel):
    """A target to set; `target: null` takes the goal away.

    Of a goal that is there already, terms that aren't given stay as they are.
    """

    model_config = ConfigDict(extra="forbid")

    subject: str
    metric: str
    period: str
    target: Decimal | None = Field(ge=0, le=MAX_TARGET, max_digits=24, decimal_places=6)
    unit: str = ""
    reason: str = Field(default="", max_length=500)
    seasonality: list[Weight] | None = Field(
        default=None,
        max_length=MAX_WEIGHTS,
        description="Weights of the period's months (or quarters, …), in order; [] for none.",
    )
    proration: Proration | None = None
    ramp: list[Share] | None = Field(
        default=None,
        max_length=MAX_RAMP,
        description="Shares of the target in the first, second … month of service; [] for none.",
    )
    days: Days | None = None


class GoalOut(BaseModel):
    """A goal as it is kept; `target` is null when it was taken away."""

    subject: str
    metric: str
    period: str
    target: str | None
    unit: str
    reason: str
    seasonality: list[str]
    proration: Proration
    ramp: list[str]
    days: Days
    version: int


class Goals(BaseModel):
    """A page of goals."""

    goals: list[GoalOut]
    next: str | None = None


class ChangeOut(BaseModel):
    """A change: `by` is a person's id, empty for a machine; `changed` has [from, to] by term."""

    at: datetime
    by: str
    reason: str
    changed: dict[str, tuple[Term, Term]]


class History(BaseModel):
    """A goal and its changes, the latest first."""

    goal: GoalOut
    history: list[ChangeOut]


class Imported(BaseModel):
    """How many goals a file had."""

    stored: int


_COLUMNS = tuple(GoalIn.model_fields)
_CSV = {"requestBody": {"required": True, "content": {"text/csv": {"schema": {"type": "string"}}}}}


def add(routes: APIRouter, parts: Parts) -> None:
    """PUT and GET /goals, GET /goals/history, POST /goals/import."""

    @routes.put("/goals", response_model=Goals, responses=PROBLEMS | UNAVAILABLE)
    async def put_goals(
        principal: Annotated[Principal, Depends(parts.principal)],
        body: Annotated[list[GoalIn], Field(min_length=1, max_length=MAX_GOALS)],
    ) -> Response:
        """Set goals, all or none. Sending the same again changes nothing.

        Once its period has begun, a goal is changed only with a reason.
        """
        Book.require_writer(principal)
        async with parts.database.transaction() as transaction:
            book = await Book.open(parts, transaction, principal)
            kept = await book.keep([book.checked(goal) for goal in body])
        return json_response({"goals": [shown(goal) for goal in kept], "next": None})

    @routes.post(
        "/goals/import",
        response_model=Imported,
        responses=PROBLEMS | UNAVAILABLE,
        openapi_extra=_CSV,
    )
    async def import_goals(
        request: Request, principal: Annotated[Principal, Depends(parts.principal)]
    ) -> Response:
        """Set the goals of a CSV file, all or none; its columns are the fields of a goal.

        An empty cell says nothing; weights and shares are separated by spaces.
        """
        Book.require_writer(principal)
        rows = list(spreadsheet.rows(await request.body(), _COLUMNS))
        if len(rows) > MAX_GOALS:
            detail = f"{len(rows)} goals in one file; send at most {MAX_GOALS}."
            raise Problem(413, "too-many-items", detail)
        async with parts.database.transaction() as transaction:
            book = await Book.open(parts, transaction, principal)
            stored = await book.keep(_collected(book, rows))
        return json_response({"stored": len(stored)})

    @routes.get("/goals", response_model=Goals, responses=PROBLEMS)
    async def get_goals(
        principal: Annotated[Principal, Depends(parts.principal)],
        subject: Annotated[str, Query(description="Only this subject.")] = "",
        metric: Annotated[str, Query(description="Only this metric.")] = "",
        period: Annotated[str, Query(description="Only this period.")] = "",
        cursor: Cursor = "",
        limit: Limit = PAGE,
    ) -> Response:
        """The goals that one may see, by subject, metric and period."""
        after: Key | None = pages.place(cursor, Key)
        async with parts.database.transaction() as transaction:
            directory = await parts.context.directory_of(transaction, principal.tenant)
            catalogue = await parts.context.catalogue_of(transaction, principal.tenant)
            known = await parts.context.goals_of(transaction, principal.tenant)
        today = directory.calendar.local_day(parts.clock())
        asked = (subject, metric, period)
        keys = (
            key
            for key in sorted(known)
            if all(want in ("", have) for want, have in zip(asked, key, strict=True))
            and (after is None or key > after)
            and _visible(principal, directory, catalogue, key, today)
        )
        page = list(islice(keys, limit + 1))
        more = len(page) > limit
        page = page[:limit]
        listed = [shown(known[key]) for key in page]
        return json_response({"goals": listed, "next": pages.cursor(page[-1]) if more else None})

    @routes.get("/goals/history", response_model=History, responses=PROBLEMS)
    async def history(
        request: Request,
        principal: Annotated[Principal, Depends(parts.principal)],
        subject: SubjectText,
        metric: str,
        period: PeriodText,
    ) -> Response:
        """Who changed a goal, when, why, and from what to what; also of one taken away."""
        who = subject_of(subject)
        async with parts.database.transaction() as transaction:
            directory = await parts.context.directory_of(transaction, principal.tenant)
            when = period_of(parts, directory, period)
            catalogue = await parts.context.catalogue_of(transaction, principal.tenant)
            require_goal(principal, directory, catalogue, metric, who, when.asked_on)
            known = await parts.context.goals.load(transaction, principal.tenant)
        key = (who, metric, when.text)
        found = next((g for g in known if (g.subject, g.metric, g.period) == key), None)
        if found is None:
            raise Problem(404, "not-found", f"{who} has never had a goal for {metric}, {period}.")
        changes = [msgspec.to_builtins(change) for change in found.history]
        return pages.tagged(request, {"goal": shown(found), "history": changes})


@dataclass(frozen=True, slots=True)
class Book:
    """A tenant's goals, opened by someone who changes them, while nobody else does."""

    parts: Parts
    principal: Principal
    transaction: Transaction
    directory: Directory
    catalogue: Catalogue
    known: Mapping[str, Goal]  # by key, also those that were taken away

    @staticmethod
    def require_writer(principal: Principal) -> None:
        """Raise 403 for who may set no goals at all."""
        principal.require("manager", "ops", "finance")

    @classmethod
    async def open(cls, parts: Parts, transaction: Transaction, principal: Principal) -> "Book":
        """The tenant's goals until the transaction ends."""
        tenant, replica = principal.tenant, parts.context.goals
        directory = await parts.context.directory_of(transaction, tenant)
        catalogue = await parts.context.catalogue_of(transaction, tenant)
        await transaction.lock(replica.lock_name(tenant))
        known = {goal.key: goal for goal in await replica.load(transaction, tenant)}
        return cls(parts, principal, transaction, directory, catalogue, known)

    @property
    def today(self) -> date:
        """The organisation's day."""
        return self.directory.calendar.local_day(self.parts.clock())

    def goal(self, subject: str, metric: str, period: str) -> Goal | None:
        """The goal, unless there is none."""
        found = self.known.get(f"{self.principal.tenant}/{subject}/{metric}/{period}")
        return None if found is None or found.deleted else found

    def checked(self, asked: GoalIn) -> Goal:
        """The goal as the organisation understands it; 404, 422 or 403 otherwise."""
        subject = subject_of(asked.subject)
        period = period_of(self.parts, self.directory, asked.period)
        old = self.goal(subject, asked.metric, period.text)
        if asked.target is None and old is not None and not self.catalogue.find(asked.metric):
            # Of a metric that is gone: it can still be taken away.
            return msgspec.structs.replace(old, deleted=True, reason=asked.reason)
        metric = metric_of(self.catalogue, asked.metric)
        require_visible(self.principal, metric, subject)
        goal = Goal(
            tenant=self.principal.tenant,
            version=0,
            subject=subject,
            metric=asked.metric,
            period=period.text,
            target=asked.target if asked.target is not None else Decimal(0),
            unit=unit_of(self.directory, metric, asked.unit or (old.unit if old else "")),
            reason=asked.reason,
            deleted=asked.target is None,
        )
        given = {
            name: asked_for if asked_for is not None else getattr(old or goal, name)
            for name in ("seasonality", "proration", "ramp", "days")
            for asked_for in (getattr(asked, name),)
        }
        goal = msgspec.structs.replace(goal, **given)
        if not goal.deleted:
            _check_terms(goal, metric, period, self.directory)
        return goal

    def require_subject(self, subject: str) -> None:
        """Raise 403 for goals that one may not set: managers set those below them, never theirs."""
        if self.principal.has("ops", "finance"):
            return
        own = self.principal.person
        kind, _, name = subject.partition(":")
        if own and (
            (kind == "person" and name != own and self.directory.manages(own, name, self.today))
            or (kind == "team" and name in self.directory.managed_teams(own, self.today))
        ):
            return
        detail = f"{subject}: you may set goals for the people and teams you manage."
        raise Problem(403, "forbidden", detail)

    def revised(self, goal: Goal) -> Goal:
        """The goal with its history and version; 403 or 422 when it may not be changed so."""
        self.require_subject(goal.subject)
        old = self.known.get(goal.key)
        at, by = self.parts.clock(), self.principal.person
        made = goals.changed(goal, old, by=by, at=at)
        if old is None:
            return msgspec.structs.replace(made, version=real_micros())
        if made is old:
            return old
        begin, _ = goals.span(goal.period, self.directory.calendar)
        if begin <= self.today and not goal.reason:
            detail = (
                f"{goal.subject}, {goal.metric}, {goal.period}: the period has begun; "
                "say in `reason` why its goal changes."
            )
            raise Problem(422, "reason-required", detail)
        return msgspec.structs.replace(made, version=max(old.version + 1, real_micros()))

    async def keep(self, wanted: Sequence[Goal]) -> list[Goal]:
        """Publish and store these goals, all or none; as they are then."""
        revised = {goal.key: self.revised(goal) for goal in wanted}
        if len(revised) < len(wanted):
            detail = "A subject, metric and period is named twice; send each goal once."
            raise Problem(422, "duplicate-goal", detail)
        kept = list(revised.values())
        try:
            await self.parts.publisher.publish(kept)
        except PublishError as error:
            detail = "The goals could not be published; nothing was kept. Try again."
            raise Problem(503, "unavailable", detail, headers={"Retry-After": "5"}) from error
        await store_goals(self.transaction, self.parts.context, kept, now_us=real_micros())
        return kept


def shown(goal: Goal) -> dict[str, object]:
    """The goal as answers have it."""
    return {
        "subject": goal.subject,
        "metric": goal.metric,
        "period": goal.period,
        "target": None if goal.deleted else format(goal.target, "f"),
        "unit": goal.unit,
        "reason": goal.reason,
        "seasonality": [format(weight, "f") for weight in goal.seasonality],
        "proration": goal.proration,
        "ramp": [format(share, "f") for share in goal.ramp],
        "days": goal.days,
        "version": goal.version,
    }


def _check_terms(goal: Goal, metric: Metric, period: Period, directory: Directory) -> None:
    """Raise 422 for terms that say nothing about such a goal."""
    bound = goal.proration != "none" or goal.ramp
    if not isinstance(metric, Base) and (bound or goal.seasonality):
        detail = (
            f"{metric.id} is computed from other metrics and doesn't add up over days: its goal "
            "has no seasonality, proration or ramp."
        )
        raise Problem(422, "invalid-terms", detail)
    if bound and not goal.subject.startswith(goals.PERSON):
        detail = f"{goal.subject}: proration and ramp are for people; leave them out here."
        raise Problem(422, "invalid-terms", detail)
    if not goal.seasonality:
        return
    fitting = goals.fitting(directory.calendar, period.start, period.end)
    count = len(goal.seasonality)
    if count not in fitting:
        numbers = [f"{n} {grain}s" for n, grain in sorted(fitting.items()) if n <= MAX_WEIGHTS]
        expected = f"it has {', '.join(numbers)}" if numbers else "it has no parts; leave them out"
        detail = f"seasonality has {count} weights, which doesn't fit {period.text}: {expected}."
        raise Problem(422, "invalid-terms", detail)
    if not any(goal.seasonality):
        raise Problem(422, "invalid-terms", "seasonality: at least one weight is above zero.")


def _visible(
    principal: Principal, directory: Directory, catalogue: Catalogue, key: Key, day: date
) -> bool:
    subject, metric, _ = key
    try:
        require_goal(principal, directory, catalogue, metric, subject, day)
    except Problem:
        return False
    return True


def _collected(book: Book, rows: Iterable[tuple[int, spreadsheet.Row]]) -> list[Goal]:
    """All goals of a file, or all that is wrong with them, by line."""
    found: dict[str, Goal] = {}
    faults: list[dict[str, Any]] = []
    for line, row in rows:
        try:
            goal = book.checked(_read(row))
            book.revised(goal)
        except ValidationError as error:
            what = "; ".join(
                f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()
            )
            faults.append({"line": line, "what": what})
        except Problem as problem:
            faults.append({"line": line, "what": problem.detail})
        else:
            if goal.key in found:
                what = "this subject, metric and period is in the file twice"
                faults.append({"line": line, "what": what})
            found[goal.key] = goal
    if faults or not found:
        detail = f"{len(faults)} lines are wrong and nothing was stored; see `errors`."
        if not faults:
            detail = "The file has no goals below its header."
        raise Problem(422, "invalid-goals", detail, errors=faults[:MAX_FAULTS])
    return list(found.values())


def _read(row: spreadsheet.Row) -> GoalIn:
    lists = {name: row[name].split() for name in ("seasonality", "ramp") if name in row}
    return GoalIn.model_validate({**row, **lists})
