"""Money: decimal amounts of an ISO 4217 currency, and their whole minor units.

Rounding to minor units is half-up (away from zero on a tie), as incentive statements use it.
"""

from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from functools import cache

from iso4217 import Currency


class UnknownCurrencyError(ValueError):
    """Not an ISO 4217 code with a minor unit: the amount must wait, never be guessed."""


@cache
def exponent(currency: str) -> int:
    """Decimal places of the currency's minor unit: USD 2, JPY 0, BHD 3."""
    try:
        places = Currency(currency).exponent
    except ValueError:
        places = None
    if places is None:
        raise UnknownCurrencyError(f"{currency!r} is not an ISO 4217 currency code such as USD")
    return places


def to_minor(amount: Decimal, currency: str) -> int:
    """The amount in whole minor units, rounded half-up: 1.005 USD → 101."""
    scaled = amount.scaleb(exponent(currency))
    return int(scaled.quantize(Decimal(1), rounding=ROUND_HALF_UP))


def from_minor(minor: int, currency: str) -> Decimal:
    """The inverse of `to_minor`, with the currency's decimal places: 101 USD → 1.01."""
    places = exponent(currency)
    return Decimal(minor).scaleb(-places).quantize(Decimal(1).scaleb(-places))


def apportion(total: int, weights: Sequence[Decimal | Fraction | int]) -> list[int]:
    """Whole parts of `total` in proportion to `weights`, that add up to it: largest remainder.

    What is left over goes by one to those who lost most by rounding down, the first of equal ones
    first. A negative total is divided like its opposite. Raises ValueError when no weight is
    positive or one is negative.
    """
    exact = [Fraction(weight) for weight in weights]
    if not any(exact) or min(exact) < 0:
        raise ValueError("weights are zero or more, and one of them is more")
    if total < 0:
        return [-part for part in apportion(-total, exact)]
    whole = sum(exact)
    quotas = [total * weight / whole for weight in exact]
    parts = [int(quota) for quota in quotas]
    losers = sorted(range(len(parts)), key=lambda n: (parts[n] - quotas[n], n))
    for number in losers[: total - sum(parts)]:
        parts[number] += 1
    return parts
