"""Base metrics compiled into what is called for every record: nothing is interpreted there.

The rules of a record type are sorted by the value of one of its fields, usually the status: a rule
that asks for another value isn't looked at, and the others needn't ask any more. Rules that need a
field which the record doesn't have are skipped together.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from functools import reduce
from operator import ge, gt, le, lt
from typing import Any, Literal

from schemas.crm import Field, Record, Scalar, StageEntry
from schemas.money import UnknownCurrencyError, to_minor
from services.metrics.domain.catalogue.entries import (
    COUNT,
    DURATION,
    MONEY,
    QUANTITY,
    SECONDS,
    STAGE,
    Base,
    Value,
)
from services.metrics.domain.catalogue.fields import (
    ENTERED_AT,
    LEFT_AT,
    MOVED_AT,
    MOVED_FROM,
    MOVED_TO,
    STAGE_SINCE,
    VIRTUAL_OF_MOVE,
)

VERSION = 1  # of how records are counted: another one counts the past again

# Beyond these, a value is a typing mistake, and would overflow sums or calendars.
MAX_MINOR_UNITS = 10**14
MAX_THOUSANDTHS = 10**14
EARLIEST = int(datetime.fromisoformat("1980-01-01T00:00+00:00").timestamp())
LATEST = int(datetime.fromisoformat("2200-01-01T00:00+00:00").timestamp())
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = 86_400  # seconds, as UTC's days all have

MAX_AFTER = timedelta(days=3_660)
_AFTER = re.compile(
    r"P(?=.)(?:(\d{1,4})W)?(?:(\d{1,4})D)?(?:T(?=.)(?:(\d{1,5})H)?(?:(\d{1,6})M)?(?:(\d{1,8})S)?)?",
    re.ASCII,
)

Contribution = tuple[str, str, int, int]  # metric, unit, instant (epoch seconds), value
Finding = Literal[
    "no_date",
    "implausible_date",
    "no_amount",
    "unknown_currency",
    "absurd_amount",
    "no_quantity",
    "absurd_quantity",
    "negative_duration",
]
Contributions = tuple[Sequence[Contribution], Sequence[Finding]]

NOTHING: Contributions = ((), ())

_Fields = Mapping[str, Field]
_Test = Callable[[_Fields], bool]
_Measured = tuple[str, int] | Finding
_Instants = dict[str, int | Finding]  # what was found of a record's instants: each is read once
_Value = Callable[[_Fields, _Instants], _Measured]

ANY = "any"  # among the conditions: alternatives
_SORTED_FROM = 2  # rules; one can as well ask by itself


# Plain tuples: Python takes them apart faster than named ones.
# A rule is a metric; a test, without which it always counts; the field that places it, and how many
# seconds later; its value, without which it counts as one; and a number that is equal for equal
# values, which are computed once per record.
_Rule = tuple[str, _Test | None, str, int, _Value | None, int]
_Gated = tuple[tuple[str, tuple[_Rule, ...]], ...]  # by a field without which none of them counts
# What applies to any record, what to one that has stages, what to each of its stays in them, and
# what to each move of its expected close date.
_Rules = tuple[_Gated, _Gated, _Gated, _Gated]
# Rules by the value (and its type) of a field, and those for records that have another there.
_Plan = tuple[str, dict[Scalar, tuple[type, _Rules]], _Rules]


def compiled(metrics: Iterable[Base]) -> Callable[[Record], Contributions]:
    """What says of a record what it adds to each of these metrics, and what is wrong with it."""
    of_type: dict[str, list[Base]] = {}
    for metric in metrics:
        of_type.setdefault(metric.record, []).append(metric)
    plans = {record: _plan(each) for record, each in of_type.items()}

    def contributions(record: Record) -> Contributions:
        plan = plans.get(record.type)
        if plan is None or record.deleted:
            return NOTHING
        decides, by_value, rules = plan
        fields = record.fields
        field = fields.get(decides)
        if field is not None and field.state == "value":
            sorted_out = by_value.get(field.value)
            if sorted_out is not None and sorted_out[0] is type(field.value):  # true is not 1
                rules = sorted_out[1]
        found: list[Contribution] = []
        findings: list[Finding] = []
        plain, since, of_stage, of_move = rules
        _apply(plain, fields, {}, found, findings)
        if (since or of_stage) and record.stages:
            _apply_history(since, of_stage, record, found, findings)
        if of_move and record.expected_before:
            _apply_moves(of_move, record, found, findings)
        return found, findings

    return contributions


def seconds_after(text: str) -> int:
    """The seconds of an ISO 8601 duration such as P14D; raises ValueError."""
    match = _AFTER.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration such as P14D, P2W or PT36H")
    weeks, days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    found = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    if found > MAX_AFTER:
        raise ValueError(f"{text!r} is longer than P{MAX_AFTER.days}D")
    return int(found.total_seconds())


def fields_of(metric: Base) -> Iterator[str]:
    """Every field that the metric reads, as often as it does."""
    yield from _fields_in(metric.where)
    if isinstance(metric.value, Value):
        yield from filter(None, (metric.value.sum, metric.value.currency, metric.value.times))
        yield from metric.value.between or ()
    yield metric.placed_by


def _fields_in(where: Mapping[str, Any]) -> Iterator[str]:
    for name, wanted in where.items():
        if name == ANY:
            for each in wanted:
                yield from _fields_in(each)
            continue
        yield name
        if isinstance(wanted, dict):
            yield from (wanted[relation] for relation in _RELATIONS if relation in wanted)


# --- applying ----------------------------------------------------------------------------


def _apply(
    gated: _Gated,
    fields: _Fields,
    instants: _Instants,
    found: list[Contribution],
    findings: list[Finding],
    suffix: str = "",
) -> None:
    values: dict[int, _Measured] = {}
    for gate, rules in gated:
        if gate and gate not in fields:
            continue
        for metric, test, placed_by, after, value_of, key in rules:
            if test is not None and not test(fields):
                continue
            at = instants.get(placed_by) or _second(fields, placed_by, instants)
            if isinstance(at, str):
                _note(at, findings)
                continue
            if value_of is None:
                found.append((metric + suffix, COUNT, at + after, 1))
                continue
            value = values.get(key)
            if value is None:
                value = values[key] = value_of(fields, instants)
            if isinstance(value, str):
                _note(value, findings)
            else:
                found.append((metric + suffix, value[0], at + after, value[1]))


def _note(finding: Finding, findings: list[Finding]) -> None:
    if finding not in findings:
        findings.append(finding)


class _Micros(int):
    """µs since the epoch in a field that no CRM has sent."""


def _apply_history(
    since: _Gated,
    of_stage: _Gated,
    record: Record,
    found: list[Contribution],
    findings: list[Finding],
) -> None:
    stays = _stays(record)
    fields = dict(record.fields)
    instants: _Instants = {}
    _put(STAGE_SINCE, stays[-1][0].at, fields, instants)
    _apply(since, fields, instants, found, findings)
    if not of_stage:
        return
    for entry, left in stays:
        instants = {}
        fields["stage"] = Field("value", entry.stage, 0, "")
        _put(ENTERED_AT, entry.at, fields, instants)
        if left is None:
            fields.pop(LEFT_AT, None)
        else:
            _put(LEFT_AT, left, fields, instants)
        _apply(of_stage, fields, instants, found, findings, STAGE + entry.stage)


def _apply_moves(
    of_move: _Gated, record: Record, found: list[Contribution], findings: list[Finding]
) -> None:
    fields = dict(record.fields)
    for moved in _moves(record):
        instants: _Instants = {}
        for name, at in zip((MOVED_AT, MOVED_FROM, MOVED_TO), moved, strict=True):
            _put(name, at, fields, instants)
        _apply(of_move, fields, instants, found, findings)


def _put(name: str, at: int, fields: dict[str, Field], instants: _Instants) -> None:
    """An instant in µs that no CRM has sent, under a name of ours."""
    fields[name] = Field("value", _Micros(at), 0, "")
    second = at // 1_000_000
    instants[name] = second if EARLIEST <= second < LATEST else "implausible_date"


def _stays(record: Record) -> list[tuple[StageEntry, int | None]]:
    """The stays in stages, and when each ended (µs).

    The last one hasn't ended, unless the record was closed in it, not by entering it.
    """
    entries: list[StageEntry] = []
    for entry in record.stages:
        if not entries or entries[-1].stage != entry.stage:
            entries.append(entry)
    ends: list[int | None] = [entry.at for entry in entries[1:]]
    closed = record.instant("closed_at") if record.get("status") in ("won", "lost") else None
    end = None if closed is None else (closed - _EPOCH) // timedelta(microseconds=1)
    ends.append(end if end is not None and end > entries[-1].at else None)
    return list(zip(entries, ends, strict=True))


def _moves(record: Record) -> Iterator[tuple[int, int, int]]:
    """When the expected close date was moved to another day, from which and to which (µs).

    A day is UTC's: that of a date without a time, which is kept as its noon there. A date after
    none, or after one that can't be meant, is a first one.
    """
    former = said = None
    for told in (*record.expected_before, record.fields.get("expected_close")):
        if told is None or told.value == said:  # mostly it is only told again
            continue
        said = told.value
        second = _second({"": told}, "", {})
        day = None if isinstance(second, str) else second // _DAY * _DAY * 1_000_000
        if day is not None and former is not None and day != former:
            yield told.at, former, day
        former = day


# --- compiling ---------------------------------------------------------------------------


def _plan(metrics: Sequence[Base]) -> _Plan:
    keys: dict[tuple[str, Value], int] = {}
    for metric in metrics:
        if isinstance(metric.value, Value):
            keys.setdefault((metric.unit, metric.value), len(keys))
    field, values = _deciding(metrics)
    by_value = {value: (type(value), _rules(metrics, keys, field, value)) for value in values}
    return field, by_value, _rules(metrics, keys, field, None)


def _deciding(metrics: Sequence[Base]) -> tuple[str, list[Scalar]]:
    """The field whose values tell most rules apart, and these values."""
    asked: dict[str, dict[Scalar, type]] = {}
    rules: Counter[str] = Counter()
    mixed: set[str] = set()  # where one asks for true and another for 1
    for metric in metrics:
        for name, wanted in metric.where.items():
            for value in _values(wanted):
                if asked.setdefault(name, {}).setdefault(value, type(value)) is not type(value):
                    mixed.add(name)
            rules[name] += bool(_values(wanted))
    counted = [(count, name) for name, count in rules.items() if name not in mixed]
    count, name = max(counted, default=(0, ""))
    return (name, list(asked[name])) if count >= _SORTED_FROM else ("", [])


def _values(wanted: object) -> list[Scalar]:
    """The values of which a field must be one; empty when it may be something else."""
    if isinstance(wanted, dict):
        return wanted["in"] if set(wanted) == {"in"} and None not in wanted["in"] else []
    return [wanted] if isinstance(wanted, str | int) else []


def _rules(
    metrics: Sequence[Base], keys: Mapping[tuple[str, Value], int], field: str, value: Scalar
) -> _Rules:
    """The rules for records with this value in the field; None: with another, or without any."""
    plain: list[tuple[set[str], _Rule]] = []
    since: list[tuple[set[str], _Rule]] = []
    of_stage: list[tuple[set[str], _Rule]] = []
    of_move: list[tuple[set[str], _Rule]] = []
    for metric in metrics:
        where = dict(metric.where)
        wanted = where.get(field)
        if value is None and _values(wanted):
            continue
        if value is not None and field in where and not _relates(wanted):
            del where[field]
            if not _condition(field, wanted)({field: Field("value", value, 0, "")}):
                continue
        read = set(fields_of(metric))
        if metric.for_each:
            group = of_stage
        elif not read.isdisjoint(VIRTUAL_OF_MOVE):
            group = of_move
        else:
            group = since if STAGE_SINCE in read else plain
        group.append((_needed(where) - {field}, _rule(metric, where, keys)))
    return _gated(plain), _gated(since), _gated(of_stage), _gated(of_move)


def _gated(rules: Sequence[tuple[set[str], _Rule]]) -> _Gated:
    """The rules by that needed field which fewest of them need."""
    need = Counter(name for names, _ in rules for name in names)
    groups: dict[str, list[_Rule]] = {}
    for names, rule in rules:
        gate = min(names, key=lambda name: (need[name], name), default="")
        groups.setdefault(gate, []).append(rule)
    return tuple((gate, tuple(group)) for gate, group in groups.items())


def _needed(where: Mapping[str, Any]) -> set[str]:
    """Fields without which the conditions don't hold."""
    return {n for n, wanted in where.items() if n != ANY and not _condition(n, wanted)({})}


