"""The generic mapping: what a document makes of an item, and what is wrong with a document."""

import contextlib
import json
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.crm import Scalar
from services.ingest.domain import mapping, merge
from services.ingest.domain.facts import BadEventError, Fact, Ignored
from services.ingest.domain.mapping.rules import path
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import Arrival, RefusedError, all_vendors, generic
from services.ingest.gateway import FaultsError, checked
from tests.support import TENANT
from tests.unit.ingest.bodies import received
from tests.unit.ingest.test_hostile_input import things

SOURCE = Source(id="own", tenant=TENANT, vendor="generic")
GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "mapping.md"


def document(**rule: Any) -> dict[str, Any]:
    return {"rules": [{"type": "opportunity", "id": "id"} | rule]}


def read(found: dict[str, Any], item: Any, **envelope: Any) -> list[Fact | Ignored]:
    assert mapping.problems(found) == []
    return mapping.read(found, item, received(SOURCE, {}), SOURCE, **envelope)


def fact(found: dict[str, Any], item: Any, **envelope: Any) -> Fact:
    (one,) = read(found, item, **envelope)
    assert isinstance(one, Fact)
    return one


def value(one: Fact, name: str) -> object:
    field = one.fields[name]
    return field.value if field.state == "value" else field.state


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("a", ("a",)),
        ("a.b", ("a", "b")),
        ("Deal Name", ("Deal Name",)),
        ("a[0].b", ("a", 0, "b")),
        ("['a.b']['it\"s'].c", ("a.b", 'it"s', "c")),
        ('a["x"]', ("a", "x")),
    ],
)
def test_a_path(text: str, steps: tuple[str | int, ...]) -> None:
    found = path(text)

    assert found is not None
    assert found.steps == steps


@pytest.mark.parametrize(
    "text",
    ["", ".a", "a.", "a..b", "a[", "a[-1]", "a[x]", "$.a", "a['b", "a" * 301, None, 5, ["a"]],
)
def test_what_is_no_path(text: object) -> None:
    assert path(text) is None


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("text", 5, "5"),
        ("amount", "12.50", "12.50"),
        ("amount", Decimal("1E+2"), "100"),
        ("instant", "2026-01-15T18:00:00+01:00", "2026-01-15T17:00:00Z"),
        ("instant", 1_768_500_000, "2026-01-15T18:00:00Z"),
        ("instant", Decimal("1768500000.0"), "2026-01-15T18:00:00Z"),
        ("instant", datetime(2026, 1, 15, 18, tzinfo=UTC), "2026-01-15T18:00:00Z"),
        ("instant", date(2026, 1, 15), "2026-01-15T12:00:00Z"),  # the same day in every zone
        ("instant", "2026-01-15", "2026-01-15T12:00:00Z"),
        ("bool", "true", True),
        ("bool", 0, False),
        ("int", "12", 12),
        ("currency", "eur", "EUR"),
        ("seconds", "01:30", 5400),
        ("milliseconds", 95_400, 95),
    ],
)
def test_values_of_each_type(kind: str, given: object, expected: object) -> None:
    found = fact(document(fields={"x_a": {"path": "a", "type": kind}}), {"id": 1, "a": given})

    assert value(found, "x_a") == expected


@pytest.mark.parametrize(
    ("unit", "given"),
    [("s", 1_768_500_000), ("ms", 1_768_500_000_000), ("us", "1768500000000000")],
)
def test_an_instant_in_a_stated_unit(unit: str, given: object) -> None:
    spec = {"path": "a", "unit": unit}
    found = fact(
        document(at={"path": "a", "unit": unit}, fields={"created_at": spec}), {"id": 1, "a": given}
    )

    assert value(found, "created_at") == "2026-01-15T18:00:00Z"
    assert found.position[0] == 1_768_500_000_000_000
    assert found.occurred is not None
    assert found.occurred.precision == unit


def test_a_unit_is_not_guessed_by_the_number_of_digits() -> None:
    spec = {"path": "a", "unit": "ms"}
    found = fact(document(fields={"created_at": spec}), {"id": 1, "a": 1000})

    assert value(found, "created_at") == "1970-01-01T00:00:01Z"


def test_minor_units_are_divided_exactly() -> None:
    found = document(fields={"amount": {"path": "cents", "minor": 100}})

    assert value(fact(found, {"id": 1, "cents": 199_999}), "amount") == "1999.99"
    long = "123456789012345.123456789012345"
    assert value(fact(found, {"id": 1, "cents": long}), "amount") == (
        "1234567890123.45123456789012345"
    )


