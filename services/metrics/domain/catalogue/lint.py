"""What is wrong with a catalogue: all of it at once, where it is, and what to write instead.

An *error* makes the document unusable. A *warning* says that a metric can't be meant as it stands:
it counts nothing, adds up what doesn't belong together, or is never used.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from reprlib import Repr
from typing import Any, Literal, get_args

from schemas.base import valid_id
from schemas.crm import RECORD_TYPES
from services.metrics.domain import formulas
from services.metrics.domain.catalogue import fields as known
from services.metrics.domain.catalogue.entries import (
    COUNT,
    DURATION,
    MONEY,
    QUANTITY,
    RATIO,
    STAGE,
    Direction,
    Level,
    Unit,
    Visibility,
)
from services.metrics.domain.catalogue.rules import ANY, seconds_after
from services.metrics.domain.formulas import Constant, Formula, FormulaError, Operation, Reading

MAX_METRICS = 1_000
MAX_CONDITIONS = 50  # of one metric, alternatives included
MAX_TEXT = 2_000
MAX_LISTED = 25  # names in a message
MAX_DIGITS = 30  # of a number that is compared with
MAX_FORMULA = 1_000
OWN = "x_"  # names of a vendor's or company's own record types and fields

Severity = Literal["error", "warning"]
Document = Mapping[str, Any]
_Dimension = tuple[int, int, int]  # powers of money, quantity, seconds
_Field = Callable[["_Entry", object], None]


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong: where in the document, and what, with what to write instead."""

    where: str  # such as metrics[3].where.status; empty for the whole
    what: str
    severity: Severity = "error"
    metric: str = ""  # its id, where it has one

    def __str__(self) -> str:
        name = f" ({self.metric})" if self.metric else ""
        return f"{self.where or 'the document'}{name}: {self.what}"


def lint(document: object, onto: Document | None = None) -> list[Mistake]:
    """Everything wrong with a catalogue, or with one metric; `onto` is what it is added to."""
    return list(_lint(document, onto or {}))


def _lint(document: object, onto: Document) -> Iterator[Mistake]:
    if not isinstance(document, dict):
        yield Mistake("", f"a catalogue is a mapping with `metrics`, not {_shown(document)}")
        return
    entries = []
    if document and not {"metrics", "derived"}.intersection(document):
        entries.append(_Entry("", document, derived=is_derived(document)))
    else:
        yield from _keys(document, "", () if onto else ("metrics",), ("metrics", "derived"), "")
        for name in ("metrics", "derived"):
            listed = document.get(name, [])
            if not isinstance(listed, list):
                yield Mistake(name, f"is a list of metrics, not {_shown(listed)}")
                continue
            for number, each in enumerate(listed):
                where = f"{name}[{number}]"
                if isinstance(each, dict):
                    entries.append(_Entry(where, each, derived=name == "derived"))
                else:
                    yield Mistake(where, f"a metric is a mapping with `id`, not {_shown(each)}")
    if len(entries) > MAX_METRICS:
        yield Mistake("metrics", f"there are {len(entries)}; a catalogue has up to {MAX_METRICS}")
        return
    yield from _Catalogue(entries, onto).mistakes()


def is_derived(document: Document) -> bool:
    """Whether one metric's document is of a derived metric."""
    return "formula" in document or "statistic" in document


def _keys(
    document: Document, where: str, needed: Iterable[str], other: Iterable[str], metric: str
) -> Iterator[Mistake]:
    allowed = [*needed, *other]
    for name in document:
        if name not in allowed:
            what = f"there is no {_shown(name)}{_nearest(name, allowed)}"
            yield Mistake(_below(where, str(name)), what, metric=metric)
    for name in needed:
        if name not in document:
            yield Mistake(where, f"`{name}` is missing", metric=metric)


