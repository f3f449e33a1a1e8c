"""Periods tile time, and money keeps its cents."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.money import UnknownCurrencyError, exponent, from_minor, to_minor
from schemas.periods import GRAINS, MAX_RANGE_DAYS, Calendar, Grain, Range, parse, written

calendars = st.builds(
    Calendar,
    zone=st.just("UTC"),
    week_start=st.integers(0, 6),
    fiscal_year_start=st.integers(1, 12),
    pattern=st.sampled_from(["gregorian", "445", "454", "544"]),
    year_end=st.sampled_from(["last", "nearest"]),
)
days = st.dates(date(2000, 1, 1), date(2100, 1, 1))


@given(calendars, st.sampled_from(GRAINS), days)
def test_every_day_is_in_exactly_one_period_of_each_grain(
    calendar: Calendar, grain: Grain, day: date
) -> None:
    start = calendar.start(grain, day)
    end = calendar.end(grain, start)

    assert start <= day < end
    assert calendar.start(grain, end) == end
    assert calendar.start(grain, end - timedelta(days=1)) == start
    assert calendar.start(grain, start) == start
    assert parse(written(grain, start)) == (grain, start)


def test_a_day_is_local_across_daylight_saving() -> None:
    berlin = Calendar(zone="Europe/Berlin")

    assert berlin.local_day(datetime(2026, 3, 28, 22, 59, tzinfo=UTC)) == date(2026, 3, 28)
    assert berlin.local_day(datetime(2026, 3, 28, 23, 0, tzinfo=UTC)) == date(2026, 3, 29)
    assert berlin.local_day(datetime(2026, 3, 29, 21, 59, tzinfo=UTC)) == date(2026, 3, 29)
    assert berlin.local_day(datetime(2026, 3, 29, 22, 0, tzinfo=UTC)) == date(2026, 3, 30)


def test_fiscal_quarters_start_where_the_year_does() -> None:
    calendar = Calendar(fiscal_year_start=2)

    assert calendar.period("quarter", date(2026, 1, 15)) == "quarter:2025-11-01"
    assert calendar.period("year", date(2026, 1, 15)) == "year:2025-02-01"


@pytest.mark.parametrize(
    ("day", "hours"),
    [(date(2026, 3, 7), 24), (date(2026, 3, 8), 23), (date(2026, 11, 1), 25)],
)
def test_the_days_on_which_clocks_change_are_shorter_or_longer(day: date, hours: int) -> None:
    new_york = Calendar(zone="America/New_York")
    since = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(days=1)

    local = [new_york.local_day(since + timedelta(hours=n)) for n in range(72)]

    assert local.count(day) == hours
    assert local == sorted(local)


@given(calendars, days)
def test_three_months_are_a_quarter_two_quarters_a_half_two_halves_a_year(
    calendar: Calendar, day: date
) -> None:
    assert _parts(calendar, "quarter", "month", day) == 3
    assert _parts(calendar, "half", "quarter", day) == 2
    assert _parts(calendar, "year", "half", day) == 2


def _parts(calendar: Calendar, whole: Grain, part: Grain, day: date) -> int:
    """How many parts tile the whole; fails when they don't."""
    start = calendar.start(whole, day)
    end, found = calendar.end(whole, start), 0
    while start < end:
        assert calendar.start(part, start) == start
        start, found = calendar.end(part, start), found + 1
    assert start == end
    return found


def test_halves_start_where_the_year_does() -> None:
    assert Calendar().period("half", date(2026, 11, 22)) == "half:2026-07-01"
    assert Calendar(fiscal_year_start=2).period("half", date(2026, 1, 31)) == "half:2025-08-01"


@given(days, st.integers(1, MAX_RANGE_DAYS))
def test_a_range_has_both_of_its_days(first: date, length: int) -> None:
    last = first + timedelta(days=length - 1)
    text = f"range:{first}..{last}"

    assert parse(text) == (Range(length), first)
    assert written(Range(length), first) == text
    assert Calendar().end(Range(length), first) == last + timedelta(days=1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("range:2026-11-01", "expected range:YYYY-MM-DD..YYYY-MM-DD"),
        ("range:2026-11-01..", "expected range:YYYY-MM-DD..YYYY-MM-DD"),
        ("range:2026-11-01..2026-11-31", "expected range:YYYY-MM-DD..YYYY-MM-DD"),
        ("range:2026-11-01...2026-11-02", "expected range:YYYY-MM-DD..YYYY-MM-DD"),
        ("range:2026-11-15..2026-11-01", "ends before it begins"),
        ("range:2026-01-01..2036-01-09", "3661 days; at most 3660"),
    ],
)
def test_what_is_not_a_range_is_refused_with_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse(text)


@pytest.mark.parametrize("text", ["month:20261101", "week:2026-W45-1", "day:2026-11-1"])
def test_a_period_has_one_written_form(text: str) -> None:
    with pytest.raises(ValueError, match="YYYY-MM-DD"):
        parse(text)


@pytest.mark.parametrize("text", ["", "month", "decade:2026-01-01", "day:2026-13-01", "day:soon"])
def test_what_is_not_a_period_is_refused_with_words(text: str) -> None:
    with pytest.raises(ValueError, match="period"):
        parse(text)


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("1.005", "USD", 101),
        ("-1.005", "USD", -101),
        ("1.0049", "USD", 100),
        ("12.5", "JPY", 13),
        ("1.0005", "BHD", 1001),
        ("99999999999999999999.99", "EUR", 9999999999999999999999),
    ],
)
def test_minor_units_round_half_up(amount: str, currency: str, minor: int) -> None:
    assert to_minor(Decimal(amount), currency) == minor


@given(st.integers(-(10**15), 10**15), st.sampled_from(["USD", "JPY", "BHD", "EUR"]))
def test_minor_units_come_back_whole(minor: int, currency: str) -> None:
    amount = from_minor(minor, currency)

    assert to_minor(amount, currency) == minor
    assert -amount.as_tuple().exponent == exponent(currency)  # type: ignore[operator]


@pytest.mark.parametrize("code", ["", "usd", "XXX1", "DOLLAR", "ABC"])
def test_an_unknown_currency_is_never_guessed(code: str) -> None:
    with pytest.raises(UnknownCurrencyError):
        to_minor(Decimal(1), code)
