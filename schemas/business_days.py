"""Business days: which days a region works, and how many days of a period have elapsed.

A region is an ISO 3166 code: a country such as `US`, or a part of one such as `US-CA` or `DE-BY`.
Its public holidays, and the days off instead of those on a weekend, are those that the library
`holidays` knows; days off and on that an organisation adds overrule them.
"""

import re
import warnings
from collections.abc import Collection, Mapping
from datetime import date, timedelta
from functools import lru_cache
from itertools import accumulate

_REGION = re.compile(r"([A-Z]{2})(?:-([A-Z0-9]{1,3}))?")


class UnknownRegionError(ValueError):
    """Nobody knows this region's holidays; the message says what to write instead."""


def check_region(region: str) -> None:
    """Raise `UnknownRegionError` unless the region's public holidays are known."""
    _holidays(region, None)


@lru_cache(maxsize=4096)
def public_holidays(region: str, year: int) -> frozenset[date]:
    """The region's public holidays of a year; none where they aren't known."""
    try:
        return _holidays(region, year)
    except UnknownRegionError:  # was refused when written, but the library may have dropped it
        return frozenset()


def _holidays(region: str, year: int | None) -> frozenset[date]:
    # Takes half a second and 25 MB, which whoever has no region needn't spend.
    import holidays  # noqa: PLC0415

    code = _REGION.fullmatch(region)
    if code is None:
        raise UnknownRegionError(f"region {region!r} is not a code such as US, US-CA or DE-BY")
    country, part = code.groups()
    try:
        known = holidays.country_holidays(country)
    except NotImplementedError:
        known = None
    if known is None or known.country != country:  # the library also takes names such as UK
        raise UnknownRegionError(f"region {region!r}: {country} is no country code of ISO 3166")
    if part and part not in known.subdivisions:
        parts = [name for name in known.subdivisions if _REGION.fullmatch(f"{country}-{name}")]
        expected = f"{country}, or with one of {', '.join(parts)}" if parts else country
        raise UnknownRegionError(f"region {region!r} has no known holidays; expected {expected}")
    if year is None or not known.start_year <= year <= known.end_year:
        return frozenset()
    with warnings.catch_warnings():  # of single holidays that it knows for fewer years
        warnings.simplefilter("ignore")
        return frozenset(holidays.country_holidays(country, subdiv=part, years=year))


class BusinessDays:
    """The business days of one region: some weekdays, without holidays.

    `own` says of single days whether they are worked, whatever day it is otherwise. Years are
    counted through once, so that any later question costs next to nothing.
    """

    def __init__(self, weekdays: Collection[int], region: str, own: Mapping[date, bool]) -> None:
        self._weekdays = frozenset(weekdays)
        self._region = region
        self._own = own
        self._years: dict[int, list[int]] = {}

    def __contains__(self, day: date) -> bool:
        return bool(self.count(day, day + timedelta(days=1)))

    def count(self, start: date, end: date) -> int:
        """How many there are from `start` on, before `end`; none when that isn't later."""
        if end <= start:
            return 0
        whole_years = sum(self._before(year)[-1] for year in range(start.year, end.year))
        return whole_years + self._so_far(end) - self._so_far(start)

    def _so_far(self, day: date) -> int:
        return self._before(day.year)[day.toordinal() - date(day.year, 1, 1).toordinal()]

    def _before(self, year: int) -> list[int]:
        """How many days are worked before each day of the year, and in all of it."""
        found = self._years.get(year)
        if found is None:
            holidays = public_holidays(self._region, year) if self._region else frozenset()
            first, last = date(year, 1, 1).toordinal(), date(year, 12, 31).toordinal()
            days = map(date.fromordinal, range(first, last + 1))
            worked = (
                self._own.get(day, day.weekday() in self._weekdays and day not in holidays)
                for day in days
            )
            found = self._years[year] = list(accumulate(worked, initial=0))
        return found


def calendar_days(start: date, end: date) -> int:
    """How many days there are from `start` on, before `end`; none when that isn't later."""
    return max(0, (end - start).days)
