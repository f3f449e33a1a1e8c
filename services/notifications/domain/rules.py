"""Rules as data: what a rules file may say, and what is wrong with it if it may not be said."""

from datetime import date, time, timedelta
from decimal import Decimal
from string import Template
from typing import Annotated, Any, Literal

import msgspec

from schemas.base import valid_id
from schemas.crm import Record
from schemas.directory import Person

Severity = Literal["praise", "info", "warning"]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_Count = Annotated[int, msgspec.Meta(ge=0)]
_SomeText = Annotated[str, msgspec.Meta(min_length=1)]

RECORD_WORDS = frozenset(
    {"person", "name", "type", "record", "amount", "currency", "day", "threshold"}
)
SCHEDULE_WORDS = frozenset({"person", "day", "total", "expected"})


class InvalidRulesError(ValueError):
    """A rules file that can't be used; the message says where and why."""


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What people read. `$word` stands for a piece of evidence."""

    title: _SomeText
    text: _SomeText
    next_step: str = ""

    def words(self) -> set[str]:
        """The evidence that the templates ask for; raises ValueError when one is malformed."""
        templates = [Template(part) for part in (self.title, self.text, self.next_step)]
        if not all(template.is_valid() for template in templates):
            raise ValueError("a lone `$`: write `$$` for a dollar sign and `$word` for evidence")
        return {word for template in templates for word in template.get_identifiers()}


class _Rule(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """What rules of every kind have."""

    id: str
    severity: Severity
    message: Message
    # Nothing is raised or sent about what is older than this: a backfill must not flood.
    max_age_days: Annotated[int, msgspec.Meta(ge=1, le=400)]

    @property
    def max_age(self) -> timedelta:
        """The same as a duration."""
        return timedelta(days=self.max_age_days)


class RecordRule(_Rule, frozen=True, kw_only=True, tag="record", forbid_unknown_fields=True):
    """True of a record with these fields, once someone is credited with it.

    `equals` names fields and their values; `amount_at_least` is in the organisation's currency.
    """

    record: _SomeText
    equals: dict[str, str | bool]
    placed_by: _SomeText
    audience: list[Literal["person", "team", "managers"]]
    amount_at_least: Decimal | None = None

    @property
    def fields(self) -> frozenset[str]:
        """The record's fields that this rule looks at."""
        return frozenset({*self.equals, self.placed_by, "owner_id", "name", "amount", "currency"})

    def selects(self, record: Record) -> bool:
        """Whether the record's own fields qualify, whoever is credited, whatever the currency."""
        return (
            record.type == self.record
            and not record.deleted
            and all(record.get(name) == value for name, value in self.equals.items())
        )


class ScheduleRule(_Rule, frozen=True, kw_only=True, tag="schedule", forbid_unknown_fields=True):
    """True of a person on a working day, from a local time on, while the day's counts are low.

    Low means that their sum is below `below`. Who joined fewer than `ramp_days` ago is left in
    peace.
    """

    at: time
    days: list[Weekday]
    role: _SomeText
    metrics: list[_SomeText]
    below: Annotated[int, msgspec.Meta(ge=1)]
    audience: list[Literal["person", "managers"]]
    ramp_days: _Count = 0

    def works_on(self, day: date) -> bool:
        """Whether the rule looks at this day at all."""
        return _WEEKDAYS[day.weekday()] in self.days

    def concerns(self, person: Person | None, day: date) -> bool:
        """Whether the person is one of those whom the rule is about on that day."""
        if person is None or person.role != self.role or not self.works_on(day):
            return False
        if person.left is not None and day >= person.left:
            return False
        # Subtracted and not added: no day follows 9999-12-31, which is how systems write "never".
        return person.joined is None or (day - person.joined).days >= self.ramp_days


Rule = RecordRule | ScheduleRule


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rules: list[Rule]


class Rules:
    """The rules in force, found by what they look at."""

    def __init__(self, rules: list[Rule]) -> None:
        self.by_id = {rule.id: rule for rule in rules}
        self.records = [rule for rule in rules if isinstance(rule, RecordRule)]
        self.schedules = [rule for rule in rules if isinstance(rule, ScheduleRule)]
        self.record_types = frozenset(rule.record for rule in self.records)
        self.metrics = frozenset(metric for rule in self.schedules for metric in rule.metrics)

    def of_record(self, record_type: str) -> list[RecordRule]:
        """The rules on records of this type."""
        return [rule for rule in self.records if rule.record == record_type]

    def fields(self, record_type: str) -> frozenset[str]:
        """All fields of such records that some rule looks at."""
        return frozenset().union(*(rule.fields for rule in self.of_record(record_type)))


def parse(document: Any) -> Rules:
    """The rules of a parsed rules file; raises `InvalidRulesError`."""
    try:
        rules = msgspec.convert(document, _File).rules
    except msgspec.ValidationError as error:
        raise InvalidRulesError(str(error)) from error
    seen: set[str] = set()
    for rule in rules:
        try:
            _check(rule, seen)
        except ValueError as error:
            raise InvalidRulesError(f"rule {rule.id!r}: {error}") from error
        seen.add(rule.id)
    return Rules(rules)


def _check(rule: Rule, seen: set[str]) -> None:
    if not valid_id(rule.id):
        raise ValueError("an id is made of letters, digits and . _ : @ -")
    if rule.id in seen:
        raise ValueError("the id is used twice")
    if not rule.audience:
        raise ValueError("`audience` is empty: nobody would ever be told")
    known = RECORD_WORDS
    if isinstance(rule, ScheduleRule):
        known = SCHEDULE_WORDS | set(rule.metrics)
        if not rule.days or not rule.metrics:
            raise ValueError("`days` and `metrics` need at least one entry each")
        if rule.at.tzinfo is not None:
            raise ValueError("`at` is a local time, without an offset")
    elif not rule.equals:
        raise ValueError("`equals` needs at least one field")
    elif rule.amount_at_least is not None and not rule.amount_at_least.is_finite():
        raise ValueError("`amount_at_least` must be a number")
    unknown = rule.message.words() - known
    if unknown:
        raise ValueError(
            f"no such evidence: {', '.join(sorted(unknown))}; there is {', '.join(sorted(known))}"
        )
