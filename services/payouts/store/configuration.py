"""Directory, goals and plans: kept, locked in one order, and looked up."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kit.database import Transaction
from kit.replica import Replica
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
        self._made: dict[tuple[str, str], tuple[object, Any]] = {}

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
        entries = await self.directory.load(transaction, tenant)
        goals = await self.goals.load(transaction, tenant)
        plans = await self.plans.load(transaction, tenant)
        return Context(
            self._once("directory", tenant, entries, lambda: Directory(tenant, entries)),
            self._once("plans", tenant, plans, lambda: _plans(plans)),
            self._once("goals", tenant, goals, lambda: _goals(goals)),
        )

    def _once(self, kind: str, tenant: str, states: object, make: Callable[[], Any]) -> Any:
        """What was made of these very states before, or made now."""
        made = self._made.get((kind, tenant))
        if made is None or made[0] is not states:
            made = self._made[kind, tenant] = (states, make())
        return made[1]


def _plans(documents: Iterable[PlanDocument]) -> dict[str, RevisedPlan]:
    return {
        document.id: RevisedPlan(read(document.document), document.revision)
        for document in documents
        if not document.deleted
    }


def _goals(goals: Iterable[Goal]) -> dict[tuple[str, str, str], Quota]:
    return {
        (goal.subject.removeprefix("person:"), goal.metric, goal.period): Quota(
            goal.target, goal.unit
        )
        for goal in goals
        if not goal.deleted and goal.subject.startswith("person:")
    }
