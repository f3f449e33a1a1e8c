"""Periods: the days, weeks, months, quarters and years that numbers are kept for.

A period is written `grain:first day`, e.g. `month:2026-11-01`, and means the half-open range of the
organisation's local days from its first day to the first day of the next one.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal, get_args
from zoneinfo import ZoneInfo

Grain = Literal["day", "week", "month", "quarter", "year"]
GRAINS: tuple[Grain, ...] = get_args(Grain)


@dataclass(frozen=True, slots=True)
class Calendar:
    """How an organisation cuts time: its zone, first weekday (0 = Monday) and fiscal year start."""

    zone: str = "UTC"
    week_start: int = 0
    fiscal_year_start: int = 1  # month

    def local_day(self, instant: datetime) -> date:
        """The organisation's local day of an instant; a day is local, DST included."""
        return instant.astimezone(ZoneInfo(self.zone)).date()

    def start(self, grain: Grain, day: date) -> date:
        """The first day of the period of this grain that contains `day`."""
        if grain == "day":
            return day
        if grain == "week":
            return day - timedelta(days=(day.weekday() - self.week_start) % 7)
        if grain == "month":
            return day.replace(day=1)
        months_in = (day.month - self.fiscal_year_start) % 12
        back = months_in % 3 if grain == "quarter" else months_in
        return _add_months(day.replace(day=1), -back)

    def end(self, grain: Grain, start: date) -> date:
        """The first day after the period that begins on `start`."""
        if grain == "day":
            return start + timedelta(days=1)
        if grain == "week":
            return start + timedelta(days=7)
        return _add_months(start, {"month": 1, "quarter": 3, "year": 12}[grain])

    def period(self, grain: Grain, day: date) -> str:
        """The written form of the period of this grain that contains `day`."""
        return written(grain, self.start(grain, day))


def written(grain: Grain, start: date) -> str:
    """`("month", date(2026, 11, 1))` → `"month:2026-11-01"`."""
    return f"{grain}:{start.isoformat()}"


def parse(period: str) -> tuple[Grain, date]:
    """The inverse of `written`; raises ValueError that says what a period looks like."""
    grain, _, start = period.partition(":")
    if grain not in GRAINS:
        raise ValueError(f"period {period!r}: expected one of {', '.join(GRAINS)} before the colon")
    try:
        return grain, date.fromisoformat(start)
    except ValueError:
        raise ValueError(f"period {period!r}: expected grain:YYYY-MM-DD") from None


def _add_months(first: date, months: int) -> date:
    index = first.year * 12 + first.month - 1 + months
    return date(index // 12, index % 12 + 1, 1)
