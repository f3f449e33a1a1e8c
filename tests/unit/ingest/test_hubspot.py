"""HubSpot's events, as HubSpot sends them."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.crm import StageEntry
from services.ingest.domain import canonical, merge, readers
from services.ingest.domain.facts import Fact, Ignored, Unreadable
from services.ingest.domain.sources import Source, Stages
from services.ingest.domain.vendors import Arrival, MalformedError, RefusedError, hubspot
from services.ingest.domain.vendors.hubspot.events import Event
from tests.unit.ingest.bodies import HUB, changed, hub, received

BEGIN_US = 1_767_225_600_000_000


def read(*events: object, source: Source = HUB) -> list[Any]:
    return [outcome for _, outcome in readers.read(received(source, list(events)), source)]


def state(*events: object, source: Source = HUB) -> dict[str, object]:
    """The values of the one record that these events are about."""
    facts = read(*events, source=source)
    assert all(isinstance(fact, Fact) for fact in facts), facts
    assert len({(fact.type, fact.id) for fact in facts}) == 1
    fields = merge.of(facts).fields
    return {name: f.value if f.state == "value" else f.state for name, f in fields.items()}


def test_a_live_deletion_is_a_deletion() -> None:
    body = (
        b'[{"eventId":3029365631,"subscriptionId":686627,"portalId":891472,"appId":113,'
        b'"occurredAt":1767225600123,"subscriptionType":"deal.deletion","attemptNumber":0,'
        b'"objectId":9876543210123,"changeFlag":"DELETED","changeSource":"CRM_UI",'
        b'"sourceId":"userId:882761034"}]'
    )

    fact: Any
    ((_, fact),) = readers.read(received(HUB, body), HUB)

    assert (fact.type, fact.id, fact.op) == ("opportunity", "hub:9876543210123", "deleted")
    assert fact.fields["_deleted"] == msgspec.convert(
        ["value", True, BEGIN_US + 123_000, "3029365631"], type(fact.fields["_deleted"])
    )


def test_the_guides_name_of_the_type_is_read_too() -> None:
    event = changed("dealname", "Big", 0)
    event["eventType"] = event.pop("subscriptionType")

    assert state(event) == {"name": "Big"}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("dealname", "Big", {"name": "Big"}),
        ("amount", "12500.50", {"amount": "12500.50"}),
        ("amount", "1E+3", {"amount": "1000"}),
        ("amount", "", {"amount": "cleared"}),
        ("deal_currency_code", "eur", {"currency": "EUR"}),
        ("pipeline", "default", {"pipeline": "default"}),
        ("closedate", "1767225600000", {"expected_close": "2026-01-01T00:00:00Z"}),
        (
            "createdate",
            "2025-12-31T23:00:00.5+01:00",
            {"created_at": "2025-12-31T22:00:00.500000Z"},
        ),
        ("hubspot_owner_id", "77", {"owner_id": "77"}),
        ("hubspot_owner_id", "", {"owner_id": "cleared"}),
        ("amount", "REDACTED", {"amount": "redacted"}),
        ("my_own", "7", {"x_my_own": "7"}),
        ("my_own", "a\x00b", {"x_my_own": "ab"}),
        ("my_own", "y" * 5000, {"x_my_own": "unknown"}),
        ("hs_call_status", "COMPLETED", {"x_hs_call_status": "COMPLETED"}),  # not a call
    ],
)
def test_deal_properties(name: str, value: str, expected: dict[str, object]) -> None:
    assert state(changed(name, value, 0)) == expected


@pytest.mark.parametrize(
    ("type_id", "kind", "name", "value", "expected"),
    [
        ("0-48", "call", "hs_call_status", "COMPLETED", {"done": True}),
        ("0-48", "call", "hs_call_status", "NO_ANSWER", {"done": False}),
        ("0-48", "call", "hs_call_duration", "61500", {"duration_seconds": 61}),
        ("0-48", "call", "hs_call_direction", "INBOUND", {"direction": "inbound"}),
        ("0-48", "call", "hs_call_disposition", "f240", {"outcome": "f240"}),
        ("0-48", "call", "hs_timestamp", "1767225600000", {"occurred_at": "2026-01-01T00:00:00Z"}),
        (
            "0-47",
            "meeting",
            "hs_meeting_outcome",
            "COMPLETED",
            {"done": True, "outcome": "COMPLETED"},
        ),
        ("0-47", "meeting", "hs_meeting_outcome", "", {"done": "cleared", "outcome": "cleared"}),
        ("0-49", "email", "hs_email_status", "SENT", {"done": True}),
        ("0-49", "email", "hs_email_direction", "INCOMING_EMAIL", {"direction": "inbound"}),
        ("0-49", "email", "hs_email_direction", "FORWARDED_EMAIL", {"direction": "outbound"}),
        ("0-3", "opportunity", "amount", "3", {"amount": "3"}),
    ],
)
def test_generic_objects(
    type_id: str, kind: str, name: str, value: str, expected: dict[str, object]
) -> None:
    event = hub(
        "object.propertyChange", 0, objectTypeId=type_id, propertyName=name, propertyValue=value
    )

    assert state(event) == expected
    assert read(event)[0].type == kind


def test_status_and_closing_follow_the_stage() -> None:
    won = changed("dealstage", "closedwon", 60_000, event=2)
    reopened = changed("dealstage", "contractsent", 90_000, event=3)

    assert state(won) == {
        "stage": "closedwon",
        "status": "won",
        "closed_at": "2026-01-01T00:01:00Z",
    }
    assert state(reopened, won) == {
        "stage": "contractsent",
        "status": "open",
        "closed_at": "cleared",
    }
    assert merge.of(read(reopened, won)).stages == [
        StageEntry(BEGIN_US + 60_000_000, "closedwon"),
        StageEntry(BEGIN_US + 90_000_000, "contractsent"),
    ]


def test_the_sources_own_stages_decide_what_is_won() -> None:
    source = msgspec.structs.replace(HUB, stages=Stages(frozenset({"42"}), frozenset({"43"})))

    assert state(changed("dealstage", "42", 0), source=source)["status"] == "won"
    assert state(changed("dealstage", "43", 0), source=source)["status"] == "lost"
    assert state(changed("dealstage", "closedwon", 0), source=source)["status"] == "open"


def test_two_stages_of_one_instant_and_event_id_do_not_mix() -> None:
    one, other = changed("dealstage", "closedwon", 0), changed("dealstage", "open", 0)

    assert state(one, other) == state(other, one)
    assert (state(one, other)["stage"], state(one, other)["status"]) == ("open", "open")


def test_creation_dates_the_record_unless_the_crm_says_better() -> None:
    created = hub("deal.creation", 1000, changeFlag="NEW")
    told = changed("createdate", "1767139200000", 0)

    assert state(created)["created_at"] == "2026-01-01T00:00:01Z"
    assert state(told, created)["created_at"] == "2025-12-31T00:00:00Z"
    assert state(created, told)["created_at"] == "2025-12-31T00:00:00Z"


def test_restored_after_deleted_is_there_in_any_order() -> None:
    gone, back = hub("deal.deletion", 1), hub("deal.restore", 2)

    assert state(gone, back)["_deleted"] is False
    assert state(back, gone)["_deleted"] is False


def test_merged_records_are_gone_and_the_survivor_is_not() -> None:
    event = hub("deal.merge", 0, primaryObjectId=1, mergedObjectIds=[2, 3], newObjectId=1)

    kept, *gone = read(event)

    assert (kept.id, kept.fields["_deleted"].value) == ("hub:1", False)
    assert [(g.id, g.op, g.fields["_deleted"].value) for g in gone] == [
        ("hub:2", "merged", True),
        ("hub:3", "merged", True),
    ]
    assert gone[0].fields["_merged_into"].value == "hub:1"


def test_a_merge_into_a_new_record_ends_the_primary_too() -> None:
    event = hub("deal.merge", 0, primaryObjectId=1, mergedObjectIds=[2], newObjectId=9)

    assert [fact.id for fact in read(event)] == ["hub:9", "hub:1", "hub:2"]


def test_privacy_deletion_forgets_what_was_and_what_comes_late() -> None:
    early = changed("dealname", "Jane Doe", 1)
    erased = hub("deal.privacyDeletion", 5)
    late = changed("dealname", "John", 9)

    for order in ([early, erased], [erased, early]):
        known = merge.of(read(*order))
        assert known.fields["name"].state == "redacted"
        assert known.fields["name"].value is None
        assert known.deleted
    assert state(early, late, erased)["name"] == "John"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("conversation.creation", "conversation.creation"),
        ("conversation.newMessage", "conversation.newMessage"),
        ("<script>.evil", "other.other"),
        ("deal.somethingNew", "deal.other"),
    ],
)
def test_what_says_nothing_about_our_records_is_ignored_by_a_bounded_name(
    kind: str, name: str
) -> None:
    assert read(hub(kind, 0)) == [Ignored(name)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"propertyName": "amount", "propertyValue": "a lot"}, "is not a number"),
        ({"propertyName": "amount", "propertyValue": "1e999"}, "not an amount of money"),
        ({"propertyName": "amount", "propertyValue": "NaN"}, "not an amount of money"),
        ({"propertyName": "closedate", "propertyValue": "tomorrow"}, "is not an instant"),
        ({"propertyName": ""}, "propertyName is missing"),
        ({"propertyName": "x" * 200}, "property name"),
        ({"occurredAt": None}, "occurredAt is missing"),
        ({"occurredAt": 1_899_999_999_000}, "over a year after"),
        ({"occurredAt": -5}, "between 1970 and 2200"),
        ({"occurredAt": "soon"}, "is not an instant"),
        ({"objectId": None}, "is not a record's id"),
        ({"objectId": "a/b"}, "is not a record's id"),
        ({"objectId": ""}, "is not a record's id"),
        ({"objectId": {"id": 1}}, "Expected `int | str | null`"),
        ({"subscriptionType": "deal"}, "neither subscriptionType nor eventType"),
        ({"subscriptionType": "object.creation"}, "objectTypeId '' is not one such as 0-3"),
        ({"subscriptionType": "object.creation", "objectTypeId": "0/3"}, "objectTypeId '0/3'"),
        ({"subscriptionType": "deal.merge"}, "names no survivor or no merged records"),
        ({"subscriptionType": "deal.associationChange"}, "objectTypeId ''"),
    ],
)
def test_what_cannot_be_read_says_why(change: dict[str, object], words: str) -> None:
    fine, bad = changed("amount", "1", 0), changed("amount", "1", 0) | change

    outcomes = read(bad, fine)

    assert isinstance(outcomes[0], Unreadable)
    assert words in outcomes[0].reason
    assert isinstance(outcomes[1], Fact)


def test_an_item_read_alone_later_says_the_same() -> None:
    bad = changed("amount", "a lot", 0)
    request = received(HUB, [changed("amount", "1", 0), bad])
    (_, _), (index, unreadable) = readers.read(request, HUB)
    assert index == 1
    assert isinstance(unreadable, Unreadable)

    again = readers.alone(request, unreadable.raw)

    assert readers.read(again, HUB) == [(0, unreadable)]


SECRET = "yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy"
URL = "https://www.example.com/webhook_uri"
BODY = b"{'example_field':'example_value'}"  # with these quotes in HubSpot's own tests
NOW_MS = 1_767_607_260_000
ROTATING = Source(id="hub", tenant="acme", vendor="hubspot", secrets=("new", SECRET))
LEGACY = msgspec.structs.replace(ROTATING, legacy_signatures=True)


def test_known_answers_of_the_vendor() -> None:
    assert (
        hubspot.signature_v1(SECRET, BODY)
        == "69fc6631a867edd4f9e9e627fc5c1148e3fbdd8b21837b6d2b8901c1fa57f750"
    )
    assert (
        hubspot.signature_v2(SECRET, "POST", URL, BODY)
        == "4fe4e3a7d3cf09db53be39d0a58130e2aaba074ec123a9e355b876a689a1c383"
    )
    assert (
        hubspot.signature_v2(SECRET, "GET", URL, b"")
        == "eee2dddcc73c94d699f5e395f4b9d454a069a6855fbfa152e91e88823087200e"
    )
    assert (
        hubspot.signature_v3(SECRET, "POST", URL, BODY, "15000000")
        == "HPW73RUtKmcYoEDADG0s6MmGFWUzWJKAW07r8RDgcQw="
    )


def verified(
    headers: dict[str, str], source: Source = ROTATING, *, url: str = URL, body: bytes = BODY
) -> str:
    arrival = Arrival(method="POST", url=url, headers=headers, query={}, body=body, now_ms=NOW_MS)
    return hubspot.verify(arrival, source)


def v3(stamp: int | str = NOW_MS, secret: str = SECRET, url: str = URL) -> dict[str, str]:
    return {
        "x-hubspot-signature-v3": hubspot.signature_v3(secret, "POST", url, BODY, str(stamp)),
        "x-hubspot-request-timestamp": str(stamp),
    }


V1 = {
    "x-hubspot-signature": hubspot.signature_v1(SECRET, BODY),
    "x-hubspot-signature-version": "v1",
}
V2 = {
    "x-hubspot-signature": hubspot.signature_v2(SECRET, "POST", URL, BODY),
    "x-hubspot-signature-version": "v2",
}


@pytest.mark.parametrize("secret", ["new", SECRET])
def test_both_secrets_pass_while_they_overlap(secret: str) -> None:
    assert verified(v3(secret=secret)) == "hubspot.v3"


@pytest.mark.parametrize("stamp", [NOW_MS - 300_000, NOW_MS + 300_000])
def test_five_minutes_are_still_in_time(stamp: int) -> None:
    assert verified(v3(stamp)) == "hubspot.v3"


def test_documented_escapes_of_the_url_are_decoded_and_no_others() -> None:
    signed = v3(url="https://www.example.com/a:b/c?d=%20%26")

    assert verified(signed, url="https://www.example.com/a%3Ab%2fc%3Fd=%20%26") == "hubspot.v3"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        v3(secret="other"),
        v3(NOW_MS - 300_001),
        v3(NOW_MS + 300_001),
        v3("soon"),
        v3(""),
        v3() | {"x-hubspot-signature-v3": ""},
        v3() | {"x-hubspot-signature-v3": "é"},
        v3() | {"x-hubspot-request-timestamp": str(NOW_MS - 1)},
        V1,  # not asked for
        V2,
    ],
)
def test_what_must_not_pass(headers: dict[str, str]) -> None:
    with pytest.raises(RefusedError, match="X-HubSpot-Signature"):
        verified(headers)


def test_another_body_url_or_method_is_refused() -> None:
    with pytest.raises(RefusedError):
        verified(v3(), body=BODY + b" ")
    with pytest.raises(RefusedError):
        verified(v3(), url=URL + "?a=b")


def test_older_signatures_pass_where_they_are_asked_for() -> None:
    assert verified(V1, LEGACY) == "hubspot.v1"
    assert verified({"x-hubspot-signature": V1["x-hubspot-signature"]}, LEGACY) == "hubspot.v1"
    assert verified(V2, LEGACY) == "hubspot.v2"


@pytest.mark.parametrize(
    "headers",
    [
        V1 | v3(secret="wrong"),
        V2 | v3(NOW_MS - 300_001),
        V1 | {"x-hubspot-signature-v3": ""},
        V1 | {"x-hubspot-signature-version": "v2"},
        V2 | {"x-hubspot-signature-version": "v9"},
        V1 | {"x-hubspot-signature": "0" * 64},
    ],
)
def test_a_wrong_signature_never_falls_back_to_an_older_scheme(headers: dict[str, str]) -> None:
    with pytest.raises(RefusedError):
        verified(headers, LEGACY)


def journal(*events: dict[str, object], **more: object) -> dict[str, object]:
    """A file of the pulled journal."""
    return {
        "offset": "550e8400-e29b-41d4-a716-446655440000",
        "journalEvents": list(events),
        "publishedAt": "2026-01-05T10:01:05.000Z",
    } | more


def journal_event(action: str, **more: object) -> dict[str, object]:
    return {
        "type": "OBJECT",
        "portalId": 62515,
        "occurredAt": "2026-01-05T10:01:00.123Z",
        "action": action,
        "objectTypeId": "0-3",
        "objectId": 21678228008,
    } | more


def test_a_file_of_the_journal_is_counted_and_read_event_by_event() -> None:
    body = journal(
        journal_event("UPDATE", propertyChanges={"dealname": "first"}),
        journal_event("UPDATE", propertyChanges={"amount": "a lot"}),
        journal_event("UPDATE", propertyChanges={"dealname": "last"}),
    )
    request = received(HUB, body)

    assert hubspot.VENDOR.count({}, request.body) == 3
    (_, first), (place, bad), (_, last) = readers.read(request, HUB)
    assert isinstance(first, Fact)
    assert isinstance(last, Fact)
    assert isinstance(bad, Unreadable)
    assert place == 1
    # Within one instant the place in the file decides.
    for order in ([first, last], [last, first]):
        assert merge.of(order).fields["name"].value == "last"
    # Read alone after a fix, it keeps its place.
    again = readers.alone(request, bad.raw.replace(b"a lot", b"9"))
    ((_, mended),) = readers.read(again, HUB)
    assert isinstance(mended, Fact)
    assert first.position < mended.position < last.position


def test_half_a_character_in_the_journal_puts_only_its_event_aside() -> None:
    good = journal_event("UPDATE", propertyChanges={"dealname": "good"})
    bad = journal_event("UPDATE", propertyChanges={"dealname": "\ud83d"})
    request = received(HUB, journal(good, bad, good))

    assert hubspot.VENDOR.count({}, request.body) == 3
    kinds = [type(outcome) for _, outcome in readers.read(request, HUB)]
    assert kinds == [Fact, Unreadable, Fact]


@pytest.mark.parametrize("body", [{}, {"journalEvents": {}}, {"events": []}])
def test_an_object_that_is_no_journal_is_malformed(body: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        hubspot.VENDOR.count({}, json.dumps(body).encode())


@pytest.mark.parametrize(
    "form",
    [
        {"amount": "5", "dealname": "Big"},
        {"amount": {"value": "5"}, "dealname": {"newValue": "Big", "oldValue": "Small"}},
        [{"propertyName": "amount", "value": "5"}, {"name": "dealname", "propertyValue": "Big"}],
    ],
)
def test_every_likely_form_of_property_changes(form: object) -> None:
    ((_, fact),) = readers.read(
        received(HUB, journal(journal_event("UPDATE", propertyChanges=form))), HUB
    )

    assert isinstance(fact, Fact)
    assert {name: field.value for name, field in fact.fields.items()} == {
        "amount": "5",
        "name": "Big",
    }


@pytest.mark.parametrize(
    "form", [7, "amount", {"amount": {}}, [7], [{"value": 1}], {"a b": "1"}, {}, None]
)
def test_property_changes_of_no_known_form_are_put_aside(form: object) -> None:
    ((_, bad),) = readers.read(
        received(HUB, journal(journal_event("UPDATE", propertyChanges=form))), HUB
    )

    assert isinstance(bad, Unreadable)
    assert "propert" in bad.reason


def test_a_replayed_file_says_the_same_facts_and_another_place_is_another() -> None:
    event = journal_event("UPDATE", propertyChanges={"dealname": "Big"})
    request = received(HUB, journal(event, event))
    again = received(HUB, journal(event, event), number="r2")

    uids = [canonical.uid(request, fact) for _, fact in readers.read(request, HUB)]  # type: ignore[arg-type]  # facts, as the next line shows
    assert uids == [canonical.uid(again, fact) for _, fact in readers.read(again, HUB)]  # type: ignore[arg-type]  # facts
    assert len(set(uids)) == 2


def uid(event: object) -> bytes:
    request = received(HUB, [event])
    ((_, fact),) = readers.read(request, HUB)
    assert isinstance(fact, Fact)
    return canonical.uid(request, fact)


def test_a_retry_is_the_same_fact_and_the_same_event_id_elsewhere_is_not() -> None:
    event = changed("amount", "1", 0)

    assert uid(event) == uid(event | {"attemptNumber": 3})
    others = [{"objectId": 5}, {"propertyName": "dealname"}, {"occurredAt": BEGIN_US // 1000 + 1}]
    assert len({uid(event), *(uid(event | other) for other in others)}) == 4


def test_events_of_another_account_are_put_aside() -> None:
    source = msgspec.structs.replace(HUB, account="62515")
    mine, other = changed("amount", "1", 0), changed("amount", "1", 0, portalId=7)

    fact, bad = read(mine, other, source=source)

    assert isinstance(fact, Fact)
    assert isinstance(bad, Unreadable)
    assert "account '7'" in bad.reason


def test_record_types_of_the_vendors_own_objects_can_be_configured() -> None:
    event = hub("object.creation", 0, objectTypeId="2-3453932")
    source = msgspec.structs.replace(HUB, types={"2-3453932": "x_subscription"})
    wrong = msgspec.structs.replace(HUB, types={"2-3453932": "Abo!"})

    assert read(event)[0].type == "x_2_3453932"
    assert read(event, source=source)[0].type == "x_subscription"
    assert "not a record type" in read(event, source=wrong)[0].reason


def test_privacy_deletion_and_deletion_end_the_same_in_any_order() -> None:
    known = changed("dealname", "Jane Doe", 1)
    erased, gone = hub("deal.privacyDeletion", 5, event=2), hub("deal.deletion", 6, event=3)

    orders = ([known, erased, gone], [gone, known, erased], [erased, gone, known])
    states = [merge.of(read(*order)) for order in orders]

    assert states[0] == states[1] == states[2]
    assert states[0].fields["name"].state == "redacted"
    assert states[0].deleted


texts = st.text(max_size=8) | st.sampled_from(["REDACTED", "0-3", "deal", "9" * 30, "\x00"])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from([*Event.__struct_encode_fields__]),
            anything,
            max_size=6,
        ),
        max_size=3,
    ),
    st.sampled_from(["deal.propertyChange", "object.merge", "contact.associationChange"]),
    st.sampled_from(["UPDATE", "MERGE", "ASSOCIATION_ADDED", "SNAPSHOT", "GDPR_DELETE"]),
)
@settings(max_examples=200, deadline=None)
def test_whatever_comes_is_a_fact_ignored_or_put_aside(
    spoiled: list[dict[str, object]], kind: str, action: str
) -> None:
    pushed = [hub(kind, 0) | event for event in spoiled]
    pulled = journal(*(journal_event(action) | event for event in spoiled))

    for body in (pushed, pulled):
        for _, outcome in readers.read(received(HUB, body), HUB):
            assert isinstance(outcome, Fact | Ignored | Unreadable)
            if isinstance(outcome, Fact):
                msgspec.json.encode(canonical.event(received(HUB, body), 0, outcome))


@pytest.mark.parametrize(
    "body",
    [
        b'{"journalEvents":' + b"[" * 100_000,
        b'{"journalEvents":[' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"]}",
        b'{"a":"\\ud83d","journalEvents":' + b"[" * 100_000,
        b'{"journalEvents":[{}],"index":' + b"9" * 100_000 + b"}",
        b'{"journalEvents":[{}],"index":"one"}',
        b'{"journalEvents":[{}],"offset":{}}',
        b'{"journalEvents":[\xff]}',
        b"{",
    ],
)
def test_a_hostile_file_is_put_aside(body: bytes) -> None:
    outcomes = readers.read(received(HUB, body), HUB)

    assert outcomes
    assert all(isinstance(outcome, Unreadable) for _, outcome in outcomes)
