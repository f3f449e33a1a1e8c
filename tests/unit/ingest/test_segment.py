"""Segment's signature, which covers only the first event of a batch, and RudderStack's header."""

import json
from typing import Any

import pytest

from services.ingest.domain import readers
from services.ingest.domain.facts import Fact
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import (
    Arrival,
    MalformedError,
    RefusedError,
    rudderstack,
    segment,
)
from tests.support import TENANT
from tests.unit.ingest.bodies import received

SOURCE = Source(id="seg", tenant=TENANT, vendor="segment", secrets=("new", "old"))
EVENT = b'{"type":"track","event":"Deal Won","messageId":"m1"}'
BATCHES = [b"[" + EVENT + b", {}]", b'{"batch": [ ' + EVENT + b" , {}]}"]


def arrival(body: bytes, **headers: str) -> Arrival:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Arrival(method="POST", url="", headers=names, query={}, body=body, now_ms=0)


def test_a_known_answer() -> None:
    # RFC 2202, test case 2 of HMAC-SHA-1
    assert segment.signature("Jefe", b"what do ya want for nothing?") == (
        "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"
    )


@pytest.mark.parametrize("secret", SOURCE.secrets)
def test_a_single_event_is_signed_whole(secret: str) -> None:
    signed = arrival(EVENT, x_signature=segment.signature(secret, EVENT))

    assert segment.verify(signed, SOURCE) == "segment.sha1"


@pytest.mark.parametrize("body", BATCHES)
def test_of_a_batch_the_first_event_is_signed_and_the_method_says_so(body: bytes) -> None:
    signed = arrival(body, x_signature=segment.signature("new", EVENT))

    assert segment.verify(signed, SOURCE) == "segment.sha1.first"


@pytest.mark.parametrize("body", [EVENT, *BATCHES, b"[]", b'{"batch": []}', b"", b"[" * 100_000])
@pytest.mark.parametrize("given", ["", "0" * 40, segment.signature("other", EVENT)])
def test_anything_else_is_refused(body: bytes, given: str) -> None:
    with pytest.raises(RefusedError):
        segment.verify(arrival(body, x_signature=given), SOURCE)


def test_a_signature_of_another_event_than_the_first_is_refused() -> None:
    body = b"[{}, " + EVENT + b"]"

    with pytest.raises(RefusedError):
        segment.verify(arrival(body, x_signature=segment.signature("new", EVENT)), SOURCE)


@pytest.mark.parametrize(
    ("body", "count"), [({}, 1), ([{}, {}], 2), ({"batch": [{}] * 3}, 3), ([], 0)]
)
def test_events_are_counted(body: Any, count: int) -> None:
    assert segment.count({}, json.dumps(body).encode()) == count


@pytest.mark.parametrize("body", [b"", b"1", b'{"batch": 1}', b"[1,]"])
def test_what_is_no_batch_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedError):
        segment.count({}, body)


RUDDER = Source(
    id="rud", tenant=TENANT, vendor="rudderstack", secrets=("secret",), header="X-Rudder"
)


def test_rudderstack_repeats_a_static_header() -> None:
    assert rudderstack.VENDOR.verify is not None
    given = arrival(EVENT, x_rudder="secret")
    assert rudderstack.VENDOR.verify(given, RUDDER) == "rudderstack.header"
    with pytest.raises(RefusedError):
        rudderstack.VENDOR.verify(arrival(EVENT, x_rudder="other"), RUDDER)


def test_rudderstack_needs_to_know_the_header() -> None:
    without = Source(id="rud", tenant=TENANT, vendor="rudderstack", secrets=("secret",))

    assert len(list(rudderstack.VENDOR.problems(without))) == 1


def test_the_same_message_twice_is_the_same_fact() -> None:
    rule = {"type": "opportunity", "id": "properties.id"}
    mapped = Source(id="seg", tenant=TENANT, vendor="segment", mapping={"rules": [rule]})
    event = json.loads(EVENT) | {"properties": {"id": 1}}
    found = [one for _, one in readers.read(received(mapped, [event, event]), mapped)]

    assert [one.dedupe for one in found if isinstance(one, Fact)] == [("m1",), ("m1",)]
