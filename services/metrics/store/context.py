"""Directory and goals as the service uses them.

They are replicas in its own store, with what is derived from them kept in memory for as long as
they stay the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from kit.database import Transaction
from kit.replica import Derived, Replica
from schemas.directory import Directory, Entry
from schemas.periods import parse
from schemas.spm import Goal
from services.metrics.domain.credits import Crediting


@dataclass(slots=True)
class _Goals:
    by_key: dict[tuple[str, str, str], Goal]
    published: list[tuple[str, str]]


class Context:
    """What records are applied to. `published` are (metric, grain) pairs published for everyone."""

    def __init__(self, published: Iterable[tuple[str, str]]) -> None:
        self.directory: Replica[Entry] = Replica(Entry)
        self.goals: Replica[Goal] = Replica(Goal)
        self._published = frozenset(published)
        self._crediting = Derived(self.directory, _crediting)
        self._goals = Derived(self.goals, self._goals_from)

    async def crediting(self, transaction: Transaction, tenant: str) -> Crediting:
        """How the tenant's current directory credits."""
        return await self._crediting.of(transaction, tenant)

    async def directory_of(self, transaction: Transaction, tenant: str) -> Directory:
        """The tenant's current directory."""
        return (await self.crediting(transaction, tenant)).directory

    async def goals_of(
        self, transaction: Transaction, tenant: str
    ) -> dict[tuple[str, str, str], Goal]:
        """The tenant's goals by subject, metric and period."""
        return (await self._goals.of(transaction, tenant)).by_key

    async def published(self, transaction: Transaction, tenant: str) -> list[tuple[str, str]]:
        """Which (metric, grain) of the tenant are published: for everyone, and with goals."""
        return (await self._goals.of(transaction, tenant)).published

    def _goals_from(self, _: str, states: Iterable[Goal]) -> _Goals:
        live = {(g.subject, g.metric, g.period): g for g in states if not g.deleted}
        pairs = {(g.metric, parse(g.period)[0]) for g in live.values()}
        return _Goals(live, sorted(self._published | pairs))


def _crediting(tenant: str, entries: Iterable[Entry]) -> Crediting:
    return Crediting(Directory(tenant, entries))