def _below(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


def _shown(value: object) -> str:
    return _SHORT.repr(value)


def _nearest(name: object, allowed: Iterable[object]) -> str:
    """What was meant, or what there is, as the rest of a sentence."""
    every = sorted(map(str, allowed))
    close = get_close_matches(str(name), every, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(every)}." if len(every) <= MAX_LISTED else "."


class _Entry:
    """One metric's document while it is looked at."""

    def __init__(self, where: str, document: Document, *, derived: bool) -> None:
        self.where = where
        self.document = document
        self.derived = derived
        found = document.get("id")
        self.id = found if isinstance(found, str) else ""
        self.of_stage = document.get("for_each") == "stage"
        self.formula: Formula | None = None
        self.read: dict[str, str] = {}  # fields, and where in the document
        self.mistakes: list[Mistake] = []

    def error(self, name: str, what: str) -> None:
        """Note what makes the metric unusable."""
        self.mistakes.append(Mistake(_below(self.where, name), what, "error", self.id))

    def warn(self, name: str, what: str) -> None:
        """Note what can't be meant so."""
        self.mistakes.append(Mistake(_below(self.where, name), what, "warning", self.id))

    @property
    def unit(self) -> str:
        """The unit, where it is one."""
        found = self.document.get("unit")
        return found if isinstance(found, str) else ""


class _Catalogue:
    """All metrics of the document, and the ids of those they are added to."""

    def __init__(self, entries: list[_Entry], onto: Document) -> None:
        self._entries = entries
        own = {entry.id for entry in entries}
        others = [
            _Entry("", each, derived=name == "derived")
            for name in ("metrics", "derived")
            for each in onto.get(name, ())
            if each["id"] not in own
        ]
        self._others = others
        self._base = {e.id: e for e in (*others, *entries) if not e.derived and e.id}
        self._every = {e.id: e for e in (*others, *entries) if e.id}

    def mistakes(self) -> Iterator[Mistake]:
        """In the order of the document; what only shows on the whole comes last."""
        for entry in self._entries:
            self._common(entry)
            if entry.derived:
                self._derived(entry)
            else:
                _base(entry)
        for entry in self._others:
            self._used_by_others(entry)
        self._twice()
        self._unused()
        for entry in (*self._entries, *self._others):
            yield from entry.mistakes

    def _common(self, entry: _Entry) -> None:
        needed = ["id", "title", "level", "unit"]
        optional = ["description", "direction", "visibility", "for_each"]
        if entry.derived:
            optional += ["formula", "statistic"]
        else:
            needed += ["record", "placed_by"]
            optional += ["where", "value", "after", "part_only"]
        entry.mistakes += _keys(entry.document, entry.where, needed, optional, entry.id)
        for name, value in entry.document.items():
            if check := _CHECKS.get(name):
                check(entry, value)

    def _twice(self) -> None:
        times = Counter(entry.id for entry in self._entries)
        for entry in self._entries:
            if entry.id and times[entry.id] > 1:
                entry.error("id", f"{entry.id!r} is used twice; ids are unique")

    def _derived(self, entry: _Entry) -> None:
        text, statistic = entry.document.get("formula"), entry.document.get("statistic")
        if (text is None) is (statistic is None):
            entry.error("", "a derived metric has either `formula` or `statistic`")
        elif text is not None:
            self._formula(entry, text)
        else:
            self._statistic(entry, statistic)

    def _formula(self, entry: _Entry, text: object) -> None:
        if not isinstance(text, str):
            entry.error("formula", f"is text such as `a / (a + b)`, not {_shown(text)}")
            return
        if len(text) > MAX_FORMULA:
            entry.error("formula", f"is longer than {MAX_FORMULA} characters")
            return
        try:
            entry.formula = formulas.formula(text)
        except FormulaError as error:
            entry.error("formula", str(error))
            return
        names = [self._is_known(entry, reading) for reading in entry.formula.readings]
        if not entry.formula.parts:
            entry.error("formula", "reads no metric; it would have no data, ever")
        elif all(names):
            self._shows(entry, entry.formula)
            self._dimensions(entry, entry.formula)
            _zero_divisions(entry, entry.formula)

    def _shows(self, entry: _Entry, formula: Formula) -> None:
        """Whether more people may see the number than may see what it is made of."""
        for name in formula.parts:
            part = self._every[name.partition(STAGE)[0]]
            if _audience(entry) < _audience(part):
                kept = part.document["visibility"]
                entry.warn("visibility", f"shows more people something of {name}, for {kept} only")

    def _is_known(self, entry: _Entry, reading: Reading) -> bool:
        """Whether the formula may read this; what is wrong with it is noted."""
        name, at, stage = reading.metric.partition(STAGE)
        every = self._every if reading.kind == "target" else self._base
        metric = every.get(name)
        if metric is None:
            what = f"{name!r} is not a base metric"
            if name in self._every:
                what += ", but computed itself; write out what it is computed from"
            elif reading.kind == "target":
                what = f"{name!r} is not a metric{_nearest(name, every)}"
            else:
                what += _nearest(name, every)
            entry.error("formula", what)
            return False
        if metric.of_stage and not at and not entry.of_stage:
            entry.error(
                "formula",
                f"{name} is measured for each stage; name one, as in {name}@proposal, or make this "
                "metric one `for_each: stage`",
            )
            return False
        if at and (not metric.of_stage or not stage):
            entry.error("formula", f"{reading.metric}: {name} is not measured for each stage")
            return False
        return True

    def _statistic(self, entry: _Entry, statistic: object) -> None:
        name = statistic.get("median") if isinstance(statistic, dict) else None
        if not isinstance(statistic, dict) or set(statistic) != {"median"}:
            entry.error("statistic", f"is {{median: metric}}, not {_shown(statistic)}")
            return
        metric = self._base.get(name) if isinstance(name, str) else None
        if metric is None:
            what = f"{_shown(name)} is not a base metric{_nearest(name, self._base)}"
            entry.error("statistic.median", what)
        elif metric.unit == COUNT:
            entry.warn("statistic.median", f"each record counts as one in {name}, so does this")
        elif metric.unit != entry.unit:
            entry.error("unit", f"is {metric.unit}, as that of {name}, not {entry.unit}")
        elif metric.of_stage is not entry.of_stage:
            entry.error("for_each", f"must be as in {name}")

    def _dimensions(self, entry: _Entry, formula: Formula) -> None:
        found = self._dimension(entry, formula.root)
        if found is None:
            return
        money, quantity, seconds = found
        wanted = _DIMENSIONS.get(entry.unit)
        same = wanted is not None and (money, seconds) == (wanted[0], wanted[2])
        if entry.unit in _DIMENSIONS and not same:
            entry.warn("unit", f"is {entry.unit}, but the formula gives {_named(found)}")
        elif entry.unit == QUANTITY and quantity != 1:
            entry.warn("unit", f"is quantity, but the formula gives {_named(found)}")
        elif entry.unit == MONEY and not any(
            self._base[part.partition(STAGE)[0]].unit == MONEY for part in formula.parts
        ):
            entry.warn("formula", "has money only as a goal: its currency isn't known")

    def _dimension(self, entry: _Entry, node: formulas.Node) -> _Dimension | None:
        """What the formula measures; None where that can't be said."""
        if isinstance(node, Constant) or (isinstance(node, Reading) and node.kind == "count"):
            return _PLAIN
        if isinstance(node, Reading):
            return _DIMENSIONS.get(self._every[node.metric.partition(STAGE)[0]].unit)
        one, other = self._dimension(entry, node.left), self._dimension(entry, node.right)
        if one is None or other is None:
            return None
        if node.sign in "+-":
            if one == other or node.left == Constant((0, 1)):  # a sign before it
                return other
            words = "adds" if node.sign == "+" else "subtracts"
            entry.warn("formula", f"{words} {_named(one)} and {_named(other)}")
            return None
        by = 1 if node.sign == "*" else -1
        return (one[0] + by * other[0], one[1] + by * other[1], one[2] + by * other[2])

    def _used_by_others(self, entry: _Entry) -> None:
        """Whether what stays still fits what has changed under it."""
        if not entry.derived:
            return
        text = entry.document.get("formula")
        if text is None:
            self._statistic(entry, entry.document.get("statistic"))
        else:
            entry.formula = formulas.formula(text)
            for reading in entry.formula.readings:
                self._is_known(entry, reading)
        if entry.mistakes:
            broken = entry.mistakes
            entry.mistakes = [
                Mistake("", f"{entry.id}, which is computed from this: {each.what}", each.severity)
                for each in broken
            ]

    def _unused(self) -> None:
        used = {
            name.partition(STAGE)[0]
            for entry in self._every.values()
            if entry.formula is not None
            for name in entry.formula.parts
        }
        statistics = [entry.document.get("statistic") for entry in self._every.values()]
        used |= {str(each.get("median")) for each in statistics if isinstance(each, dict)}
        for entry in self._entries:
            if entry.document.get("part_only") is True and entry.id not in used:
                entry.warn("part_only", "no formula uses it: nobody will ever see this metric")


def _audience(entry: _Entry) -> int:
    """The more, the fewer may see it."""
    visibility, every = entry.document.get("visibility"), get_args(Visibility)
    return every.index(visibility) if visibility in every else 0


_PLAIN: _Dimension = (0, 0, 0)
_DIMENSIONS: dict[str, _Dimension] = {
    COUNT: _PLAIN,
    RATIO: _PLAIN,
    MONEY: (1, 0, 0),
    QUANTITY: (0, 1, 0),
    DURATION: (0, 0, 1),
}


def _named(dimension: _Dimension) -> str:
    names = {value: name for name, value in _DIMENSIONS.items() if name != RATIO}
    names[_PLAIN] = "a plain number"
    if dimension in names:
        return names[dimension]
    over = [
        name if power == 1 else f"{name}^{power}"
        for name, power in zip((MONEY, QUANTITY, DURATION), dimension, strict=True)
        if power
    ]
    return " x ".join(over)


_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)


