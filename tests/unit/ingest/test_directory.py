"""Directory entries from what people write."""

from datetime import date
from typing import Any

import pytest

from schemas.directory import Membership, Organisation, Person
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
    ],
)
def test_what_is_wrong_is_said(kind: str, number: str, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(directory.BadEntryError, match=words):
        make(kind, number, **fields)
