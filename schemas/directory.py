"""People, teams, territories and who belongs where as what, with validity dates; and look-ups.

All entries travel on one topic, told apart by `kind`. Validity is half-open in the organisation's
local days: `[valid_from, valid_to)`, open when None. `Directory` is the pure look-up built from all
entries of one tenant; every service uses it, so that they credit alike.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from itertools import pairwise
from typing import ClassVar

from schemas.base import State
from schemas.business_days import BusinessDays
from schemas.crm import Scalar
from schemas.periods import Calendar, Pattern, YearEnd


class Entry(State, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    """Base of all directory entries."""

    topic: ClassVar[str] = "crm.directory.v1"
    variants: ClassVar[object]

    id: str
    deleted: bool = False

    @property
    def key(self) -> str:
        """`tenant/kind/id`."""
        return f"{self.tenant}/{self.__struct_config__.tag}/{self.id}"


class Organisation(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="organisation"):
    """The tenant itself; `id` is "all". Weekdays are numbers from 0 (Monday) to 6."""

    name: str
    zone: str = "UTC"
    currency: str = "USD"
    week_start: int = 0
    fiscal_year_start: int = 1
    fiscal_pattern: Pattern = "gregorian"
    fiscal_year_end: YearEnd = "last"
    business_days: tuple[int, ...] = (0, 1, 2, 3, 4)
    region: str = ""  # whose public holidays are no business days; empty for none

    @property
    def calendar(self) -> Calendar:
        """How this organisation cuts time."""
        return Calendar(
            self.zone,
            self.week_start,
            self.fiscal_year_start,
            self.fiscal_pattern,
            self.fiscal_year_end,
        )


class Person(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="person"):
    """Someone who sells or manages. `zone` and `region` default to the organisation's."""

    name: str
    email: str = ""
    zone: str = ""
    role: str = "rep"  # rep | manager | …: the job, not the permission
    joined: date | None = None
    left: date | None = None
    region: str = ""


class Team(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="team"):
    """A team; `parent` is the team above it, empty at the top."""

    name: str
    parent: str = ""


class Membership(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="membership"):
    """`person` belongs to `team`; `manages` says whether as its manager."""

    person: str
    team: str
    manages: bool = False
    valid_from: date | None = None
    valid_to: date | None = None


class OwnerMapping(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="owner"):
    """The CRM owner `owner_id` of `source` is `person`."""

    source: str
    owner_id: str
    person: str
    valid_from: date | None = None
    valid_to: date | None = None


class Territory(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="territory"):
    """A part of the market; `parent` is the territory that it is a part of, empty at the top.

    Records whose every field in `where` has one of the listed values belong to it, whoever owns
    them; of several territories the lowest `rank` wins, then the smallest id. Without `where` it
    only has what those do who are assigned to it.
    """

    name: str
    parent: str = ""
    where: dict[str, list[Scalar]] = {}
    rank: int = 0
    valid_from: date | None = None
    valid_to: date | None = None


class Assignment(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="assignment"):
    """`person` looks after `territory`."""

    person: str
    territory: str
    valid_from: date | None = None
    valid_to: date | None = None


class Leave(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="leave"):
    """`person` is away from `valid_from` until `valid_to`; `type` is the organisation's word."""

    person: str
    type: str = ""
    valid_from: date | None = None
    valid_to: date | None = None


class Role(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="role"):
    """The job that `person` has for a time, instead of the one that `Person.role` names."""

    person: str
    role: str
    valid_from: date | None = None
    valid_to: date | None = None


class Holiday(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="holiday"):
    """A day off in `region` and its parts, everywhere when empty; a day of work if `working`.

    It overrules weekdays and public holidays. Of several on one day, the one of the smallest region
    counts, then the one with the smallest id.
    """

    day: date
    name: str
    region: str = ""
    working: bool = False


AnyEntry = (
    Organisation
    | Person
    | Team
    | Membership
    | OwnerMapping
    | Territory
    | Assignment
    | Leave
    | Role
    | Holiday
)
Entry.variants = AnyEntry

Dated = Membership | OwnerMapping | Assignment | Leave | Role
# What says for whom and for what a record counts.
_Crediting = Membership | OwnerMapping | Territory | Assignment | Role


def _in_force(entry: Dated | Territory, day: date) -> bool:
    return (entry.valid_from is None or entry.valid_from <= day) and (
        entry.valid_to is None or day < entry.valid_to
    )


