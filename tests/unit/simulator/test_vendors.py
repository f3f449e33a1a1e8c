import base64
import hashlib
import hmac
import json
from datetime import UTC, date, datetime
from decimal import Decimal

from simulator.days import Change, Op, Value, play
from simulator.vendors import Request, Secrets, Translator, requests_of, signed

AT = datetime(2026, 11, 9, 15, 0, 0, 123_000, tzinfo=UTC)
SECRETS = Secrets("hub-secret", "pacesetter", "pipe-secret", "pk_partners")


def deal(source: str, fields: dict[str, Value], op: Op = "create") -> Change:
    return Change(AT, source, "opportunity", "77", op, fields, "12")


WHOLE: dict[str, Value] = {
    "owner_id": "12",
    "name": "Alder Foods - Seats",
    "created_at": AT,
    "amount": Decimal("1250.50"),
    "currency": "USD",
    "stage": "appointment",
    "status": "open",
    "expected_close": date(2026, 12, 1),
}


def test_hubspot_says_a_creation_and_each_property_as_text() -> None:
    events = Translator().events(deal("hubspot", WHOLE))
    properties = {e["propertyName"]: e["propertyValue"] for e in events if "propertyName" in e}

    assert events[0]["subscriptionType"] == "deal.creation"
    assert properties["amount"] == "1250.50"
    assert properties["dealstage"] == "appointmentscheduled"
    assert properties["createdate"] == "1794236400123"
    assert {e["occurredAt"] for e in events} == {1794236400123}
    assert len({e["eventId"] for e in events}) == len(events)
    assert all(isinstance(value, str) for value in properties.values())


def test_hubspot_says_only_what_changed() -> None:
    translator = Translator()
    translator.events(deal("hubspot", WHOLE))

    events = translator.events(deal("hubspot", {"amount": Decimal(900)}, "update"))

    assert [(e["subscriptionType"], e["propertyName"]) for e in events] == [
        ("deal.propertyChange", "amount")
    ]


def test_hubspot_names_activities_by_their_object_type() -> None:
    change = Change(AT, "hubspot", "call", "5", "create", {"done": True, "occurred_at": AT}, "12")

    events = Translator().events(change)

    assert {e["objectTypeId"] for e in events} == {"0-48"}
    assert {e.get("propertyValue") for e in events} >= {"COMPLETED"}


def test_pipedrive_sends_the_record_and_the_previous_values_of_what_changed() -> None:
    translator = Translator()
    (created,) = translator.events(deal("pipedrive", WHOLE))
    (changed,) = translator.events(
        deal("pipedrive", {"stage": "won", "status": "won", "closed_at": AT}, "update")
    )
    (deleted,) = translator.events(deal("pipedrive", {}, "delete"))

    assert created["previous"] is None
    assert created["data"]["value"] == 1250.5
    assert changed["data"]["value"] == 1250.5
    assert changed["data"]["won_time"] == "2026-11-09T15:00:00Z"
    assert changed["previous"] == {
        "status": "open",
        "won_time": None,
        "close_time": None,
        "stage_id": 1,
    }
    assert (deleted["meta"]["action"], deleted["data"]) == ("delete", None)
    assert deleted["previous"]["status"] == "won"


def test_partners_send_cloud_events_alone_or_in_batches() -> None:
    (event,) = Translator().events(deal("partners", WHOLE))
    (alone,), (batch,) = requests_of("partners", [event]), requests_of("partners", [event, event])

    assert event["data"]["amount"] == "1250.50"
    assert event["specversion"] == "1.0"
    assert alone.content_type == "application/cloudevents+json"
    assert batch.content_type == "application/cloudevents-batch+json"
    assert batch.events == len(json.loads(batch.body)) == 2


def test_hubspot_requests_hold_a_hundred_events_and_count_attempts() -> None:
    events = [
        e
        for change in play(1, date(2026, 11, 9), 1)
        if change.source == "hubspot"
        for e in Translator().events(change)
    ][:250]

    requests = requests_of("hubspot", events, attempt=2)

    assert [request.events for request in requests] == [100, 100, 50]
    assert {e["attemptNumber"] for r in requests for e in json.loads(r.body)} == {2}


def test_a_hubspot_signature_is_what_the_documentation_describes() -> None:
    request = Request("hubspot", b'[{"a":1}]', "application/json", 1)

    headers = signed(request, url="http://h/v1/x", secrets=SECRETS, now=1794236400.5)

    text = 'POSThttp://h/v1/x[{"a":1}]1794236400500'
    mac = hmac.digest(b"hub-secret", text.encode(), hashlib.sha256)
    assert headers["x-hubspot-request-timestamp"] == "1794236400500"
    assert base64.b64decode(headers["x-hubspot-signature-v3"]) == mac


def test_the_others_send_a_password_or_a_key() -> None:
    pipedrive = signed(
        Request("pipedrive", b"{}", "application/json", 1), url="", secrets=SECRETS, now=0
    )
    partners = signed(
        Request("partners", b"{}", "application/json", 1), url="", secrets=SECRETS, now=0
    )

    assert base64.b64decode(pipedrive["authorization"].split()[1]) == b"pacesetter:pipe-secret"
    assert partners["x-api-key"] == "pk_partners"
