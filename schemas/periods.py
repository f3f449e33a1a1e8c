"""Periods: the days, weeks, months, quarters, halves and years that numbers are kept for.

A period is written `grain:first day`, e.g. `month:2026-11-01`, and means the half-open range of the
organisation's local days from its first day to the first day of the next one. Any other stretch of
days is a range, `range:2026-11-01..2026-11-15` with both days in it: nothing is kept for it, its
numbers are computed from those of its days.

Months are the calendar's, or those of a year of 52 or 53 whole weeks in which every quarter has
three months of 4, 4 and 5 weeks (or 4-5-4, or 5-4-4); week 53 belongs to the year's last month.
"""

from bisect import bisect_right
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import accumulate
from typing import Literal, get_args
from zoneinfo import ZoneInfo

Grain = Literal["day", "week", "month", "quarter", "half", "year"]
Pattern = Literal["gregorian", "445", "454", "544"]
YearEnd = Literal["last", "nearest"]

GRAINS: tuple[Grain, ...] = get_args(Grain)
MAX_RANGE_DAYS = 3660  # ten years: a range is added up from its days whenever somebody asks

_DAY = timedelta(days=1)
_WEEK = timedelta(days=7)
_MONTHS = {"month": 1, "quarter": 3, "half": 6, "year": 12}
_WEEKS = {"445": (4, 4, 5), "454": (4, 5, 4), "544": (5, 4, 4)}  # of the months of a quarter


@dataclass(frozen=True, slots=True)
class Range:
    """What stands for the grain of a range: how many days it has; it may begin on any."""

    days: int


@dataclass(frozen=True, slots=True)
class Calendar:
    """How an organisation cuts time: its zone, first weekday (0 = Monday) and fiscal year.

    A year of whole weeks (any `pattern` but gregorian) ends with the `last` week that ends before
    the month `fiscal_year_start`, or with the one whose end is `nearest` to that month's beginning.
    """

    zone: str = "UTC"
    week_start: int = 0
    fiscal_year_start: int = 1  # month
    pattern: Pattern = "gregorian"
    year_end: YearEnd = "last"

    def local_day(self, instant: datetime) -> date:
        """The organisation's local day of an instant; a day is local, DST included."""
        return instant.astimezone(ZoneInfo(self.zone)).date()

    def start(self, grain: Grain, day: date) -> date:
        """The first day of the period of this grain that contains `day`."""
        if grain == "day":
            return day
        if grain == "week":
            return day - timedelta(days=(day.weekday() - self.week_start) % 7)
        months = self._year_of(day)
        index = bisect_right(months, day) - 1
        return months[index - index % _MONTHS[grain]]

    def end(self, grain: Grain | Range, start: date) -> date:
        """The first day after the period that begins on `start`."""
        if isinstance(grain, Range):
            return start + timedelta(days=grain.days)
        if grain == "day":
            return start + _DAY
        if grain == "week":
            return start + _WEEK
        months = self._year_of(start)
        index = bisect_right(months, start) - 1
        return months[index - index % _MONTHS[grain] + _MONTHS[grain]]

    def period(self, grain: Grain, day: date) -> str:
        """The written form of the period of this grain that contains `day`."""
        return written(grain, self.start(grain, day))

    def _year_of(self, day: date) -> tuple[date, ...]:
        """The first days of the months of the year that contains `day`, and of the next year."""
        later = day + _WEEK  # a year of weeks begins up to six days before its month
        year = later.year - (later.month < self.fiscal_year_start)
        months = _year(self, year)
        return months if months[0] <= day else _year(self, year - 1)


@lru_cache(maxsize=4096)
def _year(calendar: Calendar, year: int) -> tuple[date, ...]:
    """The first days of a year's months, and of the next year.

    `year` is that of the first of the month that it begins in, or next to.
    """
    first = calendar.fiscal_year_start
    if calendar.pattern == "gregorian":
        return tuple(_first_of(year, first + n) for n in range(13))
    slack = timedelta(days=3 if calendar.year_end == "nearest" else 0)
    begin, following = (
        calendar.start("week", _first_of(y, first) + slack) for y in (year, year + 1)
    )
    weeks = accumulate(_WEEKS[calendar.pattern] * 4)  # at the end of each month, but for week 53
    return (begin, *[begin + n * _WEEK for n in weeks][:-1], following)


def _first_of(year: int, month: int) -> date:
    """The first day of a month; the 13th month is January of the next year."""
    return date(year + (month - 1) // 12, (month - 1) % 12 + 1, 1)


def written(grain: Grain | Range, start: date) -> str:
    """`("month", date(2026, 11, 1))` → `"month:2026-11-01"`."""
    if isinstance(grain, Range):
        return f"range:{start}..{start + timedelta(days=grain.days - 1)}"
    return f"{grain}:{start}"


def parse(period: str) -> tuple[Grain | Range, date]:
    """The inverse of `written`; raises ValueError that says what a period looks like."""
    grain, _, days = period.partition(":")
    if grain == "range":
        return _range(period, *days.partition("..")[::2])
    if grain not in GRAINS:
        known = ", ".join(GRAINS)
        raise ValueError(f"period {period!r}: expected one of {known}, range before the colon")
    start = _day(days)
    if start is None:
        raise ValueError(f"period {period!r}: expected {grain}:YYYY-MM-DD")
    return grain, start


def _range(period: str, first: str, last: str) -> tuple[Range, date]:
    start, end = _day(first), _day(last)
    if start is None or end is None:
        raise ValueError(f"period {period!r}: expected range:YYYY-MM-DD..YYYY-MM-DD")
    days = (end - start).days + 1
    if days < 1:
        raise ValueError(f"period {period!r}: it ends before it begins; swap the two days")
    if days > MAX_RANGE_DAYS:
        raise ValueError(f"period {period!r}: it has {days} days; at most {MAX_RANGE_DAYS} can be")
    return Range(days), start


def _day(text: str) -> date | None:
    """The day, only as `written` writes it: a period is part of keys, and has one form."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if day.isoformat() == text else None
