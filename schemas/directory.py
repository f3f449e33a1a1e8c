"""People, teams, territories and who belongs where as what, with validity dates; and look-ups.

All entries travel on one topic, told apart by `kind`. Validity is half-open in the organisation's
local days: `[valid_from, valid_to)`, open when None. `Directory` is the pure look-up built from all
entries of one tenant; every service uses it, so that they credit alike.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date
from typing import ClassVar

from schemas.base import State
from schemas.periods import Calendar


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
    """The tenant itself; `id` is "all"."""

    name: str
    zone: str = "UTC"
    currency: str = "USD"
    week_start: int = 0
    fiscal_year_start: int = 1

    @property
    def calendar(self) -> Calendar:
        """How this organisation cuts time."""
        return Calendar(self.zone, self.week_start, self.fiscal_year_start)


class Person(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="person"):
    """Someone who sells or manages. `zone` defaults to the organisation's."""

    name: str
    email: str = ""
    zone: str = ""
    role: str = "rep"  # rep | manager | …: the job, not the permission
    joined: date | None = None
    left: date | None = None


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
    """A part of the market; `parent` is the territory that it is a part of, empty at the top."""

    name: str
    parent: str = ""


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


AnyEntry = (
    Organisation | Person | Team | Membership | OwnerMapping | Territory | Assignment | Leave | Role
)
Entry.variants = AnyEntry

Dated = Membership | OwnerMapping | Assignment | Leave | Role
_Crediting = Membership | OwnerMapping  # what says whom a record counts for


def _in_force(entry: Dated, day: date) -> bool:
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
        limits: set[date] = set()
        for entry in sorted((e for e in entries if not e.deleted), key=lambda e: e.key):
            self._add(entry)
            if isinstance(entry, _Crediting):
                limits.update(d for d in (entry.valid_from, entry.valid_to) if d is not None)
        self._limits = sorted(limits)

    def _add(self, entry: Entry) -> None:
        match entry:
            case Organisation():
                self.organisation = entry
            case Person():
                self.people[entry.id] = entry
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

    def territories_of(self, person: str, day: date) -> list[str]:
        """The territories that the person looks after on that day, without those around them."""
        assignments = self._assignments.get(person, ())
        return sorted({a.territory for a in assignments if _in_force(a, day)})

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