def _rule(metric: Base, where: Mapping[str, Any], keys: Mapping[tuple[str, Value], int]) -> _Rule:
    return (
        metric.id,
        _all_of(where) if where else None,
        metric.placed_by,
        seconds_after(metric.after) if metric.after else 0,
        None if isinstance(metric.value, str) else _MEASURES[metric.unit](metric.value),
        -1 if isinstance(metric.value, str) else keys[metric.unit, metric.value],
    )


def _all_of(where: Mapping[str, Any]) -> _Test:
    return _every(
        _any_of(wanted) if name == ANY else _condition(name, wanted)
        for name, wanted in where.items()
    )


def _any_of(alternatives: Iterable[Mapping[str, Any]]) -> _Test:
    tests = [_all_of(each) for each in alternatives]
    return reduce(_either, tests)


def _every(tests: Iterable[_Test]) -> _Test:
    return reduce(_both, tests)


def _both(first: _Test, second: _Test) -> _Test:
    return lambda fields: first(fields) and second(fields)


def _either(first: _Test, second: _Test) -> _Test:
    return lambda fields: first(fields) or second(fields)


def _condition(name: str, wanted: object) -> _Test:
    if not isinstance(wanted, dict):
        return _equals(name, wanted)
    return _every(_CONDITIONS[what](name, other) for what, other in wanted.items())


