"""Whether a rule's condition is true of a subject, and if so what to say to whom."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from string import Template
from typing import Literal

import msgspec

from schemas.crm import Record
from schemas.directory import Directory
from schemas.spm import Alert
from services.notifications.domain.rules import Message, RecordRule, Rule, ScheduleRule
from services.notifications.domain.schedule import organisation_day

FORGOTTEN = "(erased)"  # instead of a record's name
ONCE = "once"  # the window of rules on records: won, reopened and won again is one alert

# Why a record that a rule selects is no finding. All but `small` are worth a look.
Skip = Literal["undated", "amount", "currency", "small", "uncredited"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A condition that is true now. `audience` begins with the person it is about."""

    title: str
    text: str
    evidence: dict[str, str]
    audience: list[str]


def of_record(rule: RecordRule, record: Record, directory: Directory) -> Finding | Skip | None:
    """What the rule finds in the record: a finding, a reason why not, None when not selected."""
    if not rule.selects(record):
        return None
    placed_at = record.instant(rule.placed_by)
    if placed_at is None:
        return "undated"
    amount, currency = record.decimal("amount"), record.text("currency")
    unfit = _unfit(rule, amount, currency, directory.organisation.currency)
    if unfit is not None:
        return unfit
    day = organisation_day(directory, placed_at)
    person = directory.person_of(record.source, record.text("owner_id") or "", day)
    if person is None:
        return "uncredited"
    evidence = {
        "person": person.name,
        "name": record.text("name") or record.id,
        "type": record.type,
        "record": record.id,
        "amount": "" if amount is None else f"{amount:f}",
        "currency": currency or "",
        "day": day.isoformat(),
        "threshold": "" if rule.amount_at_least is None else f"{rule.amount_at_least:f}",
    }
    return _finding(rule.message, evidence, _audience(rule, person.id, directory, day))


def _unfit(
    rule: RecordRule, amount: Decimal | None, currency: str | None, own_currency: str
) -> Skip | None:
    if rule.amount_at_least is None:
        return None
    if amount is None:
        return "amount"
    if currency != own_currency:
        return "currency"
    return "small" if amount < rule.amount_at_least else None


def of_person(
    rule: ScheduleRule,
    person: str,
    day: date,
    counts: Mapping[str, Decimal],
    directory: Directory,
) -> Finding | None:
    """What the rule finds about the person's day. A count that nobody has sent is zero."""
    entry = directory.people.get(person)
    if entry is None or not rule.concerns(entry, day):
        return None
    done = {metric: counts.get(metric, Decimal(0)) for metric in rule.metrics}
    total = sum(done.values(), Decimal(0))
    if total >= rule.below:
        return None
    evidence = {
        "person": entry.name,
        "day": day.isoformat(),
        "total": f"{total:f}",
        "expected": str(rule.below),
        **{metric: f"{count:f}" for metric, count in done.items()},
    }
    return _finding(rule.message, evidence, _audience(rule, person, directory, day))


def decide(
    rule: Rule, known: Alert | None, finding: Finding | None, *, placed_at: datetime, now: datetime
) -> Alert | None:
    """The alert as it should be from now on, None when it is right as it is.

    An alert that exists follows its condition for ever; a new one is only raised while what it is
    about is not older than the rule allows. Its tenant, key and version are the store's business.
    """
    if finding is None:
        if known is None or known.state == "resolved":
            return None
        return msgspec.structs.replace(known, state="resolved", resolved_at=now)
    if known is None and now - placed_at > rule.max_age:
        return None
    wanted = Alert(
        tenant="",
        version=0,
        rule=rule.id,
        subject="",
        window="",
        state="firing",
        title=finding.title,
        text=finding.text,
        evidence=finding.evidence,
        audience=finding.audience,
        raised_at=now,
    )
    if known is None:
        return wanted
    follows = msgspec.structs.replace(
        known,
        state="firing",
        resolved_at=None,
        title=wanted.title,
        text=wanted.text,
        evidence=wanted.evidence,
        audience=wanted.audience,
    )
    return None if follows == known else follows


def forget(rule: Rule, known: Alert | None) -> Alert | None:
    """The alert without what it says of a record that was erased; None when it says nothing."""
    if known is None or known.evidence.get("name", "") in ("", FORGOTTEN):
        return None
    said = _finding(rule.message, {**known.evidence, "name": FORGOTTEN}, known.audience)
    return msgspec.structs.replace(known, title=said.title, text=said.text, evidence=said.evidence)


def _audience(
    rule: RecordRule | ScheduleRule, person: str, directory: Directory, day: date
) -> list[str]:
    team = directory.team_of(person, day)
    found: list[str] = []
    for role in ("person", "managers", "team"):  # the person first, whatever the file's order
        if role not in rule.audience:
            continue
        if role == "person":
            found.append(f"person:{person}")
        elif role == "managers":
            found.extend(f"person:{name}" for name in directory.nearest_managers(person, day))
        elif team:
            found.append(f"team:{team}")
    return found


def _finding(message: Message, evidence: dict[str, str], audience: list[str]) -> Finding:
    text = Template(message.text).substitute(evidence)
    if message.next_step:
        text = f"{text} {Template(message.next_step).substitute(evidence)}"
    return Finding(
        title=Template(message.title).substitute(evidence),
        text=text,
        evidence=evidence,
        audience=audience,
    )