def _zero_divisions(entry: _Entry, formula: Formula) -> None:
    """A divisor that is zero whatever is put in: twice by chance is not to be expected."""
    for node in formulas.nodes(formula.root):
        if not isinstance(node, Operation) or node.sign != "/":
            continue
        found = [_tried(node.right, turn) for turn in range(3)]
        if all(value is not None and value[0] == 0 for value in found):
            entry.warn("formula", "divides by what is always zero: it never has a value")
            return


def _tried(node: formulas.Node, turn: int) -> formulas.Ratio | None:
    values: dict[tuple[str, str], int] = {}

    def read(kind: formulas.Kind, metric: str) -> formulas.Ratio:
        number = values.setdefault((kind, metric), len(values))
        return _PRIMES[(number + 5 * turn) % len(_PRIMES)] + turn * number, 1

    return node.evaluate(read)


# --- base metrics ------------------------------------------------------------------------


def _base(entry: _Entry) -> None:
    document = entry.document
    record = document.get("record")
    value = document.get("value", COUNT)
    form = _VALUES.get(entry.unit)
    if form is not None:
        keys, written = form
        said = {value} if value == COUNT else set(value) if isinstance(value, dict) else set()
        if said != keys and (entry.unit != MONEY or said != {*keys, "times"}):
            what = f"is {written} where the unit is {entry.unit}, not {_shown(value)}"
            entry.error("value", what)
        elif isinstance(value, dict):
            _value(entry, value)
    if isinstance(record, str):
        if record not in RECORD_TYPES and not record.startswith(OWN):
            what = f"no CRM has records of type {record!r}{_nearest(record, RECORD_TYPES)}"
            entry.warn("record", f"{what} A company's own type starts with {OWN}.")
        placed_by = document.get("placed_by")
        if isinstance(placed_by, str):
            _field(entry, "placed_by", placed_by, ("instant",))
    where = document.get("where", {})
    if isinstance(where, dict):
        _conditions(entry, "where", where)
        if _size(where) > MAX_CONDITIONS:
            entry.error("where", f"has over {MAX_CONDITIONS} conditions")
    else:
        entry.error("where", f"is a mapping of fields and conditions, not {_shown(where)}")
    moved = next((name for name in known.VIRTUAL_OF_MOVE if name in entry.read), None)
    if moved and known.STAGE_SINCE in entry.read:
        what = f"{moved} is of a move, which has no {known.STAGE_SINCE}: nothing would ever count"
        entry.error(entry.read[moved], f"{what}; use one of them, or make two metrics")


