"""Directory, goals and plans: kept, locked in one order, and looked up."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kit.database import Transaction
from kit.replica import Derived, Replica
from schemas.directory import Directory, Entry
from schemas.spm import Goal, PlanDocument
from services.payouts.domain.evaluate import Quota
from services.payouts.domain.plan import Plan, RevisedPlan, read


@dataclass(frozen=True, slots=True)
class Context:
    """A tenant's configuration, as looked up."""

    directory: Directory
    plans: Mapping[str, RevisedPlan]
    goals: Mapping[tuple[str, str, str], Quota]  # payee, metric, period

    def quotas(self, payee: str, plan: Plan, period: str) -> dict[str, Quota]:
        """The payee's goals of the period, by the metrics that the plan asks for."""
        metrics = {c.quota for c in plan.components if c.quota is not None}
        return {
            metric: goal
            for metric in metrics
            if (goal := self.goals.get((payee, metric, period))) is not None
        }


class Configuration:
    """Directory, goals and plans: kept, locked, and looked up for as long as they don't change."""

    def __init__(self) -> None:
        self.directory: Replica[Entry] = Replica(Entry)
        self.goals: Replica[Goal] = Replica(Goal)
        self.plans: Replica[PlanDocument] = Replica(PlanDocument)
        self._directory = Derived(self.directory, Directory)
        self._goals = Derived(self.goals, _goals)
        self._plans = Derived(self.plans, _plans)

    async def lock(
        self, transaction: Transaction, tenants: Iterable[str], changed: set[str]
    ) -> None:
        """Hold all of these tenants' configuration; alone those parts whose lock is `changed`.

        One order for everybody, so that nobody waits for somebody who waits for them.
        """
        ordered = sorted(tenants)
        for replica in (self.directory, self.goals, self.plans):
            for tenant in ordered:
                name = replica.lock_name(tenant)
                if name in changed:
                    await transaction.lock(name)
                else:
                    await transaction.lock_shared([name])

    async def context(self, transaction: Transaction, tenant: str) -> Context:
        """The tenant's configuration as of this transaction."""
        return Context(
            await self._directory.of(transaction, tenant),
            await self._plans.of(transaction, tenant),
            await self._goals.of(transaction, tenant),
        )


def _plans(_: str, documents: Iterable[PlanDocument]) -> dict[str, RevisedPlan]:
    return {
        document.id: RevisedPlan(read(document.document), document.revision)
        for document in documents
        if not document.deleted
    }


def _goals(_: str, goals: Iterable[Goal]) -> dict[tuple[str, str, str], Quota]:
    return {
        (goal.subject.removeprefix("person:"), goal.metric, goal.period): Quota(
            goal.target, goal.unit
        )
        for goal in goals
        if not goal.deleted and goal.subject.startswith("person:")
    }
