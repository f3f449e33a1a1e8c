"""Work done by the clock: fold deltas into counters, publish what changed, keep the space small.

One replica folds at a time, and one publishes; whoever gets the lock. A fold and its marks of what
is to be published are one transaction; marks are removed only after Kafka has acknowledged, and
only if the number hasn't moved meanwhile.
"""

import time
from collections.abc import Sequence

from kit.clock import real_micros
from kit.database import Database, Transaction
from kit.publisher import Publisher
from schemas.periods import GRAINS, written
from schemas.spm import Measure
from services.metrics import telemetry
from services.metrics.domain import numbers
from services.metrics.store import counters, publishing
from services.metrics.store.context import Context
from services.metrics.store.counters import Group
from services.metrics.store.publishing import Touched

LONG_FOLD_SECONDS = 0.03  # a tick is longer anyway
REST_RATIO = 3.0  # a quarter of the time is for folding, the rest for what is to be folded
LONGEST_REST_SECONDS = 0.5  # boards stay well under a second behind


class Folder:
    """Rolls pending deltas up into counters."""

    def __init__(self, database: Database, context: Context, *, rows: int) -> None:
        self._database = database
        self._context = context
        self._rows = rows
        self._since_vacuum = 0
        self._resting_until = 0.0

    async def fold(self) -> bool:
        """Fold once, unless another replica does; True when there may be more.

        After a long fold it rests: the longer deltas gather, the fewer counters each of them costs.
        """
        began = time.perf_counter()
        if began < self._resting_until:
            return False
        async with self._database.transaction() as transaction:
            if not await transaction.try_lock(counters.FOLD_LOCK):
                return False
            groups = await self._fold(transaction)
        taken = sum(group.deltas for group in groups)
        if groups:
            seconds = time.perf_counter() - began
            self._observe(groups, seconds)
            self._since_vacuum += taken
            if seconds > LONG_FOLD_SECONDS:
                rest = min(REST_RATIO * seconds, LONGEST_REST_SECONDS)
                self._resting_until = time.perf_counter() + rest
        telemetry.PENDING.set(taken)
        return taken >= self._rows

    async def settle(self) -> None:
        """Fold until nothing is pending."""
        while True:
            async with self._database.transaction() as transaction:
                await transaction.lock(counters.FOLD_LOCK)
                groups = await self._fold(transaction)
            if not groups:
                return
            self._since_vacuum += sum(group.deltas for group in groups)
            await self.vacuum()

    async def vacuum(self) -> None:
        """Free the space of folded deltas once it is worth it: every fold reads the whole table."""
        if self._since_vacuum >= self._rows:
            self._since_vacuum = 0
            await counters.vacuum(self._database)

    async def _fold(self, transaction: Transaction) -> list[Group]:
        groups = await counters.take_pending(transaction, self._rows)
        if not groups:
            return []
        tenants = sorted({group.tenant for group in groups})
        calendars, published = {}, []
        for tenant in tenants:
            calendars[tenant] = (await self._context.directory_of(transaction, tenant)).calendar
            published += [
                (tenant, *pair) for pair in await self._context.published(transaction, tenant)
            ]
        days = {
            (tenant, day): tuple(calendars[tenant].start(grain, day) for grain in GRAINS)
            for tenant, day in {(group.tenant, group.day) for group in groups}
        }
        starts = [days[group.tenant, group.day] for group in groups]
        # Never behind an earlier fold, whatever the clocks of two replicas say: who reads only what
        # has changed since then finds it by its version.
        known = await counters.sequences(transaction, tenants)
        now = max(real_micros(), max(known.values()) + 1)
        await counters.fold(transaction, groups, starts, version=now, published=published)
        await counters.bump(transaction, tenants, now)
        return groups

    def _observe(self, groups: Sequence[Group], seconds: float) -> None:
        telemetry.FOLD_SECONDS.observe(seconds)
        now = real_micros()
        for group in groups:
            telemetry.FOLDED.inc(group.deltas)
            if group.received:
                telemetry.EVENT_TO_QUERYABLE.observe(max(0, now - group.received) / 1e6)


class MeasurePublisher:
    """Puts changed numbers onto spm.measures.v1, each at most once per turn."""

    def __init__(self, database: Database, publisher: Publisher, *, rows: int) -> None:
        self._database = database
        self._publisher = publisher
        self._rows = rows

    async def publish(self) -> bool:
        """Publish once, unless another replica does; True when there may be more."""
        async with self._database.transaction() as transaction:
            if not await transaction.try_lock(publishing.PUBLISH_LOCK):
                return False
            touched = await publishing.unpublished(transaction, self._rows)
            if touched:
                await self._publisher.publish([measure(each) for each in touched])
                await publishing.mark_published(transaction, touched)
        telemetry.UNPUBLISHED.set(len(touched))
        return len(touched) >= self._rows


def measure(touched: Touched) -> Measure:
    """A counter as it is published."""
    unit = touched.unit
    return Measure(
        tenant=touched.tenant,
        version=touched.version,
        subject=touched.subject,
        metric=touched.metric,
        period=written(touched.grain, touched.start),  # type: ignore[arg-type]  # stored by `fold`
        unit=unit,
        value=numbers.decimal(touched.value, unit),
        count=touched.count,
    )