_VALUES: dict[str, tuple[set[str], str]] = {
    COUNT: ({COUNT}, "`count`"),
    MONEY: (
        {"sum", "currency"},
        "{sum: amount field, currency: currency field} and perhaps `times: field`",
    ),
    QUANTITY: ({"sum"}, "{sum: field}"),
    DURATION: ({"between"}, "{between: [from field, to field]}"),
}


def _value(entry: _Entry, value: Document) -> None:
    for name, kinds in (("sum", ("number",)), ("times", ("number",)), ("currency", ("text",))):
        if name in value:
            _field_name(entry, f"value.{name}", value[name], kinds)
    if "between" in value:
        between = value["between"]
        if not isinstance(between, list | tuple) or len(between) != len(("from", "to")):
            entry.error("value.between", f"is [from field, to field], not {_shown(between)}")
            return
        for number, name in enumerate(between):
            _field_name(entry, f"value.between[{number}]", name, ("instant",))


def _field_name(entry: _Entry, where: str, name: object, kinds: tuple[str, ...]) -> None:
    if isinstance(name, str) and name:
        _field(entry, where, name, kinds)
    else:
        entry.error(where, f"is the name of a field, not {_shown(name)}")


def _field(entry: _Entry, where: str, name: str, kinds: tuple[str, ...] = ()) -> known.Kind | None:
    """Warn of a field that no vendor sets, or that is of another kind; its kind, where known."""
    entry.read.setdefault(name, where)
    record = entry.document.get("record")
    if not isinstance(record, str) or record not in RECORD_TYPES or name.startswith(OWN):
        return None
    kind = known.kind_of(record, name, of_stage=entry.of_stage)
    if kind is None:
        names = known.names_of(record, of_stage=entry.of_stage)
        only = ""
        if name in known.VIRTUAL_OF_STAGE:
            only = " outside of `for_each: stage`"
        elif name in known.VIRTUAL_OF_MOVE:
            only = " (only of opportunities, without `for_each`)"
        what = f"no CRM says {name!r} of records of type {record}{only}{_nearest(name, names)}"
        entry.warn(where, f"{what} A vendor's own field starts with {OWN}.")
    elif kinds and not isinstance(kind, frozenset) and kind not in kinds:
        entry.warn(where, f"{name} is {_article(kind)}, where {_article(kinds[0])} is needed")
    elif kinds and isinstance(kind, frozenset) and "text" not in kinds:
        entry.warn(where, f"{name} is text, where {_article(kinds[0])} is needed")
    return kind


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _size(where: Document) -> int:
    return sum(
        sum(_size(each) for each in wanted if isinstance(each, dict))
        if name == ANY and isinstance(wanted, list)
        else 1
        for name, wanted in where.items()
    )


