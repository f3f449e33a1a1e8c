"""Goals as stored, and what a change of them sets in motion."""

from collections.abc import Sequence

from kit.database import Transaction
from schemas.periods import Range, parse
from schemas.spm import Goal
from services.metrics.store import counters, publishing
from services.metrics.store.context import Context


async def store_goals(
    transaction: Transaction, context: Context, goals: Sequence[Goal], *, now_us: int
) -> None:
    """Keep newer goals; the numbers that they are about are published from now on.

    No number is kept for a range, so there is none of it to publish.
    """
    newer = await context.goals.store(transaction, goals)
    periods = {(goal.tenant, goal.metric, *parse(goal.period)) for goal in newer}
    keys = [
        (tenant, metric, grain, start)
        for tenant, metric, grain, start in periods
        if not isinstance(grain, Range)
    ]
    await publishing.publish_again(transaction, sorted(keys))
    await counters.bump(transaction, {goal.tenant for goal in newer}, now_us)
