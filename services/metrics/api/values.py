"""Numbers: one, and all of them."""

from datetime import date
from fractions import Fraction
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from kit import pages
from kit.auth import Principal
from kit.http import Problem, json_response
from schemas.periods import Grain, Range
from schemas.spm import Goal
from services.metrics.api.parts import (
    PAGE,
    PROBLEMS,
    Cursor,
    Limit,
    Parts,
    Period,
    PeriodText,
    SubjectText,
    UnitText,
    metric_of,
    period_of,
    require_number,
    subject_of,
    targets_of,
    unit_of,
    wanted,
)
from services.metrics.domain import goals, numbers
from services.metrics.domain.catalogue import MONEY, Base, Derived
from services.metrics.domain.goals import Standing
from services.metrics.domain.numbers import Part
from services.metrics.store import counters, facts

Position = tuple[str, Grain, date, str, str]  # metric, grain, start, unit, subject


class ValueOut(BaseModel):
    """A subject's number in a period; `value` is null when there is no data.

    `effective_target` is what is left of the target after proration and ramp, and what attainment
    is of. `expected` was to be reached by the days that are over, and pace is the value ÷ that.
    `required_per_day` is for each day that remains, today included. `seasonality_misfit` says that
    the goal's weights are left aside, as they don't fit the calendar any more.
    """

    subject: str
    metric: str
    period: str
    unit: str
    value: str | None
    count: int
    target: str | None
    effective_target: str | None
    attainment: str | None
    attainment_exact: str | None
    expected: str | None
    pace: str | None
    required_per_day: str | None
    seasonality_misfit: bool | None
    other_units: list[str]


class Number(BaseModel):
    """A folded number."""

    subject: str
    metric: str
    period: str
    unit: str
    value: str
    count: int


class Numbers(BaseModel):
    """A page of numbers; `pending` deltas are not in them yet."""

    pending: int
    rows: list[Number]
    next: str | None


def add(routes: APIRouter, parts: Parts) -> None:
    """GET /values and /values/all."""

    @routes.get("/values", response_model=ValueOut, responses=PROBLEMS)
    async def value(
        request: Request,
        principal: Annotated[Principal, Depends(parts.principal)],
        subject: SubjectText,
        metric: str,
        period: PeriodText,
        unit: UnitText = "",
    ) -> Response:
        """One number, exact at this instant, with its goal."""
        who = subject_of(subject)
        async with parts.database.transaction() as transaction:
            catalogue = await parts.context.catalogue_of(transaction, principal.tenant)
            found = metric_of(catalogue, metric)
            directory = await parts.context.directory_of(transaction, principal.tenant)
            when = period_of(parts, directory, period)
            require_number(principal, directory, found, who, when.asked_on)
            known = await parts.context.goals_of(transaction, principal.tenant)
            sums = await counters.exact(
                transaction,
                principal.tenant,
                metrics=catalogue.parts(metric),
                window=when.window,
                subject=who,
            )
            chosen = unit_of(directory, found, unit)
            middle: tuple[str, Fraction | None] | None = None
            if isinstance(found, Derived) and found.statistic is not None:
                base = metric_of(catalogue, found.statistic.median)
                assert isinstance(base, Base)
                entries = await parts.context.directory.load(transaction, principal.tenant)
                behind = wanted(principal.tenant, entries, base, when, who, unit=chosen)
                middle = base.id, await facts.median(transaction, behind)
        currency = chosen if found.unit == MONEY else directory.organisation.currency
        units = numbers.units(currency)
        of_unit = {s.metric: Part(s.value, s.count, s.unit) for s in sums if s.unit in units}
        if middle is not None and (whole := of_unit.get(middle[0])) is not None:
            of_unit[middle[0]] = Part(whole.value, whole.count, whole.unit, middle[1])
        targets = targets_of(
            catalogue,
            directory,
            known,
            metric=metric,
            subject=who,
            period=when.text,
            currency=currency,
        )
        number = numbers.number(found, of_unit, targets)
        body: dict[str, object] = {
            "subject": who,
            "metric": metric,
            "period": when.text,
            "unit": chosen,
            "value": None if number is None else numbers.text(number, chosen),
            "count": numbers.count(found, of_unit),
            "other_units": sorted({s.unit for s in sums} - set(units)),
        }
        goal = known.get((who, metric, when.text))
        if goal is not None and goal.unit == chosen:
            held = goals.standing(
                goal,
                directory,
                directory.calendar.local_day(parts.clock()),
                None if number is None else Fraction(number) / numbers.scale(chosen),
                adds_up=isinstance(found, Base),
            )
            body |= _beside(goal, held)
        else:
            body |= dict.fromkeys(_GOAL_FIELDS)
        return pages.tagged(request, body)

    @routes.get("/values/all", response_model=Numbers, responses=PROBLEMS)
    async def values(
        principal: Annotated[Principal, Depends(parts.principal)],
        metric: Annotated[str, Query(description="Only this base metric.")] = "",
        period: Annotated[str, Query(description="Only this period.")] = "",
        cursor: Cursor = "",
        limit: Limit = PAGE,
    ) -> Response:
        """All folded numbers of base metrics, by metric, period, unit and subject."""
        principal.require("ops")
        after = pages.place(cursor, Position)
        async with parts.database.transaction() as transaction:
            if metric:
                metric_of(await parts.context.catalogue_of(transaction, principal.tenant), metric)
            directory = await parts.context.directory_of(transaction, principal.tenant)
            kept = _kept(period_of(parts, directory, period)) if period else None
            pending = await counters.pending_count(transaction, principal.tenant)
            rows = await counters.counters(
                transaction,
                principal.tenant,
                metric=metric,
                period=kept,
                after=after,
                limit=limit,
            )
        last = rows[-1] if len(rows) == limit else None
        body = {
            "pending": pending,
            "rows": [
                {
                    "subject": row.subject,
                    "metric": row.metric,
                    "period": f"{row.grain}:{row.start.isoformat()}",
                    "unit": row.unit,
                    "value": numbers.text(row.value, row.unit),
                    "count": row.count,
                }
                for row in rows
            ],
            "next": last
            and pages.cursor([last.metric, last.grain, last.start, last.unit, last.subject]),
        }
        return json_response(body)


def _kept(period: Period) -> tuple[Grain, date]:
    """The period as counters have it, or 422."""
    if isinstance(period.grain, Range):
        detail = f"period {period.text!r}: no numbers are kept for ranges; ask for its days."
        raise Problem(422, "invalid-period", detail)
    return period.grain, period.start


_GOAL_FIELDS = (
    "target",
    "effective_target",
    "attainment",
    "attainment_exact",
    "expected",
    "pace",
    "required_per_day",
    "seasonality_misfit",
)


def _beside(goal: Goal, held: Standing) -> dict[str, str | bool | None]:
    """What an answer says of the goal that the number stands to."""
    each_day, share, unit = held.required_per_day, held.attainment, goal.unit
    return {
        "target": numbers.target_text(goal.target, unit),
        "effective_target": goals.amount_text(held.effective, unit),
        "attainment": numbers.share_text(share),
        "attainment_exact": None if share is None else _fraction_text(share),
        "expected": goals.amount_text(held.expected, unit),
        "pace": numbers.share_text(held.pace),
        "required_per_day": None if each_day is None else goals.amount_text(each_day, unit),
        "seasonality_misfit": held.misfit,
    }


def _fraction_text(share: Fraction) -> str:
    return f"{share.numerator}/{share.denominator}"