class Directory:
    """Look-ups over one tenant's entries.

    Overlaps resolve to the smallest id, so any order of entries gives the same answers.
    """

    def __init__(self, tenant: str, entries: Iterable[Entry]) -> None:
        self.tenant = tenant
        self.organisation = Organisation(tenant=tenant, version=0, id="all", name=tenant)
        self.people: dict[str, Person] = {}
        self.teams: dict[str, Team] = {}
        self._owners: dict[tuple[str, str], list[OwnerMapping]] = defaultdict(list)
        self._memberships: dict[str, list[Membership]] = defaultdict(list)
        self._members: dict[str, list[Membership]] = defaultdict(list)
        self.territories: dict[str, Territory] = {}
        self._assignments: dict[str, list[Assignment]] = defaultdict(list)
        self._leaves: dict[str, list[Leave]] = defaultdict(list)
        self._roles: dict[str, list[Role]] = defaultdict(list)
        self.roles: set[str] = set()  # that anybody has at any time
        self._holidays: list[Holiday] = []
        self._business_days: dict[str, BusinessDays] = {}
        limits: set[date] = set()
        for entry in sorted((e for e in entries if not e.deleted), key=lambda e: e.key):
            self._add(entry)
            if isinstance(entry, _Crediting):
                limits.update(d for d in (entry.valid_from, entry.valid_to) if d is not None)
        self._limits = sorted(limits)
        ruled = [territory for territory in self.territories.values() if territory.where]
        self._ruled = sorted(ruled, key=lambda territory: (territory.rank, territory.id))

    def _add(self, entry: Entry) -> None:  # noqa: C901  # a case for each kind
        match entry:
            case Organisation():
                self.organisation = entry
            case Person():
                self.people[entry.id] = entry
                self.roles.add(entry.role)
            case Team():
                self.teams[entry.id] = entry
            case Membership():
                self._memberships[entry.person].append(entry)
                self._members[entry.team].append(entry)
            case OwnerMapping():
                self._owners[entry.source, entry.owner_id].append(entry)
            case Territory():
                self.territories[entry.id] = entry
            case Assignment():
                self._assignments[entry.person].append(entry)
            case Leave():
                self._leaves[entry.person].append(entry)
            case Role():
                self._roles[entry.person].append(entry)
                self.roles.add(entry.role)
            case Holiday():
                self._holidays.append(entry)

    @property
    def calendar(self) -> Calendar:
        """The organisation's calendar."""
        return self.organisation.calendar

    def stretch(self, day: date) -> int:
        """A number for the days around this one on which the same mappings and memberships hold."""
        return bisect_right(self._limits, day)

    def person_of(self, source: str, owner_id: str, day: date) -> Person | None:
        """Whom the CRM owner was on that day; None while unmapped."""
        for mapping in self._owners.get((source, owner_id), ()):
            if _in_force(mapping, day):
                return self.people.get(mapping.person)
        return None

    def team_of(self, person: str, day: date) -> str:
        """The team that the person's work on that day counts for; empty when none."""
        memberships = [m for m in self._memberships.get(person, ()) if _in_force(m, day)]
        memberships.sort(key=lambda m: (m.manages, m.id))  # as a member first
        return memberships[0].team if memberships else ""

    def teams_above(self, team: str) -> list[str]:
        """The team and its ancestors, nearest first."""
        return _chain(self.teams, team)

    def managers_of(self, person: str, day: date) -> list[str]:
        """Who manages the person on that day, nearest team first, without the person."""
        found: list[str] = []
        for team in self.teams_above(self.team_of(person, day)):
            for m in self._members.get(team, ()):
                if m.manages and _in_force(m, day) and m.person not in (person, *found):
                    found.append(m.person)
        return found

    def nearest_managers(self, person: str, day: date) -> list[str]:
        """Who manages the nearest team above the person that has a manager, without the person."""
        for team in self.teams_above(self.team_of(person, day)):
            members = self._members.get(team, ())
            found = {m.person for m in members if m.manages and _in_force(m, day)}
            if found - {person}:
                return sorted(found - {person})
        return []

    def manages(self, manager: str, person: str, day: date) -> bool:
        """Whether `person` is in the subtree of `manager` on that day."""
        return manager in self.managers_of(person, day)

    def is_manager(self, person: str, day: date) -> bool:
        """Whether the person manages a team on that day."""
        return any(m.manages and _in_force(m, day) for m in self._memberships.get(person, ()))

    def managed_teams(self, manager: str, day: date) -> set[str]:
        """The teams that the person manages on that day, with all teams below them."""
        own = {
            m.team for m in self._memberships.get(manager, ()) if m.manages and _in_force(m, day)
        }
        return {team for team in self.teams if own.intersection(self.teams_above(team))} | own

    def members(self, team: str, day: date) -> list[str]:
        """People whose work on that day counts for exactly this team."""
        return sorted(
            {m.person for m in self._members.get(team, ()) if self.team_of(m.person, day) == team}
        )

    def active(self, person: str, day: date) -> bool:
        """Whether the person has joined and not left on that day."""
        entry = self.people.get(person)
        return (
            entry is not None
            and (entry.joined is None or entry.joined <= day)
            and (entry.left is None or day < entry.left)
        )

    def zone_of(self, person: str) -> str:
        """The person's IANA time zone, the organisation's when none is given."""
        entry = self.people.get(person)
        return (entry.zone if entry else "") or self.organisation.zone

    def region_of(self, person: str) -> str:
        """The region whose holidays the person has: the organisation's when none is given."""
        entry = self.people.get(person)
        return (entry.region if entry else "") or self.organisation.region

    def business_days_of(self, region: str) -> BusinessDays:
        """The days that a region works; worked out once for everybody in it."""
        found = self._business_days.get(region)
        if found is None:
            within = {"", region.partition("-")[0], region}
            own = [holiday for holiday in self._holidays if holiday.region in within]
            own.sort(key=lambda holiday: (-len(holiday.region), holiday.id), reverse=True)
            worked = {holiday.day: holiday.working for holiday in own}  # the last one counts
            found = BusinessDays(self.organisation.business_days, region, worked)
            self._business_days[region] = found
        return found

    def business_days(self, person: str, start: date, end: date) -> int:
        """How many business days the person has from `start` on, before `end`.

        Those of the organisation for an empty or unknown `person`.
        """
        return self.business_days_of(self.region_of(person)).count(start, end)

    def is_business_day(self, person: str, day: date) -> bool:
        """Whether the person, or the organisation when empty, works on that day."""
        return day in self.business_days_of(self.region_of(person))

    def role_of(self, person: str, day: date) -> str:
        """The person's job on that day; empty for someone unknown."""
        for role in self._roles.get(person, ()):
            if _in_force(role, day):
                return role.role
        entry = self.people.get(person)
        return entry.role if entry else ""

    def on_leave(self, person: str, day: date) -> bool:
        """Whether the person is away on that day."""
        return any(_in_force(leave, day) for leave in self._leaves.get(person, ()))

    def present(self, person: str, start: date, end: date) -> list[tuple[date, date]]:
        """The stretches of `[start, end)` on which the person has joined, not left and isn't away.

        There are none for someone unknown.
        """
        entry = self.people.get(person)
        if entry is None:
            return []
        start, end = max(start, entry.joined or start), min(end, entry.left or end)
        found = []
        leaves = self._leaves.get(person, ())
        for gone, back in sorted(
            (a.valid_from or date.min, a.valid_to or date.max) for a in leaves
        ):
            if back <= max(start, gone):
                continue
            if gone >= end:
                break
            if start < gone:
                found.append((start, gone))
            start = back
        return [*found, (start, end)] if start < end else found

    def teams_between(self, person: str, start: date, end: date) -> list[tuple[date, date, str]]:
        """The stretches that make up `[start, end)`, each with the team that work counts for."""
        limits = {
            limit
            for m in self._memberships.get(person, ())
            for limit in (m.valid_from, m.valid_to)
            if limit is not None and start < limit < end
        }
        days = [start, *sorted(limits), end]
        return [(a, b, self.team_of(person, a)) for a, b in pairwise(days)]

    def territories_of(self, person: str, day: date) -> list[str]:
        """The territories that the person looks after on that day, without those around them."""
        assignments = self._assignments.get(person, ())
        return sorted({a.territory for a in assignments if _in_force(a, day)})

    def territories_matching(self, value_of: Callable[[str], Scalar]) -> list[str]:
        """The territories whose rules a record meets by its fields, the first choice first."""
        return [
            territory.id
            for territory in self._ruled
            if all(value_of(name) in among for name, among in territory.where.items())
        ]

    def territory_of(self, person: str, matching: Iterable[str], day: date) -> str:
        """The territory that work on that day counts for.

        The first of those `matching` the record that was in force, or else the person's own.
        """
        for name in matching:
            territory = self.territories.get(name)
            if territory is not None and _in_force(territory, day):
                return name
        own = self.territories_of(person, day)
        return own[0] if own else ""

    def territories_above(self, territory: str) -> list[str]:
        """The territory and those that it is a part of, nearest first."""
        return _chain(self.territories, territory)


def _chain(parents: Mapping[str, Team] | Mapping[str, Territory], name: str) -> list[str]:
    chain: list[str] = []
    while name and name not in chain:  # a cycle ends the walk instead of looping
        chain.append(name)
        above = parents.get(name)
        name = above.parent if above else ""
    return chain
