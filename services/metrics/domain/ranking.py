"""Standard competition ranking: equals share a place, and the next one counts them: 1, 2, 2, 4."""

from collections.abc import Mapping
from fractions import Fraction

Number = int | Fraction


def rank(numbers: Mapping[str, Number | None], *, higher_is_better: bool = True) -> dict[str, int]:
    """The place of every subject that has a number; those without have none."""
    known = [(number, subject) for subject, number in numbers.items() if number is not None]
    known.sort(key=lambda pair: pair[0], reverse=higher_is_better)
    places: dict[str, int] = {}
    place, previous = 0, None
    for position, (number, subject) in enumerate(known, start=1):
        if number != previous:
            place, previous = position, number
        places[subject] = place
    return places
