"""Who is credited, what a change of the directory touches, and that deltas cancel out."""

from datetime import UTC, date, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas.directory import Assignment, Directory, Entry, Leave, Role, Territory
from services.metrics.domain.credits import (
    Credit,
    Crediting,
    Deltas,
    decode,
    directory_change,
    encode,
)
from tests.integration.metrics.world import member, organisation, owner, person, small_company, team

ENTRIES = [entry for entry in small_company() if isinstance(entry, Entry)]


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def test_a_contribution_counts_on_the_local_day_for_the_person_and_the_teams_upwards() -> None:
    crediting = Crediting(Directory("acme", ENTRIES))
    made = ("calls_made", "count", at("2026-11-02T23:30"), 1)

    assert crediting.credits("crm", "1", [made]) == [
        Credit(*made, "2026-11-03", "p1", ["north", "all-sales"])
    ]
    assert crediting.credits("crm", "77", [made]) == [Credit(*made, "2026-11-03", "", [])]
    assert crediting.credits("other", "1", [made])[0].person == ""
    assert crediting.credits("crm", "1", [made])[0].contribution == made


@given(st.integers(at("1990-01-01T00:00"), at("2100-01-01T00:00")))
def test_the_remembered_day_is_the_day_of_the_calendar(second: int) -> None:
    directory = Directory("acme", [organisation(zone="Asia/Kathmandu")])
    credit = Crediting(directory).credits("crm", "1", [("m", "count", second, 1)])[0]
    instant = datetime.fromtimestamp(second, UTC)

    assert credit.day == directory.calendar.local_day(instant).isoformat()


def test_credits_read_back_as_written() -> None:
    credited = [Credit("m", "EUR", 5, -7, "2026-11-03", "p1", ["a", "b"])]

    assert decode(encode(credited)) == credited
    assert decode(encode([])) == []


CREDITS = st.builds(
    Credit,
    st.sampled_from(["m", "n"]),
    st.sampled_from(["count", "EUR"]),
    st.just(0),
    st.integers(-9, 9),
    st.sampled_from(["2026-11-03", "2026-11-04"]),
    st.sampled_from(["", "p1", "p2"]),
    st.sampled_from([[], ["a"], ["a", "b"]]),
)


@given(st.lists(CREDITS))
def test_what_is_added_and_taken_back_leaves_nothing(credited: list[Credit]) -> None:
    deltas = Deltas()
    deltas.add("acme", credited, 1)
    deltas.retract("acme", reversed(credited), 2)

    assert deltas.rows() == []


def touched(*entries: Entry) -> frozenset[tuple[str, str]]:
    keys = {entry.key for entry in entries}
    after = [*(entry for entry in ENTRIES if entry.key not in keys), *entries]
    change = directory_change(ENTRIES, after)
    assert not change.calendar
    return change.owners


def owners(*numbers: int) -> frozenset[tuple[str, str]]:
    return frozenset(("crm", str(number)) for number in numbers)


def test_a_change_touches_the_owners_whose_credits_may_differ() -> None:
    assert touched(organisation(version=2, name="Acme Inc", currency="USD")) == owners()
    assert touched(person(1, version=2, email="a@b")) == owners()
    assert touched(person(1, version=2, deleted=True)) == owners(1)
    assert touched(owner(1, version=2, owner_id="8")) == owners(1, 8)
    assert touched(member(3, "north", version=2, valid_to=date(2026, 11, 1))) == owners(3)
    assert touched(team("north", "all-sales", version=2, deleted=False)) == owners()
    assert touched(team("north", "", version=2)) == owners(1, 2)
    assert touched(team("all-sales", "world", version=2)) == owners(1, 2, 3, 4)
    assert touched(team("world"), team("all-sales", "world", version=2)) == owners(1, 2, 3, 4)


def test_territories_jobs_and_leave_touch_nobodys_credits() -> None:
    common: dict[str, Any] = {"tenant": "acme", "version": 2, "id": "new"}

    assert touched(Territory(name="North", **common)) == owners()
    assert touched(Assignment(person="p1", territory="north", **common)) == owners()
    assert touched(Leave(person="p1", valid_from=date(2026, 11, 1), **common)) == owners()
    assert touched(Role(person="p1", role="lead", **common)) == owners()


def test_another_calendar_touches_everything() -> None:
    for change in ({"zone": "UTC"}, {"week_start": 6}, {"fiscal_year_start": 4}):
        after = [*ENTRIES[1:], organisation(version=2, **change)]
        assert directory_change(ENTRIES, after).calendar
