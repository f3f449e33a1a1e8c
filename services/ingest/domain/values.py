"""Vendors' values as canonical ones; what can't be one raises, and is never guessed.

Instants become ISO-8601 UTC text, so that equal instants are equal text. Amounts become plain
decimal text within what money is: a value such as 1e999999 must not travel on.
"""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Literal

import msgspec

from schemas.base import valid_id
from services.ingest.domain.facts import BadEventError, Moment, Precision

Unit = Literal["auto", "s", "ms", "us"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST_US = 7_258_118_400_000_000  # the year 2200
MAX_INTEGER_DIGITS = 15  # a quadrillion: with two decimals still exact in 64 bits
MAX_DECIMALS = 18
MS_DIGITS = 3  # of a fraction of a second
MAX_DIGITS = 16  # of an instant in µs
MAX_CODE = 10
MAX_DURATION_DIGITS = 5
PERCENT = 100
MAX_SHOWN = 60  # characters of a bad value in a reason
DAY_US = 86_400_000_000
MAX_AHEAD_US = 400 * DAY_US  # a position further ahead would pin the field for years
_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,100}")
_MICROS_PER = {10: 1_000_000, 13: 1_000, 16: 1}  # by number of digits: s, ms, µs
_MICROS_OF = {"s": 1_000_000, "ms": 1_000, "us": 1}
_PRECISIONS: dict[int, Precision] = {1_000_000: "s", 1_000: "ms", 1: "us"}
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_CLOCK = re.compile(r"[T ]\d\d:?\d\d(:?\d\d)?")
_JSON = msgspec.json.Encoder(decimal_format="number", order="sorted")


def empty(value: object) -> bool:
    """Whether the vendor says that there is no value."""
    return value is None or value == ""


def micros(value: object, unit: Unit = "auto") -> int:
    """µs since the epoch of an ISO text, or of a number of s, ms or µs."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise BadEventError(f"{_shown(value)} is not an instant")
    if isinstance(value, int) or value.isdecimal():
        found = _from_number(str(value), unit)
    else:
        found = _from_text(value)
    if not 0 <= found < LATEST_US:
        raise BadEventError(f"{_shown(value)} is not an instant between 1970 and 2200")
    return found


def _from_number(digits: str, unit: Unit) -> int:
    if len(digits) > MAX_DIGITS:
        raise BadEventError(f"{_shown(digits)} is not an instant")
    if unit != "auto":
        return int(digits) * _MICROS_OF[unit]
    scale = next((s for length, s in _MICROS_PER.items() if len(digits) <= length), 1)
    return int(digits) * scale


def _from_text(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text.strip().upper())  # RFC 3339 allows t and z
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)  # vendors that name no zone mean UTC
        since = moment - EPOCH
    except (ValueError, OverflowError) as error:
        raise BadEventError(f"{_shown(text)} is not an instant") from error
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def aware(at: int) -> datetime:
    """µs since the epoch as an aware datetime."""
    return EPOCH + timedelta(microseconds=at)


def written(at: int) -> str:
    """µs since the epoch as ISO-8601 UTC text."""
    seconds, fraction = divmod(at, 1_000_000)
    text = datetime.fromtimestamp(seconds, UTC).isoformat()[:19]
    return f"{text}.{fraction:06d}Z" if fraction else f"{text}Z"


def instant(value: object) -> str:
    """An instant as canonical text."""
    return written(micros(value))


def noon(at: int) -> int:
    """Noon of an instant's day in UTC, in µs: the same day in every zone that sells."""
    return at - at % DAY_US + DAY_US // 2


def instant_or_noon(value: object, unit: Unit = "auto") -> str:
    """An instant as canonical text; of a day without a time its noon."""
    at = micros(value, unit)
    return written(noon(at) if isinstance(value, str) and _DAY.fullmatch(value.strip()) else at)


def due(value: object) -> str:
    """When something is overdue: at an instant, or when the day of one without a time is over.

    That is noon of the next day, when it is over in all zones: nobody is late too early.
    """
    at = micros(value)
    is_day = isinstance(value, str) and _DAY.fullmatch(value.strip())
    return written(noon(at) + DAY_US if is_day else at)


def position(value: object, received_us: int, unit: Unit = "auto") -> int:
    """An event's place in time; refused when it lies so far ahead that nothing could follow it."""
    at = micros(value, unit)
    if at > received_us + MAX_AHEAD_US:
        raise BadEventError(f"{written(at)} is over a year after the request came in")
    return at


