"""What the routes work with, and how they read what was asked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction
from typing import Annotated, Any

from fastapi import Query

from kit.auth import Principal
from kit.clock import Clock
from kit.database import Database
from kit.http import Problem
from kit.publisher import Publisher
from schemas.base import valid_id
from schemas.directory import Directory, Entry
from schemas.money import UnknownCurrencyError, exponent
from schemas.periods import Grain, Range, parse
from schemas.spm import ORGANISATION, Goal
from services import access
from services.metrics.boards import Hub
from services.metrics.displays import Displays
from services.metrics.domain import goals, numbers
from services.metrics.domain.catalogue import MONEY, Base, Catalogue, Metric
from services.metrics.domain.credits import owners_of
from services.metrics.domain.leaderboard import Standings
from services.metrics.settings import Settings
from services.metrics.store.contests import Contests
from services.metrics.store.context import Context
from services.metrics.store.counters import Window
from services.metrics.store.facts import FIRST, Wanted
from services.metrics.store.forecasts import Forecasts
from services.metrics.store.leaderboards import Leaderboards

PAGE = 200
MAX_PAGE = 1_000
FIRST_YEAR, LAST_YEAR = 1980, 2199  # as in the catalogue: beyond is a typing mistake

SUBJECTS = "`person:<id>`, `team:<id>`, `territory:<id>`, `role:<name>` or `org:all`."
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Rows per page.")]
Cursor = Annotated[str, Query(description="`next` of the page before; left out for the first.")]
SubjectText = Annotated[str, Query(description=SUBJECTS)]
PeriodText = Annotated[
    str,
    Query(
        description="`grain:first day`, e.g. `month:2026-11-01`, or any days: "
        "`range:2026-11-01..2026-11-15`."
    ),
]
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
    database: Database
    publisher: Publisher
    context: Context
    leaderboards: Leaderboards
    contests: Contests
    forecasts: Forecasts
    hub: Hub[Standings]
    displays: Displays
    clock: Clock
    principal: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Period:
    """A period asked about; `asked_on` is the day whose hierarchy decides who may see it."""

    text: str
    grain: Grain | Range
    start: date
    end: date
    asked_on: date

    @property
    def window(self) -> Window:
        """Its days, and by which counters they are kept."""
        return Window(self.start, self.end, "" if isinstance(self.grain, Range) else self.grain)


def metric_of(catalogue: Catalogue, metric: str) -> Metric:
    """The catalogue's entry, or 404; `stages_entered@<stage>` is `stages_entered` of a stage."""
    found = catalogue.find(metric)
    if found is None:
        raise unknown_metric(catalogue, metric)
    return found


def unknown_metric(catalogue: Catalogue, metric: str) -> Problem:
    """404 that names those there are."""
    known = ", ".join(sorted(catalogue.metrics))
    return Problem(404, "unknown-metric", f"There is no metric {metric!r}; there are {known}.")


def subject_of(text: str) -> str:
    """The subject as given, or 422."""
    kind, _, name = text.partition(":")
    if text == ORGANISATION or (kind in ("person", "team", "territory") and valid_id(name)):
        return text
    if kind == "role" and name and "\0" not in name:  # the organisation's own words
        return text
    expected = "expected person:<id>, team:<id>, territory:<id>, role:<name> or org:all"
    raise Problem(422, "invalid-subject", f"subject {text!r}: {expected}")


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
    canonical = text if isinstance(grain, Range) else calendar.period(grain, start)
    if canonical != text:
        detail = f"period {text!r} doesn't start a {grain} here; {canonical} contains that day"
        raise Problem(422, "invalid-period", detail, expected=canonical)
    end = calendar.end(grain, start)
    today = calendar.local_day(parts.clock())
    return Period(text, grain, start, end, max(start, min(today, end - timedelta(days=1))))


def unit_of(directory: Directory, metric: Metric, unit: str) -> str:
    """The unit asked for, or the one that the metric has here; 422 when it can't have it."""
    if metric.unit != MONEY:
        known = numbers.unit_of(metric, "")
        if unit not in ("", known):
            detail = f"{metric.id} is measured in {known}, not {unit!r}"
            raise Problem(422, "invalid-unit", detail)
        return known
    return currency_of(directory, unit)


def currency_of(directory: Directory, unit: str) -> str:
    """The currency asked for, or the organisation's; 422 when there is none of that name."""
    currency = unit or directory.organisation.currency
    try:
        exponent(currency)
    except UnknownCurrencyError as error:
        raise Problem(422, "invalid-unit", str(error)) from error
    return currency


def wanted(
    tenant: str, entries: Sequence[Entry], metric: Base, when: Period, subject: str, *, unit: str
) -> Wanted:
    """The credits behind a number, from the first."""
    kind, _, name = subject.partition(":")
    return Wanted(
        tenant=tenant,
        record_type=metric.record,
        metric=metric.id,
        start=when.start,
        end=when.end,
        unit=unit,
        subject=subject,
        owners=owners_of(entries, name) if kind == "person" else None,
        after=FIRST,
        limit=MAX_PAGE,
    )


def targets_of(
    catalogue: Catalogue,
    directory: Directory,
    known: Mapping[tuple[str, str, str], Goal],
    *,
    metric: str,
    subject: str,
    period: str,
    currency: str,
) -> dict[str, Fraction]:
    """The effective goals of a subject and period that a metric is computed from."""
    return {
        name: goals.effective(goal, directory)
        for name in catalogue.targets(metric)
        if (goal := known.get((subject, name, period))) is not None
        and goal.unit == numbers.unit_of(metric_of(catalogue, name), currency)
    }


def require_visible(principal: Principal, metric: Metric, subject: str) -> None:
    """Raise 403 unless the metric is for them; everybody sees what is measured of themselves."""
    own = principal.person and subject == f"person:{principal.person}"
    if metric.visibility == "everyone" or own or principal.has("finance", "ops"):
        return
    if metric.visibility != "managers" or not principal.has("manager"):
        raise Problem(403, "forbidden", f"{metric.id} is for {metric.visibility}.")


def require_number(
    principal: Principal, directory: Directory, metric: Metric, subject: str, day: date
) -> None:
    """Raise 403 unless the metric of the subject may be seen: the one rule, and its visibility."""
    access.require_subject(principal, directory, subject, day)
    require_visible(principal, metric, subject)


def require_goal(
    principal: Principal,
    directory: Directory,
    catalogue: Catalogue,
    metric: str,
    subject: str,
    day: date,
) -> None:
    """Raise 403 unless goals for the metric may be seen: by those who may see its numbers.

    Those for a metric that is gone are for who sees everything.
    """
    found = catalogue.find(metric)
    if found is None:
        principal.require("finance", "ops")
    else:
        require_number(principal, directory, found, subject, day)


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
