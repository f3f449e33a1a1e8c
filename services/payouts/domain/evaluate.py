"""What a payee earns in a period: a pure function of plan, credits and quotas.

Credits count in the order of (credit date, record type and id). A credit d after credits of x in
total earns M(x+d) - M(x), where M is the rate's formula over the whole measure, so that the sum of
all lines doesn't depend on the order, and each line can be shown slice by slice. Below zero M of
tiers is zero. Tiers by attainment are placed at (tier start x quota), which keeps every step exact.

With attainment as the measure and no usable quota, attainment is 0: nothing can be placed in a
tier, all lines earn 0, and the statement says why.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, localcontext
from types import MappingProxyType

from services.payouts.domain.exact import EXACT, plain, ratio, rounded
from services.payouts.domain.plan import Component, Flat, Marginal, Plan

ZERO = Decimal(0)
MAX_QUOTA_DIGITS = 16
MAX_QUOTA_PLACES = 12

QUOTA_FINDINGS = {
    "quota_missing": "There is no goal for this payee, metric and period; attainment counts as 0.",
    "quota_zero": "The goal is not above zero; attainment counts as 0.",
    "quota_unit": "The goal is not in the plan's currency; attainment counts as 0.",
    "quota_out_of_range": "The goal has too many digits to be money; attainment counts as 0.",
}


@dataclass(frozen=True, slots=True)
class Credit:
    """One record's counted amount in one component."""

    component: str
    record_type: str
    record_id: str
    day: date
    basis: Decimal
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Quota:
    """A goal as set: amount and unit."""

    target: Decimal
    unit: str


@dataclass(frozen=True, slots=True)
class Opening:
    """What a component's earlier lines, which stay as they are, come to."""

    credited: Decimal = ZERO
    earned_minor: int = 0
    lines: int = 0


@dataclass(frozen=True, slots=True)
class Slice:
    """The part of a credit in one tier; `tier` is None below zero, where nothing is earned."""

    tier: int | None
    start: Decimal
    end: Decimal
    rate: Decimal

    @property
    def amount(self) -> Decimal:
        """How much of the credit lies here; negative when the credit reduces."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Line:
    """One credit's pay."""

    credit: Credit
    before: Decimal
    after: Decimal
    slices: tuple[Slice, ...]
    unrounded: Decimal
    earned_minor: int


@dataclass(frozen=True, slots=True)
class ComponentResult:
    """One component's sums. `quota` is None when there is no usable one."""

    id: str
    credited: Decimal
    quota: Decimal | None
    attainment: Decimal | None
    tier: int
    earned_minor: int
    finding: str
    count: int  # of all lines
    lines: tuple[Line, ...]  # after the opening


@dataclass(frozen=True, slots=True)
class Statement:
    """A payee's pay for a period."""

    components: tuple[ComponentResult, ...]

    @property
    def earned_minor(self) -> int:
        """The sum of all lines, in minor units."""
        return sum(component.earned_minor for component in self.components)

    @property
    def lines(self) -> list[Line]:
        """All lines in the order in which they count, component by component."""
        return [line for component in self.components for line in component.lines]


def evaluate(
    plan: Plan,
    credits_: Iterable[Credit],
    quotas: Mapping[str, Quota],
    openings: Mapping[str, Opening] = MappingProxyType({}),
) -> Statement:
    """The statement; `quotas` are the payee's goals of the period by metric.

    With `openings` by component, the credits are just those that come after them: what is earlier
    doesn't depend on them, so a statement to which a deal is added needn't be made from the start.
    """
    by_component: dict[str, list[Credit]] = {component.id: [] for component in plan.components}
    for credit in credits_:
        by_component[credit.component].append(credit)
    return Statement(
        tuple(
            _component(
                plan,
                component,
                by_component[component.id],
                quotas,
                openings.get(component.id, Opening()),
            )
            for component in plan.components
        )
    )


def pay(rate: Flat | Marginal, quota: Decimal | None, measure: Decimal) -> Decimal:
    """M: what the whole measure (a credited amount) earns, unrounded."""
    with localcontext(EXACT):
        return sum((s.amount * s.rate for s in _slices(rate, quota, ZERO, measure)), ZERO)


def usable(quota: Quota | None, currency: str) -> tuple[Decimal | None, str]:
    """The quota's amount, or None and the finding that says why not."""
    if quota is None:
        return None, "quota_missing"
    if quota.unit != currency:
        return None, "quota_unit"
    target = quota.target
    if (
        not target.is_finite()
        or target.adjusted() >= MAX_QUOTA_DIGITS
        or -int(target.as_tuple().exponent) > MAX_QUOTA_PLACES
    ):
        return None, "quota_out_of_range"
    return (target, "") if target > 0 else (None, "quota_zero")


