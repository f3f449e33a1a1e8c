"""Messages: records, directory, goals and plans become credits, statements and transfers.

A batch first takes the configuration's locks (alone where it changes one, shared otherwise, always
in the same order), then writes the credits of records that changed or whose configuration changed,
then evaluates the statements that those credits are in, and posts to the ledger what is different
from what is posted. What it returns are the sums of all statements that its messages have to do
with, changed or not.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kit.clock import Micros, real_micros
from kit.consumer import Batch
from kit.database import Transaction
from schemas.base import State
from schemas.crm import Record
from schemas.directory import Entry
from schemas.spm import Earnings, Goal, PlanDocument
from services.payouts import store, telemetry
from services.payouts.domain.causes import Configured, said
from services.payouts.domain.credit import CREDITABLE, decide
from services.payouts.domain.evaluate import Statement, evaluate
from services.payouts.domain.keys import START, LineKey, Position, RecordKey, StatementKey, key_of
from services.payouts.domain.ledger import Changes
from services.payouts.domain.plan import read
from services.payouts.domain.scope import Scope, touched_by
from services.payouts.store import Configuration, Context, CreditRow

EVALUATE_AT_ONCE = 1000  # statements whose credits and lines are held in memory together


@dataclass(slots=True)
class _Changes:
    """What a batch's configuration means for one tenant."""

    recredit: Scope = field(default_factory=Scope)
    causes: Configured = field(default_factory=Configured)
    dirty: set[StatementKey] = field(default_factory=set)  # evaluate again
    touched: set[StatementKey] = field(default_factory=set)  # publish again


@dataclass(slots=True)
class _Work:
    """What a batch has done so far."""

    touched: set[StatementKey] = field(default_factory=set)
    dirty: dict[StatementKey, dict[str, None]] = field(default_factory=dict)  # with causes
    own_cause: dict[RecordKey, str] = field(default_factory=dict)
    since: dict[StatementKey, Position] = field(default_factory=dict)  # evaluate from here on

    def soil(self, key: StatementKey, causes: Iterable[str], since: Position = START) -> None:
        """The statement must be evaluated from a position on, because of `causes`."""
        self.since[key] = min(since, self.since.get(key, since))
        self.dirty.setdefault(key, {}).update(dict.fromkeys(causes))

    def cause(self, key: StatementKey, line: LineKey) -> str:
        """Why a line's pay changed: its own record, or what moved it to another tier."""
        own = self.own_cause.get(RecordKey(key.tenant, line.record_type, line.record_id))
        return own or said(self.dirty[key])


