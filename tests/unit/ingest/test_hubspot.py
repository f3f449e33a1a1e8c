"""HubSpot's events, as HubSpot sends them."""

from typing import Any

import msgspec
import pytest

from schemas.crm import StageEntry
from services.ingest.domain import merge, readers
from services.ingest.domain.facts import Fact, Ignored, Unreadable
from services.ingest.domain.sources import Source, Stages
from tests.unit.ingest.bodies import HUB, changed, hub, received

BEGIN_US = 1_767_225_600_000_000


def read(*events: object, source: Source = HUB) -> list[Any]:
    return readers.read(received(source, list(events)), source)


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
    (fact,) = readers.read(received(HUB, body), HUB)

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
        ("deal.associationChange", "deal.associationChange"),
        ("contact.creation", "contact.creation"),
        ("contact.privacyDeletion", "contact.privacyDeletion"),
        ("object.creation", "object.creation"),
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
    ],
)
def test_what_cannot_be_read_says_why(change: dict[str, object], words: str) -> None:
    fine, bad = changed("amount", "1", 0), changed("amount", "1", 0) | change

    outcomes = read(bad, fine)

    assert isinstance(outcomes[0], Unreadable)
    assert outcomes[0].index == 0
    assert words in outcomes[0].reason
    assert isinstance(outcomes[1], Fact)


def test_an_item_read_alone_later_says_the_same() -> None:
    bad = changed("amount", "a lot", 0)
    request = received(HUB, [changed("amount", "1", 0), bad])
    unreadable: Any = readers.read(request, HUB)[1]

    again = readers.alone(request, unreadable.raw)

    (once_more,) = readers.read(again, HUB)
    assert once_more == Unreadable(0, unreadable.reason, unreadable.raw)
