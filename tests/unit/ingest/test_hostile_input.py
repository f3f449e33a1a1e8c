"""Readers never raise, whatever comes; what they say can always be published and stored.

Every vendor is tried with its own examples, spoiled at any depth, so that a new one is tried too.
"""

import base64
import contextlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.base import valid_id
from schemas.crm import Received
from services.ingest.domain import canonical, merge, readers
from services.ingest.domain.facts import Fact, Unreadable
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import all_vendors
from tests.support import TENANT
from tests.unit.ingest.bodies import HUB, changed, received
from tests.unit.ingest.test_examples import CASES, read_case

VENDORS = sorted(all_vendors())
MAPPING = {
    "rules": [
        {
            "when": {"type": {"not": {"equals": "ignored"}}},
            "type": "opportunity",
            "id": "data.id",
            "at": "time",
            "owner": "data.owner",
            "fields": {
                "amount": {"path": "data.amount", "minor": 100},
                "stage": {"path": "data.stage", "since": "data.since"},
                "closed_at": "data.closed",
                "expected_close": {"path": "data.close", "unit": "s"},
            },
            "relations": [{"type": "account", "id": "data.accounts"}],
        }
    ]
}

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=30),
    st.sampled_from(
        ["", "0", "-1", "1e999", "REDACTED", "NaN", "\x00", "9" * 40, "2026-13-45", "1767225600000"]
    ),
    st.sampled_from(
        [
            *("/Date(1506409448000-0700)/", "/Date(-99999999999999)/", "٣", "²"),
            *("0x400800", "9-0xff", "006*", "GAP_OVERFLOW", "Task"),
        ]
    ),
)
things = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


def spoiled(template: Any) -> st.SearchStrategy[Any]:
    """The template with some of its values, at any depth, replaced by anything."""
    if isinstance(template, dict):
        whole = st.fixed_dictionaries({key: spoiled(value) for key, value in template.items()})
        return st.one_of(whole, whole, whole, things)
    if isinstance(template, list) and template:
        one = st.tuples(*map(spoiled, template)).map(list)
        return st.one_of(one, one, one, things)
    return st.one_of(st.just(template), st.just(template), things)


@cache
def requests(vendor: str) -> list[tuple[Received, Source]]:
    """The vendor's examples."""
    read = (read_case(path) for path in CASES if path.parent.name == vendor)
    return [(request, source) for _, request, source in read]


@cache
def spoiled_bodies(vendor: str, number: int) -> st.SearchStrategy[bytes]:
    """One example's body, spoiled: as JSON where it is, else byte by byte."""
    body = requests(vendor)[number][0].body
    try:
        template = json.loads(body)
    except ValueError:
        return st.tuples(st.integers(0, len(body)), st.binary(max_size=4)).map(
            lambda cut: body[: cut[0]] + cut[1] + body[cut[0] + len(cut[1]) :]
        )
    return spoiled(template).map(lambda value: json.dumps(value).encode())


def check(request: Received, source: Source) -> None:
    """Nothing but outcomes, each of which can be kept."""
    vendor = all_vendors()[source.vendor]
    # A body that is refused at the door, in words, must be read without harm all the same.
    with contextlib.suppress(msgspec.DecodeError, RecursionError, ValueError):
        vendor.count(request.headers, request.body)
    outcomes = readers.read(request, source)
    facts = [outcome for _, outcome in outcomes if isinstance(outcome, Fact)]
    for index, outcome in outcomes:
        msgspec.json.encode(canonical.outcome(request, index, outcome))
        if isinstance(outcome, Unreadable):
            assert outcome.reason
            assert "\x00" not in outcome.reason
            outcome.reason.encode()
            readers.read(readers.alone(request, outcome.raw), source)
    for fact in facts:
        check_fact(fact, source)
        assert len(canonical.uid(request, fact)) == 16
    merge.of(facts)