def test_absent_is_unknown_and_null_clears() -> None:
    found = document(fields={"amount": "deal.amount", "name": "deal.name"})

    assert set(fact(found, {"id": 1, "deal": {"amount": None}}).fields) == {"amount", "_deleted"}
    assert set(fact(found, {"id": 1, "deal": None}).fields) == {"_deleted"}
    assert value(fact(found, {"id": 1, "deal": {"name": ""}}), "name") == "cleared"


def test_empty_text_can_say_nothing() -> None:
    found = document(fields={"amount": "amount"}) | {"empty": "unknown"}

    assert "amount" not in fact(found, {"id": 1, "amount": ""}).fields
    assert value(fact(found, {"id": 1, "amount": None}), "amount") == "cleared"


@pytest.mark.parametrize(
    ("test", "holding", "failing"),
    [
        ("deal", ["deal"], ["Deal", None, 5]),
        (True, [True, "true"], ["True", False, None]),
        ([1, 2], [1, "2", Decimal(1)], [3]),
        ({"equals": 1}, ["1"], ["01"]),
        ({"in": ["a", "b"]}, ["a"], ["c"]),
        ({"prefix": "deal."}, ["deal.won"], ["call.done", None]),
        ({"exists": True}, ["", 0, False], [None]),
        ({"exists": False}, [None], [""]),
        ({"not": "a"}, ["b", None], ["a"]),
        ({"not": {"in": ["a", "b"]}}, ["c"], ["a", "b"]),
        ({"not": {"prefix": "a"}}, ["b", None], ["ab"]),
        ({"prefix": "a", "not": "ab"}, ["ac"], ["ab", "b"]),
    ],
)
def test_conditions(test: Any, holding: list[Any], failing: list[Any]) -> None:
    found = document(when={"a.b": test})

    for one in holding:
        assert isinstance(read(found, {"id": 1, "a": {"b": one}})[0], Fact)
    for one in failing:
        assert read(found, {"id": 1, "a": {"b": one}}) == [Ignored("unmapped")]


def test_a_key_that_is_absent_is_as_null_to_conditions() -> None:
    assert isinstance(read(document(when={"a": {"exists": False}}), {"id": 1})[0], Fact)


def test_every_rule_that_holds_says_a_fact() -> None:
    found = {
        "rules": [
            {"type": "opportunity", "id": "deal.id"},
            {"type": "account", "id": "account.id"},
            {"when": {"call": {"exists": True}}, "type": "call", "id": "call.id"},
        ]
    }
    facts = read(found, {"deal": {"id": 1}, "account": {"id": 2}})

    assert [one.type for one in facts if isinstance(one, Fact)] == ["opportunity", "account"]


@pytest.mark.parametrize(
    ("op", "gone", "completeness"),
    [
        ("created", False, "snapshot"),
        ("updated", False, "delta"),
        ("snapshot", False, "snapshot"),
        ("restored", False, "delta"),
        ("deleted", True, "id_only"),
        ("erased", True, "id_only"),
        ("tracked", None, "delta"),
    ],
)
def test_operations(op: str, gone: Scalar, completeness: str) -> None:
    found = fact(document(op=op, fields={"name": "name"}), {"id": 1, "name": "Ana"})

    assert (found.op, found.completeness) == (op, completeness)
    existence = found.fields.get("_deleted")
    assert (None if existence is None else existence.value) is gone


def test_an_erasure_keeps_nothing_of_what_was_said() -> None:
    found = fact(document(op="erased", fields={"name": "name"}), {"id": 1, "name": "Ana"})

    assert "Ana" not in repr(found)
    assert "_redacted" in found.fields


def test_a_merge_names_the_survivor() -> None:
    found = fact(document(op="merged", into="into"), {"id": 1, "into": 2})

    assert found.merge is not None
    assert (found.merge.survivor, found.signals) == ("own:2", ("merged_away",))
    assert value(found, "_merged_into") == "own:2"


def test_unlinking_removes_what_the_paths_name() -> None:
    relations = [{"type": "contact", "id": "contacts"}]
    found = fact(document(op="unlinked", relations=relations), {"id": 1, "contacts": [2, "c"]})

    assert [(one.id, one.change) for one in found.relations] == [
        ("own:2", "removed"),
        ("own:c", "removed"),
    ]
    assert "_deleted" not in found.fields


