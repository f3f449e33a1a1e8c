"""The catalogue: metrics as data, checked when loaded, compiled into what the hot path calls.

`parse` turns the document into a `Catalogue`, or raises a `CatalogueError` that says where it is
wrong. `Catalogue.contributions` is called for every record: nothing is interpreted there.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import reduce
from typing import Any, Literal

import msgspec

from schemas.base import valid_id
from schemas.crm import Field, Record, Scalar
from schemas.money import UnknownCurrencyError, to_minor

Level = Literal["driver", "indicator", "goal"]
Direction = Literal["higher", "lower"]

COUNT, MONEY, RATIO = "count", "money", "ratio"

# Beyond these, a value is a typing mistake, and would overflow sums or calendars.
MAX_MINOR_UNITS = 10**14
EARLIEST = int(datetime.fromisoformat("1980-01-01T00:00+00:00").timestamp())
LATEST = int(datetime.fromisoformat("2200-01-01T00:00+00:00").timestamp())

Contribution = tuple[str, str, int, int]  # metric, unit, instant (epoch seconds), value
Finding = Literal["no_date", "implausible_date", "no_amount", "unknown_currency", "absurd_amount"]
Contributions = tuple[Sequence[Contribution], Sequence[Finding]]

_Fields = dict[str, Field]
_Test = Callable[[_Fields], bool]
_Value = Callable[[_Fields], tuple[str, int] | Finding]
_Rule = tuple[str, _Test, _Value | None]  # without a value: counts as one

NOTHING: Contributions = ((), ())
ONE = (COUNT, 1)


class CatalogueError(ValueError):
    """The document isn't a catalogue; the message says where and why."""