class Payouts:
    """The consumer's side of payouts."""

    def __init__(self, configuration: Configuration, now_us: Micros = real_micros) -> None:
        self.configuration = configuration
        self._now_us = now_us

    async def apply(self, transaction: Transaction, batch: Batch) -> list[State]:
        """Apply a batch; returns the sums of all statements that it has to do with."""
        plans = batch.of(PlanDocument)
        for document in plans:
            if not document.deleted:
                read(document.document)  # one that isn't a plan is this message's failure
        configured = [state for state in batch.states if not isinstance(state, Record)]
        records = [record for record in batch.of(Record) if record.type in CREDITABLE]
        tenants = {state.tenant for state in (*configured, *records)}
        changed = {f"{state.topic}/{state.tenant}" for state in configured}
        await self.configuration.lock(transaction, tenants, changed)
        work = _Work()
        changes = {
            tenant: await self._configure(transaction, batch, tenant)
            for tenant in sorted({state.tenant for state in configured})
        }
        newer = await store.keep_records(transaction, records)
        contexts = {
            tenant: await self.configuration.context(transaction, tenant)
            for tenant in sorted(tenants)
        }
        await self._credit(transaction, contexts, records, newer, work)
        for tenant, change in changes.items():
            await self._recredit(transaction, contexts, tenant, change, work)
        for part in _parts(sorted(work.dirty), EVALUATE_AT_ONCE):
            await self._settle(transaction, contexts, part, work)
        rows = await store.statements(transaction, work.touched | work.dirty.keys())
        return [row.earnings() for row in rows.values()]

    async def current(self, transaction: Transaction, states: Sequence[State]) -> list[State]:
        """The sums of the same statements as they are now."""
        keys = {
            StatementKey(e.tenant, e.payee, e.plan, e.period)
            for e in states
            if isinstance(e, Earnings)
        }
        return [row.earnings() for row in (await store.statements(transaction, keys)).values()]

    async def _configure(self, transaction: Transaction, batch: Batch, tenant: str) -> _Changes:
        """Store what is new, and find out whom it concerns."""
        change = _Changes()
        await self._configure_directory(transaction, batch, tenant, change)
        plans = [plan for plan in batch.of(PlanDocument) if plan.tenant == tenant]
        newer_plans = await self.configuration.plans.store(transaction, plans)
        goals = [goal for goal in batch.of(Goal) if goal.tenant == tenant]
        newer_goals = await self.configuration.goals.store(transaction, goals)
        if newer_plans:
            change.recredit.everyone = True
        change.causes = Configured([*change.causes.states, *newer_plans, *newer_goals])
        change.dirty |= await self._statements_of(transaction, tenant, newer_plans, newer_goals)
        change.touched |= await self._statements_of(transaction, tenant, plans, goals)
        return change

    async def _configure_directory(
        self, transaction: Transaction, batch: Batch, tenant: str, change: _Changes
    ) -> None:
        entries = [entry for entry in batch.of(Entry) if entry.tenant == tenant]
        if not entries:
            return
        directory = self.configuration.directory
        before = {e.key: e for e in await directory.load(transaction, tenant)}
        newer = await directory.store(transaction, entries)
        known = [*before.values(), *await directory.load(transaction, tenant)]
        context = await self.configuration.context(transaction, tenant)
        by_team = any(p.plan.payees.kind == "teams" for p in context.plans.values())
        change.recredit = touched_by(newer, before, known, by_team=by_team)
        change.causes = Configured(newer)
        fresh = {entry.key for entry in newer}
        again = touched_by([e for e in entries if e.key not in fresh], None, known, by_team=by_team)
        if again:
            change.touched |= await store.statement_keys(
                transaction, tenant, owners=None if again.everyone else again.owners
            )

    async def _statements_of(
        self,
        transaction: Transaction,
        tenant: str,
        plans: Sequence[PlanDocument],
        goals: Sequence[Goal],
    ) -> set[StatementKey]:
        """The existing statements that these plans and goals have a say in."""
        keys: set[StatementKey] = set()
        if plans:
            keys |= await store.statement_keys(transaction, tenant, plans=[p.id for p in plans])
        if goals:
            context = await self.configuration.context(transaction, tenant)
            found = await store.statements(
                transaction,
                {
                    StatementKey(tenant, goal.subject.removeprefix("person:"), plan, goal.period)
                    for goal in goals
                    if goal.subject.startswith("person:")
                    for plan in context.plans
                },
            )
            keys |= found.keys()
        return keys

    async def _credit(
        self,
        transaction: Transaction,
        contexts: Mapping[str, Context],
        records: Sequence[Record],
        decided: set[RecordKey],
        work: _Work,
        causes: Configured | None = None,
    ) -> None:
        """Replace what the decided records contribute; all records' statements are touched."""
        existing = await store.credits_of(transaction, {key_of(record) for record in records})
        written: list[CreditRow] = []
        for record in records:
            key = key_of(record)
            had = existing[key]
            work.touched.update(s for row in had if (s := row.statement) is not None)
            if key not in decided:
                continue
            changed = self._replacements(contexts[record.tenant], record, key, had)
            moved = [
                (row, statement)
                for pair in changed
                for row in pair
                if row is not None and row.active and (statement := row.statement) is not None
            ]
            why = [f"{record.type}/{record.id}@{record.version}"]
            if causes is not None:
                why = causes.of_credit(record, [statement for _, statement in moved])
            for row, statement in moved:
                work.soil(statement, why, row.position)
                work.own_cause[key] = said(why)
            written += [new for _, new in changed]
        await store.write_credits(transaction, written)

    def _replacements(
        self, context: Context, record: Record, key: RecordKey, had: Sequence[CreditRow]
    ) -> list[tuple[CreditRow | None, CreditRow]]:
        """Rows to write, each with the row that it replaces."""
        known = {row.slot: row for row in had}
        plans = [revised.plan for revised in context.plans.values()]
        wanted = [CreditRow(key, o) for o in decide(record, plans, context.directory)]
        changed: list[tuple[CreditRow | None, CreditRow]] = []
        for row in wanted:
            telemetry.CREDITS.labels(row.outcome.reason or "credited").inc()
            old = known.pop(row.slot, None)
            if old != row:
                changed.append((old, row))
        for old in known.values():
            if old.active:
                telemetry.CREDITS.labels("withdrawn").inc()
                changed.append((old, CreditRow(key, old.outcome, active=False)))
        return changed

    async def _recredit(
        self,
        transaction: Transaction,
        contexts: Mapping[str, Context],
        tenant: str,
        change: _Changes,
        work: _Work,
    ) -> None:
        """Decide again about all records that a configuration change concerns."""
        work.touched |= change.touched
        for key in change.dirty:
            work.soil(key, change.causes.of_statement(key))
        if not change.recredit:
            return
        owners = None if change.recredit.everyone else change.recredit.owners
        after = ("", "")
        while True:
            records = await store.records_after(transaction, tenant, owners, after)
            if not records:
                return
            everything = {key_of(record) for record in records}
            await self._credit(transaction, contexts, records, everything, work, change.causes)
            after = (records[-1].type, records[-1].id)

    async def _settle(
        self,
        transaction: Transaction,
        contexts: Mapping[str, Context],
        keys: Sequence[StatementKey],
        work: _Work,
    ) -> None:
        """Evaluate these statements alone, and post what is different from what is posted."""
        rows = await store.lock_statements(transaction, keys)
        since = {key: work.since[key] for key in keys}
        openings = await store.openings(transaction, since)
        credited = await store.credits_in(transaction, since)
        posted = await store.lines_in(transaction, since)
        result = Changes(work.cause)
        for key in keys:
            context = contexts[key.tenant]
            revised = context.plans.get(key.plan)
            found = Statement(())
            if revised is not None:
                quotas = context.quotas(key.payee, revised.plan, key.period)
                found = evaluate(revised.plan, credited[key], quotas, openings[key])
            result.add(rows[key], revised, found, posted[key], self._now_us)
        telemetry.STATEMENTS_EVALUATED.inc(len(keys))
        await store.save_lines(transaction, result.lines, result.gone)
        await store.post(transaction, result.postings)
        await store.save_statements(transaction, result.statements)
        telemetry.TRANSFERS_POSTED.labels("accrued").inc(result.accrued)
        telemetry.TRANSFERS_POSTED.labels("reversed").inc(len(result.postings) - result.accrued)


def _parts(keys: Sequence[StatementKey], size: int) -> Iterable[Sequence[StatementKey]]:
    return (keys[start : start + size] for start in range(0, len(keys), size))
