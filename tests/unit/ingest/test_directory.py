"""Directory entries from what people write."""

import itertools
from datetime import date, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.directory import (
    Assignment,
    Directory,
    Leave,
    Membership,
    Organisation,
    OwnerMapping,
    Person,
    Role,
    Territory,
)
from services.ingest.domain import directory


def make(kind: str, number: str = "a", *, text: bool = False, **fields: Any) -> Any:
    return directory.entry("acme", kind, number, fields, version=7, text=text)


def test_entries_of_text_and_of_json() -> None:
    fields: dict[str, Any] = {
        "person": "p",
        "team": "t",
        "manages": True,
        "valid_from": "2026-01-01",
    }
    expected = Membership(
        tenant="acme",
        version=7,
        id="a",
        person="p",
        team="t",
        manages=True,
        valid_from=date(2026, 1, 1),
    )

    assert make("membership", **fields) == expected
    assert make("membership", text=True, **(fields | {"manages": "true"})) == expected
    assert isinstance(make("organisation", "all", name="Acme", zone="Europe/Berlin"), Organisation)
    assert isinstance(make("person", name="Jo"), Person)


@pytest.mark.parametrize(
    ("kind", "number", "fields", "words"),
    [
        ("planet", "a", {}, "kind is none of"),
        ("person", "a/b", {"name": "Jo"}, "id must be"),
        ("person", "a\n", {"name": "Jo"}, "id must be"),
        ("person", "a", {}, "missing required field `name`"),
        ("person", "a", {"name": "Jo", "deleted": True}, "unknown fields: deleted"),
        ("person", "a", {"name": "Jo", "tenant": "other"}, "unknown fields: tenant"),
        ("person", "a", {"name": "Jo", "zone": "Mars/Base"}, "IANA"),
        ("person", "a", {"name": "Jo", "zone": "../../etc/passwd"}, "IANA"),
        ("person", "a", {"name": "J" * 400}, "longer than"),
        ("person", "a", {"name": "J\0"}, "NUL"),
        ("person", "a", {"name": "J", "role": "rep\x1fteam:north"}, "control character"),
        (
            "person",
            "a",
            {"name": "J", "joined": "2026-01-02", "left": "2026-01-01"},
            "after joined",
        ),
        ("organisation", "x", {"name": "Acme"}, '"all"'),
        ("organisation", "all", {"name": "Acme", "currency": "EURO"}, "ISO 4217"),
        ("organisation", "all", {"name": "Acme", "week_start": 7}, "week_start"),
        ("organisation", "all", {"name": "Acme", "fiscal_year_start": 0}, "fiscal_year_start"),
        (
            "organisation",
            "all",
            {"name": "Acme", "fiscal_pattern": "4-4-5"},
            "fiscal_pattern is none of gregorian, 445, 454, 544",
        ),
        (
            "organisation",
            "all",
            {"name": "Acme", "fiscal_year_end": "first"},
            "fiscal_year_end is none of last, nearest",
        ),
        ("organisation", "all", {"name": "Acme", "business_days": []}, "at least one"),
        ("organisation", "all", {"name": "Acme", "business_days": [0, 0]}, "different weekdays"),
        ("organisation", "all", {"name": "Acme", "business_days": [7]}, "different weekdays"),
        ("organisation", "all", {"name": "Acme", "business_days": "0 1"}, "Expected `array`"),
        ("organisation", "all", {"name": "Acme", "region": "Bavaria"}, "US, US-CA or DE-BY"),
        ("person", "a", {"name": "Jo", "region": "DE-XX"}, "expected DE, or with one of BB"),
        ("holiday", "a", {"name": "Day", "day": "2026-07-31", "region": "UK"}, "no country code"),
        ("holiday", "a", {"name": "Day"}, "missing required field `day`"),
        ("holiday", "a", {"name": "Day", "day": "2026-02-30"}, "day"),
        ("team", "a", {"name": "T", "parent": "a"}, "own parent"),
        ("team", "a", {"name": "T", "parent": "a b"}, "parent is not an id"),
        ("owner", "a", {"source": "hub", "owner_id": "", "person": "p"}, "owner_id is empty"),
        (
            "owner",
            "a",
            {
                "source": "hub",
                "owner_id": "1",
                "person": "p",
                "valid_from": "2026-02-01",
                "valid_to": "2026-02-01",
            },
            "valid_to must be after",
        ),
        ("territory", "a", {"name": "T", "parent": "a"}, "own parent"),
        ("assignment", "a", {"person": "p", "territory": "a b"}, "territory is not an id"),
        ("leave", "a", {"person": "p"}, "valid_from is missing"),
        ("leave", "a", {"person": "p", "valid_from": "2026-02-30"}, "valid_from"),
        ("role", "a", {"person": "p", "role": ""}, "role is empty"),
        ("role", "a", {"person": "", "role": "rep"}, "person is not an id"),
    ],
)
def test_what_is_wrong_is_said(kind: str, number: str, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(directory.BadEntryError, match=words):
        make(kind, number, **fields)


def test_territories_assignments_leaves_and_jobs() -> None:
    since: dict[str, Any] = {"valid_from": "2026-01-01"}

    assert isinstance(make("territory", name="North"), Territory)
    assert isinstance(make("assignment", text=True, person="p", territory="t"), Assignment)
    assert make("leave", text=True, person="p", **since).valid_from == date(2026, 1, 1)
    assert isinstance(make("leave", person="p", type="parental", **since), Leave)
    assert isinstance(make("role", person="p", role="lead", **since), Role)


def test_calendars_and_holidays_of_text_and_of_json() -> None:
    fields: dict[str, Any] = {"name": "Acme", "fiscal_pattern": "454", "region": "US"}
    fields["fiscal_year_end"] = "nearest"
    written = make("organisation", "all", **fields, business_days=[0, 1, 2, 5])

    assert make("organisation", "all", text=True, **fields, business_days="0 1 2 5") == written
    assert (written.calendar.pattern, written.calendar.year_end) == ("454", "nearest")
    assert make("organisation", "all", name="Acme").business_days == (0, 1, 2, 3, 4)
    day: dict[str, Any] = {"name": "Summer day", "day": "2026-07-31", "region": "DE-BY"}
    assert make("holiday", text=True, **day, working="true") == make("holiday", **day, working=True)
    assert make("person", name="Jo", region="DE-BY").region == "DE-BY"


FIRST = date(2026, 1, 1)


def owner(person: str, since: date | None, until: date | None = None, number: str = "new") -> Any:
    return OwnerMapping(
        tenant="acme",
        version=0,
        id=number,
        source="hub",
        owner_id="5",
        person=person,
        valid_from=since,
        valid_to=until,
    )


def written(known: dict[str, OwnerMapping], wanted: OwnerMapping) -> dict[str, OwnerMapping]:
    return known | {one.id: one for one in directory.mapped(known.values(), wanted, set(known))}


def on(known: dict[str, OwnerMapping], day: date) -> str:
    people = [Person(tenant="acme", version=0, id=name, name=name) for name in "abcdef"]
    found = Directory("acme", [*known.values(), *people]).person_of("hub", "5", day)
    return found.id if found else ""


def test_mapping_an_owner_ends_who_was_it_before_and_keeps_who_comes_later() -> None:
    known = written({}, owner("a", None))
    known = written(known, owner("c", date(2026, 3, 1)))
    known = written(known, owner("b", date(2026, 2, 1)))

    assert set(known) == {"hub:5", "hub:5@2026-03-01", "hub:5@2026-02-01"}
    assert [on(known, date(2026, month, 1)) for month in range(1, 5)] == ["a", "b", "c", "c"]

    replaced = written(known, owner("d", date(2026, 2, 1)))

    assert set(replaced) == set(known)
    assert [on(replaced, date(2026, month, 1)) for month in range(1, 5)] == ["a", "d", "c", "c"]
    assert written(replaced, owner("d", date(2026, 2, 1))) == replaced


DAYS = st.none() | st.integers(0, 30).map(lambda n: FIRST + timedelta(days=n))


@given(st.lists(st.tuples(st.sampled_from("abcdef"), DAYS), max_size=8))
def test_the_last_one_mapped_from_a_day_on_is_the_owner_until_the_next(
    items: list[tuple[str, date | None]],
) -> None:
    known: dict[str, OwnerMapping] = {}
    begins: dict[date, str] = {}
    for person, since in items:
        known = written(known, owner(person, since))
        begins[since or date.min] = person

    for day in (FIRST + timedelta(days=n) for n in range(-1, 32)):
        latest = max((begin for begin in begins if begin <= day), default=None)
        assert on(known, day) == ("" if latest is None else begins[latest])


def test_an_owner_whose_id_is_no_id_gets_one_of_its_own() -> None:
    odd = msgspec.structs.replace(owner("a", None), owner_id="Jo O'Neil / \N{SNOWMAN}")

    (made,) = directory.mapped([], odd, set())

    assert made.id.startswith("hub:")
    assert make("owner", made.id, source="hub", owner_id="x", person="a")


def test_another_owners_mapping_is_not_overwritten() -> None:
    with pytest.raises(directory.BadEntryError, match="'hub:5' is another mapping's"):
        directory.mapped([], owner("a", None), {"hub:5"})


def test_an_email_names_a_person_when_it_is_the_only_ones() -> None:
    emails = {"a": "Jo@Acme.example", "b": "x@acme.example", "c": "X@acme.example", "d": ""}
    people = [
        Person(tenant="acme", version=0, id=number, name=number, email=email)
        for number, email in emails.items()
    ]

    for order in itertools.permutations(people):
        found = directory.people_by_email(order)
        assert {email: person.id for email, person in found.items()} == {"jo@acme.example": "a"}
    gone = msgspec.structs.replace(people[1], deleted=True)
    assert directory.people_by_email([gone, people[2]])["x@acme.example"].id == "c"