def test_the_stage_decides_where_no_status_is_told() -> None:
    found = fact(
        document(fields={"stage": {"path": "stage", "since": "since"}, "closed_at": "closed"}),
        {"id": 1, "stage": "closedwon", "since": "2026-01-02T10:00:00Z", "closed": "2026-01-03"},
    )

    assert value(found, "status") == "won"
    assert value(found, "closed_at") == "2026-01-03T12:00:00Z"
    assert found.signals == ("stage_changed", "won")
    assert found.fields["stage"].at == found.stages[0].at == 1_767_348_000_000_000


def test_an_open_deal_has_not_closed_whatever_date_it_has() -> None:
    found = document(fields={"status": "status", "closed_at": "close_date"})

    assert value(
        fact(found, {"id": 1, "status": "open", "close_date": "2026-03-01"}), "closed_at"
    ) == ("cleared")
    won = fact(found, {"id": 1, "status": "won", "close_date": "2026-03-01"})
    assert (value(won, "closed_at"), won.signals) == (
        "2026-03-01T12:00:00Z",
        ("status_changed", "won"),
    )


def test_a_snapshot_gives_no_signals_of_change() -> None:
    found = document(completeness="snapshot", fields={"amount": "amount", "owner_id": "owner"})

    assert fact(found, {"id": 1, "amount": 5, "owner": 6}).signals == ()


def test_maps_turn_their_values_into_ours() -> None:
    spec = {"path": "state", "map": {1: "open", "won!": "won", "*": "lost"}}
    found = document(fields={"status": spec, "closed_at": "at"})

    assert [value(fact(found, {"id": 1, "state": one}), "status") for one in (1, "won!", "?")] == [
        "open",
        "won",
        "lost",
    ]


def test_the_same_item_is_the_same_fact_and_ties_the_same_way() -> None:
    found = document(at="at", fields={"name": "name"})
    one, other = ({"id": 1, "at": 1_768_500_000, "name": name} for name in "ab")

    assert fact(found, one).position == fact(found, dict(one)).position
    known = {
        str(merge.of(fact(found, item) for item in order).fields["name"].value)
        for order in permutations([one, other, one])
    }
    assert len(known) == 1


def test_a_sequence_breaks_ties_as_a_number() -> None:
    found = document(at="at", sequence="n", event_id="e", fields={"name": "name"})
    items = [{"id": 1, "at": 1_768_500_000, "n": n, "e": "z", "name": str(n)} for n in (9, 10)]

    assert merge.of(fact(found, item) for item in items).fields["name"].value == "10"


def test_what_tells_events_apart() -> None:
    by_event = document(event_id="e")
    by_both = document(event_id="e", dedupe=["e", "n"])

    assert fact(by_event, {"id": 1, "e": "x"}).dedupe == ("x",)
    assert fact(by_both, {"id": 1, "e": "x", "n": 2}).dedupe == ("x", "2")
    assert fact(document(), {"id": 1}, event="env").dedupe == ("env",)