def _conditions(
    entry: _Entry, where: str, conditions: Mapping[Any, Any], *, inside: bool = False
) -> None:
    for name, wanted in conditions.items():
        place = f"{where}.{name}"
        if not isinstance(name, str):
            entry.error(place, f"is the name of a field, not {_shown(name)}")
        elif name == ANY and not inside:
            _alternatives(entry, place, wanted)
        else:
            _condition(entry, place, wanted, _field(entry, place, name))


def _alternatives(entry: _Entry, place: str, wanted: object) -> None:
    if not isinstance(wanted, list) or not wanted:
        entry.error(place, f"is a list of alternatives, each a mapping, not {_shown(wanted)}")
        return
    for number, each in enumerate(wanted):
        if isinstance(each, dict) and each:
            _conditions(entry, f"{place}[{number}]", each, inside=True)
        else:
            what = f"is a mapping of fields and conditions, not {_shown(each)}"
            entry.error(f"{place}[{number}]", what)


def _condition(entry: _Entry, place: str, wanted: object, kind: known.Kind | None) -> None:
    if not isinstance(wanted, dict):
        _compared_with(entry, place, [wanted], kind)
        return
    if not wanted:
        entry.error(place, f"an empty condition; {_FORMS}")
    for what, value in wanted.items():
        check = _CONDITIONS.get(what)
        if check is not None:
            check(entry, f"{place}.{what}", value, kind)
        else:
            entry.error(f"{place}.{what}", f"there is no condition {_shown(what)}; {_FORMS}")


def _not(entry: _Entry, place: str, value: object, kind: known.Kind | None) -> None:
    _compared_with(entry, place, value if isinstance(value, list) else [value], kind)


def _in(entry: _Entry, place: str, value: object, kind: known.Kind | None) -> None:
    if isinstance(value, list) and value:
        _compared_with(entry, place, value, kind)
    else:
        entry.error(place, f"is a list of values, not {_shown(value)}")


def _is_there(entry: _Entry, place: str, value: object, _: known.Kind | None) -> None:
    if not isinstance(value, bool):
        entry.error(place, f"is true or false, not {_shown(value)}")


