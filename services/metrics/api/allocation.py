"""Goals from the top down, and from the bottom up: dividing one, and adding up those below it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from kit import pages
from kit.auth import Principal
from kit.http import Problem, json_response
from schemas.directory import Directory
from schemas.periods import GRAINS, Calendar, Grain, Range, written
from schemas.spm import ORGANISATION, Goal
from services.metrics.api.goals import (
    MAX_GOALS,
    MAX_TARGET,
    UNAVAILABLE,
    Book,
    GoalOut,
    Weight,
    shown,
)
from services.metrics.api.parts import (
    PROBLEMS,
    Parts,
    Period,
    PeriodText,
    SubjectText,
    UnitText,
    metric_of,
    period_of,
    require_number,
    require_records,
    subject_of,
    unit_of,
)
from services.metrics.domain import goals, numbers
from services.metrics.domain.catalogue import Base
from services.metrics.store import counters
from services.metrics.store.counters import Window

YEAR = timedelta(weeks=52)  # to the same weekday, at most two days from the same date
Into = Literal["people", "teams"] | Grain
By = Literal["even", "last_year", "weights"]

_KINDS: dict[str, str] = {"people": "person", "teams": "team"}


class AllocateIn(BaseModel):
    """What to divide among whom, or among which periods.

    `total` is the goal's own target unless given. `into` a grain divides the period along the
    goal's seasonality; `people` and `teams` divide among those below a team or the organisation.
    """

    model_config = ConfigDict(extra="forbid")

    subject: str
    metric: str
    period: str
    unit: str = ""
    into: Into
    by: By = Field(
        default="even",
        description="Among people and teams: `even` is by days in the team, `last_year` by the "
        "metric's value in the same period a year before, `weights` as given.",
    )
    weights: dict[str, Weight] = Field(
        default={}, max_length=MAX_GOALS, description="By subject; who isn't named gets no goal."
    )
    total: Decimal | None = Field(
        default=None, ge=0, le=MAX_TARGET, max_digits=24, decimal_places=6
    )
    reason: str = Field(default="", max_length=500)


class PartOut(BaseModel):
    """One part; `current` is the target that it replaces, `days` those in the team."""

    goal: GoalOut
    share: str | None
    current: str | None
    days: int | None = None
    days_elsewhere: int | None = None


class Allocation(BaseModel):
    """The parts, which add up to the total; `left_out` get none, as their weight is zero."""

    applied: bool
    total: str
    unit: str
    parts: list[PartOut]
    left_out: list[str]


class RolledOut(BaseModel):
    """What of a goal one subject, or one period, brings."""

    subject: str
    period: str
    target: str


class RollUpOut(BaseModel):
    """The parts of a goal beside the whole; null where the whole has no goal."""

    subject: str
    metric: str
    period: str
    unit: str
    target: str | None
    assigned: str
    covered: str | None
    over_assigned: str | None
    gap: str | None
    parts: list[RolledOut]


def add(routes: APIRouter, parts: Parts) -> None:
    """POST /goals/allocate, GET /goals/roll-up."""

    @routes.post("/goals/allocate", response_model=Allocation, responses=PROBLEMS | UNAVAILABLE)
    async def allocate(
        principal: Annotated[Principal, Depends(parts.principal)],
        body: AllocateIn,
        *,
        apply: Annotated[bool, Query(description="Set the parts as goals, all or none.")] = False,
    ) -> Response:
        """Divide a goal; without `apply` it is only shown what the parts would be."""
        Book.require_writer(principal)
        async with parts.database.transaction() as transaction:
            book = await Book.open(parts, transaction, principal)
            divided = await _divided(book, body)
            for part in divided.parts:
                book.require_subject(part.goal.subject)
            listed = divided.parts
            if apply:
                _check_whole(divided.parts)
                kept = await book.keep([part.goal for part in divided.parts])
                listed = [
                    _Part(goal, part.service)
                    for goal, part in zip(kept, divided.parts, strict=True)
                ]
        return json_response(
            {
                "applied": apply,
                "total": numbers.target_text(divided.total, divided.unit),
                "unit": divided.unit,
                "parts": [_shown(p, divided.total, book.known.get(p.goal.key)) for p in listed],
                "left_out": divided.left_out,
            }
        )

    @routes.get("/goals/roll-up", response_model=RollUpOut, responses=PROBLEMS)
    async def roll_up(
        request: Request,
        principal: Annotated[Principal, Depends(parts.principal)],
        subject: SubjectText,
        metric: str,
        period: PeriodText,
        unit: UnitText = "",
        by: Annotated[
            Literal["members"] | Grain,
            Query(description="What the parts are: those right below, or periods of a grain."),
        ] = "members",
    ) -> Response:
        """A goal beside the sum of its parts: how much of it is assigned, too much or too little.

        People count with their effective targets, for each team by their days in it; a team that
        has no goal counts what is assigned in it.
        """
        who = subject_of(subject)
        async with parts.database.transaction() as transaction:
            catalogue = await parts.context.catalogue_of(transaction, principal.tenant)
            found = metric_of(catalogue, metric)
            directory = await parts.context.directory_of(transaction, principal.tenant)
            when = period_of(parts, directory, period)
            require_number(principal, directory, found, who, when.asked_on)
            known = await parts.context.goals_of(transaction, principal.tenant)
        if not isinstance(found, Base):
            raise _no_sum(metric)
        chosen = unit_of(directory, found, unit)
        of_metric = [g for g in known.values() if g.metric == metric and g.unit == chosen]
        if by == "members":
            _require_members(who)
            require_records(principal, directory, who, when.asked_on)
            below = {g.subject: g for g in of_metric if g.period == when.text}
            rolled = [
                (name, when.text, amount)
                for name, amount in goals.members(below, directory, who).items()
            ]
        else:
            own = {g.period: g for g in of_metric if g.subject == who}
            rolled = [
                (who, each, goals.effective(own[each], directory))
                for each in _sub_periods(directory.calendar, when, by)
                if each in own
            ]
        whole = known.get((who, metric, when.text))
        if whole is not None and whole.unit != chosen:
            whole = None
        target = None if whole is None else goals.effective(whole, directory)
        held = goals.roll_up((amount for _, _, amount in rolled), target)
        return pages.tagged(
            request,
            {
                "subject": who,
                "metric": metric,
                "period": when.text,
                "unit": chosen,
                "target": _text(target, chosen),
                "assigned": goals.amount_text(held.assigned, chosen),
                "covered": numbers.share_text(held.covered),
                "over_assigned": _text(held.over_assigned, chosen),
                "gap": _text(held.gap, chosen),
                "parts": [
                    {"subject": name, "period": each, "target": goals.amount_text(amount, chosen)}
                    for name, each, amount in rolled
                ],
            },
        )


@dataclass(frozen=True, slots=True)
class _Part:
    goal: Goal
    service: goals.Service | None = None


@dataclass(frozen=True, slots=True)
class _Divided:
    total: Decimal
    unit: str
    parts: list[_Part]
    left_out: list[str]


async def _divided(book: Book, asked: AllocateIn) -> _Divided:
    """The parts of what was asked for."""
    subject, metric = subject_of(asked.subject), metric_of(book.catalogue, asked.metric)
    if not isinstance(metric, Base):
        raise _no_sum(asked.metric)
    period = period_of(book.parts, book.directory, asked.period)
    book.require_subject(subject)
    require_number(book.principal, book.directory, metric, subject, book.today)
    goal = book.goal(subject, asked.metric, period.text)
    unit = unit_of(book.directory, metric, asked.unit or (goal.unit if goal else ""))
    total = asked.total
    if total is None:
        if goal is None or goal.unit != unit:
            detail = (
                f"{subject} has no goal for {asked.metric}, {period.text} in {unit}: send `total`."
            )
            raise Problem(422, "no-total", detail)
        total = goal.target
    if goal is None:
        goal = Goal(
            tenant=book.principal.tenant,
            version=0,
            subject=subject,
            metric=asked.metric,
            period=period.text,
            target=total,
        )
    whole = msgspec.structs.replace(
        goal, target=total, unit=unit, reason=asked.reason, version=0, history=[]
    )
    if asked.into in GRAINS:
        return _over_periods(book.directory, whole, asked)
    return await _among_members(book, whole, asked, period)


def _over_periods(directory: Directory, whole: Goal, asked: AllocateIn) -> _Divided:
    if asked.by != "even" or asked.weights:
        detail = "Periods are divided along the goal's seasonality; set weights there."
        raise Problem(422, "invalid-allocation", detail)
    try:
        made = goals.over_periods(whole, directory, asked.into)  # type: ignore[arg-type]  # a grain
    except ValueError as error:
        raise Problem(422, "invalid-allocation", str(error)) from error
    return _Divided(whole.target, whole.unit, [_Part(goal) for goal in made], [])


async def _among_members(book: Book, whole: Goal, asked: AllocateIn, period: Period) -> _Divided:
    _require_members(whole.subject)
    directory, team = book.directory, whole.subject
    serving: dict[str, goals.Service] = {}
    if asked.into == "people":
        below = goals.people_below(directory, team, period.start, period.end)
        serving = {f"{goals.PERSON}{name}": service for name, service in below.items()}
        names = list(serving)
    else:
        above = "" if team == ORGANISATION else team.removeprefix(goals.TEAM)
        names = [
            f"{goals.TEAM}{name}"
            for name in sorted(directory.teams)
            if goals.above(directory, name) == above
        ]
    weights = await _weights(book, whole, asked, period, names, serving)
    parts, left_out = _by_weight(whole, weights)
    return _Divided(
        whole.target,
        whole.unit,
        [_Part(goal, serving.get(goal.subject)) for goal in parts],
        left_out,
    )


def _by_weight(whole: Goal, weights: Mapping[str, Fraction]) -> tuple[list[Goal], list[str]]:
    """Goals for those with a weight, and who has none.

    What is divided is for the days that they are there: nothing more is taken off it.
    """
    names = [name for name, weight in weights.items() if weight > 0]
    if not names:
        detail = f"Nobody below {whole.subject} has a weight in {whole.period}; send `weights`."
        raise Problem(422, "invalid-allocation", detail)
    if len(names) > MAX_GOALS:
        detail = f"{len(names)} parts are too many at once; divide among teams first."
        raise Problem(422, "invalid-allocation", detail)
    targets = goals.allocate(whole.target, [weights[name] for name in names], whole.unit)
    made = [
        msgspec.structs.replace(whole, subject=name, target=target, proration="none", ramp=[])
        for name, target in zip(names, targets, strict=True)
    ]
    return made, sorted(weights.keys() - set(names))


async def _weights(
    book: Book,
    whole: Goal,
    asked: AllocateIn,
    period: Period,
    names: Iterable[str],
    serving: Mapping[str, goals.Service],
) -> dict[str, Fraction]:
    """Each one's weight. Who manages a team gets one only when named."""
    if asked.by == "weights":
        unknown = sorted(asked.weights.keys() - set(names))
        if unknown:
            detail = f"Not below {whole.subject} in {whole.period}: {', '.join(unknown)[:300]}."
            raise Problem(422, "invalid-allocation", detail)
        return {name: Fraction(weight) for name, weight in sorted(asked.weights.items())}
    if asked.weights:
        detail = "`weights` are given, but `by` isn't `weights`; leave one of them out."
        raise Problem(422, "invalid-allocation", detail)
    directory, day = book.directory, period.asked_on
    earners = [
        name
        for name in names
        if name not in serving or not directory.is_manager(name.removeprefix(goals.PERSON), day)
    ]
    if asked.by == "even":
        return {n: Fraction(serving[n].inside if n in serving else 1) for n in earners}
    before = _year_before(directory.calendar, period)
    found = await counters.of_kind(
        book.transaction,
        book.principal.tenant,
        metrics=[whole.metric],
        window=before,
        units=[whole.unit],
        kind=_KINDS[asked.into],
    )
    values = {row.subject: Fraction(max(0, row.value)) for row in found}
    return {name: values.get(name, Fraction(0)) for name in earners}