@pytest.mark.parametrize(
    ("rule", "item", "words"),
    [
        ({}, {}, "rules[0].id: there is nothing at id"),
        ({}, {"id": ""}, "rules[0].id: there is nothing at id"),
        ({}, {"id": "a/b"}, "is not a record's id"),
        ({"at": "at"}, {"id": 1}, "rules[0].at: there is nothing at at"),
        ({"at": "at"}, {"id": 1, "at": "soon"}, "'soon' is not an instant"),
        (
            {"fields": {"amount": "a"}},
            {"id": 1, "a": "ten"},
            "rules[0].fields.amount: amount 'ten'",
        ),
        ({"type": {"path": "t"}}, {"id": 1, "t": "Deal"}, "'Deal' is not a record type"),
        ({"op": {"path": "o"}}, {"id": 1, "o": "explode"}, "rules[0].op: 'explode' is none of"),
        ({"op": {"path": "o"}}, {"id": 1, "o": "merged"}, "op merged needs into"),
        ({"relations": [{"type": "contact", "id": "c"}]}, {"id": 1, "c": ["a b"]}, "record's id"),
        (
            {"fields": {"x_a": {"path": "a", "map": {"b": "c"}}}},
            {"id": 1, "a": "z"},
            "rules[0].fields.x_a: 'z' is not in the map",
        ),
    ],
)
def test_what_an_item_lacks_is_told_with_its_place(
    rule: dict[str, Any], item: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadEventError, match=re.escape(words)):
        read(document(**rule), item)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ({}, "rules: there must be at least one"),
        ({"rules": 5}, "rules: is a list"),
        ({"rules": [5]}, "rules[0]: is a mapping with "),
        ({"rules": [{"type": "call"}]}, "rules[0]: id is missing"),
        ({"rules": [{"id": "a"}]}, "rules[0]: type is missing"),
        (document(colour=5), "rules[0]: 'colour' is not known; use actor, at"),
        (document(id="a..b"), "rules[0].id: 'a..b' is not a path"),
        (document(type="deal"), "rules[0].type: 'deal' is not a record type"),
        (document(type={"path": "a", "map": {"b": "deal"}}), "rules[0].type: 'deal' is not"),
        (document(op="explode"), "rules[0].op: 'explode' is none of created, "),
        (document(op="merged"), "rules[0]: op merged needs into"),
        (document(at={"path": "a", "unit": "h"}), "rules[0].at.unit: is one of auto, s, ms, us"),
        (
            document(fields={"amunt": "a"}),
            "rules[0].fields.amunt: is no field of ours: accepted_at, ",
        ),
        (document(fields={"amount": {}}), "rules[0].fields.amount: needs path"),
        (
            document(fields={"amount": {"path": "a", "minor": 7}}),
            "fields.amount.minor: is how many",
        ),
        (document(fields={"name": {"path": "a", "minor": 100}}), "name.minor: only an amount"),
        (document(fields={"name": {"path": "a", "unit": "s"}}), "name.unit: only an instant"),
        (document(fields={"name": {"path": "a", "since": "b"}}), "name.since: only a stage"),
        (document(fields={"amount": {"path": "a", "type": "text"}}), "text is not what amount is"),
        (document(fields={"x_a": {"path": "a", "type": "float"}}), "x_a.type: is one of text, "),
        (document(fields={"currency": {"value": "USD"}}), "set the source's currency"),
        (document(fields={"amount": {"value": "ten"}}), "amount.value: amount 'ten' is not a"),
        (document(fields={"status": "s"}), "rules[0].fields: status without closed_at"),
        (document(owner="a", fields={"owner_id": "b"}), "rules[0].owner: owner_id is among"),
        (document(when={"a": {}}), "rules[0].when.a: says nothing"),
        (document(when={"a": None}), "for no value, use exists: false"),
        (document(when={"a": {"matches": "b"}}), "rules[0].when.a: 'matches' is not known"),
        (document(when={"a": {"not": {"not": 1}}}), "rules[0].when.a.not: is a value, or one"),
        (document(completeness="half"), "rules[0].completeness: is delta or snapshot"),
        (document(actor={"path": "a", "kind": "robot"}), "rules[0].actor.kind: is one of user, "),
        (document(relations=[{"type": "deal", "id": "a"}]), "rules[0].relations[0].type: 'deal'"),
        (document() | {"items": "a[0]"}, "mapping.items: is the path of an array"),
        (document() | {"empty": "gone"}, "empty: is cleared or unknown"),
        ({"rules": [{"type": "call", "id": "a"}] * 101}, "rules: 101 rules; at most 100"),
    ],
)
def test_what_is_wrong_with_a_document(found: dict[str, Any], problem: str) -> None:
    problems = mapping.problems(found)

    assert any(problem in one for one in problems), problems


def test_all_mistakes_are_told_at_once() -> None:
    found = document(op="explode", at="a..b", fields={"amunt": "a", "done": {"path": 5}})

    assert len(mapping.problems(found)) == 4


def test_a_document_with_mistakes_reads_nothing() -> None:
    with pytest.raises(
        BadEventError, match="the source's mapping can't be used: rules: there must"
    ):
        mapping.read({}, {"id": 1}, received(SOURCE, {}), SOURCE)


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ({"data": {"records": [1, 2, 3]}}, 3),
        ({"data": {"records": []}}, 0),
        ({"data": {"records": {"id": 1}}}, 1),
        ({"data": None}, 1),  # an item alone, as it is read again after a fix
        ([1, 2], 2),
        ({"id": 1}, 1),
    ],
)
def test_items_at_a_path(body: Any, count: int) -> None:
    found = document() | {"items": "data.records"}

    assert len(mapping.split(found, json.dumps(body).encode())) == count


def test_a_flood_of_items_is_refused() -> None:
    with pytest.raises(BadEventError, match="10001 items in one body"):
        mapping.split(document(), b"[" + b"{}," * 10_000 + b"{}]")