def _relates(wanted: object) -> bool:
    """Whether the condition looks at another field."""
    return isinstance(wanted, dict) and not _RELATIONS.isdisjoint(wanted)


def _equals(name: str, wanted: object) -> _Test:
    if wanted is None:
        return lambda fields: _get(fields, name) is None
    kind = type(wanted)  # true is not 1

    def test(fields: _Fields) -> bool:
        field = fields.get(name)
        if field is None or field.state != "value":
            return False
        value = field.value
        return value == wanted and type(value) is kind

    return test


def _differs(name: str, wanted: object) -> _Test:
    same = _one_of(name, wanted) if isinstance(wanted, list) else _equals(name, wanted)
    return lambda fields: not same(fields)


def _one_of(name: str, wanted: Iterable[object]) -> _Test:
    kinds: dict[type, set[object]] = {}  # true is not 1
    for each in wanted:
        kinds.setdefault(type(each), set()).add(each)

    def test(fields: _Fields) -> bool:
        value = _get(fields, name)
        return value in kinds.get(type(value), ())

    return test


def _known(name: str, wanted: bool) -> _Test:  # noqa: FBT001  # a value of the document
    return lambda fields: (_get(fields, name) is not None) is wanted


def _compared(compare: Callable[[Decimal, Decimal], bool]) -> Callable[[str, object], _Test]:
    def condition(name: str, wanted: object) -> _Test:
        limit = Decimal(str(wanted))

        def test(fields: _Fields) -> bool:
            number = _decimal(_get(fields, name))
            return number is not None and compare(number, limit)

        return test

    return condition


