"""Close's webhooks, as Close sends them."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingest.domain import canonical, merge, readers
from services.ingest.domain.facts import Fact, Ignored, Unreadable
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import Arrival, RefusedError, close
from tests.support import TENANT
from tests.unit.ingest.bodies import received

KEY = "0b" * 32
CLOSE = Source(id="close", tenant=TENANT, vendor="close", secrets=("1c" * 32, KEY))
NOW_MS = 1_768_414_616_500
BODY = b'{"event": {}, "subscription_id": "whsub_1"}'


def event(data: object = None, **more: Any) -> dict[str, Any]:
    return {
        "subscription_id": "whsub_1",
        "event": {
            "id": "ev_1",
            "date_created": "2026-01-14T18:16:56.057000",
            "date_updated": "2026-01-14T18:16:56.057000",
            "organization_id": "orga_1",
            "user_id": "user_1",
            "request_id": "req_1",
            "object_type": "opportunity",
            "object_id": "oppo_1",
            "lead_id": "lead_1",
            "action": "updated",
            "changed_fields": [],
            "meta": {},
            "data": data,
            "previous_data": {},
        }
        | more,
    }


def read(body: object, source: Source = CLOSE) -> list[Any]:
    return [outcome for _, outcome in readers.read(received(source, body), source)]


def verified(headers: dict[str, str], *, body: bytes = BODY, source: Source = CLOSE) -> str:
    arrival = Arrival(method="POST", url="", headers=headers, query={}, body=body, now_ms=NOW_MS)
    return close.verify(arrival, source)


def signed(stamp: str = "1768414616", key: str = KEY) -> dict[str, str]:
    return {
        "close-sig-timestamp": stamp,
        "close-sig-hash": close.signature(key, stamp, BODY),
    }


def test_the_signature_is_over_timestamp_and_body_with_the_decoded_key() -> None:
    # HMAC-SHA256 of RFC 4231, test case 1: the key is 20 bytes 0x0b, the data "Hi There".
    assert (
        close.signature("0b" * 20, "Hi", b" There")
        == "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    )


@pytest.mark.parametrize("key", ["1c" * 32, KEY])
def test_both_keys_pass_while_they_overlap(key: str) -> None:
    assert verified(signed(key=key)) == "close.hmac"


@pytest.mark.parametrize("stamp", ["1768414317", "1768414916"])
def test_five_minutes_are_still_in_time(stamp: str) -> None:
    assert verified(signed(stamp)) == "close.hmac"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        signed("1768414316"),
        signed("1768414917"),
        signed("1768414616500"),  # milliseconds
        signed("now"),
        signed(key="2d" * 32),
        signed() | {"close-sig-hash": ""},
        signed() | {"close-sig-hash": "é"},
        signed() | {"close-sig-timestamp": "1768414617"},
        {"close-sig-hash": signed()["close-sig-hash"]},
    ],
)
def test_what_must_not_pass(headers: dict[str, str]) -> None:
    with pytest.raises(RefusedError, match="close-sig-hash"):
        verified(headers)


def test_another_body_is_refused() -> None:
    with pytest.raises(RefusedError):
        verified(signed(), body=BODY + b" ")


@pytest.mark.parametrize("secret", ["not hexadecimal", "abc", " "])
def test_a_secret_that_is_no_key_lets_nobody_in(secret: str) -> None:
    source = msgspec.structs.replace(CLOSE, secrets=(secret,))

    with pytest.raises(RefusedError, match="signature_key"):
        verified(signed(), source=source)


def test_a_consolidated_event_is_a_newer_fact_and_a_repeated_one_is_not() -> None:
    first = event({"id": "oppo_1", "note": "a"})
    later = event({"id": "oppo_1", "note": "b"}, date_updated="2026-01-14T18:16:58.000000")
    facts = [*read(first), *read(later)]

    uids = [canonical.uid(received(CLOSE, first), fact) for fact in (*facts, *read(first))]

    assert uids[0] != uids[1]
    assert uids[0] == uids[2]
    for order in (facts, facts[::-1]):
        assert merge.of(order).fields["x_note"].value == "b"


@pytest.mark.parametrize(("value", "expected"), [(1, "0.01"), (100, "1"), (0, "0"), (-250, "-2.5")])
def test_money_is_whole_cents(value: object, expected: str) -> None:
    (fact,) = read(event({"id": "oppo_1", "value": value}))

    assert fact.fields["amount"].value == expected


@pytest.mark.parametrize("value", [1.5, "a lot", True, {"amount": 1}, 10**30])
def test_what_is_no_number_of_cents_is_put_aside(value: object) -> None:
    (bad,) = read(event({"id": "oppo_1", "value": value}))

    assert isinstance(bad, Unreadable)


def test_a_reopened_deal_is_no_longer_closed() -> None:
    won = event({"id": "oppo_1", "status_type": "won", "date_won": "2026-01-14"})
    reopened = event(
        {"id": "oppo_1", "status_type": "active", "date_won": None},
        date_updated="2026-01-15T00:00:00",
    )

    known = merge.of([*read(reopened), *read(won)])

    assert known.fields["status"].value == "open"
    assert known.fields["closed_at"].state == "cleared"
    assert known.fields["expected_close"].state == "cleared"


def test_a_merged_lead_stays_merged_when_its_deletion_follows() -> None:
    meta = {"merge_source_lead_id": "lead_1", "merge_destination_lead_id": "lead_2"}
    merged = event({"id": "lead_2"}, object_type="lead", object_id="lead_2", action="merged")
    merged["event"]["meta"] = meta
    deleted = event(object_type="lead", object_id="lead_1", action="deleted", meta=meta)
    deleted["event"]["date_updated"] = "2026-01-14T18:16:59"

    facts = [*read(merged), *read(deleted)]
    known = merge.of(fact for fact in facts if fact.id == "close:lead_1")

    assert known.deleted
    assert merge.survivor(known.fields) == "close:lead_2"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"object_type": ""}, "object_type or event.action is missing"),
        ({"action": ""}, "object_type or event.action is missing"),
        ({"data": None}, "though nothing was deleted"),
        ({"data": [1]}, "Expected `object | null`"),
        ({"object_id": None}, "is not a record's id"),
        ({"date_created": None, "date_updated": None}, "date_updated is missing"),
        ({"date_updated": "2031-01-01T00:00:00"}, "over a year after"),
        ({"data": {"status_type": "maybe"}}, "none of active, won, lost"),
        ({"data": {"value_period": "weekly"}}, "none of one_time, monthly, annual"),
        ({"object_type": "lead", "action": "merged"}, "names no merge_source_lead_id"),
        (
            {"object_type": "lead", "data": {"contact_ids": ["cont_1"] * 301}},
            "at most 300",
        ),
    ],
)
def test_what_cannot_be_read_says_why(change: dict[str, object], words: str) -> None:
    (bad,) = read(event(**{"data": {"id": "oppo_1"}} | change))

    assert isinstance(bad, Unreadable)
    assert words in bad.reason


@pytest.mark.parametrize(
    ("object_type", "name"),
    [
        ("import", "import"),
        ("bulk_action.edit", "bulk_action"),
        ("activity.email_thread", "activity.email_thread"),
        ("status.lead", "status.lead"),
        ("<script>", "other"),
    ],
)
def test_what_is_ignored_has_a_bounded_name(object_type: str, name: str) -> None:
    assert read(event({"id": "a"}, object_type=object_type)) == [Ignored(name)]


def test_record_types_can_be_configured() -> None:
    source = msgspec.structs.replace(CLOSE, types={"custom_object": "x_contract"})
    body = event({"id": "a"}, object_type="custom_object")

    assert read(body)[0].type == "x_custom_object"
    assert read(body, source)[0].type == "x_contract"


def test_events_of_another_organisation_are_put_aside() -> None:
    source = msgspec.structs.replace(CLOSE, account="orga_2")

    (bad,) = read(event({"id": "oppo_1"}), source)

    assert isinstance(bad, Unreadable)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
NAMES = [
    *("id", "value", "status_type", "date_won", "status_id", "contact_ids", "contacts", "emails"),
    *("lead_id", "status", "is_complete", "due_date", "date_created", "opportunity_id", "type"),
]


@given(
    st.sampled_from(
        [
            *("opportunity", "lead", "contact", "task.lead", "activity.call", "activity.email"),
            *("activity.opportunity_status_change", "status.opportunity", "activity.note"),
        ]
    ),
    st.sampled_from(["created", "updated", "deleted", "merged", "completed"]),
    st.dictionaries(st.sampled_from(NAMES), anything, max_size=5) | anything,
    st.dictionaries(st.sampled_from([*event()["event"]]), anything, max_size=2),
)
@settings(max_examples=200, deadline=None)
def test_whatever_comes_is_a_fact_ignored_or_put_aside(
    kind: str, action: str, data: object, spoilt: dict[str, object]
) -> None:
    body = event(**{"data": data, "object_type": kind, "action": action} | spoilt)

    for _, outcome in readers.read(received(CLOSE, body), CLOSE):
        assert isinstance(outcome, Fact | Ignored | Unreadable)
        if isinstance(outcome, Fact):
            msgspec.json.encode(canonical.event(received(CLOSE, body), 0, outcome))


@pytest.mark.parametrize(
    "body",
    [
        b'{"event":' * 100_000,
        b'{"event":{"object_type":"lead","action":"created","data":'
        + b'{"a":' * 50_000
        + b"1"
        + b"}" * 50_002,
        b'{"event":{"object_type":"lead","action":"created","date_updated":"' + b"9" * 100_000,
        b'{"event":{"id":"\xff"}}',
        b"[]",
        b"",
    ],
)
def test_a_hostile_body_is_put_aside(body: bytes) -> None:
    ((_, outcome),) = readers.read(received(CLOSE, body), CLOSE)

    assert isinstance(outcome, Unreadable)
