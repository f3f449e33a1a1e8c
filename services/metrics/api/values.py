"""Numbers: one, a subject's, those of several subjects, and all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from kit import pages
from kit.auth import Principal
from kit.database import Transaction
from kit.http import Problem, json_response
from kit.replica import Replica
from schemas.directory import Directory, Entry
from schemas.periods import Grain, Range
from schemas.spm import Goal
from services import access
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
    currency_of,
    metric_of,
    period_of,
    require_number,
    subject_of,
    targets_of,
    unit_of,
    wanted,
)
from services.metrics.domain import goals, numbers, ranking
from services.metrics.domain.catalogue import MONEY, Base, Catalogue, Derived, Metric
from services.metrics.domain.goals import Standing
from services.metrics.domain.numbers import Part
from services.metrics.store import counters, facts
from services.metrics.store.counters import SubjectSum

MAX_METRICS = 100  # in one question; a whole catalogue is asked for without naming any
MAX_SUBJECTS = 100
MetricsQuery = Query(
    max_length=MAX_METRICS,
    description="Repeated for each; left out for all that are a number by themselves.",
)
SubjectsQuery = Query(min_length=1, max_length=MAX_SUBJECTS, description="Repeated for each.")

Asked = tuple[str, Metric, str]  # subject, metric, unit
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


class WithheldOut(BaseModel):
    """A metric that isn't the reader's to see, and why."""

    metric: str
    reason: str


class ValuesOut(BaseModel):
    """A subject's numbers, in the order of the question or of the catalogue."""

    subject: str
    period: str
    values: list[ValueOut]
    withheld: list[WithheldOut]


class HiddenOut(BaseModel):
    """A subject whose number isn't the reader's to see, and why."""

    subject: str
    reason: str


class EachOut(BaseModel):
    """A metric of several subjects, in the order of the question."""

    metric: str
    period: str
    values: list[ValueOut]
    withheld: list[HiddenOut]


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
    """GET /values, /values/of, /values/each and /values/all."""

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
            reading = await _reading(parts, transaction, principal, period)
            found = metric_of(reading.catalogue, metric)
            require_number(principal, reading.directory, found, who, reading.when.asked_on)
            chosen = unit_of(reading.directory, found, unit)
            (body,) = await reading.values(
                transaction, parts.context.directory, [(who, found, chosen)]
            )
        return pages.tagged(request, body)

    @routes.get("/values/of", response_model=ValuesOut, responses=PROBLEMS)
    async def values_of(
        request: Request,
        principal: Annotated[Principal, Depends(parts.principal)],
        subject: SubjectText,
        period: PeriodText,
        metric: Annotated[list[str] | None, MetricsQuery] = None,
        unit: UnitText = "",
    ) -> Response:
        """A subject's numbers of a period, all of the same instant, each as `GET /values` has it.

        `unit` is for those in money. Metrics that aren't the reader's to see are `withheld`.
        """
        who = subject_of(subject)
        async with parts.database.transaction(snapshot=True) as transaction:
            reading = await _reading(parts, transaction, principal, period)
            access.require_subject(principal, reading.directory, who, reading.when.asked_on)
            currency = currency_of(reading.directory, unit)
            asked = [
                (
                    who,
                    each,
                    unit_of(reading.directory, each, currency if each.unit == MONEY else ""),
                )
                for each in _asked(reading.catalogue, metric)
            ]
            visible, withheld = _parted(principal, reading, asked)
            shown = await reading.values(transaction, parts.context.directory, visible)
        body = {
            "subject": who,
            "period": reading.when.text,
            "values": shown,
            "withheld": [{"metric": each.id, "reason": why} for _, each, why in withheld],
        }
        return pages.tagged(request, body)

    @routes.get("/values/each", response_model=EachOut, responses=PROBLEMS)
    async def values_of_each(
        request: Request,
        principal: Annotated[Principal, Depends(parts.principal)],
        subject: Annotated[list[str], SubjectsQuery],
        metric: str,
        period: PeriodText,
        unit: UnitText = "",
    ) -> Response:
        """A metric of several subjects, all of the same instant, each as `GET /values` has it.

        Those whose numbers aren't the reader's to see are `withheld`.
        """
        asked = [subject_of(each) for each in dict.fromkeys(subject)]
        async with parts.database.transaction(snapshot=True) as transaction:
            reading = await _reading(parts, transaction, principal, period)
            found = metric_of(reading.catalogue, metric)
            chosen = unit_of(reading.directory, found, unit)
            visible, withheld = _parted(principal, reading, [(w, found, chosen) for w in asked])
            shown = await reading.values(transaction, parts.context.directory, visible)
        body = {
            "metric": metric,
            "period": reading.when.text,
            "values": shown,
            "withheld": [{"subject": who, "reason": why} for who, _, why in withheld],
        }
        return pages.tagged(request, body)

    _add_all(routes, parts)


