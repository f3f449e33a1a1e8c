"""Work done by the clock: look at due windows, send what is due, publish what has changed."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import structlog

from kit.clock import Clock
from kit.database import Database, Transaction
from kit.publisher import Publisher
from services.notifications import store, telemetry
from services.notifications.domain import findings, watches
from services.notifications.domain.deliveries import Subscription, retry_at
from services.notifications.domain.rules import Rules, ScheduleRule
from services.notifications.domain.schedule import due_at, zone_of
from services.notifications.gateway import (
    Endpoint,
    EndpointError,
    EndpointGoneError,
    Ends,
    Progress,
    Sender,
)
from services.notifications.store import Directories, Looked, Outgoing, Watched

log = structlog.get_logger(__name__)

INBOX_BATCH = 500  # alerts whose messages are put into inboxes in one transaction
PUBLISH_LOCK = "notifications/publish"
PUBLISH_BATCH = 500


class Windows:
    """Looks at people's windows when they are due."""

    def __init__(
        self,
        rules: Rules,
        directories: Directories,
        subscriptions: Sequence[Subscription],
        *,
        batch: int,
    ) -> None:
        self._rules = rules
        self._directories = directories
        self._subscriptions = subscriptions
        self._batch = batch

    async def set_back(self, database: Database, now: datetime) -> None:
        """Where counts of earlier days have come in, have those days looked at too."""
        async with database.transaction() as transaction:
            tenants = await store.tenants_measured_earlier(transaction)
        for tenant in tenants:
            async with database.transaction() as transaction:
                await self._directories.lock(transaction, change=[tenant], rely=[])
                day = await store.measured_from(transaction, tenant)
                await store.rewatch(
                    transaction, self._directories, self._rules, tenant, watches.Everyone, now
                )
                if day is not None:
                    await store.watched_from(transaction, tenant, day)

    async def due(self, database: Database, now: datetime) -> list[str]:
        """Whose windows are due."""
        async with database.transaction() as transaction:
            return await store.tenants_with_due_watches(transaction, now)

    async def look(self, database: Database, now: datetime) -> bool:
        """Look at some due windows of each tenant; returns whether there were any."""
        found = False
        failures: list[Exception] = []
        for tenant in await self.due(database, now):
            try:
                async with database.transaction() as transaction:
                    found |= await self._look_at(transaction, tenant, now)
            except Exception as error:  # noqa: BLE001  # one tenant must not stop the others
                log.warning("windows_failed", tenant=tenant, error=repr(error)[:300])
                failures.append(error)
        if failures and not found:
            raise failures[0]  # nothing else left to do: let the job fail, and be counted
        return found

    async def _look_at(self, transaction: Transaction, tenant: str, now: datetime) -> bool:
        await self._directories.lock(transaction, change=[], rely=[tenant])
        taken = await store.take_due(transaction, tenant, now, self._batch)
        if not taken:
            return False
        directory = await self._directories.of(transaction, tenant)
        windows = {(watched.person, watched.day) for watched in taken}
        counts = await store.counts(transaction, tenant, windows)
        first = await store.measured_from(transaction, tenant)
        following: list[Watched] = []
        looked: list[Looked] = []
        for watched in taken:
            rule = self._rules.by_id.get(watched.rule)
            if not isinstance(rule, ScheduleRule):
                continue  # the rule is gone, and its alerts stay as they are
            person, day = watched.person, watched.day
            if watched.chain:
                after = date.fromordinal(day.toordinal() + 1)
                window = watches.next_window(rule, directory, person, after)
                if window is not None:
                    following.append(
                        Watched(tenant, window[0], rule.id, person, window[1], chain=True)
                    )
            due = due_at(day, rule.at, zone_of(directory, person))
            finding = None
            if due > now:  # the person has moved west since
                following.append(Watched(tenant, day, rule.id, person, due, chain=False))
            elif first is not None and day >= first:  # before, no count does not mean zero
                done = counts.get((person, day), {})
                finding = findings.of_person(rule, person, day, done, directory)
            key = (tenant, rule.id, f"person:{person}", f"day:{day.isoformat()}")
            looked.append(Looked(key, rule, due, finding))
        await store.watch(transaction, following)
        await store.follow(transaction, looked, self._subscriptions, now)
        return True


@dataclass(frozen=True, slots=True)
class _Sample:
    taken: float
    now: datetime
    ends: Ends | None = None


class Barrier:
    """Holds windows back until everything that was on Kafka when they came due has been applied.

    A window decided on half of a day's facts would send a message that can't be taken back. `ripe`
    gives the business time up to which windows may be looked at.
    """

    def __init__(self, clock: Clock, progress: Progress, *, grace_seconds: float) -> None:
        self._clock = clock
        self._progress = progress
        self._grace_seconds = grace_seconds
        self._pending: list[_Sample] = []

    async def ripe(self, is_due: Callable[[datetime], Awaitable[bool]]) -> datetime | None:
        """The business time of a sample that has been caught up with, None for not yet."""
        now = self._clock()
        if not await is_due(now):
            self._pending.clear()
            return None
        moment = time.monotonic()
        # What other services still have in hand gets the grace; only then do the ends say it all.
        if len(self._pending) < _MOST_SAMPLES and (
            not self._pending or moment - self._pending[-1].taken >= self._grace_seconds / 4
        ):
            self._pending.append(_Sample(moment, now))
        first = self._pending[0]
        if moment - first.taken < self._grace_seconds:
            return None
        ends = first.ends
        if ends is None:
            ends = await self._progress.ends()
            self._pending[0] = _Sample(first.taken, first.now, ends)
        if not await self._progress.reached(ends):
            return None
        self._pending.pop(0)
        return first.now