def _ordered(compare: Callable[[datetime, datetime], bool]) -> Callable[[str, str], _Test]:
    def condition(name: str, other: str) -> _Test:
        def test(fields: _Fields) -> bool:
            one, another = _instant(fields, name), _instant(fields, other)
            return one is not None and another is not None and compare(one, another)

        return test

    return condition


_RELATIONS = frozenset({"before", "not_after"})
_CONDITIONS: dict[str, Callable[[str, Any], _Test]] = {
    "not": _differs,
    "in": _one_of,
    "known": _known,
    "gt": _compared(gt),
    "gte": _compared(ge),
    "lt": _compared(lt),
    "lte": _compared(le),
    "before": _ordered(lt),
    "not_after": _ordered(le),
}


def _money(value: Value) -> _Value:
    def money(fields: _Fields, _: _Instants) -> _Measured:
        amount, currency = _decimal(_get(fields, value.sum)), _get(fields, value.currency)
        if amount is None:
            return "no_amount"
        try:
            if value.times:
                factor = _decimal(_get(fields, value.times))
                if factor is None:
                    return "no_amount"
                amount *= factor
            minor = to_minor(amount, str(currency))
        except UnknownCurrencyError:
            return "unknown_currency"
        except ArithmeticError:  # more digits than decimal arithmetic keeps
            return "absurd_amount"
        return (str(currency), minor) if abs(minor) <= MAX_MINOR_UNITS else "absurd_amount"

    return money


