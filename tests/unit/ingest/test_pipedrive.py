"""Pipedrive's webhooks v2, as Pipedrive sends them."""

from typing import Any

import pytest

from schemas.crm import StageEntry
from services.ingest.domain import merge, readers
from services.ingest.domain.facts import Fact, Ignored, Unreadable
from tests.unit.ingest.bodies import PIPE, pipe, received

DEAL = {
    "id": 77,
    "title": "Big one",
    "value": 1234.56,
    "currency": "EUR",
    "status": "won",
    "stage_id": 5,
    "pipeline_id": 1,
    "owner_id": 12,
    "add_time": "2026-01-02T09:00:00Z",
    "won_time": "2026-01-14T18:16:56Z",
    "lost_time": None,
    "stage_change_time": "2026-01-10T10:00:00Z",
    "expected_close_date": "2026-02-01",
    "custom_fields": {
        "abc": {"type": "monetary", "value": 5, "currency": "EUR"},
        "def": {"type": "enum", "id": 7},
        "ghi": None,
    },
}


def read(body: object) -> list[Any]:
    return readers.read(received(PIPE, body), PIPE)


def values(fact: Fact) -> dict[str, object]:
    return {
        name: field.value if field.state == "value" else field.state
        for name, field in fact.fields.items()
        if not name.startswith("_")
    }


def test_a_won_deal() -> None:
    (fact,) = read(pipe("change", "deal", DEAL, previous={"status": "open"}))

    assert (fact.type, fact.id, fact.op) == ("opportunity", "pipe:77", "updated")
    assert values(fact) == {
        "name": "Big one",
        "amount": "1234.56",
        "currency": "EUR",
        "status": "won",
        "closed_at": "2026-01-14T18:16:56Z",
        "stage": "5",
        "pipeline": "1",
        "owner_id": "12",
        "created_at": "2026-01-02T09:00:00Z",
        "expected_close": "2026-02-01T00:00:00Z",
        "x_abc": "5",
        "x_abc_currency": "EUR",
        "x_def": "7",
        "x_ghi": "cleared",
    }
    assert fact.fields["amount"].at == 1_768_414_616_057_000
    assert fact.fields["amount"].by == "7d8e3a52-0000-4000-8000-000000000001"
    assert fact.stages == (StageEntry(1_768_039_200_000_000, "5"),)


def test_money_does_not_become_binary() -> None:
    meta = b'{"action":"create","entity":"deal","entity_id":"1","timestamp":1768414616,"id":"a"}'
    data = b'{"id":1,"value":90071992547409.93}'
    (fact,) = read(b'{"meta":' + meta + b',"data":' + data + b',"previous":null}')

    assert fact.fields["amount"].value == "90071992547409.93"


def test_a_missing_key_is_never_a_change_and_null_is_emptied() -> None:
    (fact,) = read(pipe("change", "deal", {"id": 77, "value": None}))

    assert values(fact) == {"amount": "cleared"}


@pytest.mark.parametrize(
    ("data", "previous", "expected"),
    [
        ({"status": "open", "won_time": None}, {}, {"status": "open", "closed_at": "cleared"}),
        (
            {
                "status": "lost",
                "lost_time": "2026-01-03 10:00:00",
                "won_time": "2026-01-02T00:00:00Z",
            },
            {},
            {"status": "lost", "closed_at": "2026-01-03T10:00:00Z"},
        ),
        (
            {"status": "won", "close_time": "2026-01-03T10:00:00Z"},
            {},
            {"status": "won", "closed_at": "2026-01-03T10:00:00Z"},
        ),
        (
            {"status": "won"},
            {"status": "open"},
            {"status": "won", "closed_at": "2026-01-14T18:16:56.057000Z"},
        ),
        ({"status": "won"}, {"title": "before"}, {"status": "won"}),  # closed some time before
    ],
)
def test_status_and_closing(data: Any, previous: Any, expected: Any) -> None:
    (fact,) = read(pipe("change", "deal", {"id": 77} | data, previous=previous))

    assert values(fact) == expected


def test_a_deletion_has_no_data() -> None:
    (fact,) = read(pipe("delete", "deal", None, previous=DEAL))

    assert fact.op == "deleted"
    assert fact.fields["_deleted"].value is True
    assert fact.fields["owner_id"].value == "12"


