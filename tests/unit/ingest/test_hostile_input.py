"""Readers never raise, whatever comes; what they say can always be published and stored."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.base import valid_id
from services.ingest.domain import merge, readers
from services.ingest.domain.facts import Fact, Unreadable
from services.ingest.domain.sources import Source
from tests.unit.ingest.bodies import APP, HUB, PIPE, changed, cloud, pipe, received

STRUCTURED = {"content-type": "application/cloudevents+json"}

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=30),
    st.sampled_from(
        ["", "0", "-1", "1e999", "REDACTED", "NaN", "\x00", "9" * 40, "2026-13-45", "1767225600000"]
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
    return st.one_of(st.just(template), st.just(template), things)


def check(source: Source, body: bytes, headers: dict[str, str]) -> None:
    request = received(source, body, headers=headers)
    outcomes = readers.read(request, source)
    facts = [outcome for outcome in outcomes if isinstance(outcome, Fact)]
    for outcome in outcomes:
        if isinstance(outcome, Unreadable):
            assert outcome.reason
            assert "\x00" not in outcome.reason
            readers.read(readers.alone(request, outcome.raw), source)
    for fact in facts:
        assert valid_id(fact.id)
        for field in fact.fields.values():
            assert 0 <= field.at < 2**63
            assert isinstance(field.value, str | int | bool | None)
            assert not (isinstance(field.value, int) and abs(field.value) >= 2**63)
            str(field.value).encode()
            assert "\x00" not in str(field.value)
    merge.of(facts)


@given(st.lists(spoiled(changed("amount", "1", 0)), max_size=3))
@settings(max_examples=150, deadline=None)
def test_hubspot(body: Any) -> None:
    check(HUB, json.dumps(body).encode(), {})


@given(spoiled(changed("", "", 0)), st.sampled_from(["dealstage", "closedate", "hs_call_duration"]))
@settings(max_examples=100, deadline=None)
def test_hubspot_properties(event: Any, name: str) -> None:
    if isinstance(event, dict):
        event = event | {"propertyName": name, "objectTypeId": "0-48"}
    check(HUB, json.dumps([event]).encode(), {})


_DEAL = {
    "id": 7,
    "value": 1.5,
    "status": "won",
    "won_time": "2026-01-01",
    "custom_fields": {"a": {}},
}
_CALL = {"id": 7, "type": "call", "done": True, "due_date": "2026-01-01", "duration": "01:00"}


@given(spoiled(pipe("change", "deal", _DEAL)) | spoiled(pipe("change", "activity", _CALL)))
@settings(max_examples=150, deadline=None)
def test_pipedrive(body: Any) -> None:
    check(PIPE, json.dumps(body).encode(), {})


@given(spoiled(cloud(amount="1", done=True, stage="a", closed_at="2026-01-01")))
@settings(max_examples=150, deadline=None)
def test_cloudevents(body: Any) -> None:
    check(APP, json.dumps(body).encode(), STRUCTURED)


@given(st.binary(max_size=60), st.sampled_from([HUB, PIPE, APP]))
@settings(deadline=None)
def test_bytes(body: bytes, source: Source) -> None:
    check(source, body, {})


@pytest.mark.parametrize("source", [HUB, PIPE, APP])
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
    ],
)
def test_bombs(source: Source, body: bytes) -> None:
    check(source, body, {})
    check(source, body, STRUCTURED)
