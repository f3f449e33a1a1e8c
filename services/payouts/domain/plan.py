"""Plans as people write them, and what is wrong with one.

`read` turns a plain document (mappings, lists, text, whole numbers) into a `Plan`, or raises
`PlanError` with every problem found: where, and what to do. Nothing has a silent default where the
field uses one word for two things: measure, boundary and rounding must be named.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, TypeVar

from schemas.base import valid_id
from schemas.money import UnknownCurrencyError, exponent
from schemas.periods import Grain

Boundary = Literal["upper", "lower"]
MeasureKind = Literal["amount", "attainment"]
Scalar = str | int | bool

MAX_COMPONENTS = 20
MAX_TIERS = 50
MAX_IDS = 10_000
FIRST_YEAR, LAST_YEAR = 1970, 2999  # of plans: their periods stay inside what a date can be
MAX_PLACES = 12  # decimal places of a rate, share or tier: keeps exact arithmetic within 100 digits
MAX_RATE = Decimal(100)  # 10,000 %: a rate above is a percentage written as a number
_FIELD = re.compile(r"^[a-z][a-z0-9_]{0,63}$")
_NUMBER = re.compile(r"^-?\d{1,15}(\.\d{1,12})?$")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong with a plan."""

    where: str
    what: str
    line: int | None = None


class PlanError(ValueError):
    """The document isn't a plan; `troubles` says all that is wrong."""

    def __init__(self, troubles: Sequence[Trouble]) -> None:
        super().__init__("; ".join(f"{t.where}: {t.what}" for t in troubles))
        self.troubles = list(troubles)


@dataclass(frozen=True, slots=True)
class Payees:
    """Whom the plan pays: by job role, by name, or by team (with all teams below it)."""

    kind: Literal["role", "people", "teams"]
    values: frozenset[str]


@dataclass(frozen=True, slots=True)
class CreditRule:
    """Which records count, by how much and when."""

    record: str
    when: Mapping[str, tuple[Scalar, ...]]
    basis: str
    date: str
    share: Decimal  # per cent

    def __str__(self) -> str:
        conditions = " and ".join(
            f"{name} is {' or '.join(str(value) for value in values)}"
            for name, values in self.when.items()
        )
        where = f" where {conditions}" if conditions else ""
        return f"{self.share} % of {self.basis} of each {self.record}{where}, by {self.date}"


@dataclass(frozen=True, slots=True)
class Flat:
    """One rate on everything."""

    rate: Decimal


@dataclass(frozen=True, slots=True)
class Tier:
    """From `start` of the measure up to the next tier's start, everything earns `rate`."""

    start: Decimal
    rate: Decimal


@dataclass(frozen=True, slots=True)
class Marginal:
    """Each part of the measure earns the rate of the tier that it falls into."""

    measure: MeasureKind
    boundary: Boundary
    tiers: tuple[Tier, ...]


@dataclass(frozen=True, slots=True)
class Component:
    """One way of earning: a credit rule, its rate, and the metric whose goal is the quota."""

    id: str
    credit: CreditRule
    rate: Flat | Marginal
    quota: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """An incentive plan."""

    id: str
    name: str
    currency: str
    period: Grain
    starts: date
    ends: date  # the first day on which it is no longer in force
    payees: Payees
    components: tuple[Component, ...]

    def covers(self, day: date) -> bool:
        """Whether the plan is in force on that day."""
        return self.starts <= day < self.ends


@dataclass(frozen=True, slots=True)
class RevisedPlan:
    """A plan with its revision number."""

    plan: Plan
    revision: int


def read(document: object) -> Plan:
    """The plan that the document describes; raises `PlanError` with all that is wrong."""
    node = _Node(document, "", [])
    plan = _plan(node)
    if plan is None or node.troubles:
        raise PlanError(node.troubles)
    return plan


