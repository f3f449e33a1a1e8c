"""A metric's number from its parts: exact inside, text outside, and no data is not zero."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from fractions import Fraction

from schemas.money import UnknownCurrencyError, from_minor, to_minor
from services.metrics.domain.catalogue import COUNT, MONEY, RATIO, Base, Derived, Metric
from services.metrics.domain.ranking import Number

RATIO_PLACES = Decimal("0.0001")
_WIDE = Context(prec=40)


@dataclass(frozen=True, slots=True)
class Part:
    """A base metric's sum, in minor units or as a count, and how many records make it up."""

    value: int
    count: int

    def minus(self, other: "Part | None") -> "Part | None":
        """What is left without the other; None when nothing is."""
        if other is None:
            return self
        count = self.count - other.count
        return Part(self.value - other.value, count) if count else None


Parts = Mapping[str, Part | None]


def number(metric: Metric, parts: Parts) -> Number | None:
    """The metric's exact number from its base metrics; None when there is no data."""
    if isinstance(metric, Base):
        part = parts.get(metric.id)
        return part.value if part is not None else None
    over, under = _total(parts, metric.numerator), _total(parts, metric.denominator)
    return Fraction(over.value, under.value) if under.count and under.value else None


def count(metric: Metric, parts: Parts) -> int:
    """How many records make up the number."""
    names = metric.denominator if isinstance(metric, Derived) else [metric.id]
    return _total(parts, names).count


def unit_of(metric: Metric, currency: str) -> str:
    """The unit that the metric is shown in, money being in `currency`."""
    return currency if metric.unit == MONEY else metric.unit


def text(value: Number, unit: str) -> str:
    """Decimal text: money with the currency's places, ratios with four, counts whole."""
    if unit == RATIO:
        return str(_quantized(Fraction(value), RATIO_PLACES))
    if unit == COUNT:
        return str(int(value))
    return str(from_minor(int(value), unit))


def attainment(value: Number | None, target: Decimal | None, unit: str) -> Fraction | None:
    """Value ÷ target, exactly; None without either or when the target is zero."""
    if value is None or not target:
        return None
    if unit in (COUNT, RATIO):
        return Fraction(value) / Fraction(target)
    return Fraction(from_minor(int(value), unit)) / Fraction(target)


def share_text(share: Fraction | None) -> str | None:
    """An attainment as decimal text with four places."""
    return None if share is None else str(_quantized(share, RATIO_PLACES))


def target_text(target: Decimal, unit: str) -> str:
    """A target as decimal text; money with the currency's places where they hold it."""
    try:
        exact = from_minor(to_minor(target, unit), unit)
    except UnknownCurrencyError:
        return format(target, "f")
    return str(exact) if exact == target else format(target, "f")


def _quantized(value: Fraction, places: Decimal) -> Decimal:
    exact = _WIDE.divide(Decimal(value.numerator), Decimal(value.denominator))
    return exact.quantize(places, rounding=ROUND_HALF_UP, context=_WIDE)


def _total(parts: Parts, names: list[str]) -> Part:
    found = [part for name in names if (part := parts.get(name)) is not None]
    return Part(sum(part.value for part in found), sum(part.count for part in found))
