"""Pipedrive's webhooks, as Pipedrive sends them."""

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.crm import StageEntry
from services.ingest.domain import canonical, merge, readers
from services.ingest.domain.facts import Fact, Ignored, Unreadable
from services.ingest.domain.vendors import Arrival, RefusedError, pipedrive
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
    return [outcome for _, outcome in readers.read(received(PIPE, body), PIPE)]


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
        "expected_close": "2026-02-01T12:00:00Z",
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
        ({"meta": {"action": "change"}}, "neither action and entity (v2)"),
        (pipe("change", "deal", None), "no state of the object"),
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


V1: dict[str, Any] = {
    "v": 1,
    "meta": {
        "v": 1,
        "action": "updated",
        "object": "deal",
        "id": 77,
        "company_id": 7072556,
        "user_id": 12,
        "timestamp": 1523440213,
        "timestamp_micro": 1523440213384700,
        "webhook_id": "45",
    },
    "retry": 0,
    "current": {"id": 77, "title": "Big", "status": "open", "user_id": 12},
    "previous": {"id": 77, "title": "Small", "status": "open", "user_id": 12},
    "event": "updated.deal",
}


def uid(body: object) -> bytes:
    request = received(PIPE, body)
    ((_, fact),) = readers.read(request, PIPE)
    assert isinstance(fact, Fact)
    return canonical.uid(request, fact)


def v1(**meta: object) -> dict[str, Any]:
    return V1 | {"meta": {**V1["meta"], **meta}}


def test_several_v1_webhooks_of_one_edit_are_one_fact() -> None:
    other_webhook = v1(webhook_id="46", timestamp_micro=1523440213384999)

    assert uid(V1) == uid(other_webhook) == uid(V1 | {"retry": 2})
    assert uid(V1) != uid(v1(timestamp=1523440214, timestamp_micro=1523440214384700))
    assert uid(V1) != uid(V1 | {"current": {"id": 77, "title": "Bigger", "status": "open"}})


def test_a_retried_v2_webhook_is_the_same_fact_and_another_event_is_not() -> None:
    first = pipe("change", "deal", {"id": 77, "title": "a"})

    assert uid(first) == uid(pipe("change", "deal", {"id": 77, "title": "a"}, attempt=4))
    assert uid(first) != uid(pipe("change", "deal", {"id": 77, "title": "a"}, id="other"))


@pytest.mark.parametrize("number", ["9", 9, "", None], ids=repr)
def test_v2_events_without_an_id_of_their_own_are_told_apart_by_what_they_say(
    number: object,
) -> None:
    """Those of users have the user's id as the event's."""
    about: Any = {"id": number, "timestamp": 1_767_607_200}
    first = pipe("change", "user", {"id": "9", "name": "A"}, **about)
    again = pipe("change", "user", {"id": "9", "name": "A"}, **about, attempt=2)
    other = pipe("change", "user", {"id": "9", "name": "B"}, **about)
    later = pipe("change", "user", {"id": "9", "name": "A"}, **about | {"timestamp": 1_767_607_201})

    dedupes = [read(body)[0].dedupe for body in (first, again, other, later)]

    assert dedupes[0] == dedupes[1]
    assert len(set(dedupes)) == 3


@pytest.mark.parametrize(
    ("data", "previous", "since"),
    [
        ({"stage_change_time": None}, {"title": "b"}, "2026-01-02T09:00:00Z"),
        ({"stage_change_time": None}, {"stage_id": 4}, "2026-01-14T18:16:56.057000Z"),
        ({}, {"stage_id": 4}, "2026-01-14T18:16:56.057000Z"),
        ({}, {"title": "b"}, "2026-01-14T18:16:56.057000Z"),
        ({"stage_change_time": "2026-01-10T10:00:00Z"}, {"stage_id": 4}, "2026-01-10T10:00:00Z"),
    ],
)
def test_since_when_a_deal_is_in_its_stage(data: Any, previous: Any, since: str) -> None:
    deal = {"id": 77, "stage_id": 5, "add_time": "2026-01-02T09:00:00Z"} | data

    body = pipe("change", "deal", deal, previous=previous)

    [fact] = read(body)

    assert canonical.event(received(PIPE, body), 0, fact)["stages"] == [[since, "5"]]


def test_a_record_is_never_merged_into_itself_however_its_id_is_written() -> None:
    [fact] = read(pipe("change", "deal", {"id": 77}, previous={"title": "b"}, merged_to_id=77))

    assert (fact.op, fact.merge) == ("updated", None)


def test_two_v1_events_of_one_instant_never_mix() -> None:
    one = v1() | {"current": {"id": 77, "status": "won", "won_time": "2018-04-11 09:50:13"}}
    other = v1() | {"current": {"id": 77, "status": "open", "won_time": None}}

    merged = merge.of([*read(one), *read(other)])

    assert merged == merge.of([*read(other), *read(one)])
    won = merged.fields["status"].value == "won"
    assert (merged.fields["closed_at"].state == "value") is won


def test_v1_is_told_by_its_event_where_meta_lacks_the_names() -> None:
    body = v1(action="", object="")

    (fact,) = read(body)

    assert (fact.type, fact.op) == ("opportunity", "updated")


def test_a_deal_with_status_deleted_is_gone() -> None:
    (fact,) = read(pipe("change", "deal", {"id": 77, "status": "deleted"}))

    assert fact.fields["_deleted"].value is True


def test_a_former_person_is_unlinked() -> None:
    before = pipe("create", "deal", {"id": 77, "person_id": 30}, timestamp="2026-01-14T10:00:00Z")
    after = pipe("change", "deal", {"id": 77, "person_id": 31}, previous={"person_id": 30})

    known = merge.of([*read(after), *read(before)])

    assert known.fields["_rel.contact.pipe:30"].state == "cleared"
    assert known.fields["_rel.contact.pipe:31"].value is True


def verified(user: str, password: str) -> str:
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    headers = {"authorization": f"Basic {token}"}
    arrival = Arrival(method="POST", url="", headers=headers, query={}, body=b"", now_ms=0)
    return pipedrive.verify(arrival, PIPE)


def test_only_the_configured_user_with_its_password_may_send() -> None:
    assert verified("pace", "pipe-secret") == "pipedrive.basic"
    for user, password in (("pace", "wrong"), ("other", "pipe-secret"), ("", "")):
        with pytest.raises(RefusedError) as refused:
            verified(user, password)
        assert refused.value.challenge.startswith("Basic")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
spoilt = st.dictionaries(
    st.sampled_from(
        [*DEAL, "type", "done", "due_date", "emails", "person_id", "user_id", "add_time", "name"]
    ),
    anything,
    max_size=5,
)


@given(
    st.sampled_from(["deal", "lead", "person", "note", "stage", "user", "activity"]),
    spoilt | anything,
    spoilt | anything,
    st.dictionaries(st.sampled_from([*V1["meta"], "merged_to_id"]), anything, max_size=2),
)
@settings(max_examples=200, deadline=None)
def test_whatever_comes_is_a_fact_ignored_or_put_aside(
    entity: str, now: object, before: object, meta: dict[str, object]
) -> None:
    v2_body = pipe("change", entity, {}) | {"data": now, "previous": before}
    v2_body["meta"] |= meta
    v1_body = v1(object=entity) | {"current": now, "previous": before}
    v1_body["meta"] |= meta

    for body in (v2_body, v1_body):
        for _, outcome in readers.read(received(PIPE, body), PIPE):
            assert isinstance(outcome, Fact | Ignored | Unreadable)
            if isinstance(outcome, Fact):
                msgspec.json.encode(canonical.event(received(PIPE, body), 0, outcome))
