"""Zoho: the echoed token is all that proves a callback."""

import json

import pytest

from services.ingest.domain import readers
from services.ingest.domain.facts import Fact, Unreadable
from services.ingest.domain.sources import Source, Stages
from services.ingest.domain.vendors import Arrival, RefusedError, zoho
from tests.support import TENANT
from tests.unit.ingest.bodies import received

SOURCE = Source(id="zoho", tenant=TENANT, vendor="zoho", secrets=("new-token", "old-token"))


def arrival(body: bytes) -> Arrival:
    return Arrival(method="POST", url="", headers={}, query={}, body=body, now_ms=0)


@pytest.mark.parametrize("token", SOURCE.secrets)
def test_a_token_of_the_source_proves_it(token: str) -> None:
    assert zoho.verify(arrival(json.dumps({"token": token}).encode()), SOURCE) == "zoho.token"


@pytest.mark.parametrize(
    "body",
    [
        *(b"{}", b'{"token": ""}', b'{"token": "other"}', b'{"token": null}', b'{"token": 1}'),
        *(b"no", b"[" * 100_000, b""),
    ],
)
def test_without_it_a_callback_is_refused(body: bytes) -> None:
    with pytest.raises(RefusedError):
        zoho.verify(arrival(body), SOURCE)


def callback(stage: str, at: int = 1_768_499_999_625) -> dict[str, object]:
    return {
        "server_time": at,
        "module": "Deals",
        "ids": ["1"],
        "affected_values": [{"record_id": "1", "values": {"Stage": stage}}],
        "operation": "update",
        "token": "new-token",
    }


def test_a_source_that_names_its_stages_means_those() -> None:
    own = Source(
        id="zoho", tenant=TENANT, vendor="zoho", stages=Stages(won=frozenset({"Gewonnen"}))
    )
    found = {
        stage: readers.read(received(own, callback(stage)), own)[0][1]
        for stage in ("Gewonnen", "Closed Won")
    }

    status = {
        stage: fact.fields["status"].value
        for stage, fact in found.items()
        if isinstance(fact, Fact)
    }
    assert status == {"Gewonnen": "won", "Closed Won": "open"}


def test_the_same_callback_twice_is_the_same_fact_and_another_one_is_not() -> None:
    def dedupe(stage: str) -> tuple[str, ...]:
        fact = readers.read(received(SOURCE, callback(stage)), SOURCE)[0][1]
        assert isinstance(fact, Fact)
        return fact.dedupe

    assert dedupe("A") == dedupe("A")
    assert dedupe("A") != dedupe("B")


def test_a_flood_of_ids_is_put_aside() -> None:
    body = {"module": "Deals", "operation": "update", "ids": [str(n) for n in range(1001)]}
    ((_, outcome),) = readers.read(received(SOURCE, body), SOURCE)

    assert isinstance(outcome, Unreadable)
    assert "1001 records" in outcome.reason


def test_what_was_put_aside_of_a_callback_is_read_again_alone() -> None:
    affected = [
        {"record_id": number, "values": {"Amount": amount}}
        for number, amount in (("1", 5), ("2", "five"), ("3", 7))
    ]
    body = callback("A") | {"ids": ["1", "2", "3"], "affected_values": affected}
    request = received(SOURCE, body)
    outcomes = readers.read(request, SOURCE)

    assert [index for index, _ in outcomes] == [0, 1, 2]
    assert [isinstance(outcome, Fact) for _, outcome in outcomes] == [True, False, True]
    bad = outcomes[1][1]
    assert isinstance(bad, Unreadable)
    fixed = readers.alone(request, bad.raw.replace(b'"five"', b"5"))
    ((_, fact),) = readers.read(fixed, SOURCE)
    assert isinstance(fact, Fact)
    assert (fact.id, fact.fields["amount"].value) == ("zoho:2", "5")


def test_a_record_is_told_apart_in_the_same_way_alone_and_among_others() -> None:
    alone = callback("A")
    among = alone | {"ids": ["1", "77"]}
    facts = [readers.read(received(SOURCE, body), SOURCE)[0][1] for body in (alone, among)]

    assert isinstance(facts[0], Fact)
    assert isinstance(facts[1], Fact)
    assert facts[0] == facts[1]
