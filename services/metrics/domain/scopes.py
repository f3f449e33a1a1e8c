"""Who takes part: people, teams or territories, narrowed down, as of a day.

Every condition of a scope must hold; of the names in one of them, any will do. A team stands for
its subtree, a territory for what is part of it. `Roster` answers for everyone at once, so that a
board of ten thousand walks the directory once a day and not once a tick.
"""

from collections.abc import Iterable
from datetime import date
from typing import Literal

import msgspec

from schemas.directory import Directory, Person

Subjects = Literal["person", "team", "territory"]


class Tenure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Days since joining: at least so many, and fewer than so many."""

    at_least: int = 0
    below: int | None = None

    def holds(self, days: int | None) -> bool:
        """Whether it is that long; not for someone of whom it isn't known."""
        return (
            days is not None and self.at_least <= days and (self.below is None or days < self.below)
        )


class Scope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who of the organisation; everyone when nothing is said."""

    teams: list[str] = []
    territories: list[str] = []
    roles: list[str] = []
    people: list[str] = []  # a group of one's own
    tenure: Tenure | None = None


class Roster:
    """The people, teams and territories of a directory on a day."""

    def __init__(self, directory: Directory, day: date) -> None:
        self.directory = directory
        self.day = day
        self._teams: dict[str, list[str]] = {}
        self._heads: dict[str, int] | None = None
        self._names: dict[tuple[Subjects, bytes], dict[str, str]] = {}

    def names(self, subjects: Subjects, scope: Scope) -> dict[str, str]:
        """Subjects of this kind in the scope with their names, in the order of names.

        Of people, those who are active. The same dictionary for the same scope.
        """
        place = (subjects, msgspec.json.encode(scope))
        if place not in self._names:
            found = self._found(subjects, scope)
            order = sorted(found, key=lambda subject: (found[subject], subject))
            self._names[place] = {subject: found[subject] for subject in order}
        return self._names[place]

    def _found(self, subjects: Subjects, scope: Scope) -> dict[str, str]:
        directory = self.directory
        if subjects == "team":
            teams = directory.teams.values()
            return {f"team:{t.id}": t.name for t in teams if _within(self.above(t.id), scope.teams)}
        if subjects == "territory":
            return {
                f"territory:{t.id}": t.name
                for t in directory.territories.values()
                if _within(directory.territories_above(t.id), scope.territories)
            }
        return {
            f"person:{person.id}": person.name
            for person in directory.people.values()
            if directory.active(person.id, self.day) and self._in(person, scope)
        }

    def above(self, team: str) -> list[str]:
        """The team and those that it is part of."""
        found = self._teams.get(team)
        if found is None:
            found = self._teams[team] = self.directory.teams_above(team)
        return found

    def tenure(self, person: str) -> int | None:
        """Days since the person joined; None where it isn't known."""
        entry = self.directory.people.get(person)
        return None if entry is None or entry.joined is None else (self.day - entry.joined).days

    def role(self, person: str) -> str:
        """The person's job."""
        return self.directory.role_of(person, self.day)

    def heads(self, team: str) -> int:
        """How many active people's work counts for the team, or for one below it."""
        if self._heads is None:
            self._heads = {}
            for person in self.directory.people:
                if self.directory.active(person, self.day):
                    for each in self.above(self.directory.team_of(person, self.day)):
                        self._heads[each] = self._heads.get(each, 0) + 1
        return self._heads.get(team, 0)

    def _in(self, person: Person, scope: Scope) -> bool:
        if scope.people and person.id not in scope.people:
            return False
        if scope.roles and self.role(person.id) not in scope.roles:
            return False
        if scope.tenure is not None and not scope.tenure.holds(self.tenure(person.id)):
            return False
        directory = self.directory
        if scope.teams:
            team = directory.team_of(person.id, self.day)
            if not _within(self.above(team), scope.teams):
                return False
        if not scope.territories:
            return True
        own = directory.territories_of(person.id, self.day)
        return any(_within(directory.territories_above(t), scope.territories) for t in own)


def _within(chain: Iterable[str], wanted: Iterable[str]) -> bool:
    """Whether something of the chain is wanted; everything is where nothing is named."""
    names = set(wanted)
    return not names or not names.isdisjoint(chain)
