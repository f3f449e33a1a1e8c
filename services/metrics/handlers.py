"""The door for messages: records become facts and deltas; directory changes credit facts again.

Nothing is emitted from here: measures are published from what the folder has marked, in the same
transaction as the numbers, so that a crash in between only delays them.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import NamedTuple, TypeVar

from kit.clock import real_micros
from kit.consumer import Batch
from kit.database import Transaction
from schemas.base import State
from schemas.crm import Record
from schemas.directory import Entry
from schemas.spm import Goal
from services.metrics import telemetry
from services.metrics.domain.catalogue import Catalogue
from services.metrics.domain.credits import (
    Credit,
    Crediting,
    Deltas,
    decode,
    directory_change,
    encode,
)
from services.metrics.store import counters, facts
from services.metrics.store.context import Context
from services.metrics.store.goals import store_goals

S = TypeVar("S", bound=State)
RecordKey = tuple[str, str, str]  # tenant, type, id

WRITTEN_AT_ONCE = 500  # facts per statement; larger parts overlap less, smaller cost round trips
STALE = "stale"  # no credits read like this


class Decided(NamedTuple):
    """A record's fact, before it is known whether it is news."""

    owner: str
    credits: list[Credit]
    text: str


class Handler:
    """Applies batches to the store."""

    def __init__(self, catalogue: Catalogue, context: Context) -> None:
        self._catalogue = catalogue
        self._context = context

    async def apply(self, transaction: Transaction, batch: Batch) -> Iterable[State]:
        """Apply one batch; what it changes is published after it is folded."""
        # Structs check instances by Python code, so that asking the type is worth it here.
        records = [state for state in batch.states if type(state) is Record]
        if len(records) < len(batch.states):
            entries, goals = _newest(batch.of(Entry)), _newest(batch.of(Goal))
            await self._apply_directory(transaction, entries)
            await store_goals(transaction, self._context, goals, now_us=real_micros())
        await self._apply_records(transaction, records)
        return ()

    async def _apply_directory(self, transaction: Transaction, entries: Sequence[Entry]) -> None:
        replica = self._context.directory
        before: dict[str, list[Entry]] = {}
        for tenant in sorted({entry.tenant for entry in entries}):
            await transaction.lock(replica.lock_name(tenant))
            before[tenant] = await replica.load(transaction, tenant)
        changed = {entry.tenant for entry in await replica.store(transaction, entries)}
        for tenant in sorted(changed):
            await self._recredit_after(transaction, tenant, before[tenant])
        await counters.bump(transaction, changed, real_micros())

    async def _recredit_after(
        self, transaction: Transaction, tenant: str, before: Sequence[Entry]
    ) -> None:
        """Make the tenant's facts what they would be, had they come after this directory."""
        crediting = await self._context.crediting(transaction, tenant)
        after = await self._context.directory.load(transaction, tenant)
        change = directory_change(before, after)
        if not change.calendar and not change.owners:
            return
        if change.calendar:
            published = await self._context.published(transaction, tenant)
            await counters.forget_counters(
                transaction, tenant, version=real_micros(), published=published
            )
        owners = None if change.calendar else change.owners
        async for stored in facts.facts_to_recredit(transaction, tenant, owners):
            deltas = Deltas()
            credited = []
            for fact in stored:
                old = decode(fact.credits)
                new = crediting.credits(
                    fact.source, fact.owner_id, [credit.contribution for credit in old]
                )
                text = encode(new)
                if text != fact.credits:
                    credited.append((fact.type, fact.id, text))
                if text != fact.credits or change.calendar:
                    deltas.add(tenant, new, 0)
                    deltas.retract(tenant, [] if change.calendar else old, 0)
            await facts.recredit(transaction, tenant, credited)
            await facts.append(transaction, deltas.rows())
            telemetry.RECREDITED.inc(len(stored))

    async def _apply_records(self, transaction: Transaction, states: Sequence[Record]) -> None:
        if not states:
            return
        newest: dict[RecordKey, Record] = {}
        for state in states:
            key = (state.tenant, state.type, state.id)
            known = newest.get(key)
            if known is None or known.version < state.version:
                newest[key] = state
        records = sorted(newest.items(), key=itemgetter(0))  # two batches lock in one order
        tenants = sorted({key[0] for key in newest})
        await self._context.directory.share(transaction, tenants)
        crediting = {t: await self._context.crediting(transaction, t) for t in tenants}
        findings: Counter[str] = Counter()
        decided: list[Decided] = []
        former: dict[RecordKey, str | None] = {}
        writing: asyncio.Task[dict[RecordKey, str | None]] | None = None
        try:
            # PostgreSQL writes one part while we decide the next: two cores instead of one.
            for start in range(0, len(records), WRITTEN_AT_ONCE):
                part = records[start : start + WRITTEN_AT_ONCE]
                made = [self._decide(crediting[key[0]], record, findings) for key, record in part]
                rows = [
                    (*key, record.version, record.source, fact.owner, fact.text)
                    for (key, record), fact in zip(part, made, strict=True)
                ]
                decided += made
                if writing is not None:
                    former |= await writing
                writing = asyncio.create_task(facts.write_facts(transaction, rows))
                await asyncio.sleep(0)  # the statement is on its way before the next decision
            assert writing is not None
            former |= await writing
        finally:
            if writing is not None and not writing.done():
                await asyncio.wait([writing])  # the connection must be ours again to roll back
        deltas, outcomes = _deltas(records, decided, former)
        await facts.append(transaction, deltas.rows())
        for (kind, outcome), count in outcomes.items():
            label = kind if kind in self._catalogue.record_types else "other"
            telemetry.FACTS.labels(label, outcome).inc(count)
        for reason, count in findings.items():
            telemetry.FINDINGS.labels(reason).inc(count)

    def _decide(self, crediting: Crediting, record: Record, findings: Counter[str]) -> Decided:
        """The fact that the record makes now."""
        field = record.fields.get("owner_id")
        owner = str(field.value) if field is not None and field.state == "value" else ""
        found, problems = self._catalogue.contributions(record)
        for problem in problems:
            findings[problem] += 1
        if not found:
            return Decided(owner, [], encode([]))
        credited = crediting.credits(record.source, owner, found)
        if not credited[0].person:
            findings["unmapped_owner"] += 1
        return Decided(owner, credited, encode(credited))


def _deltas(
    records: Sequence[tuple[RecordKey, Record]],
    decided: Sequence[Decided],
    former: dict[RecordKey, str | None],
) -> tuple[Deltas, Counter[tuple[str, str]]]:
    """What the written facts change, and how many of which type did what."""
    deltas = Deltas()
    outcomes: Counter[tuple[str, str]] = Counter()
    for (key, record), fact in zip(records, decided, strict=True):
        old = former.get(key, STALE)
        if old is STALE:
            outcomes[record.type, "stale"] += 1
            continue
        if old == fact.text:
            outcomes[record.type, "same"] += 1
            continue
        received = int(record.received_at.timestamp() * 1e6) if record.received_at else 0
        outcomes[record.type, "new" if old is None else "changed"] += 1
        if old is not None:
            deltas.retract(record.tenant, decode(old), received)
        deltas.add(record.tenant, fact.credits, received)
    return deltas, outcomes


def _newest(states: Sequence[S]) -> list[S]:
    """The highest version per key."""
    newest: dict[str, S] = {}
    for state in states:
        known = newest.get(state.key)
        if known is None or known.version < state.version:
            newest[state.key] = state
    return list(newest.values()) if len(newest) < len(states) else list(states)
