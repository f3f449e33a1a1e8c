"""Numbers over time, by stage and by hour of the week: for charts and BI tools."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import date, timedelta
from fractions import Fraction
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from kit import pages
from kit.auth import Principal
from kit.http import Problem
from schemas.directory import Directory
from schemas.periods import Calendar, Grain
from services.metrics.api import exports
from services.metrics.api.parts import (
    FIRST_YEAR,
    LAST_YEAR,
    PROBLEMS,
    SUBJECTS,
    Parts,
    PeriodText,
    SubjectText,
    metric_of,
    period_of,
    require_number,
    subject_of,
    targets_of,
    unit_of,
    unknown_metric,
    wanted,
)
from services.metrics.domain import numbers
from services.metrics.domain.catalogue import MONEY, Base, Derived, Metric
from services.metrics.domain.credits import owners_of
from services.metrics.domain.numbers import Part
from services.metrics.store import counters, facts
from services.metrics.store.counters import Point

MAX_POINTS = 1_500  # four years of days
MAX_HEAT_DAYS = 400
STAGES = "stages_entered"
STAGE = "stage"


class SeriesIn(BaseModel):
    """Which series."""

    model_config = ConfigDict(extra="forbid")

    subject: str = Field(description=SUBJECTS)
    metric: str
    grain: Grain
    since: date = Field(alias="from", description="A day of the first period.")
    until: date = Field(alias="to", description="A day of the last period.")
    unit: str = Field(default="", description="A currency; the organisation's when left out.")
    format: Literal["json", "csv"] = Field(default="json", description="JSON, or a CSV file.")


class PointOut(BaseModel):
    """One period of a series; `value` is null when there is no data."""

    period: str
    start: str
    value: str | None
    count: int
    target: str | None


class SeriesOut(BaseModel):
    """A number period by period, without gaps."""

    subject: str
    metric: str
    unit: str
    points: list[PointOut]


class StepOut(BaseModel):
    """How many records entered a stage, and how many of those before came so far."""

    stage: str
    name: str
    count: int
    of_previous: str | None


class FunnelOut(BaseModel):
    """The stages that records entered in a period, the most entered first."""

    subject: str
    period: str
    steps: list[StepOut]


class HourOut(BaseModel):
    """Weekday 1 is Monday; the hour is local to the organisation."""

    weekday: int
    hour: int
    count: int


class HeatmapOut(BaseModel):
    """When things happened; hours without any are left out."""

    subject: str
    metric: str
    period: str
    zone: str
    hours: list[HourOut]


def add(routes: APIRouter, parts: Parts) -> None:
    """GET /series, /funnel and /heatmap."""
    _add_series(routes, parts)
    _add_funnel(routes, parts)
    _add_heatmap(routes, parts)


def _add_series(routes: APIRouter, parts: Parts) -> None:
    @routes.get("/series", response_model=SeriesOut, responses=PROBLEMS)
    async def series(
        request: Request,
        principal: Annotated[Principal, Depends(parts.principal)],
        asked: Annotated[SeriesIn, Query()],
    ) -> Response:
        """A number period by period, folded; with goals where there are any."""
        who, metric, grain = subject_of(asked.subject), asked.metric, asked.grain
        async with parts.database.transaction() as transaction:
            catalogue = await parts.context.catalogue_of(transaction, principal.tenant)
            found = metric_of(catalogue, metric)
            if isinstance(found, Derived) and found.statistic is not None:
                detail = f"{metric} is a median; ask GET /v1/values for that of one period."
                raise Problem(422, "derived-metric", detail)
            directory = await parts.context.directory_of(transaction, principal.tenant)
            starts = _starts(directory.calendar, grain, asked.since, asked.until)
            _require(principal, directory, found, who, starts)
            goals = await parts.context.goals_of(transaction, principal.tenant)
            points = await counters.series(
                transaction,
                principal.tenant,
                metrics=catalogue.parts(metric),
                grain=grain,
                start=starts[0],
                end=directory.calendar.end(grain, starts[-1]),
                subject=who,
            )
        chosen = unit_of(directory, found, asked.unit)
        currency = chosen if found.unit == MONEY else directory.organisation.currency
        of_period = _by_start(points, numbers.units(currency))
        shown = []
        for start in starts:
            period = directory.calendar.period(grain, start)
            goal = goals.get((who, metric, period))
            target = goal.target if goal is not None and goal.unit == chosen else None
            sums = of_period.get(start, {})
            targets = targets_of(
                catalogue,
                directory,
                goals,
                metric=metric,
                subject=who,
                period=period,
                currency=currency,
            )
            number = numbers.number(found, sums, targets)
            shown.append(
                {
                    "period": period,
                    "start": start.isoformat(),
                    "value": None if number is None else numbers.text(number, chosen),
                    "count": numbers.count(found, sums),
                    "target": None if target is None else numbers.target_text(target, chosen),
                }
            )
        if asked.format == "json":
            body = {"subject": who, "metric": metric, "unit": chosen, "points": shown}
            return pages.tagged(request, body)
        columns = ("period", "start", "value", "count", "target")

        async def rows() -> AsyncIterator[list[tuple[str, ...]]]:
            cells = ([row[name] for name in columns] for row in shown)
            yield [tuple("" if cell is None else str(cell) for cell in row) for row in cells]

        return exports.response(rows(), columns, name=f"{metric}-{who}-{grain}", kind="csv")


def _add_funnel(routes: APIRouter, parts: Parts) -> None:
    @routes.get("/funnel", response_model=FunnelOut, responses=PROBLEMS)
    async def funnel(
        request: Request,
        principal: Annotated[Principal, Depends(parts.principal)],
        subject: SubjectText,
        period: PeriodText,
    ) -> Response:
        """How many deals entered each stage in the period."""
        who = subject_of(subject)
        async with parts.database.transaction() as transaction:
            directory = await parts.context.directory_of(transaction, principal.tenant)
            when = period_of(parts, directory, period)
            catalogue = await parts.context.catalogue_of(transaction, principal.tenant)
            stages = catalogue.metrics.get(STAGES)
            if stages is None:
                raise unknown_metric(catalogue, STAGES)
            require_number(principal, directory, stages, who, when.asked_on)
            found = await counters.variants(
                transaction, principal.tenant, metric=STAGES, window=when.window, subject=who
            )
            names = await facts.names(transaction, principal.tenant, STAGE)
        return pages.tagged(
            request, {"subject": who, "period": when.text, "steps": _steps(found, names)}
        )


def _add_heatmap(routes: APIRouter, parts: Parts) -> None:
    @routes.get("/heatmap", response_model=HeatmapOut, responses=PROBLEMS)
    async def heatmap(
        request: Request,
        principal: Annotated[Principal, Depends(parts.principal)],
        subject: SubjectText,
        metric: str,
        period: PeriodText,
    ) -> Response:
        """On which weekdays and hours a person's or team's records of a metric fall."""
        who = subject_of(subject)
        kind, _, name = who.partition(":")
        if kind not in ("person", "team"):
            raise Problem(422, "invalid-subject", "A heat map is of a person:… or team:….")
        async with parts.database.transaction() as transaction:
            catalogue = await parts.context.catalogue_of(transaction, principal.tenant)
            found = metric_of(catalogue, metric)
            if not isinstance(found, Base):
                raise Problem(422, "derived-metric", f"{metric} is made from other metrics.")
            directory = await parts.context.directory_of(transaction, principal.tenant)
            when = period_of(parts, directory, period)
            if (when.end - when.start).days > MAX_HEAT_DAYS:
                raise Problem(422, "invalid-period", f"At most {MAX_HEAT_DAYS} days.")
            require_number(principal, directory, found, who, when.asked_on)
            entries = await parts.context.directory.load(transaction, principal.tenant)
            people = [name] if kind == "person" else _ever_in(directory, name, when.window)
            zone = directory.calendar.zone
            of_people = sorted({o for person in people for o in owners_of(entries, person)})
            behind = wanted(principal.tenant, entries, found, when, who, unit="")
            hours = await facts.hours(transaction, behind, of_people, zone=zone)
        body = {
            "subject": who,
            "metric": metric,
            "period": when.text,
            "zone": zone,
            "hours": [{"weekday": d, "hour": h, "count": n} for d, h, n in hours],
        }
        return pages.tagged(request, body)


def _starts(calendar: Calendar, grain: Grain, since: date, until: date) -> list[date]:
    """The first days of the periods from one day's to another's, or 422."""
    if until < since:
        raise Problem(422, "invalid-period", "`to` is before `from`.")
    if since.year < FIRST_YEAR or until.year > LAST_YEAR:
        detail = f"`from` and `to`: expected years from {FIRST_YEAR} to {LAST_YEAR}"
        raise Problem(422, "invalid-period", detail)
    start = calendar.start(grain, since)
    starts: list[date] = []
    while start <= until:
        starts.append(start)
        if len(starts) > MAX_POINTS:
            raise Problem(422, "too-many-points", f"At most {MAX_POINTS} periods at once.")
        start = calendar.end(grain, start)
    return starts


def _require(
    principal: Principal,
    directory: Directory,
    metric: Metric,
    subject: str,
    starts: Sequence[date],
) -> None:
    """Who sees a series may see it on its first day and on its last."""
    for day in {starts[0], starts[-1]}:
        require_number(principal, directory, metric, subject, day)


def _by_start(points: Sequence[Point], units: Collection[str]) -> dict[date, dict[str, Part]]:
    found: dict[date, dict[str, Part]] = {}
    for point in points:
        if point.unit in units:
            found.setdefault(point.start, {})[point.metric] = Part(
                point.value, point.count, point.unit
            )
    return found


def _steps(found: Sequence[counters.Sum], names: Mapping[str, str]) -> list[dict[str, object]]:
    """The most entered stage first: a deal enters a later one less often than those before."""
    called = {number.partition(":")[2]: name for number, name in names.items()}
    entered = [(row.metric.partition("@")[2], row.value) for row in found]
    entered.sort(key=lambda step: (-step[1], step[0]))
    steps: list[dict[str, object]] = []
    previous = 0
    for stage, count in entered:
        share = numbers.share_text(Fraction(count, previous)) if previous else None
        steps.append(
            {"stage": stage, "name": called.get(stage, stage), "count": count, "of_previous": share}
        )
        previous = count
    return steps


def _ever_in(directory: Directory, team: str, window: counters.Window) -> list[str]:
    """Whose work of some day within the window counts for the team or one below it."""
    below = [name for name in directory.teams if team in directory.teams_above(name)]
    found: set[str] = set()
    day = window.start
    stretches: set[int] = set()
    while day < window.end:
        if directory.stretch(day) not in stretches:
            stretches.add(directory.stretch(day))
            found.update(p for name in below for p in directory.members(name, day))
        day += timedelta(days=1)
    return sorted(found)
