"""Messages in: what rules look at is kept, and what it changes is looked at again.

Rules on records are decided here. Windows of people are only marked to be looked at: that waits
until everything else that Kafka has is applied too, because a message can't be taken back.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from kit.clock import Clock
from kit.consumer import Batch
from kit.database import Transaction
from schemas.base import State
from schemas.crm import Record
from schemas.directory import Directory, Entry
from schemas.periods import parse
from schemas.spm import Alert, Earnings, Goal, Measure
from services.notifications import store, telemetry
from services.notifications.domain import findings, watches
from services.notifications.domain.deliveries import AlertKey, Subscription
from services.notifications.domain.findings import Finding
from services.notifications.domain.rules import Rules
from services.notifications.store import Count, Directories, Looked, RecordKey, Watched


class Handlers:
    """Applies batches to the store."""

    def __init__(
        self,
        rules: Rules,
        directories: Directories,
        subscriptions: Sequence[Subscription],
        clock: Clock,
    ) -> None:
        self._rules = rules
        self._directories = directories
        self._subscriptions = subscriptions
        self._clock = clock

    async def apply(self, transaction: Transaction, batch: Batch) -> Iterable[State]:
        """Apply a batch; returns the alerts of everything it touches, as they are then."""
        now = self._clock()
        entries, restored = batch.of(Entry), batch.of(Alert)
        records = [r for r in batch.of(Record) if r.type in self._rules.record_types]
        measures = batch.of(Measure)
        counts = [count for m in measures if (count := self._count(m)) is not None]
        _count_ignored(batch, len(measures) - len(counts))
        await self._directories.lock(
            transaction,
            change={entry.tenant for entry in entries},
            rely={s.tenant for s in (*records, *restored)} | {count.tenant for count in counts},
        )
        changed = await self._keep_directory(transaction, entries)
        touched = await self._keep_records(transaction, records)
        for tenant in changed:
            touched |= await self._recent(transaction, tenant, now)
        await self._keep_counts(transaction, counts)
        for tenant, people in changed.items():
            await store.rewatch(transaction, self._directories, self._rules, tenant, people, now)
        await self._recheck(transaction, restored, now)
        await store.restore(transaction, restored)
        touched |= {key for alert in restored if (key := _record_of(alert)) is not None}
        keys = await self._follow_records(transaction, touched, records, now)
        # What the topic already says is not said again: we would read it, and never come to rest.
        known = {alert.key: alert.version for alert in restored}
        states = await store.states(transaction, keys)
        return [state for state in states if state.version > known.get(state.key, -1)]

    async def current(self, transaction: Transaction, states: Sequence[State]) -> list[Alert]:
        """The same alerts as they are now."""
        keys = {(a.tenant, a.rule, a.subject, a.window) for a in states if isinstance(a, Alert)}
        return await store.states(transaction, keys)

    def _count(self, measure: Measure) -> Count | None:
        """The count that rules may look at, None for every other measure."""
        kind, _, person = measure.subject.partition(":")
        if kind == "person" and measure.unit == "count" and measure.metric in self._rules.metrics:
            grain, day = parse(measure.period)
            if grain == "day":
                return Count(
                    measure.tenant, person, day, measure.metric, measure.version, measure.value
                )
        return None

    async def _of(self, transaction: Transaction, tenants: set[str]) -> dict[str, Directory]:
        return {tenant: await self._directories.of(transaction, tenant) for tenant in tenants}

    async def _keep_directory(
        self, transaction: Transaction, entries: list[Entry]
    ) -> dict[str, watches.Affected]:
        """Keep the entries; returns the tenants that changed, each with who is concerned."""
        replica = self._directories.replica
        before = {t: await replica.load(transaction, t) for t in {e.tenant for e in entries}}
        changed: dict[str, list[Entry]] = defaultdict(list)
        for entry in await replica.store(transaction, entries):
            changed[entry.tenant].append(entry)
        return {t: watches.affected(before[t], changed[t]) for t in sorted(changed)}

    async def _keep_records(
        self, transaction: Transaction, records: list[Record]
    ) -> set[RecordKey]:
        slim = [
            (r.version, store.slim(r, self._rules.fields(r.type)), self._placed_at(r))
            for r in records
        ]
        await store.keep_records(transaction, slim)
        return {(r.tenant, r.type, r.id) for r in records}

    def _placed_at(self, record: Record) -> datetime | None:
        """The latest instant that places the record for a rule that selects it."""
        instants = (
            record.instant(rule.placed_by)
            for rule in self._rules.of_record(record.type)
            if rule.selects(record)
        )
        return max((i for i in instants if i is not None), default=None)

    async def _recent(self, transaction: Transaction, tenant: str, now: datetime) -> set[RecordKey]:
        ages = [rule.max_age for rule in self._rules.records]
        if not ages:
            return set()
        return set(await store.records_placed_since(transaction, tenant, now - max(ages)))

    async def _keep_counts(self, transaction: Transaction, counts: list[Count]) -> None:
        if not counts:
            return
        await store.keep_counts(transaction, counts)
        marked = []
        directories = await self._of(transaction, {count.tenant for count in counts})
        for count in counts:
            directory = directories[count.tenant]
            for rule, due in watches.due_times(
                self._rules.schedules, directory, count.person, count.day, count.metric
            ):
                marked.append(
                    Watched(count.tenant, count.day, rule.id, count.person, due, chain=False)
                )
        await store.watch(transaction, marked)

    async def _recheck(
        self, transaction: Transaction, restored: list[Alert], now: datetime
    ) -> None:
        """Look again at people's windows that the topic knows an alert of."""
        schedules = {rule.id for rule in self._rules.schedules}
        await store.watch(
            transaction,
            [
                Watched(
                    a.tenant,
                    parse(a.window)[1],
                    a.rule,
                    a.subject.removeprefix("person:"),
                    now,
                    chain=False,
                )
                for a in restored
                if a.rule in schedules
            ],
        )

    async def _follow_records(
        self,
        transaction: Transaction,
        touched: set[RecordKey],
        records: list[Record],
        now: datetime,
    ) -> set[AlertKey]:
        """Decide the rules on these records; returns the keys of all alerts about them."""
        if not touched:
            return set()
        looked: list[Looked] = []
        directories = await self._of(transaction, {tenant for tenant, _, _ in touched})
        for record in await store.records(transaction, touched):
            directory = directories[record.tenant]
            for rule in self._rules.of_record(record.type):
                found = findings.of_record(rule, record, directory)
                if isinstance(found, str) and found != "small":
                    telemetry.SKIPPED.labels(rule.id, found).inc()
                finding = found if isinstance(found, Finding) else None
                placed_at = record.instant(rule.placed_by) or now
                key = (record.tenant, rule.id, _subject(record), findings.ONCE)
                looked.append(Looked(key, rule, placed_at, finding, record.erased))
        raised = await store.follow(transaction, looked, self._subscriptions, now)
        _time(raised, records)
        subjects = {
            (tenant, rule.id, f"record:{kind}/{number}")
            for tenant, kind, number in touched
            for rule in self._rules.of_record(kind)
        }
        return set(await store.alerts_of(transaction, subjects))


def _subject(record: Record) -> str:
    return f"record:{record.type}/{record.id}"


def _record_of(alert: Alert) -> RecordKey | None:
    kind, _, rest = alert.subject.partition(":")
    record_type, _, number = rest.partition("/")
    return (alert.tenant, record_type, number) if kind == "record" else None


def _count_ignored(batch: Batch, measures: int) -> None:
    telemetry.IGNORED.labels(Measure.topic).inc(measures)
    for kind in (Goal, Earnings):
        telemetry.IGNORED.labels(kind.topic).inc(len(batch.of(kind)))


def _time(raised: list[AlertKey], records: list[Record]) -> None:
    received = {(r.tenant, _subject(r)): r.received_at for r in records}
    for tenant, _, subject, _ in raised:
        at = received.get((tenant, subject))
        if at is not None:
            telemetry.ALERT_SECONDS.observe((datetime.now(UTC) - at) / timedelta(seconds=1))
