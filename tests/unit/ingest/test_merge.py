"""The merge is a join: commutative, associative, idempotent; so order doesn't matter."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.crm import Field, StageEntry
from services.ingest.domain import merge
from services.ingest.domain.facts import DELETED, REDACTED, Fact

NAMES = ("a", "b", "status", "x_c", DELETED, REDACTED)
# Few positions and few ids, so that ties and contradictions within one event are common.
fields = st.builds(
    Field,
    st.sampled_from(["value", "cleared", "unknown", "redacted"]),
    st.one_of(st.none(), st.booleans(), st.integers(0, 2), st.sampled_from(["1", "True", "z"])),
    st.integers(0, 3),
    st.sampled_from(["", "e1", "e2"]),
)
entries = st.builds(StageEntry, st.integers(0, 3), st.sampled_from("pq"))
facts = st.builds(
    Fact,
    st.just("opportunity"),
    st.just("hub:1"),
    st.just("updated"),
    st.dictionaries(st.sampled_from(NAMES), fields, max_size=4),
    st.lists(entries, max_size=2).map(tuple),
)
known = st.lists(facts, max_size=4).map(merge.of)


@given(known, known)
def test_commutative(one: merge.Known, other: merge.Known) -> None:
    assert merge.join(one, other) == merge.join(other, one)


@given(known, known, known)
def test_associative(a: merge.Known, b: merge.Known, c: merge.Known) -> None:
    assert merge.join(merge.join(a, b), c) == merge.join(a, merge.join(b, c))


@given(known)
def test_idempotent(one: merge.Known) -> None:
    assert merge.join(one, one) == one
    assert merge.join(one, merge.NOTHING) == one


@given(st.lists(facts, max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=200)
def test_any_order_and_any_cut_say_the_same(history: list[Fact], chance: random.Random) -> None:
    shuffled = [*history, *chance.sample(history, len(history) // 2)]
    chance.shuffle(shuffled)
    cut = chance.randint(0, len(shuffled))

    in_parts = merge.join(merge.of(shuffled[:cut]), merge.of(shuffled[cut:]))

    assert in_parts == merge.of(history)


def field(value: str, at: int = 1) -> Field:
    return Field("value", value, at, "e")


def fact(*names: str, at: int = 1) -> Fact:
    return Fact("call", "hub:1", "updated", {name: field("v", at) for name in names})


def test_a_late_fact_never_overwrites_a_newer_one() -> None:
    new, late = fact("a", at=5), Fact("call", "hub:1", "updated", {"a": field("old", 2)})

    assert merge.join(merge.of([new]), merge.of([late])).fields["a"].at == 5


def test_too_many_properties_keep_the_canonical_and_say_so_in_any_order() -> None:
    parts = [fact(*(f"x_{n:04d}" for n in range(k, 1200, 3)), "amount") for k in range(3)]

    one = merge.of(parts)
    other = merge.join(merge.of(parts[1:]), merge.of(parts[:1]))

    assert one == other
    assert len(one.fields) == merge.MAX_FIELDS
    assert "amount" in one.fields
    assert one.fields[merge.OVERFLOW].value is True


def test_changed_names_what_differs_and_not_what_was_confirmed() -> None:
    before = merge.of([fact("a", "b")])
    after = merge.join(before, merge.of([fact("a", at=2), fact("c"), fact(DELETED)]))

    assert merge.changed(before, after) == ["c", "deleted"]
