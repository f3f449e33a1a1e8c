"""What boards and contests rank by: exact numbers made from values, and their text."""

from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from services.metrics.domain import numbers
from services.metrics.domain.catalogue import RATIO
from services.metrics.domain.ranking import Number

POINTS = "points"  # the unit of weighted sums

Improvement = Literal["share", "difference"]


def scale(unit: str) -> int:
    """How many of the smallest parts make one."""
    return 1 if unit == POINTS else numbers.scale(unit)


def points(terms: Iterable[tuple[Number | None, Decimal, str]]) -> Fraction | None:
    """Values times their weights, in whole units; None when there is no data at all."""
    known = [
        value * Fraction(weight) / scale(unit) for value, weight, unit in terms if value is not None
    ]
    return sum(known, Fraction(0)) if known else None


def attainment(value: Number | None, target: Fraction | None, unit: str) -> Fraction | None:
    """Value ÷ target, exactly; None without either or when the target is zero."""
    if value is None or not target:
        return None
    over, under = value.as_integer_ratio()
    return Fraction(over * target.denominator, under * target.numerator * scale(unit))


def improvement(value: Number | None, past: Number | None, kind: Improvement) -> Fraction | None:
    """How much more than in the past; as a share of it only where that was more than zero."""
    if value is None or past is None:
        return None
    more = Fraction(value) - Fraction(past)
    if kind == "difference":
        return more
    return more / Fraction(past) if past > 0 else None


def text(value: Number, unit: str) -> str:
    """Decimal text of an exact number; points without zeros at the end."""
    if unit != POINTS:
        return numbers.text(value, unit)
    return numbers.text(Fraction(value), RATIO).rstrip("0").rstrip(".")


def target_text(target: Fraction, unit: str) -> str:
    """An effective target as decimal text, in the unit's places."""
    return text(target * scale(unit), unit)


def whole(unit: str) -> bool:
    """Whether numbers of the unit are whole."""
    return unit not in (RATIO, POINTS)
