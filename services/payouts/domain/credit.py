"""Which records count for whom, and why others don't.

`decide` looks at one record with every plan of its tenant. A record that a plan doesn't mean gives
nothing; one that it means but can't count gives an outcome with a reason, which is a finding.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, localcontext

from schemas.crm import OPPORTUNITY, Record, Scalar
from schemas.directory import Directory, Person
from schemas.money import UnknownCurrencyError, exponent
from services.payouts.domain.exact import EXACT, trimmed
from services.payouts.domain.plan import Component, CreditRule, Payees, Plan

CREDITABLE = frozenset({OPPORTUNITY})
MAX_MINOR_DIGITS = 16  # of an amount in minor units: pay at the highest rate still fits 64 bits
MAX_PLACES = 12

REASONS = {
    "date_missing": "The record has no usable date in the field that the plan counts by.",
    "owner_missing": "The record has no owner.",
    "owner_unmapped": "The CRM owner is not mapped to a person on the credit date.",
    "amount_missing": "The record has no usable amount in the field that the plan counts.",
    "amount_out_of_range": "The amount has too many digits to be an amount of money.",
    "currency_missing": "The record has no currency, and none is guessed.",
    "currency_unknown": "The record's currency is not an ISO 4217 code.",
    "currency_differs": "The record's currency is not the plan's.",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a record does in a component: earns credit, or has a `reason` for not doing so."""

    plan: str
    component: str
    payee: str  # empty while nobody is known
    period: str
    day: date | None
    basis: Decimal | None
    amount: Decimal | None
    currency: str
    reason: str = ""


def decide(record: Record, plans: Iterable[Plan], directory: Directory) -> list[Outcome]:
    """Everything that the record does in these plans."""
    if record.deleted:
        return []
    return [
        outcome
        for plan in plans
        for component in plan.components
        if meant(record, component.credit)
        for outcome in _credited(record, plan, component, directory)
    ]


def meant(record: Record, rule: CreditRule) -> bool:
    """Whether the rule's conditions hold for the record."""
    return record.type == rule.record and all(
        any(_same(record.get(name), value) for value in wanted)
        for name, wanted in rule.when.items()
    )


def is_payee(payees: Payees, person: Person, directory: Directory, day: date) -> bool:
    """Whether the plan pays this person for that day."""
    if payees.kind == "role":
        return person.role in payees.values
    if payees.kind == "people":
        return person.id in payees.values
    return not payees.values.isdisjoint(directory.teams_above(directory.team_of(person.id, day)))


def _same(value: Scalar, wanted: Scalar) -> bool:
    if isinstance(value, bool) or isinstance(wanted, bool) or value is None:
        return value is wanted
    return str(value) == str(wanted)


def _credited(
    record: Record, plan: Plan, component: Component, directory: Directory
) -> Iterator[Outcome]:
    rule = component.credit
    currency = record.text("currency") or ""

    def outcome(reason: str, payee: str = "", day: date | None = None) -> Outcome:
        period = directory.calendar.period(plan.period, day) if day else ""
        return Outcome(plan.id, component.id, payee, period, day, None, None, currency, reason)

    day = _day(record, rule.date, directory)
    if day is None:
        yield outcome("date_missing")
        return
    if not plan.covers(day):
        return
    owner = record.text("owner_id")
    person = directory.person_of(record.source, owner, day) if owner else None
    if person is None:
        yield outcome("owner_unmapped" if owner else "owner_missing", day=day)
        return
    if not is_payee(plan.payees, person, directory, day):
        return
    basis = record.decimal(rule.basis)
    reason = _refusal(basis, currency, plan.currency)
    if reason or basis is None:
        yield outcome(reason, person.id, day)
        return
    period = directory.calendar.period(plan.period, day)
    with localcontext(EXACT):
        amount = basis * rule.share / 100
    yield Outcome(
        plan.id,
        component.id,
        person.id,
        period,
        day,
        trimmed(basis),
        trimmed(amount),
        currency,
    )


def _day(record: Record, name: str, directory: Directory) -> date | None:
    """The organisation's day of the instant in a field; None without a usable one."""
    try:
        instant = record.instant(name)
        return None if instant is None else directory.calendar.local_day(instant)
    except OverflowError:  # in the year 1 or 9999, and of another day elsewhere
        return None


def _refusal(basis: Decimal | None, currency: str, wanted: str) -> str:
    if not currency:
        return "currency_missing"
    if currency != wanted:
        try:
            exponent(currency)
        except UnknownCurrencyError:
            return "currency_unknown"
        return "currency_differs"
    if basis is None:
        return "amount_missing"
    places = -int(basis.as_tuple().exponent)
    if places > MAX_PLACES or basis.adjusted() + exponent(currency) >= MAX_MINOR_DIGITS:
        return "amount_out_of_range"
    return ""