def _component(
    plan: Plan,
    component: Component,
    credits_: list[Credit],
    quotas: Mapping[str, Quota],
    opening: Opening,
) -> ComponentResult:
    quota, finding = None, ""
    if component.quota is not None:
        quota, finding = usable(quotas.get(component.quota), plan.currency)
    rate = component.rate
    credits_.sort(key=lambda c: (c.day, c.record_type, c.record_id))
    with localcontext(EXACT):
        steps, measure = [], opening.credited
        for credit in credits_:
            after = measure + credit.amount
            slices = _slices(rate, quota, measure, after)
            unrounded = sum((s.amount * s.rate for s in slices), ZERO)
            steps.append((credit, measure, after, slices, unrounded))
            measure = after
    earned = rounded([step[4] for step in steps], plan.currency)
    lines = tuple(Line(*step, minor) for step, minor in zip(steps, earned, strict=True))
    attainment = None
    if component.quota is not None:
        attainment = ratio(measure, quota) if quota is not None else ZERO
    return ComponentResult(
        component.id,
        measure,
        quota,
        attainment,
        tier_at(rate, quota, measure),
        opening.earned_minor + sum(earned),
        finding,
        opening.lines + len(lines),
        lines,
    )


def starts(rate: Marginal, quota: Decimal | None) -> list[Decimal] | None:
    """Where the tiers begin, as amounts; None when attainment has no quota to stand on."""
    if rate.measure == "amount":
        return [tier.start for tier in rate.tiers]
    if quota is None:
        return None
    return [EXACT.multiply(tier.start, quota) for tier in rate.tiers]


def tier_at(rate: Flat | Marginal, quota: Decimal | None, measure: Decimal) -> int:
    """The tier that contains the measure: at exactly a tier's start, `boundary` decides."""
    found = starts(rate, quota) if isinstance(rate, Marginal) else None
    if found is None or isinstance(rate, Flat):
        return 0
    reached = [
        index
        for index, start in enumerate(found)
        if start < measure or (start == measure and rate.boundary == "upper")
    ]
    return reached[-1] if reached else 0


def _slices(
    rate: Flat | Marginal, quota: Decimal | None, before: Decimal, after: Decimal
) -> tuple[Slice, ...]:
    """The way from `before` to `after`, cut at the tiers; in the direction of travel."""
    if before == after:
        return ()
    if isinstance(rate, Flat):
        return (Slice(0, before, after, rate.rate),)
    found = starts(rate, quota)
    if found is None:
        return ()
    low, high = min(before, after), max(before, after)
    parts: list[tuple[int | None, Decimal, Decimal, Decimal]] = []
    if low < ZERO:
        parts.append((None, low, min(high, ZERO), ZERO))
    for index, (tier, start) in enumerate(zip(rate.tiers, found, strict=True)):
        lower = max(low, start)
        upper = min(high, found[index + 1]) if index + 1 < len(found) else high
        if upper > lower:
            parts.append((index, lower, upper, tier.rate))
    if after > before:
        return tuple(Slice(i, lower, upper, r) for i, lower, upper, r in parts)
    return tuple(Slice(i, upper, lower, r) for i, lower, upper, r in reversed(parts))


def explain(
    plan: Plan, component: Component, rule: str, line: Line, quota: Decimal | None
) -> dict[str, object]:
    """The line as a tree of plain values, from the record's amount to the cent."""
    rate = component.rate
    kind = rate.measure if isinstance(rate, Marginal) else "amount"
    measure: dict[str, object] = {
        "kind": kind,
        "before": plain(line.before),
        "after": plain(line.after),
    }
    if quota is not None:
        measure["attainment_before"] = plain(ratio(line.before, quota))
        measure["attainment_after"] = plain(ratio(line.after, quota))
    return {
        "day": line.credit.day.isoformat(),
        "rule": rule,  # the component's, in words
        "basis": {"field": component.credit.basis, "amount": plain(line.credit.basis)},
        "share": plain(component.credit.share),
        "credited": plain(line.credit.amount),
        "measure": measure,
        "slices": [
            {
                "tier": s.tier,
                "from": plain(s.start),
                "to": plain(s.end),
                "amount": plain(EXACT.subtract(s.end, s.start)),
                "rate": plain(s.rate),
                "pay": plain(EXACT.multiply(EXACT.subtract(s.end, s.start), s.rate)),
            }
            for s in line.slices
        ],
        "unrounded": plain(line.unrounded),
        "rounding": "half_up_per_line",
        "currency": plan.currency,
    }
