"""Standard competition ranking: equals share a place, and the next one counts them: 1, 2, 2, 4.

Equals may be told apart by who reached the score first: the instant at which the running sum, by
the time of events and not of their arrival, last became what it is now and stayed. A correction
moves that instant as it moves the sum. Who reached it in the same instant still share.

Numbers are compared exactly: 9/10 ties with 18/20.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Literal, NamedTuple

Number = int | Fraction
Ties = Literal["share", "first"]

QUARTERS = 4
SHIFT_STEP = 64  # bits; a few more than needed, so that the next numbers need no others


class Moment(NamedTuple):
    """What one credit added to a subject's metric, and when it happened."""

    at: int  # epoch seconds
    metric: str
    value: int
    records: int = 1


Running = Mapping[str, tuple[int, int]]  # by metric: value and count, where count isn't 0


# A number as a key, whether it isn't known when it was reached, when it was; name, subject.
_Entry = tuple[int, bool, int, str, str]
_KEY: Callable[[_Entry], object] = itemgetter(slice(3))  # equal for those who share a place
_SUBJECT: Callable[[_Entry], str] = itemgetter(4)


@dataclass(frozen=True)
class Ranking:
    """Everybody's place, kept in order, so that where few have changed little is done.

    `names` are all who take part, in the order in which equals are listed: that of names. A ranking
    stays as it is; what changes makes another one.
    """

    names: Mapping[str, str]
    higher_is_better: bool
    shift: int
    entries: dict[str, _Entry]
    ordered: list[_Entry]

    @classmethod
    def of(
        cls,
        numbers: Mapping[str, Number | None],
        names: Mapping[str, str],
        *,
        higher_is_better: bool = True,
    ) -> "Ranking":
        """The ranking by these numbers."""
        shift = _shift(numbers.values())
        keys = _keys(numbers, higher_is_better=higher_is_better, shift=shift)
        entries: dict[str, _Entry] = {s: (k, True, 0, names[s], s) for k, s in keys}
        return cls(names, higher_is_better, shift, entries, sorted(entries.values()))

    def changed(self, numbers: Mapping[str, Number | None], subjects: Collection[str]) -> "Ranking":
        """The ranking by `numbers`, of which those of `subjects` are others than before."""
        if not subjects:
            return self
        news = {subject: numbers[subject] for subject in subjects}
        if _shift(news.values()) > self.shift:
            return Ranking.of(numbers, self.names, higher_is_better=self.higher_is_better)
        keys = _keys(news, higher_is_better=self.higher_is_better, shift=self.shift)
        return self._with(subjects, [(k, True, 0, self.names[s], s) for k, s in keys])

    def told_apart(self, reached: Mapping[str, int]) -> "Ranking":
        """Equals in the order in which they reached their number, as in `rank`."""
        if not reached:
            return self
        dated = [
            (self.entries[s][0], False, at, self.names[s], s)
            for s, at in reached.items()
            if s in self.entries
        ]
        return self._with(reached, dated)

    def _with(self, gone: Collection[str], come: Iterable[_Entry]) -> "Ranking":
        entries, ordered = dict(self.entries), list(self.ordered)
        for subject in gone:
            entry = entries.pop(subject, None)
            if entry is not None:
                del ordered[bisect_left(ordered, entry)]
        for entry in come:
            entries[entry[4]] = entry
            insort(ordered, entry)
        return Ranking(self.names, self.higher_is_better, self.shift, entries, ordered)

    def place(self, subject: str) -> int | None:
        """The subject's place; None for who has no number."""
        entry = self.entries.get(subject)
        return None if entry is None else 1 + self._first(entry)

    def ahead(self, subject: str) -> str | None:
        """Who has the place before the subject's, or one of those; None for the first."""
        entry = self.entries.get(subject)
        first = 0 if entry is None else self._first(entry)
        return self.ordered[first - 1][4] if first else None

    @property
    def places(self) -> dict[str, int]:
        """The place of everybody who has one."""
        found: dict[str, int] = {}
        for _, equals in groupby(self.ordered, key=_KEY):
            place = len(found) + 1
            found.update((entry[4], place) for entry in equals)
        return found

    @cached_property
    def order(self) -> list[str]:
        """Everybody: by place, and those without one at the end."""
        placed = self.entries
        return [*map(_SUBJECT, self.ordered), *(s for s in self.names if s not in placed)]

    def tied(self, *, within: int, at_most: int) -> list[str]:
        """Subjects that share a place from the first to `within`, in groups of up to `at_most`."""
        found: list[str] = []
        before = 0
        for _, equals in groupby(self.ordered, key=_KEY):
            if before >= within:
                break
            group = [entry[4] for entry in equals]
            before += len(group)
            if 1 < len(group) <= at_most:
                found += group
        return found

    def _first(self, entry: _Entry) -> int:
        """How many are better."""
        return bisect_left(self.ordered, entry[:3])


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
    shift = _shift(numbers.values())
    keys = _keys(numbers, higher_is_better=higher_is_better, shift=shift)
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


def _keys(
    numbers: Mapping[str, Number | None], *, higher_is_better: bool, shift: int
) -> list[tuple[int, str]]:
    """Whole numbers in the exact order of the given ones; comparing fractions is slow."""
    sign = -1 if higher_is_better else 1
    known = [(number, subject) for subject, number in numbers.items() if number is not None]
    if not shift:
        return [(sign * number.numerator, subject) for number, subject in known]
    return [
        (((sign * number.numerator) << shift) // number.denominator, subject)
        for number, subject in known
    ]


def _shift(numbers: Iterable[Number | None]) -> int:
    """By how many bits numbers are moved before they are rounded down, so that none are confused.

    Two fractions with denominators up to d are equal or at least 1/d² apart, so that they still
    differ after multiplying by a number beyond d².
    """
    largest = max((number.denominator for number in numbers if number is not None), default=1)
    return 0 if largest == 1 else -(-2 * largest.bit_length() // SHIFT_STEP) * SHIFT_STEP


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
