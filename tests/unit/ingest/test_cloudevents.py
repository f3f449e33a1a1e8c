"""CloudEvents 1.0 in its three modes."""

import base64
import json
from typing import Any

import pytest

from services.ingest.domain import readers
from services.ingest.domain.facts import BadEventError, Fact, Ignored, Unreadable
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import Answer, Arrival, RefusedError, cloudevents
from tests.unit.ingest.bodies import APP, RECEIVED_US, cloud, received

STRUCTURED = {"content-type": "application/cloudevents+json; charset=utf-8"}
BATCH = {"content-type": "application/cloudevents-batch+json"}


def read(body: object, headers: dict[str, str] = STRUCTURED, source: Source = APP) -> list[Any]:
    request = received(source, body, headers=headers)
    return [outcome for _, outcome in readers.read(request, source)]


def values(fact: Fact) -> dict[str, object]:
    return {
        name: field.value if field.state == "value" else field.state
        for name, field in fact.fields.items()
        if not name.startswith("_")
    }


def test_a_structured_event() -> None:
    (fact,) = read(cloud(owner_id="u7", amount=12.5, done=None, note="x", name=""))

    assert (fact.type, fact.id, fact.op) == ("opportunity", "app:1001", "updated")
    assert values(fact) == {
        "owner_id": "u7",
        "amount": "12.5",
        "done": "cleared",
        "x_note": "x",
        "name": "cleared",
    }
    assert fact.fields["owner_id"].position == (1_768_414_616_057_000, "/app|e-1")


def test_a_batch_and_an_empty_one() -> None:
    facts = read([cloud(number="1"), cloud(number="2", id="1002")], BATCH)

    assert [fact.id for fact in facts] == ["app:1001", "app:1002"]
    assert read([], BATCH) == []


def test_a_binary_event_with_encoded_headers() -> None:
    headers = {
        "content-type": "application/json",
        "ce-specversion": "1.0",
        "ce-id": '"e%2D1"',
        "ce-source": "/caf%C3%A9",
        "ce-type": "pacesetter.record.updated",
        "ce-time": "2026-01-14T18:16:56.057Z",
    }
    (fact,) = read({"type": "call", "id": "5", "done": True}, headers)

    assert fact.id == "app:5"
    assert fact.fields["done"].by == "/café|e-1"


@pytest.mark.parametrize(
    ("header", "value"),
    [("a%20b", "a b"), ('"a b"', "a b"), ('"a\\"b"', 'a"b'), ("a%2525", "a%25"), ("100%", "100%")],
)
def test_header_values_are_unquoted_then_decoded_once(header: str, value: str) -> None:
    assert cloudevents.attribute(header) == value


def test_a_header_that_is_not_utf8_is_rejected() -> None:
    with pytest.raises(BadEventError):
        cloudevents.attribute("%FF")


def test_without_a_time_the_receive_time_decides() -> None:
    event = cloud(name="x")
    event["time"] = None  # null means unset
    (fact,) = read(event)

    assert fact.fields["name"].at == RECEIVED_US


def test_data_in_base64() -> None:
    event = cloud()
    event["data_base64"] = base64.b64encode(json.dumps(event.pop("data")).encode()).decode()

    assert read(event)[0].id == "app:1001"


@pytest.mark.parametrize(
    ("data", "closed_at"),
    [
        ({"status": "won", "closed_at": "2026-01-10T00:00:00Z"}, "2026-01-10T00:00:00Z"),
        ({"status": "won"}, "2026-01-14T18:16:56.057000Z"),
        ({"status": "open"}, "cleared"),
        ({"name": "x"}, None),
    ],
)
def test_when_it_was_closed(data: dict[str, Any], closed_at: str | None) -> None:
    assert values(read(cloud(**data))[0]).get("closed_at") == closed_at


def test_deletion_and_erasure() -> None:
    (gone,) = read(cloud("pacesetter.record.deleted"))
    (erased,) = read(cloud("pacesetter.record.erased"))

    assert (gone.op, gone.fields["_deleted"].value) == ("deleted", True)
    assert (erased.op, erased.fields["_redacted"].value) == ("erased", True)