def check_fact(fact: Fact, source: Source) -> None:
    """It can be published, stored and found again."""
    assert fact.type
    # Without an id it is about all of a type, and then there is something to read again.
    assert valid_id(fact.id) or (fact.id == "" and fact.reread is not None)
    assert fact.id == "" or fact.id.startswith(f"{source.id}:")
    assert 0 <= fact.position[0] < 2**63
    for name, field in fact.fields.items():
        assert "\x00" not in name
        assert 0 <= field.at < 2**63
        assert isinstance(field.value, str | int | bool | None)
        assert not (isinstance(field.value, int) and abs(field.value) >= 2**63)
        str(field.value).encode()
        assert "\x00" not in str(field.value)
    for relation in fact.relations:
        assert valid_id(relation.id)


def source_of(vendor: str) -> Source:
    return Source(id="crm", tenant=TENANT, vendor=vendor, secrets=("s",), mapping=MAPPING)


HEADERS: Mapping[str, Mapping[str, str]] = {
    "cloudevents": {"content-type": "application/cloudevents+json"}
}


@pytest.mark.parametrize("vendor", VENDORS)
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_examples_spoiled_at_any_place(vendor: str, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(requests(vendor)) - 1))
    request, source = requests(vendor)[number]
    body = data.draw(spoiled_bodies(vendor, number))

    check(msgspec.structs.replace(request, body=body), source)


@pytest.mark.parametrize("vendor", VENDORS)
@given(body=things)
@settings(max_examples=40, deadline=None)
def test_any_json(vendor: str, body: Any) -> None:
    source = source_of(vendor)

    check(received(source, body, headers=dict(HEADERS.get(vendor, {}))), source)


@pytest.mark.parametrize("vendor", VENDORS)
@given(body=st.binary(max_size=60))
@settings(max_examples=40, deadline=None)
def test_bytes(vendor: str, body: bytes) -> None:
    source = source_of(vendor)

    check(received(source, body), source)


@given(spoiled(changed("", "", 0)), st.sampled_from(["dealstage", "closedate", "hs_call_duration"]))
@settings(max_examples=100, deadline=None)
def test_hubspot_properties(event: Any, name: str) -> None:
    if isinstance(event, dict):
        event = event | {"propertyName": name, "objectTypeId": "0-48"}

    check(received(HUB, [event]), HUB)


ENTITIES = (
    b'<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><a>&b;</a>'
)


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"meta":' * 100_000,
        b"[" + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"]",
        b'[{"occurredAt":' + b"9" * 100_000 + b"}]",
        b'{"meta":{"entity":"deal","action":"change","timestamp":1768414616,"entity_id":1},"data":'
        + b'{"a":' * 50_000
        + b"1"
        + b"}" * 50_001,
        b'["\xff\xfe"]',
        b'"\\ud800"',
        b"",
        b"\x00",
        b'{"items":[' + b"{}," * 20_000 + b"{}]}",
        b"<a>" * 50_000,
        ENTITIES,
        b'{"schema":"' + b"x" * 100_000 + b'","events":[{"event":{"payload":"AAAA"}}]}',
    ],
)
def test_bombs(vendor: str, body: bytes) -> None:
    source = source_of(vendor)
    for media in ("application/json", "application/cloudevents+json", "text/xml"):
        check(received(source, body, headers={"content-type": media}), source)


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_body_of_another_vendor_is_none_of_ours(vendor: str) -> None:
    source = source_of(vendor)
    for other in VENDORS:
        for request, _ in requests(other):
            theirs = received(source, request.body, headers=request.headers)
            check(theirs, source)


def test_bytes_in_base64_are_none() -> None:
    source = source_of("cloudevents")
    event = {
        "specversion": "1.0",
        "id": "1",
        "source": "/a",
        "type": "pacesetter.record.updated",
        "data_base64": base64.b64encode(b"\xff\x00").decode(),
    }

    check(received(source, event, headers=dict(HEADERS["cloudevents"])), source)
