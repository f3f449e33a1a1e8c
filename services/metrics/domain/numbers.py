"""A metric's number from its parts: exact inside, text outside, and no data is not zero.

A number is in the smallest parts of its unit, as counters are: minor units of a currency,
thousandths of a quantity, whole seconds. Formulas work on whole units: of 100.00 EUR the 100.
"""

from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_UP, Context, Decimal
from fractions import Fraction

import msgspec

from schemas.money import UnknownCurrencyError, exponent, from_minor, to_minor
from services.metrics.domain import formulas
from services.metrics.domain.catalogue import (
    COUNT,
    DURATION,
    MONEY,
    QUANTITY,
    RATIO,
    SECONDS,
    Base,
    Derived,
    Metric,
)
from services.metrics.domain.ranking import Number

RATIO_PLACES = Decimal("0.0001")
THOUSAND = 1_000  # parts of a quantity
_WIDE = Context(prec=60)


class Part(msgspec.Struct, frozen=True, gc=False):
    """A base metric's sum in a unit, and how many records make it up.

    `median` is that of the records' values, where it was asked for.
    """

    value: int
    count: int
    unit: str = COUNT
    median: Number | None = None

    def minus(self, other: "Part | None") -> "Part | None":
        """What is left without the other; None when nothing is."""
        if other is None:
            return self
        count = self.count - other.count
        return Part(self.value - other.value, count, self.unit) if count else None


Parts = Mapping[str, Part | None]
Targets = Mapping[str, Decimal | Fraction]  # of the same subject and period, by metric
NO_TARGETS: Targets = {}


def number(metric: Metric, parts: Parts, targets: Targets = NO_TARGETS) -> Number | None:
    """The metric's exact number from its base metrics; None when there is no data.

    Money among the parts is of one currency.
    """
    if isinstance(metric, Base):
        part = parts.get(metric.id)
        return part.value if part is not None and part.count else None
    if metric.statistic is not None:
        part = parts.get(metric.statistic.median)
        return part.median if part is not None and part.count else None
    return _computed(metric, parts, targets)


def _computed(metric: Derived, parts: Parts, targets: Targets) -> Number | None:
    formula = formulas.formula(metric.formula or "")
    scales: dict[str, int] = {}
    there = False
    for name in formula.parts:
        part = parts.get(name)
        if part is not None and part.count:
            there = True
            scales[name] = scale(part.unit)
    if not there:
        return None

    def read(kind: formulas.Kind, name: str) -> formulas.Ratio | None:
        if kind == "target":
            target = targets.get(name)
            return None if target is None else Fraction(target).as_integer_ratio()
        part = parts.get(name)
        if part is None or not part.count:
            return 0, 1
        return (part.count, 1) if kind == "count" else (part.value, scales[name])

    found = formula.evaluate(read)
    if found is None or metric.unit not in (MONEY, QUANTITY):
        return found
    if metric.unit == QUANTITY:
        return found * THOUSAND
    every = (parts.get(name) for name in formula.parts)
    units = {part.unit for part in every if part is not None and part.count} - _PLAIN
    return found * scale(units.pop()) if units else None


def count(metric: Metric, parts: Parts) -> int:
    """How many records make up the number."""
    names: Iterable[str] = (metric.id,)
    if isinstance(metric, Derived):
        if metric.statistic is not None:
            names = (metric.statistic.median,)
        else:
            names = formulas.formula(metric.formula or "").behind
    return sum(part.count for name in names if (part := parts.get(name)) is not None)


def median(values: Iterable[int]) -> Number | None:
    """The middle of the values, or the mean of the two in the middle; None without any."""
    ordered = sorted(values)
    if not ordered:
        return None
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return Fraction(ordered[middle - 1] + ordered[middle], 2)


_PLAIN = frozenset({COUNT, QUANTITY, SECONDS, RATIO})


def units(currency: str) -> list[str]:
    """The units of all parts that a number may be made of, money being in `currency`."""
    return [COUNT, QUANTITY, SECONDS, currency]


def unit_of(metric: Metric, currency: str) -> str:
    """The unit that the metric is stored and shown in, money being in `currency`."""
    if metric.unit == MONEY:
        return currency
    return SECONDS if metric.unit == DURATION else metric.unit


def scale(unit: str) -> int:
    """How many of the smallest parts make one."""
    if unit == QUANTITY:
        return THOUSAND
    return 1 if unit in _PLAIN else 10 ** exponent(unit)


def decimal(value: Number, unit: str) -> Decimal:
    """The number in whole units: money with the currency's places, ratios with four."""
    if unit == RATIO:
        return _quantized(Fraction(value), RATIO_PLACES)
    whole = _rounded(value)
    if unit == QUANTITY:
        units, thousandths = divmod(whole, THOUSAND)
        return Decimal(units) if not thousandths else Decimal(whole).scaleb(-3).normalize()
    return Decimal(whole) if unit in _PLAIN else from_minor(whole, unit)


def text(value: Number, unit: str) -> str:
    """Decimal text: money with the currency's places, ratios with four, seconds whole."""
    return str(decimal(value, unit))


def attainment(value: Number | None, target: Decimal | None, unit: str) -> Fraction | None:
    """Value ÷ target, exactly; None without either or when the target is zero."""
    if value is None or not target:
        return None
    return Fraction(value) / scale(unit) / Fraction(target)


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


def _rounded(value: Number) -> int:
    """Half away from zero, as money is."""
    if isinstance(value, int):
        return value
    whole = (2 * abs(value.numerator) + value.denominator) // (2 * value.denominator)
    return whole if value >= 0 else -whole


def _quantized(value: Fraction, places: Decimal) -> Decimal:
    exact = _WIDE.divide(Decimal(value.numerator), Decimal(value.denominator))
    return exact.quantize(places, rounding=ROUND_HALF_UP, context=_WIDE)
