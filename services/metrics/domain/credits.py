"""Who gets what a record contributes, and the deltas between two versions of a fact.

A credit carries everything that was credited (day, person, teams upwards), so that it can be taken
back exactly, whatever the directory says by then. `Crediting` is the directory of one tenant with a
memory: most records of a batch are of the same few owners and days.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import msgspec

from schemas.directory import Directory, Entry, Membership, Organisation, OwnerMapping, Person, Team
from services.metrics.domain.catalogue import Contribution

QUARTER_HOUR = 900  # every zone's midnight is on one, since 1972
REMEMBERED_DAYS = 50_000  # entries; a memory is dropped when it outgrows this
REMEMBERED_OWNERS = 200_000
TEAM_SEPARATOR = "\x1f"
NONE = "[]"  # the text of no credits


class Credit(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A contribution of one record, and who gets it; `person` is empty while nobody does."""

    metric: str
    unit: str
    at: int  # epoch seconds
    value: int
    day: str  # the organisation's local day
    person: str
    teams: list[str]  # the person's team of that day and those above it

    @property
    def contribution(self) -> Contribution:
        """What the record says, without whom it is credited to."""
        return (self.metric, self.unit, self.at, self.value)


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(list[Credit])


def decode(text: str) -> list[Credit]:
    """The credits of a stored fact."""
    return [] if text == NONE else _DECODER.decode(text)


class Crediting:
    """Finds day, person and teams for contributions of one tenant."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self._zone = ZoneInfo(directory.calendar.zone)
        self._days: dict[int, tuple[str, int]] = {}  # the day and its stretch, by quarter hour
        self._owners: dict[tuple[str, str, int], tuple[str, list[str]]] = {}

    def credits(
        self, source: str, owner_id: str, contributions: Iterable[Contribution]
    ) -> list[Credit]:
        """The contributions as credited by this directory."""
        credited = []
        for metric, unit, at, value in contributions:
            day, stretch = self._days.get(at // QUARTER_HOUR) or self._new_day(at)
            key = (source, owner_id, stretch)
            person, teams = self._owners.get(key) or self._new_owner(key, day)
            credited.append(Credit(metric, unit, at, value, day, person, teams))
        return credited

    def _new_day(self, at: int) -> tuple[str, int]:
        if len(self._days) >= REMEMBERED_DAYS:
            self._days.clear()
        day = datetime.fromtimestamp(at, UTC).astimezone(self._zone).date()
        found = self._days[at // QUARTER_HOUR] = (day.isoformat(), self.directory.stretch(day))
        return found

    def _new_owner(self, key: tuple[str, str, int], day: str) -> tuple[str, list[str]]:
        if len(self._owners) >= REMEMBERED_OWNERS:
            self._owners.clear()
        found = self._owners[key] = self._look_up(key[0], key[1], date.fromisoformat(day))
        return found

    def _look_up(self, source: str, owner_id: str, day: date) -> tuple[str, list[str]]:
        directory = self.directory
        person = directory.person_of(source, owner_id, day) if owner_id else None
        if person is None:
            return "", []
        return person.id, directory.teams_above(directory.team_of(person.id, day))


def encode(credited: Sequence[Credit]) -> str:
    """The canonical text of credits: equal credits give equal text."""
    return _ENCODER.encode(credited).decode() if credited else NONE


_Grain = tuple[str, str, str, str, str, str]  # tenant, metric, unit, person, teams, day


class Deltas:
    """What is to be added to counters, summed at the lowest grain."""

    def __init__(self) -> None:
        self._sums: dict[_Grain, list[int]] = {}

    def add(self, tenant: str, credited: Iterable[Credit], received: int) -> None:
        """Count these; `received` (µs, 0 for unknown) is when their record came in."""
        self._count(tenant, credited, 1, received)

    def retract(self, tenant: str, credited: Iterable[Credit], received: int) -> None:
        """Take these back."""
        self._count(tenant, credited, -1, received)

    def _count(self, tenant: str, credited: Iterable[Credit], sign: int, received: int) -> None:
        for credit in credited:
            if not credit.person:
                continue
            teams = credit.teams
            grain = (
                tenant,
                credit.metric,
                credit.unit,
                credit.person,
                TEAM_SEPARATOR.join(teams) if len(teams) > 1 else teams[0] if teams else "",
                credit.day,
            )
            sums = self._sums.get(grain)
            if sums is None:
                self._sums[grain] = [sign * credit.value, sign, received]
            else:
                sums[0] += sign * credit.value
                sums[1] += sign
                if received and (received < sums[2] or not sums[2]):
                    sums[2] = received

    def rows(self) -> list[tuple[str, str, str, str, str, date, int, int, int]]:
        """Those that don't cancel out, as the table `pending` has them."""
        days = {day: date.fromisoformat(day) for day in {grain[5] for grain in self._sums}}
        return [
            (*grain[:5], days[grain[5]], value, count, received)
            for grain, (value, count, received) in self._sums.items()
            if value or count
        ]


class Change(msgspec.Struct, frozen=True):
    """What a changed directory means for facts made before."""

    calendar: bool  # every day and period may be another one
    owners: frozenset[tuple[str, str]]  # (source, owner id) whose records need crediting again


def directory_change(old: Sequence[Entry], new: Sequence[Entry]) -> Change:
    """Compare two states of one tenant's directory."""
    before, after = _present(old), _present(new)
    different = [
        entry
        for key in before.keys() | after.keys()
        if before.get(key) != after.get(key)
        for entry in (before.get(key), after.get(key))
        if entry is not None
    ]
    people = {e.person for e in different if isinstance(e, Membership)}
    people |= {
        e.id for e in different if isinstance(e, Person) and (e.key in before) != (e.key in after)
    }
    if any(isinstance(e, Team) for e in different):
        people |= _below_moved_teams(old, new)
    owners = {(e.source, e.owner_id) for e in different if isinstance(e, OwnerMapping)}
    for entry in (*old, *new):
        if isinstance(entry, OwnerMapping) and entry.person in people:
            owners.add((entry.source, entry.owner_id))
    return Change(_calendar(old) != _calendar(new), frozenset(owners))


def _present(entries: Iterable[Entry]) -> dict[str, Entry]:
    return {e.key: msgspec.structs.replace(e, version=0) for e in entries if not e.deleted}


def _calendar(entries: Sequence[Entry]) -> object:
    return Directory("", [e for e in entries if isinstance(e, Organisation)]).calendar


def _below_moved_teams(old: Sequence[Entry], new: Sequence[Entry]) -> set[str]:
    was, now = (Directory("", [e for e in s if isinstance(e, Team)]) for s in (old, new))
    memberships = [e for e in (*old, *new) if isinstance(e, Membership)]
    moved = {
        team
        for team in {m.team for m in memberships}
        if was.teams_above(team) != now.teams_above(team)
    }
    return {m.person for m in memberships if m.team in moved}


def owners_of(entries: Iterable[Entry], person: str) -> list[tuple[str, str]]:
    """The CRM owners (source, owner id) that are, were or will be this person."""
    mappings = [e for e in entries if isinstance(e, OwnerMapping) and e.person == person]
    return sorted({(e.source, e.owner_id) for e in mappings if not e.deleted})