SPECS = st.one_of(
    things,
    st.fixed_dictionaries(
        {
            "rules": st.lists(
                st.dictionaries(
                    st.sampled_from(
                        [
                            "type",
                            "id",
                            "op",
                            "at",
                            "when",
                            "fields",
                            "relations",
                            "dedupe",
                            "actor",
                            "owner",
                            "into",
                            "sequence",
                            "completeness",
                        ]
                    ),
                    things,
                    max_size=6,
                ),
                max_size=3,
            )
        },
    ),
)


@given(SPECS, things)
@settings(max_examples=200, deadline=None)
def test_any_document_has_problems_or_reads(found: Any, item: Any) -> None:
    for problem in mapping.problems(found):
        assert problem
    with contextlib.suppress(BadEventError):
        mapping.read(found, item, received(SOURCE, {}), SOURCE)


@pytest.mark.parametrize(
    ("more", "headers", "query", "method"),
    [
        ({"header": "X-Key"}, {"x-key": "secret"}, {}, "generic.header"),
        ({"query": "key"}, {}, {"key": "secret"}, "generic.query"),
        ({"username": "u"}, {"authorization": "Basic dTpzZWNyZXQ="}, {}, "generic.basic"),
    ],
)
def test_a_source_with_secrets_asks_for_one_of_them(
    more: dict[str, str], headers: dict[str, str], query: dict[str, str], method: str
) -> None:
    source = Source(id="own", tenant=TENANT, vendor="generic", secrets=("secret",), **more)  # type: ignore[arg-type]  # parametrised
    with_it = Arrival(method="POST", url="", headers=headers, query=query, body=b"", now_ms=0)
    without = Arrival(method="POST", url="", headers={}, query={}, body=b"", now_ms=0)

    assert generic.verify(with_it, source) == method
    with pytest.raises(RefusedError):
        generic.verify(without, source)


def test_a_source_without_secrets_takes_api_keys() -> None:
    arrival = Arrival(method="POST", url="", headers={}, query={}, body=b"", now_ms=0)

    assert generic.verify(arrival, SOURCE) is None


def test_a_source_is_told_what_is_wrong_with_it() -> None:
    source = Source(
        id="own", tenant=TENANT, vendor="generic", secrets=("s",), mapping={"rules": []}
    )

    assert len(generic.problems(source)) == 2


def guide_documents() -> list[dict[str, Any]]:
    blocks = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    return [found for block in blocks if "rules" in (found := yaml.safe_load(block))]


@pytest.mark.parametrize("found", guide_documents(), ids=lambda found: str(len(found["rules"])))
def test_the_documents_of_the_guide_can_be_used(found: dict[str, Any]) -> None:
    assert mapping.problems(found) == []


def test_the_guide_names_every_key() -> None:
    text = GUIDE.read_text()
    names = ["items", "empty", "when", "type", "id", "op", "at", "sequence", "event_id", "dedupe"]
    names += ["actor", "owner", "into", "completeness", "fields", "relations"]

    assert [name for name in names if f"`{name}`" not in text] == []


def test_the_guide_shows_a_row_and_what_it_becomes() -> None:
    (found,) = (one for one in guide_documents() if one.get("empty") == "unknown")
    row = {
        "Record ID": "88",
        "Deal Name": "Acme",
        "Amount": "1250.00",
        "Currency": "EUR",
        "State": "Gewonnen",
        "Closed": "2026-01-31",
        "Owner": "ana@example.com",
        "Last Change": "2026-02-01T08:00:00Z",
    }
    one = fact(found, row)

    assert (one.type, one.id, one.op) == ("opportunity", "own:88", "snapshot")
    assert value(one, "status") == "won"
    assert value(one, "closed_at") == "2026-01-31T12:00:00Z"


@pytest.mark.parametrize(
    "vendor", ["generic", "cloudevents", "segment", "rudderstack", "standardwebhooks"]
)
def test_a_source_is_told_what_is_wrong_with_its_mapping(vendor: str) -> None:
    entry = {"id": "own", "tenant": TENANT, "vendor": vendor, "secrets": ["s"]}
    header = {"header": "x"} if "header" in all_vendors()[vendor].settings else {}

    with pytest.raises(FaultsError) as caught:
        checked(entry | header | {"mapping": {"rules": 5}}, str)

    assert caught.value.faults == [
        "mapping: rules: is a list",
        "mapping: rules: there must be at least one",
    ]
