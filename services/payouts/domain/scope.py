"""Whose records a change of the directory can touch: what must be credited again, and no more."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from schemas.directory import Entry, Membership, Organisation, OwnerMapping, Person, Team


@dataclass(slots=True)
class Scope:
    """CRM owners as (source, owner id); `everyone` when single owners can't be told."""

    everyone: bool = False
    owners: set[tuple[str, str]] = field(default_factory=set)

    def __bool__(self) -> bool:
        return self.everyone or bool(self.owners)


def touched_by(
    entries: Iterable[Entry],
    before: Mapping[str, Entry] | None,
    known: Iterable[Entry],
    *,
    by_team: bool,
) -> Scope:
    """The owners whose credit may depend on these entries.

    `before` has the entries that they replaced, by key; None when that is no longer known. `known`
    is the whole directory; `by_team` says whether any plan looks at teams.
    """
    scope, people = Scope(), set()
    for entry in entries:
        old = None if before is None else before.get(entry.key)
        match entry:
            case Organisation():
                was = old if isinstance(old, Organisation) else None
                calendar = (was or Organisation(tenant="", version=0, id="all", name="")).calendar
                scope.everyone |= before is None or entry.deleted or calendar != entry.calendar
            case Team() if by_team:
                scope.everyone |= not _same_place(entry, old)
            case Person():
                people.add(entry.id)
            case Membership() if by_team:
                people.update(e.person for e in (entry, old) if isinstance(e, Membership))
            case OwnerMapping():
                scope.owners |= {
                    (e.source, e.owner_id) for e in (entry, old) if isinstance(e, OwnerMapping)
                }
    if people:
        scope.owners |= _owners_of(people, known)
    return scope


def _same_place(team: Team, old: Entry | None) -> bool:
    return isinstance(old, Team) and (team.parent, team.deleted) == (old.parent, old.deleted)


def _owners_of(people: set[str], known: Iterable[Entry]) -> set[tuple[str, str]]:
    owners: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for entry in known:
        if isinstance(entry, OwnerMapping):
            owners[entry.person].add((entry.source, entry.owner_id))
    return {pair for person in people for pair in owners[person]}
