"""Standard competition ranking: equals share a place, and the next one counts them: 1, 2, 2, 4.

Equals may be told apart by who reached the score first: the instant at which the running sum, by
the time of events and not of their arrival, last became what it is now and stayed. A correction
moves that instant as it moves the sum. Who reached it in the same instant still share.

Numbers are compared exactly: 9/10 ties with 18/20.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import groupby
from typing import Literal, NamedTuple

Number = int | Fraction
Ties = Literal["share", "first"]

QUARTERS = 4


class Moment(NamedTuple):
    """What one credit added to a subject's metric, and when it happened."""

    at: int  # epoch seconds
    metric: str
    value: int
    records: int = 1


Running = Mapping[str, tuple[int, int]]  # by metric: value and count, where count isn't 0


def rank(
    numbers: Mapping[str, Number | None],
    *,
    higher_is_better: bool = True,
    reached: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """The place of every subject that has a number; those without have none.

    Equals for whom it is known when they `reached` their number are placed in that order, before
    those of them for whom it isn't.
    """
    keys = _keys(numbers, higher_is_better=higher_is_better)
    if reached is None:
        ordered: list[tuple[object, str]] = sorted(keys, key=_key)  # type: ignore[arg-type]  # int
    else:
        dated = [((key, s not in reached, reached.get(s, 0)), s) for key, s in keys]
        ordered = sorted(dated, key=_key)  # type: ignore[arg-type]  # tuples of one shape
    places: dict[str, int] = {}
    place, previous = 0, None
    for position, (key, subject) in enumerate(ordered, start=1):
        if key != previous:
            place, previous = position, key
        places[subject] = place
    return places


def _key(pair: tuple[object, str]) -> object:
    return pair[0]


def _keys(numbers: Mapping[str, Number | None], *, higher_is_better: bool) -> list[tuple[int, str]]:
    """Whole numbers in the exact order of the given ones; comparing fractions is slow.

    Two fractions with denominators up to d are equal or at least 1/d² apart, so that they still
    differ after multiplying by a number beyond d² and rounding down.
    """
    known = [(number, subject) for subject, number in numbers.items() if number is not None]
    sign = -1 if higher_is_better else 1
    largest = max((number.denominator for number, _ in known), default=1)
    if largest == 1:
        return [(sign * number.numerator, subject) for number, subject in known]
    shift = 2 * largest.bit_length()
    return [
        (((sign * number.numerator) << shift) // number.denominator, subject)
        for number, subject in known
    ]


def tied(places: Mapping[str, int], *, within: int, at_most: int) -> list[str]:
    """Subjects that share a place from the first to `within`, in groups of up to `at_most`."""
    groups: dict[int, list[str]] = {}
    for subject, place in places.items():
        if place <= within:
            groups.setdefault(place, []).append(subject)
    return sorted(s for group in groups.values() if 1 < len(group) <= at_most for s in group)


def reached(moments: Iterable[Moment], score: Callable[[Running], Number | None]) -> int | None:
    """The instant at which the running score last became what it is; None while there is none."""
    found, current = None, None
    for at, now in _scores(moments, score):
        if now != current:
            found, current = at, now
    return found if current is not None else None


def reached_at_least(
    moments: Iterable[Moment], score: Callable[[Running], Number | None], goal: Number
) -> int | None:
    """The instant since which the running score is at least `goal`; None when it isn't."""
    found = None
    for at, now in _scores(moments, score):
        if now is None or now < goal:
            found = None
        elif found is None:
            found = at
    return found


def _scores(
    moments: Iterable[Moment], score: Callable[[Running], Number | None]
) -> Iterable[tuple[int, Number | None]]:
    """The score after each instant at which something happened."""
    running: dict[str, tuple[int, int]] = {}
    for at, together in groupby(sorted(moments), key=lambda moment: moment.at):
        for moment in together:
            value, count = running.pop(moment.metric, (0, 0))
            if count + moment.records:
                running[moment.metric] = (value + moment.value, count + moment.records)
        yield at, score(running)


def quarter(place: int, ranked: int) -> int:
    """Which quarter of so many ranked a place is in, from 1; equals are in the same one."""
    return 1 + (place - 1) * QUARTERS // ranked


def around(order: Sequence[str], subject: str, rows: int) -> list[str]:
    """The subject with as many before and after it; none when it isn't there."""
    try:
        here = order.index(subject)
    except ValueError:
        return []
    return list(order[max(0, here - rows) : here + rows + 1])