def test_a_merged_deal_is_gone_and_not_lost() -> None:
    (fact,) = read(pipe("delete", "deal", None, previous=DEAL, merged_to_id="80"))

    assert fact.op == "merged"
    assert fact.fields["_merged_into"].value == "pipe:80"
    assert fact.fields["status"].value == "won"


def test_a_change_after_a_deletion_brings_it_back() -> None:
    gone = pipe("delete", "deal", None, previous=DEAL, timestamp="2026-01-14T10:00:00.000Z")
    back = pipe("change", "deal", DEAL, previous={"status": "deleted"})

    assert not merge.of([*read(gone), *read(back)]).deleted
    assert not merge.of([*read(back), *read(gone)]).deleted


@pytest.mark.parametrize(
    ("stamp", "at"),
    [
        ("2026-01-14T18:16:56.057Z", 1_768_414_616_057_000),
        ("1768414616", 1_768_414_616_000_000),
        (1768414616057, 1_768_414_616_057_000),
        ("1768414616057123", 1_768_414_616_057_123),
    ],
)
def test_every_unit_of_the_timestamp(stamp: object, at: int) -> None:
    (fact,) = read(pipe("change", "deal", {"id": 77, "title": "a"}, timestamp=stamp))

    assert fact.fields["name"].at == at


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"due_date": "2026-01-05", "due_time": "14:30"}, "2026-01-05T14:30:00Z"),
        (
            {"due_date": "2026-01-05", "marked_as_done_time": "2026-01-06 08:00:00"},
            "2026-01-06T08:00:00Z",
        ),
        ({"due_date": "2026-01-05", "due_time": ""}, "2026-01-05T12:00:00Z"),
        ({"due_date": None}, "cleared"),
        ({}, None),
    ],
)
def test_when_an_activity_happened(data: dict[str, object], expected: str | None) -> None:
    (fact,) = read(pipe("change", "activity", {"id": 5, "type": "call"} | data))

    assert values(fact).get("occurred_at") == expected


def test_an_activity() -> None:
    data = {
        "id": 5,
        "type": "meeting",
        "subject": "Demo",
        "done": True,
        "user_id": {"id": 12, "name": "Jo"},
        "duration": "01:30",
        "add_time": "2026-01-02 09:00:00",
    }
    (fact,) = read(pipe("create", "activity", data))

    assert (fact.type, fact.id) == ("meeting", "pipe:5")
    assert values(fact) == {
        "name": "Demo",
        "done": True,
        "owner_id": "12",
        "duration_seconds": 5400,
        "created_at": "2026-01-02T09:00:00Z",
    }


def test_an_activity_of_another_type_leaves_its_old_one() -> None:
    body = pipe("change", "activity", {"id": 5, "type": "meeting"}, previous={"type": "call"})

    old, new = read(body)

    assert (old.type, old.fields["_deleted"].value) == ("call", True)
    assert (new.type, new.fields["_deleted"].value) == ("meeting", False)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (pipe("change", "person", {"id": 1}), "person.change"),
        (pipe("change", "activity", {"id": 1, "type": "lunch"}), "activity.other_type"),
        (pipe("explode", "deal", {"id": 1}), "deal.other"),
        (pipe("change", "<script>", {"id": 1}), "other.change"),
    ],
)
def test_what_is_ignored_has_a_bounded_name(body: object, name: str) -> None:
    assert read(body) == [Ignored(name)]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"v": 1, "event": "updated.deal", "current": {}}, "Object missing required field `meta`"),
        ({"v": 1, "event": "updated.deal", "meta": {"action": "updated"}}, "version 2.0"),
        (pipe("change", "deal", None), "data is null"),
        (pipe("change", "deal", [1]), "data is not an object"),
        (pipe("change", "deal", {"id": 7, "status": "maybe"}), "none of open, won, lost"),
        (pipe("change", "deal", {"id": 7, "value": {"a": 1}}), "is not a number"),
        (pipe("change", "deal", {"id": 7}, timestamp=None), "timestamp is missing"),
        (pipe("change", "activity", {"id": 7}), "has no type"),
    ],
)
def test_what_cannot_be_read_says_why(body: object, words: str) -> None:
    (outcome,) = read(body)

    assert isinstance(outcome, Unreadable)
    assert words in outcome.reason
