"""Who is credited, what a change of the directory touches, and that deltas cancel out."""

from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.directory import Assignment, Directory, Entry, Leave, Role, Territory
from services.metrics.domain.credits import (
    SEPARATOR,
    BadSharesError,
    Change,
    Credit,
    Crediting,
    Deltas,
    contributed,
    decode,
    directory_change,
    encode,
    read_shares,
)
from tests.integration.metrics.world import member, organisation, owner, person, small_company, team


def territory(number: str, **changes: Any) -> Territory:
    fields: dict[str, Any] = {"tenant": "acme", "version": 1, "name": number}
    return Territory(id=number, **(fields | changes))


ENTRIES = [entry for entry in small_company() if isinstance(entry, Entry)]


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def test_a_contribution_counts_on_the_local_day_for_the_person_and_the_teams_upwards() -> None:
    crediting = Crediting(Directory("acme", ENTRIES))
    made = ("calls_made", "count", at("2026-11-02T23:30"), 1)

    assert crediting.credits("crm", "1", [made]) == [
        Credit(*made, "2026-11-03", "p1", ["team:north", "team:all-sales", "role:rep"])
    ]
    assert crediting.credits("crm", "77", [made]) == [Credit(*made, "2026-11-03", "", [])]
    assert crediting.credits("other", "1", [made])[0].person == ""


def test_it_counts_for_the_territory_whose_rules_it_meets_or_else_for_the_persons_own() -> None:
    entries = [
        *ENTRIES,
        territory("emea", where={"region": ["EMEA"]}, parent="world"),
        territory("world"),
        territory("old", where={"region": ["EMEA"]}, rank=-1, valid_to=date(2026, 11, 1)),
        Assignment(tenant="acme", version=1, id="a1", person="p1", territory="home"),
        Role(
            tenant="acme",
            version=1,
            id="r1",
            person="p1",
            role="closer",
            valid_from=date(2026, 11, 1),
        ),
    ]
    crediting = Crediting(Directory("acme", entries))

    def subjects(day: str, region: str) -> list[str]:
        matching = crediting.directory.territories_matching({"region": region}.get)
        made = ("calls_made", "count", at(f"{day}T12:00"), 1)
        found = crediting.credits("crm", "1", [made], territories=SEPARATOR.join(matching))
        return found[0].subjects[2:]

    assert subjects("2026-11-02", "EMEA") == ["territory:emea", "territory:world", "role:closer"]
    assert subjects("2026-11-02", "APAC") == ["territory:home", "role:closer"]
    assert subjects("2026-10-02", "EMEA") == ["territory:old", "role:rep"]


def test_shares_divide_money_to_the_cent_and_leave_a_count_whole() -> None:
    crediting = Crediting(Directory("acme", ENTRIES))
    revenue = ("revenue_won", "EUR", at("2026-11-02T12:00"), 1001)
    deal = ("deals_won", "count", at("2026-11-02T12:00"), 1)
    credited = crediting.credits("crm", "1", [revenue, deal], shares=read_shares("2=50;3=50"))

    assert [(c.metric, c.person, c.value) for c in credited] == [
        ("revenue_won", "p2", 501),
        ("revenue_won", "p3", 500),
        ("deals_won", "p2", 1),
    ]
    assert contributed(credited, shared=True) == [revenue, deal]


@given(st.lists(st.integers(1, 49), max_size=2), st.integers(-(10**9), 10**9))
def test_shares_add_up_to_the_whole_and_read_back(percents: list[int], value: int) -> None:
    every = [*percents, 100 - sum(percents)]
    shares = read_shares(";".join(f"o{n}={p}" for n, p in enumerate(every)))
    crediting = Crediting(Directory("acme", ENTRIES))
    made = [("m", "EUR", 5, value), ("n", "count", 5, 1), ("n", "count", 5, 1)]
    credited = crediting.credits("crm", "1", made, shares=shares)
    again = crediting.credits("crm", "1", contributed(credited, shared=True), shares=shares)

    assert sum(c.value for c in credited if c.metric == "m") == value
    assert sum(c.value for c in credited if c.metric == "n") == 2
    assert again == credited


@pytest.mark.parametrize(
    "text", ["", "1", "1=60", "1=60;2=50", "1=50;1=50", "1=0;2=100", "1=nan;2=50", "=100", "a=x"]
)
def test_shares_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(BadSharesError):
        read_shares(text)


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
    deltas.retract("acme", credited, 2)

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


def test_territories_and_jobs_touch_those_whom_they_are_about() -> None:
    common: dict[str, Any] = {"tenant": "acme", "version": 2, "id": "new"}

    assert touched(Territory(name="North", **common)) == owners()
    assert touched(Assignment(person="p1", territory="north", **common)) == owners(1)
    assert touched(Leave(person="p1", valid_from=date(2026, 11, 1), **common)) == owners()
    assert touched(Role(person="p1", role="lead", **common)) == owners(1)
    assert touched(person(1, version=2, role="lead")) == owners(1)


def test_a_territorys_rules_touch_everybody_and_its_name_nobody() -> None:
    ruled = [*ENTRIES, territory("emea", where={"region": ["EMEA"]})]

    fields: dict[str, Any] = {"where": {"region": ["EMEA"]}, "version": 2}

    def change(**changes: Any) -> Change:
        after = territory("emea", **(fields | changes))
        return directory_change(ruled, [*ENTRIES, after])

    assert (change(name="Europe").everyone, change(name="Europe").rules) == (False, False)
    assert (change(parent="w").everyone, change(parent="w").rules) == (True, False)
    assert (change(rank=3).everyone, change(rank=3).rules) == (True, True)
    assert change(where={"region": ["EU"]}).rules


def test_another_calendar_touches_everything() -> None:
    for change in ({"zone": "UTC"}, {"week_start": 6}, {"fiscal_year_start": 4}):
        after = [*ENTRIES[1:], organisation(version=2, **change)]
        assert directory_change(ENTRIES, after).calendar
