"""Which days a board is about, and which stored periods add up to them."""

from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.periods import Calendar, Grain
from services.metrics.domain import windows
from services.metrics.domain.windows import Window

PLAIN = Calendar()
RETAIL = Calendar(week_start=6, fiscal_year_start=2, pattern="454", year_end="nearest")
TODAY = date(2026, 11, 4)  # a Wednesday

calendars = st.sampled_from(
    [PLAIN, RETAIL, Calendar(fiscal_year_start=4), Calendar(week_start=6, pattern="445")]
)
days = st.dates(date(2020, 1, 1), date(2028, 12, 31))


@given(calendars, days, st.integers(1, 500))
def test_a_cover_is_every_day_once(calendar: Calendar, start: date, length: int) -> None:
    end = start + timedelta(days=length)
    pieces = windows.cover(calendar, start, end)
    limits = [(first, calendar.end(grain, first)) for grain, first in pieces]

    assert limits[0][0] == start
    assert limits[-1][1] == end
    assert all(a[1] == b[0] for a, b in pairwise(limits))
    assert all(calendar.start(grain, first) == first for grain, first in pieces)
    assert len(pieces) <= 30


def test_a_cover_takes_few_periods() -> None:
    assert windows.cover(PLAIN, date(2026, 1, 1), date(2027, 1, 1)) == (("year", date(2026, 1, 1)),)
    assert windows.cover(PLAIN, date(2026, 10, 31), date(2026, 12, 2)) == (
        ("day", date(2026, 10, 31)),
        ("month", date(2026, 11, 1)),
        ("day", date(2026, 12, 1)),
    )


def test_windows_are_written_as_periods_are() -> None:
    assert windows.period(PLAIN, "month", TODAY).text == "month:2026-11-01"
    assert windows.rolling(TODAY, 7).text == "range:2026-10-29..2026-11-04"


@pytest.mark.parametrize(
    ("grain", "over", "text"),
    [
        ("month", "previous", "month:2026-10-01"),
        ("month", "last_year", "month:2025-11-01"),
        ("quarter", "last_year", "quarter:2025-10-01"),
        ("year", "last_year", "year:2025-01-01"),
        ("year", "previous", "year:2025-01-01"),
        ("week", "last_year", "week:2025-11-03"),
        ("day", "last_year", "day:2025-11-05"),
    ],
)
def test_the_own_past_of_a_period(grain: Grain, over: windows.Over, text: str) -> None:
    past = windows.earlier(PLAIN, windows.period(PLAIN, grain, TODAY), over)

    assert past is not None
    assert past.text == text


def test_the_own_past_of_a_stretch_of_days() -> None:
    week = Window(date(2026, 10, 29), date(2026, 11, 5))

    assert windows.earlier(PLAIN, week, "previous") == Window(date(2026, 10, 22), week.start)
    assert windows.earlier(PLAIN, week, "last_year") == Window(
        date(2025, 10, 30), date(2025, 11, 6)
    )


@given(calendars, days, st.sampled_from(["month", "quarter", "half", "year"]))
def test_last_years_period_has_the_same_number_in_its_year(
    calendar: Calendar, day: date, grain: Grain
) -> None:
    now = windows.period(calendar, grain, day)
    past = windows.earlier(calendar, now, "last_year")

    assert past is not None
    assert past == windows.period(calendar, grain, past.start)
    assert 357 <= (now.start - past.start).days <= 371


def test_a_past_is_compared_up_to_the_same_day() -> None:
    november, october = (windows.period(PLAIN, "month", date(2026, m, 1)) for m in (11, 10))

    assert windows.to_date(november, october, 4) == Window(date(2026, 10, 1), date(2026, 10, 5))
    assert windows.to_date(november, october, 30) == october  # over: all of it, its 31st too
    assert windows.to_date(november, october, 0).start == windows.to_date(november, october, 0).end


def test_places_are_taken_down_at_the_beginning_of_a_day() -> None:
    assert windows.snapshot(PLAIN, "day", TODAY) == TODAY
    assert windows.snapshot(PLAIN, "yesterday", TODAY) == date(2026, 11, 3)
    assert windows.snapshot(PLAIN, "week", TODAY) == date(2026, 11, 2)
