"""Whatever a vendor sends: a record fits in a message, its owner in an index; bad items are alone.

Each of these once stopped a consumer: a broker's refusal of a message that is too large looks like
one that may pass, and an index takes 2704 bytes.
"""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.crm import OPPORTUNITY, Received, Record
from services.ingest.domain import items, merge, readers
from services.ingest.domain.facts import (
    MAX_BY,
    MAX_STAGE,
    MAX_TEXT,
    Fact,
    Mark,
    Outcome,
    Unreadable,
    fits,
)
from services.ingest.domain.sources import Source
from tests.unit.ingest.bodies import APP, HUB, PIPE, changed, cloud, hub, pipe, received

BATCH = {"content-type": "application/cloudevents-batch+json"}
STRUCTURED = {"content-type": "application/cloudevents+json"}
MESSAGE = 1_048_588  # bytes: what a broker takes by default
WIDEST = ["\x01", "é", "語", "😀", '"', "\\", "a"]  # in a message: 6, 2, 3, 4, 2, 2, 1 bytes


def outcomes(request: Received, source: Source) -> list[Outcome]:
    return [outcome for _, outcome in readers.read(request, source)]


@pytest.mark.parametrize("character", WIDEST)
def test_the_largest_record_fits_in_a_message(character: str) -> None:
    facts: list[Any] = []
    text = character * (MAX_TEXT // (len(msgspec.json.encode(character)) - len('""')))
    for n in range(merge.MAX_FIELDS + 50):
        event = cloud(**{f"x_{n:098d}": text})
        event |= {"id": character * 900 + str(n), "source": character * 900}
        facts += outcomes(received(APP, event, headers=STRUCTURED), APP)
    for n in range(merge.MAX_STAGES + 50):
        event = cloud(stage=character * MAX_STAGE) | {"time": f"2026-01-01T00:00:00.{n:06d}Z"}
        facts += outcomes(received(APP, event, headers=STRUCTURED), APP)
    for n in range(merge.MAX_EXPECTED + 50):
        event = cloud(expected_close="2026-01-31") | {"time": f"2026-01-02T00:00:00.{n:06d}Z"}
        event |= {"id": character * 900 + str(n), "source": character * 900}
        facts += outcomes(received(APP, event, headers=STRUCTURED), APP)
    known = merge.of(fact for fact in facts if isinstance(fact, Fact))
    record = Record(
        tenant="t" * 128,
        version=2**62,
        type=OPPORTUNITY,
        id="i" * 128,
        source="s" * 40,
        vendor="cloudevents",
        fields=known.fields,
        changed=merge.changed(merge.NOTHING, known),
        stages=known.stages,
        expected_before=known.expected_before,
    )

    assert len(known.expected_before) == merge.MAX_EXPECTED
    assert len(known.fields) == merge.MAX_FIELDS
    assert text in {field.value for field in known.fields.values()}
    assert len(record.encode()) < MESSAGE - 10_000


@pytest.mark.parametrize("character", WIDEST)
def test_an_owner_that_no_index_takes_is_unknown(character: str) -> None:
    body = [changed("hubspot_owner_id", character * 2000, 0)]
    (fact,) = outcomes(received(HUB, body), HUB)

    assert isinstance(fact, Fact)
    assert fact.fields["owner_id"].state == "unknown"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300), st.integers(0, 300))
def test_fits_counts_the_bytes_of_a_message(text: str, limit: int) -> None:
    assert fits(text, limit) is (len(msgspec.json.encode(text)) - 2 <= limit)


def test_long_event_ids_are_still_told_apart() -> None:
    one, other = Mark(1, "x" * 5000 + "1"), Mark(1, "x" * 5000 + "2")

    assert one.by != other.by
    assert len(one.by) <= MAX_BY
    assert Mark(1, "x" * MAX_BY).by == "x" * MAX_BY


def test_a_merge_of_a_flood_of_records_is_put_aside() -> None:
    merged = hub("deal.merge", 0, primaryObjectId=1, mergedObjectIds=list(range(2, 5000)))
    flood, good = outcomes(received(HUB, [merged, changed("amount", "1", 0)]), HUB)

    assert isinstance(flood, Unreadable)
    assert isinstance(good, Fact)


HALF = "\\ud83d"  # half of an emoji, as JavaScript writes a text that was cut there


@pytest.mark.parametrize("half", [HALF, "\\uDE00", "\\ud83d\\ud83d", "\\ud83dx"])
def test_half_a_character_puts_only_its_item_aside(half: str) -> None:
    texts = [json.dumps(changed("dealname", name, 0)) for name in ("good, ]}", "HALF", '\\"[{ 😀')]
    body = f" [ {texts[0]},{texts[1]} , {texts[2]}\n] ".replace("HALF", half).encode()
    request = received(HUB, body)
    (_, first), (index, bad), (_, last) = readers.read(request, HUB)

    assert isinstance(first, Fact)
    assert first.fields["name"].value == "good, ]}"
    assert isinstance(last, Fact)
    assert last.fields["name"].value == '\\"[{ 😀'
    assert isinstance(bad, Unreadable)
    assert index == 1
    assert half.encode() in bad.raw
    assert isinstance(outcomes(readers.alone(request, bad.raw), HUB)[0], Unreadable)


def test_half_a_character_is_put_aside_whatever_the_vendor() -> None:
    whole = json.dumps(cloud(name="HALF")).replace("HALF", HALF).encode()
    deal = json.dumps(pipe("change", "deal", {"title": "HALF"})).replace("HALF", HALF).encode()

    for source, body, headers in (
        (APP, whole, STRUCTURED),
        (APP, b"[" + whole + b"]", BATCH),
        (PIPE, deal, {}),
    ):
        (outcome,) = outcomes(received(source, body, headers=headers), source)
        assert isinstance(outcome, Unreadable)
    items.check_object(whole)
    items.check_json(b'"' + HALF.encode() + b'"')


NO_ARRAYS = [
    *(b"", b"[", b"[1,]", b"[NaN]", b"{}", b'["\\ud83d"', b'["\\ud83d",]', b'["\\ud83d"] 1'),
    *(b'["\\ud83d", NaN]', b'{"a": "\\ud83d"}', b'["\\ud83d", "\xff"]', b'["\\u12"]'),
]


@pytest.mark.parametrize("body", NO_ARRAYS)
def test_what_is_no_array_stays_refused(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        items.split(body)


def test_depth_is_refused_and_not_followed() -> None:
    with pytest.raises((msgspec.DecodeError, RecursionError)):
        items.split(b'["\\ud83d",' + b"[" * 100_000)


texts = st.text(st.characters(), max_size=5)  # halves of characters included


@given(st.lists(st.recursive(texts | st.integers() | st.none(), st.lists, max_leaves=5)))
def test_items_are_cut_as_they_came(found: list[Any]) -> None:
    parts = items.split(json.dumps(found).encode())

    assert [json.loads(bytes(part)) for part in parts] == found
