"""The merge is a join: commutative, associative, idempotent; so order doesn't matter."""

import random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.crm import Field, StageEntry
from services.ingest.domain import merge
from services.ingest.domain.facts import DELETED, MERGED_INTO, REDACTED, Fact

NAMES = ("a", "b", "status", "x_c", "expected_close", DELETED, REDACTED)
# Few positions and few ids, so that ties and contradictions within one event are common.
fields = st.builds(
    Field,
    st.sampled_from(["value", "cleared", "unknown", "redacted"]),
    st.one_of(st.none(), st.booleans(), st.integers(0, 2), st.sampled_from(["1", "True", "z"])),
    st.integers(-1, 3),  # below 0: inherited
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


def told_at_once(facts: list[Fact]) -> Fact:
    """As an answer tells what several events have."""
    known = merge.of(facts)
    return msgspec.structs.replace(
        facts[0],
        fields=known.fields,
        stages=tuple(known.stages),
        expected_before=tuple(known.expected_before),
    )


facts |= st.lists(facts, min_size=2, max_size=4).map(told_at_once)
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


def expected(day: int, at: int, by: str = "e") -> Fact:
    field = Field("value", f"2026-03-{day:02}T12:00:00Z", at, by)
    return Fact("opportunity", "hub:1", "updated", {merge.EXPECTED_CLOSE: field})


def days(known: merge.Known) -> list[tuple[int, str]]:
    """When which day was expected, the last included."""
    told = [*known.expected_before, known.fields[merge.EXPECTED_CLOSE]]
    return [(field.at, str(field.value)[8:10]) for field in told]


def test_what_was_expected_before_is_kept_and_late_facts_find_their_place() -> None:
    told = merge.of([expected(1, 10), expected(5, 30), expected(5, 40)])
    late = merge.join(told, merge.of([expected(9, 35), expected(2, 20)]))

    assert days(late) == [(10, "01"), (20, "02"), (30, "05"), (35, "09"), (40, "05")]
    assert merge.join(late, told) == late


def test_of_two_close_dates_of_one_instant_the_one_that_wins_was_expected() -> None:
    one, other, later = expected(8, 10, "e1"), expected(3, 10, "e2"), expected(4, 20)

    for facts in ([one, other, later], [later, other, one], [other, later, one]):
        assert days(merge.of(facts)) == [(10, "03"), (20, "04")]


def test_what_was_expected_is_forgotten_with_what_is_erased() -> None:
    erasure = Fact(
        "opportunity", "hub:1", "erased", {REDACTED: Field("value", value=True, at=25, by="x")}
    )
    told = merge.of([expected(1, 10), expected(2, 20), expected(3, 30), expected(4, 40)])

    for known in (
        merge.join(told, merge.of([erasure])),
        merge.join(merge.of([erasure]), told),
        merge.join(merge.join(told, merge.of([erasure])), merge.of([expected(1, 10)])),
    ):
        assert days(known) == [(30, "03"), (40, "04")]


def test_what_a_merged_record_has_left_was_never_expected_of_its_survivor() -> None:
    merged = Fact("opportunity", "hub:2", "merged", {MERGED_INTO: field("hub:1", 50)})
    left = merge.inheritance("hub:2", merge.of([expected(7, 5), expected(8, 9), merged]))

    assert merge.join(merge.NOTHING, left).expected_before == []
    survivor = merge.join(left, merge.of([expected(3, 10), expected(4, 20)]))
    assert days(survivor) == [(10, "03"), (20, "04")]


def test_the_newest_of_too_many_expected_dates_are_kept_in_any_order() -> None:
    told = [expected(1 + at % 2, at) for at in range(1, merge.MAX_EXPECTED + 50)]

    one = merge.of(told)
    other = merge.of([])
    for latest in reversed(told):
        other = merge.join(other, merge.of([latest]))

    assert one == other
    assert len(one.expected_before) == merge.MAX_EXPECTED
    assert one.expected_before[-1].at == told[-1].fields[merge.EXPECTED_CLOSE].at - 1


def test_changed_names_what_differs_and_not_what_was_confirmed() -> None:
    before = merge.of([fact("a", "b")])
    after = merge.join(before, merge.of([fact("a", at=2), fact("c"), fact(DELETED)]))

    assert merge.changed(before, after) == ["c", "deleted"]