@dataclass(frozen=True, slots=True)
class _Node:
    """A part of the document, which knows where it is and notes what is wrong with it."""

    value: object
    path: str
    troubles: list[Trouble] = field(repr=False)

    def bad(self, what: str) -> None:
        self.troubles.append(Trouble(self.path or "plan", what))

    def mapping(
        self, required: Sequence[str], optional: Sequence[str] = ()
    ) -> "dict[str, _Node] | None":
        """The entries by name; unknown and missing names are troubles of their own."""
        if not isinstance(self.value, dict):
            self.bad(f"expected a mapping with {', '.join(required) or 'names'}")
            return None
        prefix = f"{self.path}." if self.path else ""
        nodes = {}
        for name, value in self.value.items():
            node = _Node(value, f"{prefix}{name}", self.troubles)
            if name in required or name in optional:
                nodes[name] = node
            else:
                known = ", ".join([*required, *optional])
                node.bad(f"is not known here; expected {known}")
        for name in required:
            if name not in nodes:
                _Node(None, f"{prefix}{name}", self.troubles).bad("is missing and has no default")
        return nodes

    def items(self, most: int) -> "list[_Node]":
        if not isinstance(self.value, list) or not self.value:
            self.bad("expected a list with at least one entry")
            return []
        if len(self.value) > most:
            self.bad(f"has {len(self.value)} entries; at most {most} are allowed")
            return []
        return [
            _Node(value, f"{self.path}[{number}]", self.troubles)
            for number, value in enumerate(self.value)
        ]

    def text(self, most: int = 200) -> str | None:
        if not isinstance(self.value, str) or not self.value.strip() or len(self.value) > most:
            self.bad(f"expected text of 1 to {most} characters")
            return None
        return self.value

    def id(self) -> str | None:
        if not isinstance(self.value, str) or not valid_id(self.value):
            self.bad("expected an id of letters, digits and . _ : @ - (at most 128)")
            return None
        return self.value

    def field_name(self) -> str | None:
        if not isinstance(self.value, str) or not _FIELD.match(self.value):
            self.bad("expected the name of a record's field, such as amount or x_margin")
            return None
        return self.value

    def choice(self, options: Sequence[str], advice: str = "") -> str | None:
        if not isinstance(self.value, str) or self.value not in options:
            self.bad(f"{self.value!r} is not one of {', '.join(options)}{advice}")
            return None
        return self.value

    def day(self) -> date | None:
        try:
            day = date.fromisoformat(str(self.value))
        except ValueError:
            day = None
        if day is None or not FIRST_YEAR <= day.year <= LAST_YEAR:
            self.bad(f"{self.value!r} is not a day such as 2026-01-31")
            return None
        return day

    def number(self, least: Decimal, most: Decimal) -> Decimal | None:
        """A decimal written as text or a whole number; binary fractions are refused."""
        value = self.value
        number = None
        if isinstance(value, float):
            self.bad(f'is a binary fraction; write it as text: "{value}"')
            return None
        written = isinstance(value, str | int) and not isinstance(value, bool)
        if written and _NUMBER.match(str(value)):
            number = _decimal(str(value))
        if number is None or not least <= number <= most:
            self.bad(
                f"{value!r} is not a number from {least} to {most} "
                f"with at most {MAX_PLACES} decimal places"
            )
            return None
        return number


def _decimal(text: str) -> Decimal | None:
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def _get(nodes: "dict[str, _Node]", name: str, how: Callable[["_Node"], T | None]) -> T | None:
    node = nodes.get(name)
    return None if node is None else how(node)


def _plan(root: _Node) -> Plan | None:
    nodes = root.mapping(
        ("plan", "name", "currency", "period", "effective", "payees", "rounding", "components")
    )
    if nodes is None:
        return None
    identity = _get(nodes, "plan", _Node.id)
    name = _get(nodes, "name", _Node.text)
    currency = _get(nodes, "currency", _currency)
    period = _get(nodes, "period", lambda n: n.choice(("month", "quarter", "year")))
    effective = _get(nodes, "effective", _effective)
    payees = _get(nodes, "payees", _payees)
    _get(nodes, "rounding", lambda n: n.choice(("half_up_per_line",)))
    components = _get(nodes, "components", _components)
    if root.troubles:
        return None
    assert identity is not None
    assert name is not None
    assert currency is not None
    assert effective is not None
    assert payees is not None
    assert components is not None
    starts, ends = effective
    grain: Any = period
    return Plan(identity, name, currency, grain, starts, ends, payees, components)


def _currency(node: _Node) -> str | None:
    try:
        exponent(str(node.value))
    except UnknownCurrencyError as error:
        node.bad(str(error))
        return None
    return str(node.value)


def _effective(node: _Node) -> tuple[date, date] | None:
    nodes = node.mapping(("from", "to"))
    if nodes is None:
        return None
    starts, ends = _get(nodes, "from", _Node.day), _get(nodes, "to", _Node.day)
    if starts is None or ends is None:
        return None
    if starts >= ends:
        node.bad("`to` is the first day after the plan and must be later than `from`")
        return None
    return starts, ends


def _payees(node: _Node) -> Payees | None:
    kinds: tuple[Literal["role", "people", "teams"], ...] = ("role", "people", "teams")
    nodes = node.mapping((), kinds)
    if nodes is None:
        return None
    if len(nodes) != 1:
        node.bad("expected exactly one of role, people, teams")
        return None
    for kind in kinds:
        if kind in nodes:
            found = [nodes[kind]] if kind == "role" else nodes[kind].items(MAX_IDS)
            values = [value for n in found if (value := n.id()) is not None]
            return Payees(kind, frozenset(values)) if values else None
    return None


