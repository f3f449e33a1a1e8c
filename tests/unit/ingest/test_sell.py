"""Zendesk Sell: one item, an array and a page are the same; order is the sequence's."""

import json
from itertools import permutations
from typing import Any

import pytest

from services.ingest.domain import merge, readers
from services.ingest.domain.facts import Fact, Unreadable
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import MalformedError, sell
from tests.support import TENANT
from tests.unit.ingest.bodies import received

SOURCE = Source(id="sell", tenant=TENANT, vendor="sell")


def item(sequence: int, kind: str = "updated", **data: Any) -> dict[str, Any]:
    return {
        "data": {"id": 1, **data},
        "meta": {
            "event_id": f"e{sequence}",
            "event_type": kind,
            "event_time": "2026-01-15T17:50:01Z",
            "type": "deal",
            "sequence": sequence,
        },
    }


def facts(body: Any) -> list[Fact]:
    found = [one for _, one in readers.read(received(SOURCE, body), SOURCE)]
    return [one for one in found if isinstance(one, Fact)]


def test_a_page_an_array_and_single_items_say_the_same() -> None:
    items = [item(1, "created", name="A"), item(2, name="B")]

    assert facts(items) == facts({"items": items}) == facts(items[0]) + facts(items[1])


def test_any_order_within_one_second_ends_in_the_last_of_the_sequence() -> None:
    items = [item(9, "created", name="A"), item(10, name="B"), item(11, name="C")]

    for order in permutations(items):
        assert merge.of(facts(list(order))).fields["name"].value == "C"


def test_a_stage_told_again_keeps_the_instant_it_was_entered() -> None:
    entered: dict[str, Any] = {"stage_id": 31, "last_stage_change_at": "2026-01-02T10:00:00Z"}
    known = merge.of(facts([item(1, "created", **entered), item(2, **entered, name="B")]))

    assert known.fields["stage"].at == 1_767_348_000_000_000
    assert len(known.stages) == 1


@pytest.mark.parametrize(
    ("body", "count"), [([], 0), ([{}, {}], 2), ({"items": [{}]}, 1), ({"data": {}}, 1)]
)
def test_items_are_counted(body: Any, count: int) -> None:
    assert sell.count({}, json.dumps(body).encode()) == count


@pytest.mark.parametrize("body", [b"", b"5", b'{"items": 5}', b"[" * 100_000, b"[1,]"])
def test_what_is_no_page_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedError):
        sell.count({}, body)


def test_a_bad_item_of_a_page_is_read_alone() -> None:
    request = received(SOURCE, {"items": [item(1), item(2, "exploded")]})
    (bad,) = [one for _, one in readers.read(request, SOURCE) if isinstance(one, Unreadable)]

    ((_, again),) = readers.read(readers.alone(request, bad.raw), SOURCE)

    assert isinstance(again, Unreadable)
