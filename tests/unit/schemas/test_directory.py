"""Who was where when: look-ups over directory entries with validity dates."""

import random
from datetime import date, timedelta

from schemas.directory import (
    Assignment,
    Directory,
    Entry,
    Leave,
    Membership,
    Organisation,
    OwnerMapping,
    Person,
    Role,
    Team,
    Territory,
)

DAY = date(2026, 3, 10)


def common(number: str) -> dict[str, object]:
    return {"tenant": "acme", "version": 1, "id": number}


def entries() -> list[Entry]:
    def member(person: str, team: str, **more: object) -> Membership:
        return Membership(person=person, team=team, **common(f"{person}-{team}"), **more)  # type: ignore[arg-type]

    def person(number: str, **more: object) -> Person:
        return Person(name=number.title(), **common(number), **more)  # type: ignore[arg-type]

    def team(number: str, parent: str = "") -> Team:
        return Team(name=number.title(), parent=parent, **common(number))  # type: ignore[arg-type]

    return [
        Organisation(name="Acme", zone="America/New_York", **common("all")),  # type: ignore[arg-type]
        team("sales"),
        team("north", "sales"),
        team("south", "sales"),
        person("dora"),
        person("max"),
        person("ada", zone="Europe/Berlin", joined=date(2026, 1, 1), left=date(2026, 6, 1)),
        member("dora", "sales", manages=True),
        member("max", "north", manages=True),
        member("ada", "south", valid_to=DAY),
        member("ada", "north", valid_from=DAY),
        OwnerMapping(source="crm", owner_id="7", person="max", valid_to=DAY, **common("a")),  # type: ignore[arg-type]
        OwnerMapping(source="crm", owner_id="7", person="ada", valid_from=DAY, **common("b")),  # type: ignore[arg-type]
    ]


def test_the_answer_depends_on_the_day() -> None:
    directory = Directory("acme", entries())
    before = date(2026, 3, 9)

    assert directory.team_of("ada", before) == "south"
    assert directory.team_of("ada", DAY) == "north"
    assert directory.managers_of("ada", before) == ["dora"]
    assert directory.managers_of("ada", DAY) == ["max", "dora"]
    assert directory.person_of("crm", "7", before) == directory.people["max"]
    assert directory.person_of("crm", "7", DAY) == directory.people["ada"]
    assert directory.person_of("other", "7", DAY) is None
    assert not directory.active("ada", date(2025, 12, 31))
    assert directory.active("ada", DAY)
    assert not directory.active("ada", date(2026, 6, 1))
    assert directory.members("north", DAY) == ["ada", "max"]


def test_a_stretch_of_days_has_one_answer() -> None:
    directory = Directory("acme", entries())
    answers: dict[int, set[tuple[object, str]]] = {}
    for day in (DAY + timedelta(days=n) for n in range(-40, 120)):
        found = (directory.person_of("crm", "7", day), directory.team_of("ada", day))
        answers.setdefault(directory.stretch(day), set()).add((repr(found[0]), found[1]))

    assert len(answers) == 2
    assert all(len(different) == 1 for different in answers.values())


def test_a_manager_has_the_whole_subtree_and_not_the_self() -> None:
    directory = Directory("acme", entries())

    assert directory.manages("dora", "ada", DAY)
    assert directory.manages("max", "ada", DAY)
    assert not directory.manages("max", "ada", date(2026, 3, 9))
    assert not directory.manages("max", "max", DAY)
    assert not directory.manages("ada", "max", DAY)
    assert directory.managed_teams("dora", DAY) == {"sales", "north", "south"}
    assert directory.managed_teams("max", DAY) == {"north"}


def test_a_cycle_of_teams_ends() -> None:
    loop = [
        Team(tenant="acme", version=1, id="a", name="A", parent="b"),
        Team(tenant="acme", version=1, id="b", name="B", parent="a"),
    ]

    assert Directory("acme", loop).teams_above("a") == ["a", "b"]


def test_any_order_of_entries_gives_the_same_answers() -> None:
    overlapping = [
        *entries(),
        OwnerMapping(tenant="acme", version=1, id="0", source="crm", owner_id="7", person="dora"),
        Membership(tenant="acme", version=1, id="0", person="ada", team="sales"),
    ]
    answers = set()
    for seed in range(20):
        random.Random(seed).shuffle(overlapping)
        directory = Directory("acme", overlapping)
        owner = directory.person_of("crm", "7", DAY)
        answers.add((owner.id if owner else "", directory.team_of("ada", DAY)))

    assert answers == {("dora", "sales")}


def test_zones_fall_back_to_the_organisations() -> None:
    directory = Directory("acme", entries())

    assert directory.zone_of("ada") == "Europe/Berlin"
    assert directory.zone_of("max") == "America/New_York"
    assert directory.zone_of("nobody") == "America/New_York"


def around() -> list[Entry]:
    """Ada looks after Bavaria, then also Saxony; leads from the day on; is away for a week."""
    return [
        Territory(name="Germany", **common("germany")),  # type: ignore[arg-type]
        Territory(name="Bavaria", parent="germany", **common("bavaria")),  # type: ignore[arg-type]
        Assignment(person="ada", territory="bavaria", **common("a1")),  # type: ignore[arg-type]
        Assignment(person="ada", territory="saxony", valid_from=DAY, **common("a2")),  # type: ignore[arg-type]
        Role(person="ada", role="lead", valid_from=DAY, **common("r1")),  # type: ignore[arg-type]
        Leave(
            person="ada",
            valid_from=DAY,
            valid_to=DAY + timedelta(days=7),
            **common("l1"),  # type: ignore[arg-type]
        ),
    ]


def test_territories_jobs_and_leave_depend_on_the_day() -> None:
    directory = Directory("acme", [*entries(), *around()])
    before, after = DAY - timedelta(days=1), DAY + timedelta(days=7)

    assert directory.territories_of("ada", before) == ["bavaria"]
    assert directory.territories_of("ada", DAY) == ["bavaria", "saxony"]
    assert directory.territories_of("max", DAY) == []
    assert directory.territories_above("bavaria") == ["bavaria", "germany"]
    assert [directory.role_of("ada", day) for day in (before, DAY)] == ["rep", "lead"]
    assert (directory.role_of("max", DAY), directory.role_of("nobody", DAY)) == ("rep", "")
    days = [before, DAY, after - timedelta(days=1), after]
    assert [directory.on_leave("ada", day) for day in days] == [False, True, True, False]
    assert not directory.on_leave("max", DAY)


def test_what_does_not_credit_cuts_no_stretches() -> None:
    """Who remembers credits by stretch of days needn't forget them at the end of a leave."""
    plain, full = Directory("acme", entries()), Directory("acme", [*entries(), *around()])

    for day in (DAY + timedelta(days=n) for n in range(-20, 20)):
        assert plain.stretch(day) == full.stretch(day)


def test_a_cycle_of_territories_ends() -> None:
    loop = [
        Territory(tenant="acme", version=1, id="a", name="A", parent="b"),
        Territory(tenant="acme", version=1, id="b", name="B", parent="a"),
    ]

    assert Directory("acme", loop).territories_above("a") == ["a", "b"]
