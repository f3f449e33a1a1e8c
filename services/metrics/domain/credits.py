"""Who gets what a record contributes, and the deltas between two versions of a fact.

A credit carries everything that was credited (day, person, and the subjects above: teams,
territories, role), so that it can be taken back exactly, whatever the directory says by then.
`Crediting` is the directory of one tenant with a memory: most records of a batch are of the same
few owners and days.

A record may be shared: its field `shares` says `owner=60;owner2=40` in percent. What is measured in
money or quantities is divided by the largest remainder, so that the parts add up to the whole; a
count or a duration goes to the largest share alone (the first of equal ones): a deal of two people
is still one deal for their team, and took as long as it took. Whatever several shares count for
(the organisation, a team) has one record more, not several.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from zoneinfo import ZoneInfo

import msgspec

from schemas.directory import (
    Assignment,
    Directory,
    Entry,
    Membership,
    Organisation,
    OwnerMapping,
    Person,
    Role,
    Team,
    Territory,
)
from schemas.money import apportion
from services.metrics.domain.catalogue import COUNT, SECONDS, Contribution

QUARTER_HOUR = 900  # every zone's midnight is on one, since 1972
REMEMBERED_DAYS = 50_000  # entries; a memory is dropped when it outgrows this
REMEMBERED_OWNERS = 200_000
SEPARATOR = "\x1f"  # between the subjects of a delta; can't be part of an id
NONE = "[]"  # the text of no credits
MAX_SHARES = 20
_WHOLE = Decimal(100)

TEAM, TERRITORY, ROLE, PERSON = "team:", "territory:", "role:", "person:"
Shares = tuple[tuple[str, Decimal], ...]  # owner and percent


class Credit(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A contribution of one record, and who gets it; `person` is empty while nobody does."""

    metric: str
    unit: str
    at: int  # epoch seconds
    value: int
    day: str  # the organisation's local day
    person: str
    subjects: list[
        str
    ]  # what else it counts for, but the organisation: team:…, territory:…, role:…


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(list[Credit])


def decode(text: str) -> list[Credit]:
    """The credits of a stored fact."""
    return [] if text == NONE else _DECODER.decode(text)


def encode(credited: Sequence[Credit]) -> str:
    """The canonical text of credits: equal credits give equal text."""
    return _ENCODER.encode(credited).decode() if credited else NONE


def contributed(credited: Iterable[Credit], *, shared: bool) -> list[Contribution]:
    """What the record says, without whom it is credited to; shares are put together again."""
    found = [(credit.metric, credit.unit, credit.at, credit.value) for credit in credited]
    return _together(found) if shared else found


def _together(contributions: Iterable[Contribution]) -> list[Contribution]:
    whole: dict[tuple[str, str, int], int] = {}
    for metric, unit, at, value in contributions:
        key = (metric, unit, at)
        whole[key] = whole.get(key, 0) + value
    return [(*key, value) for key, value in whole.items()]


class BadSharesError(ValueError):
    """A record's shares can't be understood; it counts for its owner alone."""


@lru_cache(maxsize=10_000)
def read_shares(text: str) -> Shares:
    """`a=60;b=40` → owners and percents that total 100; raises `BadSharesError`."""
    found: dict[str, Decimal] = {}
    for part in text.split(";"):
        owner, _, percent = part.rpartition("=")
        try:
            share = Decimal(percent)
        except InvalidOperation:
            raise BadSharesError(f"{part!r:.80}: expected owner=percent") from None
        if not owner or owner in found or not share.is_finite() or not 0 < share <= _WHOLE:
            raise BadSharesError(f"{part!r:.80}: an owner once, with over 0 up to 100 percent")
        found[owner] = share
    if sum(found.values()) != _WHOLE or len(found) > MAX_SHARES:
        raise BadSharesError(f"shares are of up to {MAX_SHARES} owners and total 100")
    return tuple(found.items())


_Owner = tuple[str, list[str]]  # person and subjects