def _limit(entry: _Entry, place: str, value: object, kind: known.Kind | None) -> None:
    if not _is_number(value):
        entry.error(place, f"is a number, not {_shown(value)}")
    elif kind not in (None, "number"):
        entry.warn(place, "compares numbers, and the field has none")


def _order(entry: _Entry, place: str, value: object, kind: known.Kind | None) -> None:
    _field_name(entry, place, value, ("instant",))
    if kind not in (None, "instant"):
        entry.warn(place, "compares instants, and the field has none")


_CONDITIONS: dict[object, Callable[[_Entry, str, object, known.Kind | None], None]] = {
    "not": _not,
    "in": _in,
    "known": _is_there,
    **dict.fromkeys(("gt", "gte", "lt", "lte"), _limit),
    **dict.fromkeys(("before", "not_after"), _order),
}
_FORMS = (
    "a condition is a value, or {not: value}, {in: [values]}, {known: true}, "
    "{gt | gte | lt | lte: number}, {before | not_after: field}"
)


def _compared_with(
    entry: _Entry, place: str, wanted: Iterable[object], kind: known.Kind | None
) -> None:
    for value in wanted:
        if isinstance(value, str | int | None):
            never = _never(value, kind)
            if never:
                entry.warn(place, f"is never {_shown(value)}{never}")
        else:
            hint = "" if isinstance(value, list | dict) else "; put it in quotes, as text"
            what = f"is text, a whole number, true, false or null, not {_shown(value)}{hint}"
            entry.error(place, what)


def _never(value: str | int | None, kind: known.Kind | None) -> str:
    """What a field of this kind is instead; empty when it may have the value."""
    if value is None or kind is None:
        return ""
    if isinstance(kind, frozenset):
        return "" if value in kind else _nearest(value, kind)
    if kind == "flag":
        return "" if isinstance(value, bool) else ", but true or false"
    if isinstance(value, bool):
        return f", but {_article(kind)}"
    return "" if isinstance(value, str) or kind == "number" else ", but text; put it in quotes"


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return False
    try:
        number = Decimal(str(value))
    except (InvalidOperation, ValueError):  # the latter for thousands of digits
        return False
    return number.is_finite() and abs(number.adjusted()) <= MAX_DIGITS


# --- what every metric has ---------------------------------------------------------------


def _check_id(entry: _Entry, value: object) -> None:
    if not isinstance(value, str) or not valid_id(value):
        entry.error("id", f"{_shown(value)}: use letters, digits and ._:-, as in calls_made")
    elif STAGE in value:
        entry.error("id", f"{value!r}: {STAGE} stands before a stage, and can't be in an id")


def _check_text(name: str) -> _Field:
    def check(entry: _Entry, value: object) -> None:
        if not isinstance(value, str) or len(value) > MAX_TEXT or (not value and name == "title"):
            entry.error(name, f"is text of up to {MAX_TEXT} characters, not {_shown(value)}")

    return check


def _check_one_of(name: str, every: Iterable[str]) -> _Field:
    def check(entry: _Entry, value: object) -> None:
        allowed = [one for one in every if one != RATIO or entry.derived or name != "unit"]
        if value not in allowed:
            entry.error(name, f"is one of {', '.join(allowed)}, not {_shown(value)}")

    return check


def _check_name(name: str) -> _Field:
    def check(entry: _Entry, value: object) -> None:
        if not isinstance(value, str) or not value:
            entry.error(name, f"is a name, not {_shown(value)}")

    return check


def _check_flag(entry: _Entry, value: object) -> None:
    if not isinstance(value, bool):
        entry.error("part_only", f"is true or false, not {_shown(value)}")


def _check_after(entry: _Entry, value: object) -> None:
    try:
        seconds_after(value if isinstance(value, str) else str(value))
    except ValueError as error:
        entry.error("after", str(error))


_CHECKS: dict[str, _Field] = {
    "id": _check_id,
    "title": _check_text("title"),
    "description": _check_text("description"),
    "level": _check_one_of("level", get_args(Level)),
    "unit": _check_one_of("unit", get_args(Unit)),
    "direction": _check_one_of("direction", get_args(Direction)),
    "visibility": _check_one_of("visibility", get_args(Visibility)),
    "for_each": _check_one_of("for_each", ("stage",)),
    "record": _check_name("record"),
    "placed_by": _check_name("placed_by"),
    "part_only": _check_flag,
    "after": _check_after,
}
