"""Work done by the clock: fold deltas into counters, publish what changed, keep the space small.

One replica folds at a time, and one publishes; whoever gets the lock. A fold and its marks of what
is to be published are one transaction; marks are removed only after Kafka has acknowledged, and
only if the number hasn't moved meanwhile.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog
from asyncpg.exceptions import NumericValueOutOfRangeError

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

log = structlog.get_logger(__name__)

MANY_DELTAS = 200  # of one fold: fewer cost little, however long it had to wait for the store
REST_RATIO = 1.0  # half of the time is for folding, the rest for what is to be folded
OVERFLOWING_SECONDS = 60.0  # then a tenant whose sums were too large is tried again
LONGEST_REST_SECONDS = 0.25  # measures stay well under a second behind
LOOK_AFTER = 10_000  # messages: then it is looked how many deltas wait
LOOK_SECONDS = 0.25  # between two looks while it is too many
LONGEST_WAIT_SECONDS = 10.0  # then a batch is applied all the same: late is not never


class Folder:
    """Rolls pending deltas up into counters."""

    def __init__(self, database: Database, context: Context, *, rows: int, waiting: int) -> None:
        self._database = database
        self._context = context
        self._rows = rows
        self._waiting = waiting  # so many deltas may wait
        self._unlooked = 0  # messages taken since it was looked
        self._since_vacuum = 0
        self._resting_until = 0.0
        self._overflowing: dict[str, float] = {}  # tenants, and until when they are left alone

    async def fold(self) -> bool:
        """Fold once, unless another replica does; True when there may be more.

        After many deltas it rests: the longer they gather, the fewer counters each of them costs.
        """
        await asyncio.sleep(max(0.0, self._resting_until - time.perf_counter()))
        began = time.perf_counter()
        try:
            async with self._database.transaction() as transaction:
                if not await transaction.try_lock(counters.FOLD_LOCK):
                    return False
                groups = await self._fold(transaction, self._rows, but=self._set_aside(began))
        except NumericValueOutOfRangeError:
            await self._find_overflow()
            return True
        taken = sum(group.deltas for group in groups)
        if groups:
            seconds = time.perf_counter() - began
            self._observe(groups, seconds)
            self._since_vacuum += taken
            if taken >= MANY_DELTAS:
                rest = min(REST_RATIO * seconds, LONGEST_REST_SECONDS)
                self._resting_until = time.perf_counter() + rest
        telemetry.PENDING.set(taken)
        return taken >= self._rows

    async def settle(self) -> None:
        """Fold until nothing is pending."""
        while True:
            try:
                async with self._database.transaction() as transaction:
                    await transaction.lock(counters.FOLD_LOCK)
                    aside = self._set_aside(time.perf_counter())
                    groups = await self._fold(transaction, self._rows, but=aside)
            except NumericValueOutOfRangeError:
                await self._find_overflow()
                continue
            if not groups:
                return
            self._since_vacuum += sum(group.deltas for group in groups)
            await self.vacuum()

    @asynccontextmanager
    async def room(self, messages: int) -> AsyncIterator[None]:
        """Around a batch: while too many deltas wait to be folded, so does it, within bounds.

        Boards look through what waits. Applying is faster than folding, so that after a pause, or
        while the past is read, they would take longer and longer. What is set aside doesn't count.
        """
        self._unlooked += messages
        if self._unlooked >= LOOK_AFTER:
            self._unlooked = 0
            began = time.monotonic()
            while await self._crowded():
                if time.monotonic() - began >= LONGEST_WAIT_SECONDS:
                    break
                await asyncio.sleep(LOOK_SECONDS)
            telemetry.HELD_UP_SECONDS.inc(time.monotonic() - began)
        yield

    async def _crowded(self) -> bool:
        try:
            async with self._database.transaction() as transaction:
                aside = self._set_aside(time.perf_counter())
                return await counters.waits(transaction, more_than=self._waiting, but=aside)
        except Exception:  # whoever applies the batch says so, and tries again
            log.exception("waiting_deltas_not_counted")
            return False

    async def vacuum(self) -> None:
        """Free the space of folded deltas once it is worth it: every fold reads the whole table."""
        if self._since_vacuum >= self._rows:
            self._since_vacuum = 0
            await counters.vacuum(self._database)

    def _set_aside(self, now: float) -> list[str]:
        """The tenants whose deltas are left alone for now."""
        self._overflowing = {t: until for t, until in self._overflowing.items() if until > now}
        telemetry.OVERFLOWING.set(len(self._overflowing))
        return list(self._overflowing)

    async def _find_overflow(self) -> None:
        """Set aside whose sums are beyond what a counter holds, so that everybody else goes on.

        Their deltas stay where they are: once the records behind them are corrected in the CRM,
        the sums fit again. Corrections come last: whose first deltas overflow has all of them
        taken at once.
        """
        async with self._database.transaction() as transaction:
            tenants = await counters.waiting_tenants(transaction)
        now = time.perf_counter()
        aside = self._set_aside(now)
        for tenant in tenants:
            if tenant in aside:
                continue
            reason = ""
            for rows in (self._rows, None):
                try:
                    async with self._database.transaction() as transaction:
                        if not await transaction.try_lock(counters.FOLD_LOCK):
                            return
                        await self._fold(transaction, rows, only=tenant)
                except NumericValueOutOfRangeError as error:
                    reason = str(error)
                else:
                    break
            else:
                self._overflowing[tenant] = time.perf_counter() + OVERFLOWING_SECONDS
                log.error("sums_overflow", tenant=tenant, reason=reason)

    async def _fold(
        self,
        transaction: Transaction,
        rows: int | None,
        *,
        but: Sequence[str] = (),
        only: str | None = None,
    ) -> list[Group]:
        groups = await counters.take_pending(transaction, rows, but=but, only=only)
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
        await counters.fold(transaction, groups, starts, now=real_micros(), published=published)
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