class Sum(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Add up an amount field, in minor units of the currency field."""

    sum: str
    currency: str


class Base(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A metric that adds up over records."""

    id: str
    title: str
    level: Level
    unit: Literal["count", "money"]
    direction: Direction = "higher"
    record: str
    where: dict[str, Scalar | dict[str, Any]] = {}
    value: Literal["count"] | Sum = "count"
    placed_by: str


class Derived(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ratio of sums of base metrics."""

    id: str
    title: str
    level: Level
    unit: Literal["ratio"]
    direction: Direction = "higher"
    numerator: list[str]
    denominator: list[str]


Metric = Base | Derived


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    metrics: list[Base]
    derived: list[Derived] = []


class Catalogue:
    """All metrics of an installation."""

    def __init__(self, base: Sequence[Base], derived: Sequence[Derived]) -> None:
        self.base = {metric.id: metric for metric in base}
        self.derived = {metric.id: metric for metric in derived}
        self.metrics: dict[str, Metric] = {**self.base, **self.derived}
        self.record_types = frozenset(metric.record for metric in base)
        rules: dict[str, dict[str, list[_Rule]]] = {}
        for metric in base:
            places = rules.setdefault(metric.record, {})
            rule = (metric.id, _all_of(metric), _value_of(metric))
            places.setdefault(metric.placed_by, []).append(rule)
        self._rules = {record: list(places.items()) for record, places in rules.items()}

    def parts(self, metric: str) -> list[str]:
        """The base metrics that a metric is read from."""
        if metric in self.base:
            return [metric]
        derived = self.derived[metric]
        return sorted({*derived.numerator, *derived.denominator})

    def contributions(self, record: Record) -> Contributions:
        """What the record adds to each base metric, and what is wrong with it."""
        places = self._rules.get(record.type)
        if places is None or record.deleted:
            return NOTHING
        fields = record.fields
        found: list[Contribution] = []
        findings: list[Finding] = []
        for placed_by, rules in places:
            at: int | Finding | None = None
            for metric, test, value_of in rules:
                if not test(fields):
                    continue
                if at is None:
                    at = _second(fields, placed_by)
                if isinstance(at, str):
                    findings.append(at)
                    break
                value = value_of(fields) if value_of is not None else ONE
                if isinstance(value, str):
                    findings.append(value)
                else:
                    found.append((metric, value[0], at, value[1]))
        return found, findings


def parse(document: object) -> Catalogue:
    """The catalogue of a parsed YAML document."""
    try:
        checked = msgspec.convert(document, _Document)
    except msgspec.ValidationError as error:
        raise CatalogueError(str(error)) from error
    problems = list(_problems(checked))
    if problems:
        raise CatalogueError("; ".join(problems))
    return Catalogue(checked.metrics, checked.derived)


def _problems(document: _Document) -> Iterator[str]:
    base = {metric.id for metric in document.metrics}
    seen: set[str] = set()
    every: list[Metric] = [*document.metrics, *document.derived]
    for metric in every:
        if not valid_id(metric.id):
            yield f"metric id {metric.id!r}: use letters, digits and ._:@-"
        if metric.id in seen:
            yield f"metric {metric.id}: the id is used twice"
        seen.add(metric.id)
    for metric in document.metrics:
        if (metric.unit == MONEY) is not isinstance(metric.value, Sum):
            yield f"metric {metric.id}: `value: {{sum, currency}}` belongs to `unit: money`"
        yield from _condition_problems(metric)
    for derived in document.derived:
        for part in (*derived.numerator, *derived.denominator):
            if part not in base:
                yield f"metric {derived.id}: {part!r} is not a base metric"
        if not derived.numerator or not derived.denominator:
            yield f"metric {derived.id}: numerator and denominator name at least one metric"


def _condition_problems(metric: Base) -> Iterator[str]:
    for name, wanted in metric.where.items():
        if isinstance(wanted, dict) and not (
            set(wanted) == {"not"}
            or wanted == {"known": True}
            or (set(wanted) == {"in"} and isinstance(wanted["in"], list))
        ):
            yield (
                f"metric {metric.id}: where.{name} is a value, {{not: value}}, "
                f"{{in: [values]}} or {{known: true}}, not {wanted!r}"
            )


def _get(fields: _Fields, name: str) -> Scalar:
    field = fields.get(name)
    return field.value if field is not None and field.state == "value" else None


def _all_of(metric: Base) -> _Test:
    tests = [_condition(name, wanted) for name, wanted in metric.where.items()]
    return reduce(_both, tests) if tests else lambda _: True


def _both(first: _Test, second: _Test) -> _Test:
    return lambda fields: first(fields) and second(fields)


def _condition(name: str, wanted: Scalar | dict[str, Any]) -> _Test:
    if not isinstance(wanted, dict):
        return _equals(name, wanted)
    if "not" in wanted:
        equal = _equals(name, wanted["not"])
        return lambda fields: not equal(fields)
    if "in" in wanted:
        any_of = [_equals(name, each) for each in wanted["in"]]
        return lambda fields: any(test(fields) for test in any_of)
    return lambda fields: _get(fields, name) is not None


def _equals(name: str, wanted: Scalar) -> _Test:
    kind = type(wanted)  # true is not 1

    def test(fields: _Fields) -> bool:
        field = fields.get(name)
        if field is None or field.state != "value":
            return wanted is None
        value = field.value
        return value == wanted and type(value) is kind

    return test


def _value_of(metric: Base) -> _Value | None:
    if not isinstance(metric.value, Sum):
        return None
    amount_field, currency_field = metric.value.sum, metric.value.currency

    def money(fields: _Fields) -> tuple[str, int] | Finding:
        amount, currency = _decimal(_get(fields, amount_field)), _get(fields, currency_field)
        if amount is None:
            return "no_amount"
        try:
            minor = to_minor(amount, str(currency))
        except UnknownCurrencyError:
            return "unknown_currency"
        except ArithmeticError:  # more digits than decimal arithmetic keeps
            return "absurd_amount"
        return (str(currency), minor) if abs(minor) <= MAX_MINOR_UNITS else "absurd_amount"

    return money


def _decimal(value: Scalar) -> Decimal | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _second(fields: _Fields, name: str) -> int | Finding:
    value = _get(fields, name)
    if not isinstance(value, str):
        return "no_date"
    try:
        instant = datetime.fromisoformat(value)
        if instant.tzinfo is None:
            return "no_date"
        second = int(instant.timestamp())
    except (ValueError, OverflowError):
        return "no_date"
    return second if EARLIEST <= second < LATEST else "implausible_date"
