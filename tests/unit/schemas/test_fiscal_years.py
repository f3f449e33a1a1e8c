"""Years of whole weeks, as published and by their laws."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.periods import Calendar

WEEK = timedelta(days=7)
SUNDAY = 6

# The National Retail Federation's 4-5-4 calendar: Sunday to Saturday, ending nearest to 31 January.
RETAIL = Calendar(week_start=SUNDAY, fiscal_year_start=2, pattern="454", year_end="nearest")

calendars = st.builds(
    Calendar,
    zone=st.just("UTC"),
    week_start=st.integers(0, 6),
    fiscal_year_start=st.integers(1, 12),
    pattern=st.sampled_from(["445", "454", "544"]),
    year_end=st.sampled_from(["last", "nearest"]),
)
days = st.dates(date(1980, 1, 1), date(2199, 12, 31))


def weeks(calendar: Calendar, day: date) -> list[int]:
    """How many weeks each month of the year has."""
    start = calendar.start("year", day)
    end, found = calendar.end("year", start), []
    while start < end:
        following = calendar.end("month", start)
        assert (following - start) % WEEK == timedelta()
        found.append((following - start) // WEEK)
        start = following
    return found


@pytest.mark.parametrize(
    ("begins", "ends", "length"),
    [
        (date(2022, 1, 30), date(2023, 1, 28), 52),
        (date(2023, 1, 29), date(2024, 2, 3), 53),
        (date(2024, 2, 4), date(2025, 2, 1), 52),
    ],
)
def test_retail_years_are_the_published_ones(begins: date, ends: date, length: int) -> None:
    following = ends + timedelta(days=1)

    for day in (begins, begins + 26 * WEEK, ends):
        assert RETAIL.start("year", day) == begins
    assert RETAIL.end("year", begins) == following
    assert following - begins == length * WEEK
    assert RETAIL.period("month", begins) == f"month:{begins}"


def test_retail_years_with_a_53rd_week_are_the_published_ones() -> None:
    long = [y for y in range(2004, 2029) if sum(weeks(RETAIL, date(y, 7, 1))) == 53]

    assert long == [2006, 2012, 2017, 2023, 2028]


def test_a_retail_october_is_the_published_one() -> None:
    for day in (date(2015, 10, 4), date(2015, 10, 31)):
        assert RETAIL.period("month", day) == "month:2015-10-04"
    assert RETAIL.end("month", date(2015, 10, 4)) == date(2015, 11, 1)


def test_the_53rd_week_belongs_to_the_last_month_quarter_and_half() -> None:
    last_day = date(2024, 2, 3)

    assert weeks(RETAIL, last_day) == [4, 5, 4] * 3 + [4, 5, 5]
    assert RETAIL.period("month", last_day) == "month:2023-12-31"
    assert RETAIL.period("quarter", last_day) == "quarter:2023-10-29"
    assert RETAIL.period("half", last_day) == "half:2023-07-30"
    assert RETAIL.period("week", last_day) == "week:2024-01-28"


def test_a_year_may_end_with_the_last_week_of_a_month() -> None:
    """The last Thursday of June: quarters ended 28 September and 28 December 2023."""
    calendar = Calendar(week_start=4, fiscal_year_start=7, pattern="445")

    assert calendar.start("year", date(2023, 9, 28)) == date(2023, 6, 30)
    assert calendar.end("quarter", date(2023, 6, 30)) == date(2023, 9, 29)
    assert calendar.end("half", date(2023, 6, 30)) == date(2023, 12, 29)


def test_a_year_may_begin_after_the_month_that_it_is_nearest_to() -> None:
    """The Saturday nearest to the end of June, in 2022 the second of July."""
    calendar = Calendar(week_start=SUNDAY, fiscal_year_start=7, pattern="445", year_end="nearest")

    assert calendar.start("year", date(2022, 7, 2)) == date(2021, 7, 4)
    assert calendar.start("year", date(2022, 7, 3)) == date(2022, 7, 3)
    assert calendar.end("quarter", date(2023, 1, 1)) == date(2023, 4, 2)


@given(calendars, days)
def test_a_year_has_52_or_53_weeks_in_the_patterns_months(calendar: Calendar, day: date) -> None:
    pattern = [int(n) for n in calendar.pattern] * 4
    found = weeks(calendar, day)

    assert found in (pattern, [*pattern[:-1], pattern[-1] + 1])


@given(calendars, days)
def test_every_week_is_in_exactly_one_month(calendar: Calendar, day: date) -> None:
    first = calendar.start("week", day)
    week = [first + timedelta(days=n) for n in range(7)]

    for grain in ("month", "quarter", "half", "year"):
        assert len({calendar.start(grain, each) for each in week}) == 1
        assert calendar.start("week", calendar.start(grain, day)) == calendar.start(grain, day)


@given(calendars, st.integers(1980, 2199))
def test_a_year_ends_with_the_week_that_is_said(calendar: Calendar, year: int) -> None:
    month_begins = date(year, calendar.fiscal_year_start, 1)
    begins = calendar.start("year", month_begins + WEEK)
    away = (begins - month_begins).days

    assert begins.weekday() == calendar.week_start
    assert -6 <= away <= 0 if calendar.year_end == "last" else -3 <= away <= 3