def _components(node: _Node) -> tuple[Component, ...] | None:
    found, seen = [], set()
    for item in node.items(MAX_COMPONENTS):
        component = _component(item)
        if component is None:
            continue
        if component.id in seen:
            item.bad(f"there is already a component {component.id!r}")
        seen.add(component.id)
        found.append(component)
    return tuple(found) or None


def _component(node: _Node) -> Component | None:
    nodes = node.mapping(("id", "credit", "rate"), ("quota",))
    if nodes is None:
        return None
    identity = _get(nodes, "id", _Node.id)
    credit = _get(nodes, "credit", _credit)
    rate = _rate(nodes["rate"]) if "rate" in nodes else None
    quota = _get(nodes, "quota", _quota)
    if isinstance(rate, Marginal) and rate.measure == "attainment" and "quota" not in nodes:
        node.bad("attainment needs a quota, such as `quota: {goal: revenue_won}`")
    if identity is None or credit is None or rate is None:
        return None
    return Component(identity, credit, rate, quota)


def _quota(node: _Node) -> str | None:
    nodes = node.mapping(("goal",))
    return _get(nodes, "goal", _Node.id) if nodes else None


def _credit(node: _Node) -> CreditRule | None:
    nodes = node.mapping(("record", "when", "basis", "date", "share"))
    if nodes is None:
        return None
    record = _get(nodes, "record", lambda n: n.choice(("opportunity",)))
    when = _get(nodes, "when", _when)
    basis = _get(nodes, "basis", _Node.field_name)
    day = _get(nodes, "date", _Node.field_name)
    share = _get(nodes, "share", lambda n: n.number(Decimal(0), Decimal(100)))
    if record is None or when is None or basis is None or day is None or share is None:
        return None
    return CreditRule(record, when, basis, day, share)


def _when(node: _Node) -> dict[str, tuple[Scalar, ...]] | None:
    if not isinstance(node.value, dict):
        node.bad("expected a mapping of fields to values; `{}` lets every record count")
        return None
    conditions = {}
    for name, wanted in node.value.items():
        part = _Node(wanted, f"{node.path}.{name}", node.troubles)
        _Node(name, part.path, node.troubles).field_name()
        values = tuple(wanted) if isinstance(wanted, list) else (wanted,)
        if not values or not all(isinstance(value, str | int | bool) for value in values):
            part.bad("expected text, a whole number, true or false, or a list of these")
            continue
        conditions[str(name)] = values
    return conditions


def _rate(node: _Node) -> Flat | Marginal | None:
    kind = node.value.get("type") if isinstance(node.value, dict) else None
    if kind == "flat":
        nodes = node.mapping(("type", "rate"))
        rate = _get(nodes, "rate", _a_rate) if nodes else None
        return None if rate is None else Flat(rate)
    if kind == "tiers_marginal":
        return _marginal(node)
    where = _Node(kind, f"{node.path}.type", node.troubles)
    if isinstance(kind, str) and "cumulative" in kind:
        where.bad(
            "`cumulative` is refused: it is used for rates on each tier's part and for one rate "
            "on everything; say which: tiers_marginal pays each part at its own tier's rate"
        )
    else:
        where.choice(("flat", "tiers_marginal"))
    return None


def _marginal(node: _Node) -> Marginal | None:
    nodes = node.mapping(("type", "measure", "boundary", "tiers"))
    if nodes is None:
        return None
    measure: Any = _get(nodes, "measure", lambda n: n.choice(("amount", "attainment")))
    boundary: Any = _get(
        nodes,
        "boundary",
        lambda n: n.choice(
            ("upper", "lower"), "; upper: from <= x < next, lower: from < x <= next"
        ),
    )
    tiers = _get(nodes, "tiers", _tiers)
    if measure is None or boundary is None or tiers is None:
        return None
    return Marginal(measure, boundary, tiers)


def _tiers(node: _Node) -> tuple[Tier, ...] | None:
    found: list[Tier] = []
    for item in node.items(MAX_TIERS):
        nodes = item.mapping(("from", "rate"))
        if nodes is None:
            continue
        start = _get(nodes, "from", lambda n: n.number(Decimal(0), Decimal(10) ** 14))
        rate = _get(nodes, "rate", _a_rate)
        if start is None or rate is None:
            continue
        if not found and item.path.endswith("[0]") and start != 0:
            nodes["from"].bad("the first tier starts at 0; a tier with rate 0 pays nothing")
        if found and start <= found[-1].start:
            nodes["from"].bad(f"must be above the tier before it ({found[-1].start})")
        found.append(Tier(start, rate))
    return tuple(found) or None


def _a_rate(node: _Node) -> Decimal | None:
    return node.number(Decimal(0), MAX_RATE)