def _add_all(routes: APIRouter, parts: Parts) -> None:
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
            pending = (await counters.instant(transaction, principal.tenant)).pending
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """What the numbers of a period are read by."""

    tenant: str
    when: Period
    today: date
    catalogue: Catalogue
    directory: Directory
    goals: Mapping[tuple[str, str, str], Goal]

    async def values(
        self,
        transaction: Transaction,
        replica: Replica[Entry],
        asked: Sequence[Asked],
    ) -> list[dict[str, object]]:
        """Numbers by subject, metric and unit: one query for all sums, one for each median."""
        names = {name for _, metric, _ in asked for name in self.catalogue.parts(metric.id)}
        sums: dict[tuple[str, str], list[SubjectSum]] = {}
        for each in await counters.exact(
            transaction,
            self.tenant,
            metrics=sorted(names),
            window=self.when.window,
            subjects=sorted({who for who, _, _ in asked}),
        ):
            sums.setdefault((each.subject, each.metric), []).append(each)
        medians = any(isinstance(m, Derived) and m.statistic is not None for _, m, _ in asked)
        entries = await replica.load(transaction, self.tenant) if medians else []
        found = []
        for who, metric, unit in asked:
            behind = [s for n in self.catalogue.parts(metric.id) for s in sums.get((who, n), ())]
            found.append(await self._value(transaction, entries, who, metric, unit, behind))
        return found

    async def _value(
        self,
        transaction: Transaction,
        entries: Sequence[Entry],
        who: str,
        metric: Metric,
        unit: str,
        found: Sequence[SubjectSum],
    ) -> dict[str, object]:
        currency = unit if metric.unit == MONEY else self.directory.organisation.currency
        units = numbers.units(currency)
        of_unit = {s.metric: Part(s.value, s.count, s.unit) for s in found if s.unit in units}
        if isinstance(metric, Derived) and metric.statistic is not None:
            base = metric_of(self.catalogue, metric.statistic.median)
            if (whole := of_unit.get(base.id)) is not None:
                assert isinstance(base, Base)
                behind = wanted(self.tenant, entries, base, self.when, who, unit=unit)
                middle = await facts.median(transaction, behind)
                of_unit[base.id] = msgspec.structs.replace(whole, median=middle)
        targets = targets_of(
            self.catalogue,
            self.directory,
            self.goals,
            metric=metric.id,
            subject=who,
            period=self.when.text,
            currency=currency,
        )
        number = numbers.number(metric, of_unit, targets)
        body: dict[str, object] = {
            "subject": who,
            "metric": metric.id,
            "period": self.when.text,
            "unit": unit,
            "value": None if number is None else numbers.text(number, unit),
            "count": numbers.count(metric, of_unit),
            "other_units": sorted({s.unit for s in found} - set(units)),
        }
        return body | self._goal(who, metric, unit, number)

    def _goal(
        self, who: str, metric: Metric, unit: str, number: ranking.Number | None
    ) -> dict[str, object]:
        """What is said of the goal that the number stands to, if there is one."""
        goal = self.goals.get((who, metric.id, self.when.text))
        if goal is None or goal.unit != unit:
            return dict.fromkeys(_GOAL_FIELDS)
        held = goals.standing(
            goal,
            self.directory,
            self.today,
            None if number is None else Fraction(number) / numbers.scale(unit),
            adds_up=isinstance(metric, Base),
        )
        return _beside(goal, held)


async def _reading(
    parts: Parts, transaction: Transaction, principal: Principal, period: str
) -> _Reading:
    """What the principal's organisation reads numbers by; 422 when it has no such period."""
    context, tenant = parts.context, principal.tenant
    directory = await context.directory_of(transaction, tenant)
    return _Reading(
        tenant=tenant,
        when=period_of(parts, directory, period),
        today=directory.calendar.local_day(parts.clock()),
        catalogue=await context.catalogue_of(transaction, tenant),
        directory=directory,
        goals=await context.goals_of(transaction, tenant),
    )


def _parted(
    principal: Principal, reading: _Reading, asked: Sequence[Asked]
) -> tuple[list[Asked], list[tuple[str, Metric, str]]]:
    """Which numbers are the principal's to see; and which aren't, with the reasons."""
    visible, withheld = [], []
    for who, metric, unit in asked:
        try:
            require_number(principal, reading.directory, metric, who, reading.when.asked_on)
        except Problem as problem:
            withheld.append((who, metric, problem.detail))
        else:
            visible.append((who, metric, unit))
    return visible, withheld


def _asked(catalogue: Catalogue, names: Sequence[str] | None) -> list[Metric]:
    """The metrics named, each once; without names all that are a number by themselves."""
    if names:
        return [metric_of(catalogue, name) for name in dict.fromkeys(names)]
    alone: list[Metric] = [each for each in catalogue.base.values() if not each.part_only]
    return [each for each in (*alone, *catalogue.derived.values()) if each.for_each is None]


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


def _beside(goal: Goal, held: Standing) -> dict[str, object]:
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
