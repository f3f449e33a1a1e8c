"""Why pay changed, when configuration and not a record changed it.

A transfer names only the changes that concern its payee and record: other people's goals and
memberships are neither the cause nor the payee's business.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from schemas.base import State
from schemas.crm import Record
from schemas.directory import Membership, Organisation, OwnerMapping, Person, Team
from schemas.spm import Goal, PlanDocument
from services.payouts.domain.keys import StatementKey

SHOWN = 3


@dataclass(frozen=True, slots=True)
class Configured:
    """The plans, goals and directory entries that a batch has changed."""

    states: Sequence[State] = ()

    def of_statement(self, key: StatementKey) -> list[str]:
        """The plans and goals that this statement is evaluated by."""
        return [_named(state) for state in self.states if _evaluates(state, key)]

    def of_credit(self, record: Record, keys: Iterable[StatementKey]) -> list[str]:
        """What may have moved this record's credit into or out of these statements."""
        concerned = list(keys)
        return [
            _named(state)
            for state in self.states
            if _places(state, record) or any(_pays(state, key) for key in concerned)
        ]


def said(causes: Iterable[str]) -> str:
    """A few causes, and how many more there are."""
    every = list(dict.fromkeys(causes))
    more = len(every) - SHOWN
    return ", ".join(every[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _named(state: State) -> str:
    return f"{state.topic}/{state.key}@{state.version}"


def _evaluates(state: State, key: StatementKey) -> bool:
    if isinstance(state, PlanDocument):
        return state.id == key.plan
    return (
        isinstance(state, Goal)
        and state.subject == f"person:{key.payee}"
        and state.period == key.period
    )


def _places(state: State, record: Record) -> bool:
    """Whether it says whose record it is, or on which day and in which team it counts."""
    if isinstance(state, OwnerMapping):
        return state.source == record.source and state.owner_id == record.text("owner_id")
    return isinstance(state, Organisation | Team)


def _pays(state: State, key: StatementKey) -> bool:
    match state:
        case PlanDocument():
            return state.id == key.plan
        case Person():
            return state.id == key.payee
        case Membership():
            return state.person == key.payee
        case _:
            return False
