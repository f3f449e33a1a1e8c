"""Dynamics 365: the static secret, and the order of what happened within a second."""

from typing import Any

import pytest

from services.ingest.domain import merge, readers
from services.ingest.domain.facts import Fact, Unreadable
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import Arrival, RefusedError, dynamics
from tests.support import TENANT
from tests.unit.ingest.bodies import received


def source(**more: Any) -> Source:
    return Source(id="dyn", tenant=TENANT, vendor="dynamics", secrets=("new", "old"), **more)


def arrival(headers: dict[str, str], query: dict[str, str]) -> Arrival:
    return Arrival(method="POST", url="", headers=headers, query=query, body=b"{}", now_ms=0)


def verify(request: Arrival, of: Source) -> str | None:
    assert dynamics.VENDOR.verify is not None
    return dynamics.VENDOR.verify(request, of)


@pytest.mark.parametrize("secret", ["new", "old"])
def test_a_secret_in_the_header_or_as_the_webhook_key(secret: str) -> None:
    in_header = verify(arrival({"x-pace": secret}, {}), source(header="X-Pace"))
    in_query = verify(arrival({}, {"code": secret}), source(query="code"))

    assert (in_header, in_query) == ("dynamics.header", "dynamics.query")


@pytest.mark.parametrize(
    ("headers", "query"),
    [({}, {}), ({"x-pace": "other"}, {}), ({}, {"code": "new"}), ({"x-pace": ""}, {})],
)
def test_anything_else_is_refused_with_the_place_it_belongs(
    headers: dict[str, str], query: dict[str, str]
) -> None:
    with pytest.raises(RefusedError, match="the header X-Pace"):
        verify(arrival(headers, query), source(header="X-Pace"))


def test_a_source_must_say_where_its_secret_is_expected() -> None:
    assert list(dynamics.VENDOR.problems(source())) != []
    assert list(dynamics.VENDOR.problems(source(query="code"))) == []


def update(row: str, step: str, operation: str) -> dict[str, Any]:
    columns = {"modifiedon": "/Date(1768499939000)/", "stepname": step}
    target = {
        "Attributes": [{"key": key, "value": value} for key, value in columns.items()],
        "Id": "d1",
        "LogicalName": "opportunity",
        "RowVersion": row,
    }
    return {
        "MessageName": "Update",
        "PrimaryEntityName": "opportunity",
        "PrimaryEntityId": "d1",
        "OperationId": operation,
        "InputParameters": [{"key": "Target", "value": target}],
    }


def facts(*bodies: Any) -> list[Fact]:
    found = [readers.read(received(source(), body), source())[0][1] for body in bodies]
    return [fact for fact in found if isinstance(fact, Fact)]


def test_within_a_second_the_row_version_decides() -> None:
    first, second = update("99", "1-Qualify", "zz"), update("100", "2-Develop", "aa")

    for order in ((first, second), (second, first)):
        assert merge.of(facts(*order)).fields["stage"].value == "2-Develop"


def test_a_retry_is_the_same_fact() -> None:
    one, again = facts(update("1", "A", "op"), update("1", "A", "op"))
    other = facts(update("1", "A", "op-2"))[0]

    assert one.dedupe == again.dedupe != other.dedupe


def test_synchronous_steps_are_told_apart_by_their_request() -> None:
    nobody = "00000000-0000-0000-0000-000000000000"
    one, other = facts(
        *(update("1", "A", nobody) | {"RequestId": request} for request in ("r1", "r2"))
    )

    assert one.dedupe != other.dedupe


def test_ids_compare_without_case() -> None:
    lower = update("1", "A", "op")
    upper = lower | {"PrimaryEntityId": "D1"}

    assert [fact.id for fact in facts(lower, upper)] == ["dyn:d1", "dyn:d1"]


def test_with_an_assumed_currency_none_is_read_again() -> None:
    body = update("1", "A", "op")
    attributes = body["InputParameters"][0]["value"]["Attributes"]
    attributes.append({"key": "estimatedvalue", "value": {"Value": 5}})
    assumed = source(currency="EUR")
    ((_, fact),) = readers.read(received(assumed, body), assumed)

    assert isinstance(fact, Fact)
    assert fact.reread is None


def test_a_flood_of_targets_is_put_aside() -> None:
    entity = {"Attributes": [], "Id": "1", "LogicalName": "account"}
    targets = {"key": "Targets", "value": {"Entities": [entity] * 1001}}
    body = {"MessageName": "UpdateMultiple", "InputParameters": [targets]}
    ((_, outcome),) = readers.read(received(source(), body), source())

    assert isinstance(outcome, Unreadable)
    assert "1001 records" in outcome.reason


def test_what_was_put_aside_of_several_targets_is_read_again_alone() -> None:
    entities = [
        {
            "Attributes": [{"key": "estimatedvalue", "value": {"Value": value}}],
            "Id": str(number),
            "LogicalName": "opportunity",
        }
        for number, value in enumerate((1, "one", 3))
    ]
    body = {
        "MessageName": "UpdateMultiple",
        "PrimaryEntityName": "opportunity",
        "InputParameters": [{"key": "Targets", "value": {"Entities": entities}}],
    }
    request = received(source(), body)
    outcomes = readers.read(request, source())

    assert [isinstance(outcome, Fact) for _, outcome in outcomes] == [True, False, True]
    bad = outcomes[1][1]
    assert isinstance(bad, Unreadable)
    fixed = readers.alone(request, bad.raw.replace(b'"one"', b"1"))
    ((_, fact),) = readers.read(fixed, source())
    assert isinstance(fact, Fact)
    assert (fact.id, fact.fields["amount"].value) == ("dyn:1", "1")