class Crediting:
    """Finds day, person and subjects for contributions of one tenant."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self._zone = ZoneInfo(directory.calendar.zone)
        self._days: dict[int, tuple[str, int]] = {}  # the day and its stretch, by quarter hour
        self._owners: dict[tuple[str, str, str, int], _Owner] = {}

    def credits(
        self,
        source: str,
        owner_id: str,
        contributions: Iterable[Contribution],
        *,
        shares: Shares = (),
        territories: str = "",
    ) -> list[Credit]:
        """The contributions as credited by this directory.

        `territories` are those whose rules the record meets, joined with `SEPARATOR`.
        """
        credited = []
        if shares:
            contributions = _together(contributions)  # one whole each, as when credited again
        for metric, unit, at, value in contributions:
            day, stretch = self._days.get(at // QUARTER_HOUR) or self._new_day(at)
            if not shares:
                key = (source, owner_id, territories, stretch)
                person, subjects = self._owners.get(key) or self._new_owner(key, day)
                credited.append(Credit(metric, unit, at, value, day, person, subjects))
                continue
            for owner, part in _divided(value, unit, shares):
                key = (source, owner, territories, stretch)
                person, subjects = self._owners.get(key) or self._new_owner(key, day)
                credited.append(Credit(metric, unit, at, part, day, person, subjects))
        return credited

    def _new_day(self, at: int) -> tuple[str, int]:
        if len(self._days) >= REMEMBERED_DAYS:
            self._days.clear()
        day = datetime.fromtimestamp(at, UTC).astimezone(self._zone).date()
        found = self._days[at // QUARTER_HOUR] = (day.isoformat(), self.directory.stretch(day))
        return found

    def _new_owner(self, key: tuple[str, str, str, int], day: str) -> _Owner:
        if len(self._owners) >= REMEMBERED_OWNERS:
            self._owners.clear()
        found = self._owners[key] = self._look_up(*key[:3], date.fromisoformat(day))
        return found

    def _look_up(self, source: str, owner_id: str, territories: str, day: date) -> _Owner:
        directory = self.directory
        person = directory.person_of(source, owner_id, day) if owner_id else None
        if person is None:
            return "", []
        matching = territories.split(SEPARATOR) if territories else ()
        territory = directory.territory_of(person.id, matching, day)
        role = directory.role_of(person.id, day)
        teams = directory.teams_above(directory.team_of(person.id, day))
        return person.id, [
            *(TEAM + name for name in teams),
            *(TERRITORY + name for name in directory.territories_above(territory)),
            *([ROLE + role] if role else []),
        ]


def _divided(value: int, unit: str, shares: Shares) -> list[tuple[str, int]]:
    """Owners with their parts of a value."""
    if unit in (COUNT, SECONDS):
        return [(max(shares, key=lambda share: share[1])[0], value)]
    parts = apportion(value, [share for _, share in shares])
    return [(owner, part) for (owner, _), part in zip(shares, parts, strict=True)]


def _of_one_record(one: Credit, other: Credit) -> bool:
    """Whether two neighbours among a record's credits are shares of one contribution."""
    return (
        one.metric == other.metric
        and one.at == other.at
        and one.unit == other.unit
        and one.unit not in (COUNT, SECONDS)
    )


_Grain = tuple[str, str, str, str, str, str]  # tenant, metric, unit, person, subjects, day


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
        former: Credit | None = None
        seen: set[str] = set()  # what the shares before this one count for
        for credit in credited:
            if not credit.person:
                continue
            subjects = credit.subjects
            grain = (
                tenant,
                credit.metric,
                credit.unit,
                credit.person,
                SEPARATOR.join(subjects),
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
            if former is not None and _of_one_record(former, credit):
                self._together(tenant, credit, seen, sign)
            elif seen:
                seen = set()
            if credit.unit not in (COUNT, SECONDS):
                seen.update(subjects)
                seen.add(PERSON + credit.person)
            former = credit

    def _together(self, tenant: str, credit: Credit, seen: set[str], sign: int) -> None:
        """Count a record once for what several of its shares have in common, and for all."""
        common = [s for s in (PERSON + credit.person, *credit.subjects) if s in seen]
        grain = (tenant, credit.metric, credit.unit, "", SEPARATOR.join(common), credit.day)
        self._sums.setdefault(grain, [0, 0, 0])[1] -= sign

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
    everyone: bool  # any record that meets a territory's rules may count for another one
    rules: bool  # which records meet which territory's rules is to be found out again
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
    people = {e.person for e in different if isinstance(e, Membership | Assignment | Role)}
    people |= {
        e.id
        for e in different
        if isinstance(e, Person)
        and _as_credited(before.get(e.key)) != _as_credited(after.get(e.key))
    }
    if any(isinstance(e, Team) for e in different):
        people |= _below_moved_teams(old, new)
    was, now = _territories(old), _territories(new)
    if any(isinstance(e, Territory) for e in different):
        people |= {
            e.person
            for e in (*old, *new)
            if isinstance(e, Assignment)
            and was.territories_above(e.territory) != now.territories_above(e.territory)
        }
    owners = {(e.source, e.owner_id) for e in different if isinstance(e, OwnerMapping)}
    for entry in (*old, *new):
        if isinstance(entry, OwnerMapping) and entry.person in people:
            owners.add((entry.source, entry.owner_id))
    return Change(
        calendar=_calendar(old) != _calendar(new),
        everyone=_ruled(was) != _ruled(now),
        rules=_rules(was) != _rules(now),
        owners=frozenset(owners),
    )


def _present(entries: Iterable[Entry]) -> dict[str, Entry]:
    return {e.key: msgspec.structs.replace(e, version=0) for e in entries if not e.deleted}


def _as_credited(entry: Entry | None) -> object:
    """What of a person decides about credits: that there is one, and the job."""
    return entry.role if isinstance(entry, Person) else None


def _territories(entries: Iterable[Entry]) -> Directory:
    return Directory("", [e for e in entries if isinstance(e, Territory)])


def _ruled(directory: Directory) -> dict[str, object]:
    """The territories that records come to by themselves, with all that this depends on."""
    return {
        name: (t.where, t.rank, t.valid_from, t.valid_to, directory.territories_above(name))
        for name, t in directory.territories.items()
        if t.where
    }


def _rules(directory: Directory) -> dict[str, object]:
    """What decides which records meet which territory's rules, and in which order."""
    return {name: (t.where, t.rank) for name, t in directory.territories.items() if t.where}


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
