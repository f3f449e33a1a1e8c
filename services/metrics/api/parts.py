"""What the routes work with, and how they read what was asked."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated, Any

from fastapi import Query

from kit.auth import Principal
from kit.clock import Clock
from kit.database import Database
from kit.http import Problem
from kit.publisher import Publisher
from schemas.base import valid_id
from schemas.directory import Directory
from schemas.money import UnknownCurrencyError, exponent
from schemas.periods import Grain, parse
from schemas.spm import ORGANISATION
from services.metrics.boards import Hub
from services.metrics.domain.catalogue import MONEY, Catalogue, Metric
from services.metrics.domain.leaderboard import Boards
from services.metrics.settings import Settings
from services.metrics.store.context import Context
from services.metrics.store.leaderboards import Leaderboards

PAGE = 200
MAX_PAGE = 1_000
FIRST_YEAR, LAST_YEAR = 1980, 2199  # as in the catalogue: beyond is a typing mistake

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Rows per page.")]
Cursor = Annotated[str, Query(description="`next` of the page before; left out for the first.")]
SubjectText = Annotated[str, Query(description="`person:<id>`, `team:<id>` or `org:all`.")]
PeriodText = Annotated[str, Query(description="`grain:first day`, e.g. `month:2026-11-01`.")]
UnitText = Annotated[str, Query(description="A currency; the organisation's when left out.")]

PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"description": "Not authenticated (problem+json)."},
    403: {"description": "Not visible with this role (problem+json)."},
    404: {"description": "No such thing (problem+json)."},
    422: {"description": "The request can't be understood; `detail` says why (problem+json)."},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the routes work with."""

    settings: Settings
    catalogue: Catalogue
    boards: Boards
    database: Database
    publisher: Publisher
    context: Context
    leaderboards: Leaderboards
    hub: Hub
    clock: Clock
    principal: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Period:
    """A period asked about; `asked_on` is the day whose hierarchy decides who may see it."""

    text: str
    grain: Grain
    start: date
    end: date
    asked_on: date


def metric_of(parts: Parts, metric: str) -> Metric:
    """The catalogue's entry, or 404."""
    found = parts.catalogue.metrics.get(metric)
    if found is None:
        known = ", ".join(sorted(parts.catalogue.metrics))
        raise Problem(404, "unknown-metric", f"There is no metric {metric!r}; there are {known}.")
    return found


def subject_of(text: str) -> str:
    """The subject as given, or 422."""
    kind, _, name = text.partition(":")
    if text == ORGANISATION or (kind in ("person", "team") and valid_id(name)):
        return text
    raise Problem(
        422, "invalid-subject", f"subject {text!r}: expected person:<id>, team:<id> or org:all"
    )


def period_of(parts: Parts, directory: Directory, text: str) -> Period:
    """The period as the organisation cuts time, or 422 that names the right one."""
    try:
        grain, start = parse(text)
    except ValueError as error:
        raise Problem(422, "invalid-period", str(error)) from error
    if not FIRST_YEAR <= start.year <= LAST_YEAR:
        detail = f"period {text!r}: expected a year from {FIRST_YEAR} to {LAST_YEAR}"
        raise Problem(422, "invalid-period", detail)
    calendar = directory.calendar
    canonical = calendar.period(grain, start)
    if canonical != text:
        detail = f"period {text!r} doesn't start a {grain} here; {canonical} contains that day"
        raise Problem(422, "invalid-period", detail, expected=canonical)
    end = calendar.end(grain, start)
    today = calendar.local_day(parts.clock())
    return Period(text, grain, start, end, max(start, min(today, end - timedelta(days=1))))


def unit_of(directory: Directory, metric: Metric, unit: str) -> str:
    """The unit asked for, or the one that the metric has here; 422 when it can't have it."""
    if metric.unit != MONEY:
        if unit not in ("", metric.unit):
            detail = f"{metric.id} is measured in {metric.unit}, not {unit!r}"
            raise Problem(422, "invalid-unit", detail)
        return metric.unit
    try:
        exponent(unit or directory.organisation.currency)
    except UnknownCurrencyError as error:
        raise Problem(422, "invalid-unit", str(error)) from error
    return unit or directory.organisation.currency


def require_records(principal: Principal, directory: Directory, subject: str, day: date) -> None:
    """Raise 403 unless the records behind a team's or the organisation's number may be seen."""
    kind, _, name = subject.partition(":")
    if kind == "person" or principal.has("finance", "ops"):
        return
    manager = principal.person if kind == "team" and principal.has("manager") else ""
    if manager and name in directory.managed_teams(manager, day):
        return
    raise Problem(
        403, "forbidden", "Records behind this number are for the managers of all its people."
    )
