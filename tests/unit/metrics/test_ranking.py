"""Places, and who was first among equals."""

import random
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from services.metrics.domain import ranking
from services.metrics.domain.ranking import (
    Moment,
    Number,
    Ranking,
    Running,
    rank,
    reached,
    reached_at_least,
)

fractions = st.fractions(min_value=-3, max_value=3, max_denominator=40)
moments = st.lists(
    st.builds(Moment, st.integers(0, 6), st.sampled_from("ab"), st.integers(-2, 2), st.just(1)),
    max_size=12,
)


def total(running: Running) -> Number | None:
    return sum(value for value, _ in running.values()) if running else None


def test_equals_share_a_place_and_the_next_place_counts_them() -> None:
    assert rank({"a": 5, "b": 9, "c": 5, "d": 1, "e": None}) == {"b": 1, "a": 2, "c": 2, "d": 4}
    assert rank({"a": 5, "b": 9}, higher_is_better=False) == {"a": 1, "b": 2}
    assert rank({"a": Fraction(9, 10), "b": Fraction(18, 20)}) == {"a": 1, "b": 1}


@given(st.dictionaries(st.text(max_size=3), st.none() | fractions))
def test_a_place_is_one_more_than_how_many_are_better(values: dict[str, Fraction | None]) -> None:
    known = {s: v for s, v in values.items() if v is not None}

    assert rank(values) == {s: 1 + sum(o > v for o in known.values()) for s, v in known.items()}
    assert rank(values, higher_is_better=False) == rank(
        {s: None if v is None else -v for s, v in values.items()}
    )


@given(fractions, st.integers(1, 2**80), st.integers(1, 2**80))
def test_numbers_that_differ_by_almost_nothing_differ(one: Fraction, a: int, b: int) -> None:
    other = one + Fraction(1, a * b)

    assert rank({"x": one, "y": other, "z": one + 0}) == {"y": 1, "x": 2, "z": 2}


@given(st.dictionaries(st.text(max_size=2), st.integers(0, 2), min_size=1), st.randoms())
def test_places_do_not_depend_on_the_order_of_subjects(
    values: dict[str, int], dice: random.Random
) -> None:
    shuffled = list(values.items())
    dice.shuffle(shuffled)

    assert rank(dict(shuffled)) == rank(values)


def test_who_reached_it_first_is_before_their_equals() -> None:
    scores = {"a": 5, "b": 5, "c": 5, "d": 5, "e": 9}

    assert rank(scores, reached={"a": 30, "b": 10, "c": 30}) == {
        "e": 1, "b": 2, "a": 3, "c": 3, "d": 5
    }  # fmt: skip


NAMES = {"f": "first"} | dict.fromkeys("abcde", "same")  # in their order
some_numbers = st.dictionaries(
    st.sampled_from(list(NAMES)),
    st.none() | st.integers(-2, 2) | fractions | st.fractions(max_denominator=2**40),
)


@given(some_numbers, some_numbers, st.booleans())
def test_a_changed_ranking_is_that_of_the_changed_numbers(
    numbers: dict[str, Number | None],
    changes: dict[str, Number | None],
    higher: bool,  # noqa: FBT001  # drawn
) -> None:
    now = dict.fromkeys(NAMES) | numbers | changes
    before = Ranking.of(dict.fromkeys(NAMES) | numbers, NAMES, higher_is_better=higher)
    found = before.changed(now, changes.keys())
    places = rank(now, higher_is_better=higher)
    last = len(NAMES) + 1

    assert found.places == places
    assert {s: found.place(s) for s in NAMES} == {s: places.get(s) for s in NAMES}
    assert found.order == sorted(NAMES, key=lambda s: (places.get(s, last), NAMES[s], s))
    for subject, place in places.items():
        ahead = found.ahead(subject)
        better = [p for p in places.values() if p < place]
        assert (places[ahead] if ahead else None) == max(better, default=None)
    assert before.places == rank(numbers, higher_is_better=higher)  # stays as it was


@given(some_numbers, st.dictionaries(st.sampled_from(list(NAMES)), st.integers(0, 3)))
def test_equals_in_a_ranking_are_told_apart_by_who_was_first(
    numbers: dict[str, Number | None], first: dict[str, int]
) -> None:
    ranking_found = Ranking.of(dict.fromkeys(NAMES) | numbers, NAMES)

    assert ranking_found.told_apart(first).places == rank(numbers, reached=first)


@given(some_numbers, st.integers(1, 4), st.integers(2, 3))
def test_the_tied_of_a_ranking_are_those_of_its_places(
    numbers: dict[str, Number | None], within: int, at_most: int
) -> None:
    found = Ranking.of(numbers, NAMES)

    assert sorted(found.tied(within=within, at_most=at_most)) == ranking.tied(
        found.places, within=within, at_most=at_most
    )


def test_a_score_was_reached_when_it_last_became_what_it_is() -> None:
    up = [Moment(1, "a", 5), Moment(4, "a", 3), Moment(9, "a", -3)]

    assert reached(up[:1], total) == 1
    assert reached(up, total) == 9  # it was 5 at 1 too, and didn't stay
    assert reached([*up, Moment(12, "b", 0)], total) == 9
    assert reached([], total) is None
    assert reached([Moment(3, "a", 0)], total) == 3  # nothing became zero


@given(moments, st.randoms())
def test_when_it_was_reached_does_not_depend_on_arrival(
    found: list[Moment], dice: random.Random
) -> None:
    shuffled = list(found)
    dice.shuffle(shuffled)

    assert reached(shuffled, total) == reached(found, total)


@given(moments, st.integers(-1, 4))
def test_a_goal_is_reached_exactly_by_those_who_have_it_at_the_end(
    found: list[Moment], goal: int
) -> None:
    end = sum(moment.value for moment in found)
    at = reached_at_least(found, total, goal)

    assert (at is not None) is bool(found and end >= goal)
    if at is not None:
        for limit in {moment.at for moment in found if moment.at >= at}:
            assert sum(m.value for m in found if m.at <= limit) >= goal


def test_equals_are_found_within_the_places_asked_for() -> None:
    places = {"a": 1, "b": 2, "c": 2, "d": 4, "e": 4, "f": 4}

    assert ranking.tied(places, within=2, at_most=9) == ["b", "c"]
    assert ranking.tied(places, within=4, at_most=2) == ["b", "c"]
    assert ranking.tied(places, within=4, at_most=3) == ["b", "c", "d", "e", "f"]


def test_quarters_hold_as_many_and_never_part_equals() -> None:
    assert [ranking.quarter(place, 8) for place in range(1, 9)] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert [ranking.quarter(place, 3) for place in (1, 2, 3)] == [1, 2, 3]
    assert ranking.quarter(1, 1) == 1


def test_around_me_stops_at_both_ends() -> None:
    assert ranking.around("abcdef", "c", 1) == ["b", "c", "d"]
    assert ranking.around("abcdef", "a", 2) == ["a", "b", "c"]
    assert ranking.around("abcdef", "f", 1) == ["e", "f"]
    assert ranking.around("abcdef", "x", 1) == []