def _year_before(calendar: Calendar, period: Period) -> Window:
    """The same period a year before: the one of its grain around the same weekday, 52 weeks ago."""
    if isinstance(period.grain, Range):
        return Window(period.start - YEAR, period.end - YEAR, "")
    middle = period.start + (period.end - period.start) // 2 - YEAR
    start = calendar.start(period.grain, middle)
    return Window(start, calendar.end(period.grain, start), period.grain)


def _check_whole(parts: Iterable[_Part]) -> None:
    """Raise 422 for people who also count elsewhere: they have one goal for the whole period."""
    elsewhere = [p.goal.subject for p in parts if p.service and p.service.there > p.service.inside]
    if elsewhere:
        detail = (
            f"{', '.join(elsewhere)[:300]}: counted in another team for some days of the period. "
            "Divide the goal of a team above both, or set theirs by hand and give the others' "
            "weights."
        )
        raise Problem(422, "counts-elsewhere", detail)


def _sub_periods(calendar: Calendar, period: Period, grain: Grain) -> list[str]:
    limits = goals.tiles(calendar, grain, period.start, period.end)
    if len(limits) - 1 <= 1:
        detail = f"{period.text} isn't made up of several periods of the grain {grain}."
        raise Problem(422, "invalid-period", detail)
    return [written(grain, start) for start in limits[:-1]]


def _require_members(subject: str) -> None:
    if subject != ORGANISATION and not subject.startswith(goals.TEAM):
        detail = f"{subject} has no members with goals below it; ask for a team or {ORGANISATION}."
        raise Problem(422, "invalid-subject", detail)


def _no_sum(metric: str) -> Problem:
    detail = f"{metric} is computed from other metrics: parts of it don't add up to a whole."
    return Problem(422, "derived-metric", detail)


def _shown(part: _Part, total: Decimal, current: Goal | None) -> dict[str, object]:
    goal, service = part.goal, part.service
    share = Fraction(goal.target) / Fraction(total) if total else None
    found: dict[str, object] = {
        "goal": shown(goal),
        "share": numbers.share_text(share),
        "current": None if current is None or current.deleted else format(current.target, "f"),
    }
    if service is not None:
        found |= {"days": service.inside, "days_elsewhere": service.there - service.inside}
    return found


def _text(amount: Fraction | None, unit: str) -> str | None:
    return None if amount is None else goals.amount_text(amount, unit)