def test_other_types_are_ignored() -> None:
    assert read(cloud("com.example.other")) == [Ignored("other")]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": None}, "lacks id"),
        ({"source": ""}, "lacks source"),
        ({"specversion": "0.3"}, "is not 1.0"),
        ({"data": "text"}, "data is not an object"),
        ({"data": None}, "data is not an object"),
        ({"data_base64": "e30="}, "exclude each other"),
        ({"datacontenttype": "text/xml"}, "is not JSON"),
        ({"data": {"type": "Deal!", "id": "1"}}, "not a record type"),
        ({"data": {"type": "call"}}, "not a record's id"),
        ({"data": {"type": "call", "id": "1", "done": "perhaps"}}, "neither true nor false"),
        ({"data": {"type": "call", "id": "1", "status": ["won"]}}, "none of open, won, lost"),
        ({"time": "yesterday"}, "not an instant"),
    ],
)
def test_what_cannot_be_read_says_why(change: dict[str, object], words: str) -> None:
    (outcome,) = read(cloud() | change)

    assert isinstance(outcome, Unreadable)
    assert words in outcome.reason


def arrival(
    method: str = "POST", headers: dict[str, str] | None = None, query: dict[str, str] | None = None
) -> Arrival:
    return Arrival(
        method=method,
        url="https://pace.example/v1/sources/app/events",
        headers=headers or {},
        query=query or {},
        body=b"{}",
        now_ms=RECEIVED_US // 1000,
    )


def test_the_handshake_allows_the_origin_that_asks() -> None:
    asked = {"webhook-request-origin": "events.example", "webhook-request-rate": "120"}
    answer = cloudevents.handshake(arrival("OPTIONS", asked), APP)

    assert isinstance(answer, Answer)
    assert answer.status == 200
    assert answer.headers["WebHook-Allowed-Origin"] == "events.example"
    assert answer.headers["WebHook-Allowed-Rate"] == "*"


@pytest.mark.parametrize("method", ["OPTIONS", "POST"])
def test_without_an_origin_there_is_no_handshake(method: str) -> None:
    assert cloudevents.handshake(arrival(method), APP) is None


SECRET = Source(id="app", tenant=APP.tenant, vendor="cloudevents", secrets=("new", "old"))


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"authorization": "Bearer new"}, {}),
        ({"authorization": "bearer old"}, {}),
        ({}, {"access_token": "new"}),
    ],
)
def test_a_secret_as_bearer_or_in_the_query(headers: dict[str, str], query: dict[str, str]) -> None:
    assert cloudevents.verify(arrival(headers=headers, query=query), SECRET) == "cloudevents.token"


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({}, {}),
        ({"authorization": "Bearer other"}, {"access_token": "new"}),  # a wrong one is final
        ({"authorization": "Basic new"}, {}),
        ({}, {"access_token": ""}),
    ],
)
def test_anything_else_is_refused(headers: dict[str, str], query: dict[str, str]) -> None:
    with pytest.raises(RefusedError):
        cloudevents.verify(arrival(headers=headers, query=query), SECRET)


def test_without_secrets_an_api_key_must_do() -> None:
    assert cloudevents.verify(arrival(query={"access_token": "x"}), APP) is None


@pytest.mark.parametrize("headers", [STRUCTURED, BATCH])
def test_an_event_that_was_put_aside_is_read_alone(headers: dict[str, str]) -> None:
    event = cloud(done="perhaps") | {"id": "bad"}
    body = [cloud(), event] if headers is BATCH else event
    request = received(APP, body, headers=headers)
    (bad,) = [one for _, one in readers.read(request, APP) if isinstance(one, Unreadable)]

    again = readers.alone(request, bad.raw)

    assert [type(one) for _, one in readers.read(again, APP)] == [Unreadable]
    assert b"bad" in again.body


def test_an_erasure_keeps_nothing_of_what_was_said() -> None:
    (fact,) = read(cloud("pacesetter.record.erased", name="Ana"))

    assert "Ana" not in repr(fact)
