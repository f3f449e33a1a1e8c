"""Numbers: one, and all of them."""

from datetime import date
from fractions import Fraction
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from kit import pages
from kit.auth import Principal
from kit.http import json_response
from schemas.periods import Grain
from services import access
from services.metrics.api.parts import (
    PAGE,
    PROBLEMS,
    Cursor,
    Limit,
    Parts,
    PeriodText,
    SubjectText,
    UnitText,
    metric_of,
    period_of,
    subject_of,
    unit_of,
)
from services.metrics.domain import numbers
from services.metrics.domain.catalogue import COUNT
from services.metrics.domain.numbers import Part
from services.metrics.store import counters

Position = tuple[str, Grain, date, str, str]  # metric, grain, start, unit, subject


class ValueOut(BaseModel):
    """A subject's number in a period; `value` is null when there is no data."""

    subject: str
    metric: str
    period: str
    unit: str
    value: str | None
    count: int
    target: str | None
    attainment: str | None
    attainment_exact: str | None
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


class MetricOut(BaseModel):
    """A metric of the catalogue; the last two only for derived ones."""

    id: str
    title: str
    level: str
    unit: str
    direction: str
    numerator: list[str] | None = None
    denominator: list[str] | None = None


def add(routes: APIRouter, parts: Parts) -> None:
    """GET /metrics, /values and /values/all."""

    @routes.get("/metrics", response_model=dict[str, list[MetricOut]], responses=PROBLEMS)
    async def metrics(_: Annotated[Principal, Depends(parts.principal)]) -> Response:
        """What is measured here."""
        names = ("id", "title", "level", "unit", "direction", "numerator", "denominator")
        listed = [
            {name: getattr(metric, name) for name in names if hasattr(metric, name)}
            for metric in parts.catalogue.metrics.values()
        ]
        return json_response({"metrics": listed})

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
        found, who = metric_of(parts, metric), subject_of(subject)
        async with parts.database.transaction() as transaction:
            directory = await parts.context.directory_of(transaction, principal.tenant)
            when = period_of(parts, directory, period)
            access.require_subject(principal, directory, who, when.asked_on)
            goals = await parts.context.goals_of(transaction, principal.tenant)
            sums = await counters.exact(
                transaction,
                principal.tenant,
                metrics=parts.catalogue.parts(metric),
                grain=when.grain,
                start=when.start,
                end=when.end,
                subject=who,
            )
        chosen = unit_of(directory, found, unit)
        goal = goals.get((who, metric, when.text))
        target = goal.target if goal is not None and goal.unit == chosen else None
        of_unit = {s.metric: Part(s.value, s.count) for s in sums if s.unit in (chosen, COUNT)}
        number = numbers.number(found, of_unit)
        share = numbers.attainment(number, target, chosen)
        body = {
            "subject": who,
            "metric": metric,
            "period": when.text,
            "unit": chosen,
            "value": None if number is None else numbers.text(number, chosen),
            "count": numbers.count(found, of_unit),
            "target": None if target is None else numbers.target_text(target, chosen),
            "attainment": numbers.share_text(share),
            "attainment_exact": None if share is None else _fraction_text(share),
            "other_units": sorted({s.unit for s in sums} - {chosen, COUNT}),
        }
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
        if metric:
            metric_of(parts, metric)
        after = pages.place(cursor, Position)
        async with parts.database.transaction() as transaction:
            directory = await parts.context.directory_of(transaction, principal.tenant)
            when = period_of(parts, directory, period) if period else None
            pending = await counters.pending_count(transaction, principal.tenant)
            rows = await counters.counters(
                transaction,
                principal.tenant,
                metric=metric,
                period=(when.grain, when.start) if when else None,
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


def _fraction_text(share: Fraction) -> str:
    return f"{share.numerator}/{share.denominator}"