def moment(value: object, field: str, received_us: int, unit: Unit = "auto") -> Moment:
    """An event's place in time with what the vendor wrote in which field, and how exactly."""
    at = position(value, received_us, unit)
    raw = str(value)
    return Moment(at, raw, field, _precision(raw, unit))


def _precision(raw: str, unit: Unit) -> Precision:
    if raw.isdecimal():
        if unit != "auto":
            return unit
        scale = next((s for length, s in _MICROS_PER.items() if len(raw) <= length), 1)
        return _PRECISIONS[scale]
    _, _, fraction = raw.partition(".")
    if fraction:
        digits = len(fraction) - len(fraction.lstrip("0123456789"))
        return "ms" if digits <= MS_DIGITS else "us"
    clock = _CLOCK.search(raw)
    if clock is None:
        return "day"
    return "s" if clock.group(1) else "min"


def amount(value: object) -> str:
    """A finite decimal as plain text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise BadEventError(f"amount {_shown(value)} is not a number")
    try:
        number = Decimal(str(value))
    except InvalidOperation as error:
        raise BadEventError(f"amount {_shown(value)} is not a number") from error
    exponent = number.as_tuple().exponent
    if (
        not isinstance(exponent, int)
        or exponent < -MAX_DECIMALS
        or (number and number.adjusted() >= MAX_INTEGER_DIGITS)
    ):
        raise BadEventError(f"amount {_shown(value)} is not an amount of money")
    return format(number, "f") if number else "0"


def share(value: object) -> str:
    """A share from 0 to 1, such as a probability, as plain decimal text."""
    found = amount(value)
    if not 0 <= Decimal(found) <= 1:
        raise BadEventError(f"{_shown(value)} is not a share from 0 to 1")
    return found


def percent(value: object) -> str:
    """The share that so many percent are."""
    found = Decimal(amount(value))
    if not 0 <= found <= PERCENT:
        raise BadEventError(f"{_shown(value)} is not a percentage from 0 to 100")
    return amount(found.scaleb(-2).normalize())


def currency(value: object) -> str:
    """A currency code in capitals; whether it exists is for those who count money to say."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_CODE:
        raise BadEventError(f"currency {_shown(value)} is not a code such as USD")
    return plain(value).upper()


def flag(value: object) -> bool:
    """A yes or no, as JSON or as the texts and numbers that vendors use for it."""
    if isinstance(value, bool):
        return value
    if value in (1, "1", "true", "True", "TRUE"):  # capitals: as spreadsheets write them
        return True
    if value in (0, "0", "false", "False", "FALSE"):
        return False
    raise BadEventError(f"{_shown(value)} is neither true nor false")


def seconds_from_ms(value: object) -> int:
    """Whole seconds of a number of milliseconds."""
    return _whole(value) // 1000


def seconds(value: object) -> int:
    """Seconds of a number, or of "HH:MM" or "HH:MM:SS"."""
    if isinstance(value, str) and ":" in value:
        parts = value.split(":")
        if len(parts) not in (2, 3) or not all(
            part.isdecimal() and len(part) <= MAX_DURATION_DIGITS for part in parts
        ):
            raise BadEventError(f"{_shown(value)} is not a duration")
        hours, minutes, *rest = map(int, parts)
        return hours * 3600 + minutes * 60 + sum(rest)
    return _whole(value)


def _whole(value: object) -> int:
    number = Decimal(amount(value))
    if number < 0:
        raise BadEventError(f"{_shown(value)} is negative")
    return int(number)


def text(value: object) -> str:
    """Any scalar or nested value as text."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | Decimal):
        return str(value)
    return plain(_JSON.encode(value).decode())


def plain(value: str) -> str:
    """Text without NUL, which PostgreSQL can't store."""
    return value.replace("\x00", "") if "\x00" in value else value


def record_id(source: str, number: object) -> str:
    """Our id of the vendor's record."""
    if isinstance(number, bool) or not isinstance(number, int | str):
        raise BadEventError(f"{_shown(number)} is not a record's id")
    found = f"{source}:{number}"
    if number == "" or not valid_id(found):
        raise BadEventError(f"{_shown(number)} is not a record's id")
    return found


def own_name(name: str) -> str:
    """The field name of a vendor's own property."""
    if not _NAME.fullmatch(name):
        raise BadEventError(f"property name {_shown(name)} is not letters, digits, _ . -")
    return name if name.startswith("x_") else f"x_{name}"


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}..."
