"""Which windows wait to be looked at: one next day per person and rule, set back when needed."""

from collections.abc import Collection, Iterable
from datetime import date, datetime, timedelta

from schemas.directory import Directory, Entry, Membership, Organisation, Person, Team
from services.notifications.domain.rules import ScheduleRule
from services.notifications.domain.schedule import days_from, due_at, organisation_day, zone_of

Everyone = None
Affected = set[str] | None  # None is everyone


def affected(before: Iterable[Entry], changed: Iterable[Entry]) -> Affected:
    """Whose windows a change of the directory may decide differently."""
    known = {entry.key: entry for entry in before}
    people: set[str] = set()
    for entry in changed:
        for version in (known.get(entry.key), entry):
            match version:
                case Person():
                    people.add(version.id)
                case Membership(manages=False):
                    people.add(version.person)
                # Whoever manages, or how teams hang together, concerns many.
                case Membership() | Team() | Organisation():
                    return Everyone
    return people


def first_day(
    rule: ScheduleRule, directory: Directory, measured_from: date | None, now: datetime
) -> date:
    """The earliest day that the rule may still raise something for."""
    today = organisation_day(directory, now)
    if measured_from is None:
        return today
    return max(measured_from, today - timedelta(days=rule.max_age_days))


def concerned(rule: ScheduleRule, directory: Directory, people: Affected) -> list[str]:
    """Those of the people whom the rule may be about, now or later."""
    names = directory.people.keys() if people is None else people
    return sorted(
        name
        for name in names
        if (entry := directory.people.get(name)) is not None and entry.role == rule.role
    )


def next_window(
    rule: ScheduleRule, directory: Directory, person: str, since: date
) -> tuple[date, datetime] | None:
    """The first day from `since` on that the rule looks at, and when it is due; None at the end."""
    entry = directory.people.get(person)
    if entry is None or entry.role != rule.role:
        return None
    for day in days_from(since):
        if entry.left is not None and day >= entry.left:
            return None
        if rule.works_on(day):
            return day, due_at(day, rule.at, zone_of(directory, person))
    return None


def due_times(
    rules: Collection[ScheduleRule], directory: Directory, person: str, day: date, metric: str
) -> list[tuple[ScheduleRule, datetime]]:
    """The rules that look at this count of the person's day, and when."""
    entry = directory.people.get(person)
    return [
        (rule, due_at(day, rule.at, zone_of(directory, person)))
        for rule in rules
        if metric in rule.metrics and rule.concerns(entry, day)
    ]