_MOST_SAMPLES = 8


class Clockwork:
    """The service's jobs, on its store, its way onto Kafka and its sender."""

    def __init__(
        self,
        database: Database,
        publisher: Publisher,
        windows: Windows,
        barrier: Barrier,
        clock: Clock,
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._windows = windows
        self._barrier = barrier
        self._clock = clock

    async def look_at_windows(self) -> bool:
        """Look at every window that is due and ripe."""
        await self._windows.set_back(self._database, self._clock())
        ripe = await self._barrier.ripe(self._is_due)
        while ripe is not None and await self._windows.look(self._database, ripe):
            pass
        return False

    async def _is_due(self, now: datetime) -> bool:
        return bool(await self._windows.due(self._database, now))

    async def settle(self) -> None:
        """Look at everything that is due, nothing being consumed: the end of a rebuild."""
        now = self._clock()
        await self._windows.set_back(self._database, now)
        while await self._windows.look(self._database, now):
            pass

    async def send_inbox(self) -> bool:
        """Put due messages into inboxes."""
        async with self._database.transaction() as transaction:
            return await store.send_inbox(transaction, self._clock(), INBOX_BATCH) > 0

    async def publish(self) -> bool:
        """Publish alerts whose last change isn't on their topic; one replica at a time."""
        async with self._database.transaction() as transaction:
            if not await transaction.try_lock(PUBLISH_LOCK):
                return False
            alerts = await store.unpublished(transaction, PUBLISH_BATCH)
            if not alerts:
                return False
            await self._publisher.publish(alerts)
            await store.published(transaction, alerts)
        return len(alerts) == PUBLISH_BATCH

    async def measure_backlog(self) -> None:
        """Tell telemetry what waits."""
        async with self._database.transaction() as transaction:
            backlog = await store.backlog(transaction)
        telemetry.OVERDUE.set(backlog.overdue)
        telemetry.PARKED.set(backlog.parked)
        telemetry.UNPUBLISHED.set(backlog.unpublished)
        oldest = backlog.oldest_due_watch
        age = 0.0 if oldest is None else (self._clock() - oldest).total_seconds()
        telemetry.OLDEST_WATCH_SECONDS.set(max(0.0, age))


class Webhooks:
    """Sends one endpoint's messages, so that a slow receiver only holds up its own."""

    def __init__(
        self,
        database: Database,
        endpoint: Endpoint,
        sender: Sender,
        rules: Rules,
        *,
        lease_seconds: float,
        batch: int,
    ) -> None:
        self._database = database
        self._endpoint = endpoint
        self._sender = sender
        self._rules = rules
        self._lease_seconds = lease_seconds
        self._batch = batch

    async def run(self) -> bool:
        """Send some due messages; returns whether there may be more."""
        tenant, name, url = self._endpoint.tenant, self._endpoint.id, str(self._endpoint.url)
        async with self._database.transaction() as transaction:
            if await store.endpoint_disabled(transaction, tenant, name, url):
                parked = await store.park_webhooks(
                    transaction, tenant, name, "the endpoint is gone"
                )
                telemetry.DELIVERIES.labels("webhook", "parked").inc(parked)
                return False
            taken = await store.take_webhooks(
                transaction, tenant, name, lease_seconds=self._lease_seconds, limit=self._batch
            )
        await asyncio.gather(*(self._send(outgoing) for outgoing in taken))
        return len(taken) == self._batch

    async def _send(self, outgoing: Outgoing) -> None:
        rule = self._rules.by_id.get(outgoing.alert.rule)
        severity = rule.severity if rule else "info"
        try:
            await self._sender.send(self._endpoint, outgoing.id, outgoing.alert, severity)
        except EndpointGoneError:
            await self._disable(outgoing)
        except EndpointError as error:
            await self._failed(outgoing, error)
        else:
            async with self._database.transaction() as transaction:
                await store.webhook_sent(transaction, outgoing)
            telemetry.DELIVERIES.labels("webhook", "sent").inc()

    async def _failed(self, outgoing: Outgoing, error: EndpointError) -> None:
        again_at = retry_at(
            outgoing.attempts,
            datetime.now(UTC),
            jitter=random.uniform(-1, 1),  # noqa: S311  # spreads load, guards nothing
            asked_seconds=error.asked_seconds,
        )
        async with self._database.transaction() as transaction:
            await store.webhook_failed(transaction, outgoing, error=str(error), again_at=again_at)
        outcome = "parked" if again_at is None else "retried"
        telemetry.DELIVERIES.labels("webhook", outcome).inc()
        log.warning(
            "webhook_failed",
            outcome=outcome,
            tenant=outgoing.tenant,
            endpoint=self._endpoint.id,
            delivery=str(outgoing.id),
            attempts=outgoing.attempts,
            error=str(error),
        )

    async def _disable(self, outgoing: Outgoing) -> None:
        endpoint = self._endpoint
        async with self._database.transaction() as transaction:
            await store.webhook_failed(
                transaction, outgoing, error="answered 410: the endpoint is gone", again_at=None
            )
            await store.disable_endpoint(
                transaction, endpoint.tenant, endpoint.id, str(endpoint.url)
            )
        telemetry.DELIVERIES.labels("webhook", "parked").inc()
        log.error("webhook_endpoint_disabled", tenant=endpoint.tenant, endpoint=endpoint.id)