def _quantity(value: Value) -> _Value:
    def quantity(fields: _Fields, _: _Instants) -> _Measured:
        number = _decimal(_get(fields, value.sum))
        if number is None:
            return "no_quantity"
        try:
            thousandths = int(number.scaleb(3).quantize(Decimal(1), rounding=ROUND_HALF_UP))
        except ArithmeticError:
            return "absurd_quantity"
        return (QUANTITY, thousandths) if abs(thousandths) <= MAX_THOUSANDTHS else "absurd_quantity"

    return quantity


def _duration(value: Value) -> _Value:
    start, end = value.between or ("", "")

    def duration(fields: _Fields, instants: _Instants) -> _Measured:
        began = instants.get(start) or _second(fields, start, instants)
        ended = instants.get(end) or _second(fields, end, instants)
        if isinstance(began, str):
            return began
        if isinstance(ended, str):
            return ended
        return (SECONDS, ended - began) if began <= ended else "negative_duration"

    return duration


_MEASURES: dict[str, Callable[[Value], _Value]] = {
    MONEY: _money,
    QUANTITY: _quantity,
    DURATION: _duration,
}


# --- reading -----------------------------------------------------------------------------


def _get(fields: _Fields, name: str) -> Scalar:
    field = fields.get(name)
    return field.value if field is not None and field.state == "value" else None


def _decimal(value: Scalar) -> Decimal | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _instant(fields: _Fields, name: str) -> datetime | None:
    value = _get(fields, name)
    try:
        if isinstance(value, _Micros):
            return _EPOCH + timedelta(microseconds=value)
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None
    return None if found is None or found.tzinfo is None else found


def _second(fields: _Fields, name: str, instants: _Instants) -> int | Finding:
    """The instant's second, kept among `instants`; it is never 0, which is long before any."""
    field = fields.get(name)
    found: int | Finding = "no_date"
    if field is not None and field.state == "value":
        try:
            since = datetime.fromisoformat(field.value) - _EPOCH  # type: ignore[arg-type]  # caught
            found = since.days * 86_400 + since.seconds
            if not EARLIEST <= found < LATEST:
                found = "implausible_date"
        except (TypeError, ValueError, OverflowError):  # no text, no instant, or without a zone
            pass
    instants[name] = found
    return found
