"""Who works on which day, and how far a period is."""

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.business_days import (
    BusinessDays,
    UnknownRegionError,
    check_region,
    public_holidays,
)
from schemas.directory import Directory, Entry, Holiday, Organisation, Person

NEW_YEAR, FOLLOWING = date(2026, 1, 1), date(2027, 1, 1)
THANKSGIVING = date(2026, 11, 26)
CORPUS_CHRISTI = date(2026, 6, 4)  # off in Bavaria, not in all of Germany
SATURDAY, MONDAY = date(2026, 11, 21), date(2026, 11, 23)

days = st.dates(date(2020, 1, 1), date(2030, 12, 31))


def common(number: str) -> dict[str, Any]:
    return {"tenant": "acme", "version": 1, "id": number}


def organisation(**more: Any) -> Organisation:
    return Organisation(name="Acme", **common("all"), **more)


def holiday(day: date, number: str = "h", **more: Any) -> Holiday:
    return Holiday(name="Day", day=day, **common(number), **more)


def directory(*entries: Entry, **organisations: Any) -> Directory:
    people = [
        Person(name="Ann", **common("ann")),
        Person(name="Ben", region="DE-BY", **common("ben")),
        Person(name="Cem", region="DE", **common("cem")),
    ]
    return Directory("acme", [organisation(**organisations), *people, *entries])


def test_business_days_are_monday_to_friday_without_a_region() -> None:
    week = [date(2026, 12, 21) + timedelta(days=n) for n in range(7)]

    assert [directory().is_business_day("ann", day) for day in week] == [True] * 5 + [False] * 2
    assert directory().business_days("ann", NEW_YEAR, FOLLOWING) == 261


def test_public_holidays_are_the_regions() -> None:
    american = directory(region="US")

    assert not american.is_business_day("ann", THANKSGIVING)
    assert not american.is_business_day("ann", date(2026, 7, 3))  # for Saturday the 4th
    assert american.business_days("ann", NEW_YEAR, FOLLOWING) == 261 - 11


def test_a_persons_region_goes_before_the_organisations() -> None:
    american = directory(region="US")

    assert american.is_business_day("ben", THANKSGIVING)
    assert not american.is_business_day("ben", CORPUS_CHRISTI)
    assert american.is_business_day("cem", CORPUS_CHRISTI)
    assert [american.region_of(name) for name in ("ann", "ben", "", "nobody")] == [
        "US",
        "DE-BY",
        "US",
        "US",
    ]
    assert not american.is_business_day("", THANKSGIVING)


def test_other_weekdays_may_be_worked() -> None:
    sunday_to_thursday = directory(business_days=(6, 0, 1, 2, 3))

    assert sunday_to_thursday.is_business_day("", date(2026, 11, 22))
    assert not sunday_to_thursday.is_business_day("", date(2026, 11, 20))


def test_own_holidays_are_for_a_region_and_its_parts() -> None:
    off = directory(holiday(MONDAY, region="DE"), region="US")

    assert [off.is_business_day(name, MONDAY) for name in ("ann", "ben", "cem")] == [
        True,
        False,
        False,
    ]
    assert not directory(holiday(MONDAY)).is_business_day("ben", MONDAY)
    assert directory(holiday(MONDAY, region="DE-BY")).is_business_day("cem", MONDAY)


def test_a_holiday_or_a_weekend_can_be_made_a_day_of_work() -> None:
    moved = directory(
        holiday(THANKSGIVING, "a", working=True), holiday(SATURDAY, "b", working=True), region="US"
    )

    assert moved.is_business_day("ann", THANKSGIVING)
    assert moved.is_business_day("ann", SATURDAY)
    assert moved.business_days("ann", NEW_YEAR, FOLLOWING) == 261 - 11 + 2


def test_the_smallest_region_decides_then_the_smallest_id() -> None:
    everywhere = holiday(MONDAY, "a")
    german = holiday(MONDAY, "z", region="DE", working=True)
    bavarian = holiday(MONDAY, "m", region="DE-BY")
    also_bavarian = holiday(MONDAY, "n", region="DE-BY", working=True)

    for entries in (
        [everywhere, german, bavarian, also_bavarian],
        [also_bavarian, bavarian, german],
    ):
        found = directory(*entries)
        assert found.is_business_day("cem", MONDAY)
        assert not found.is_business_day("ben", MONDAY)


def test_a_deleted_holiday_is_none() -> None:
    assert directory(holiday(MONDAY, deleted=True)).is_business_day("ann", MONDAY)


@given(
    limits=st.tuples(days, days, days),
    weekdays=st.sets(st.integers(0, 6), min_size=1),
    working=st.booleans(),
)
def test_business_days_add_up(
    *, limits: tuple[date, date, date], weekdays: set[int], working: bool
) -> None:
    start, middle, end = sorted(limits)
    found = BusinessDays(weekdays, "DE-BY", {middle: working})
    each = [start + timedelta(days=n) for n in range((end - start).days)]

    assert found.count(start, end) == sum(day in found for day in each)
    assert found.count(start, middle) + found.count(middle, end) == found.count(start, end)
    assert (middle in found) == working
    assert found.count(end, start) == 0


@pytest.mark.parametrize("region", ["US", "US-CA", "DE-BY", "GB-SCT", "IN", "CN", "FR-6AE"])
@pytest.mark.parametrize("year", [1980, 2026, 2199])
def test_regions_are_known_in_any_year(region: str, year: int) -> None:
    check_region(region)

    assert {day.year for day in public_holidays(region, year)} <= {year}
    assert public_holidays(region, 2026)


@pytest.mark.parametrize(
    ("region", "words"),
    [
        ("Germany", "such as US, US-CA or DE-BY"),
        ("us", "such as US, US-CA or DE-BY"),
        ("US-CA ", "such as US, US-CA or DE-BY"),
        ("../os", "such as US, US-CA or DE-BY"),
        ("XX", "XX is no country code"),
        ("UK", "UK is no country code"),
        ("DE-XX", "expected DE, or with one of BB, BE, BW, BY"),
        ("FR-IDF", "expected FR"),
    ],
)
def test_an_unknown_region_is_refused_with_what_to_write(region: str, words: str) -> None:
    with pytest.raises(UnknownRegionError, match=words):
        check_region(region)


def test_a_region_that_is_no_longer_known_has_weekdays_only() -> None:
    assert BusinessDays({0, 1, 2, 3, 4}, "XX", {}).count(NEW_YEAR, FOLLOWING) == 261
