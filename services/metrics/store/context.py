"""Directory, goals and catalogue as the service uses them.

They are replicas in its own store, with what is derived from them kept in memory for as long as
they stay the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from kit.database import Transaction
from kit.replica import Derived, Replica
from schemas.directory import Directory, Entry
from schemas.periods import Range, parse
from schemas.spm import BoardDocument, ContestState, Goal, MetricDocument
from services.metrics.domain.catalogue import Catalogue, CatalogueError, layered
from services.metrics.domain.credits import Crediting

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Goals:
    by_key: dict[tuple[str, str, str], Goal]
    published: list[tuple[str, str]]


class Context:
    """What records are applied to. `published` are (metric, grain) pairs published for everyone."""

    def __init__(self, shipped: Catalogue, published: Iterable[tuple[str, str]]) -> None:
        self.shipped = shipped
        self.directory: Replica[Entry] = Replica(Entry)
        self.goals: Replica[Goal] = Replica(Goal)
        self.metrics: Replica[MetricDocument] = Replica(MetricDocument)
        self.boards: Replica[BoardDocument] = Replica(BoardDocument)
        self.contests: Replica[ContestState] = Replica(ContestState)
        self._published = frozenset(published)
        self._crediting = Derived(self.directory, _crediting)
        self._goals = Derived(self.goals, self._goals_from)
        self._catalogue = Derived(self.metrics, self._catalogue_from)

    async def share(self, transaction: Transaction, tenants: Iterable[str]) -> None:
        """Keep what these tenants' records are applied to from changing."""
        replicas = (self.directory, self.metrics)
        await transaction.lock_shared(r.lock_name(t) for t in tenants for r in replicas)

    async def crediting(self, transaction: Transaction, tenant: str) -> Crediting:
        """How the tenant's current directory credits."""
        return await self._crediting.of(transaction, tenant)

    async def directory_of(self, transaction: Transaction, tenant: str) -> Directory:
        """The tenant's current directory."""
        return (await self.crediting(transaction, tenant)).directory

    async def catalogue_of(self, transaction: Transaction, tenant: str) -> Catalogue:
        """The tenant's current catalogue: the shipped one with its own metrics."""
        return await self._catalogue.of(transaction, tenant)

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
        periods = ((goal.metric, parse(goal.period)[0]) for goal in live.values())
        pairs = {(metric, grain) for metric, grain in periods if not isinstance(grain, Range)}
        return _Goals(live, sorted(self._published | pairs))

    def _catalogue_from(self, tenant: str, states: Iterable[MetricDocument]) -> Catalogue:
        own = [state.document for state in states if not state.deleted]
        if not own:
            return self.shipped
        try:
            return layered(self.shipped, own)
        except CatalogueError as error:
            # Checked when it was made; the shipped part may have changed under it since.
            log.exception("catalogue_not_usable", tenant=tenant, error=str(error))
            return self.shipped


def _crediting(tenant: str, entries: Iterable[Entry]) -> Crediting:
    return Crediting(Directory(tenant, entries))
