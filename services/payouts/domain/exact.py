"""Decimal arithmetic for pay: exact, or an error; rounding only where it is asked for by name."""

from decimal import (
    ROUND_HALF_UP,
    Context,
    Decimal,
    DivisionByZero,
    Inexact,
    InvalidOperation,
    Overflow,
    localcontext,
)

from schemas.money import to_minor

DIGITS = 100  # amounts, shares, quotas and rates are limited so that products stay far below
ATTAINMENT_PLACES = 6

EXACT = Context(
    prec=DIGITS, rounding=ROUND_HALF_UP, traps=[Inexact, InvalidOperation, Overflow, DivisionByZero]
)
ROUNDING = Context(
    prec=DIGITS, rounding=ROUND_HALF_UP, traps=[InvalidOperation, Overflow, DivisionByZero]
)
_ATTAINMENT_UNIT = Decimal(1).scaleb(-ATTAINMENT_PLACES)


def rounded(amounts: list[Decimal], currency: str) -> list[int]:
    """Each amount in whole minor units, half-up."""
    with localcontext(ROUNDING):
        return [to_minor(amount, currency) for amount in amounts]


def ratio(part: Decimal, whole: Decimal) -> Decimal:
    """The quotient to six places, half-up: for showing, never for pay."""
    return ROUNDING.quantize(ROUNDING.divide(part, whole), _ATTAINMENT_UNIT)


def plain(number: Decimal) -> str:
    """The number as text without an exponent or idle zeros."""
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def trimmed(number: Decimal) -> Decimal:
    """The same number in its one canonical form: 100.00 and 1E+2 become 100."""
    return Decimal(plain(number))
