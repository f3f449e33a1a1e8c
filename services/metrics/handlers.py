"""The door for messages: records become facts and deltas; directory changes credit facts again.

Nothing is emitted from here: measures are published from what the folder has marked, in the same
transaction as the numbers, so that a crash in between only delays them.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from operator import attrgetter, itemgetter
from typing import TypeVar

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
# A record's fact before it is known whether it is news: the row, its credits, when it was received.
Decided = tuple[facts.FactRow, list[Credit], int]

WRITTEN_AT_ONCE = 400  # facts per statement; larger parts overlap less, smaller cost round trips


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
        by_version = sorted(states, key=attrgetter("version"))
        newest = {(state.tenant, state.type, state.id): state for state in by_version}
        records = sorted(newest.items(), key=itemgetter(0))  # two batches lock in one order
        tenants = sorted({key[0] for key in newest})
        await self._context.directory.share(transaction, tenants)
        crediting = {t: await self._context.crediting(transaction, t) for t in tenants}
        tally = _Tally()
        writing: asyncio.Task[facts.Replaced] | None = None
        written: list[Decided] = []
        try:
            # PostgreSQL writes one part while we count the last and decide the next: two cores.
            for start in range(0, len(records), WRITTEN_AT_ONCE):
                part = records[start : start + WRITTEN_AT_ONCE]
                decided = [self._decide(crediting[key[0]], key, it, tally) for key, it in part]
                replaced = None if writing is None else await writing
                rows = [fact[0] for fact in decided]
                writing = asyncio.create_task(facts.write_facts(transaction, rows))
                await asyncio.sleep(0)  # the statement is on its way before we go on
                if replaced is not None:
                    tally.count(written, replaced)
                written = decided
            assert writing is not None
            tally.count(written, await writing)
        finally:
            if writing is not None and not writing.done():
                await asyncio.wait([writing])  # the connection must be ours again to roll back
        await facts.append(transaction, tally.deltas.rows())
        for (kind, outcome), count in tally.outcomes.items():
            label = kind if kind in self._catalogue.record_types else "other"
            telemetry.FACTS.labels(label, outcome).inc(count)
        for reason, count in tally.findings.items():
            telemetry.FINDINGS.labels(reason).inc(count)

    def _decide(
        self, crediting: Crediting, key: RecordKey, record: Record, tally: "_Tally"
    ) -> Decided:
        """The fact that the record makes now."""
        field = record.fields.get("owner_id")
        owner = str(field.value) if field is not None and field.state == "value" else ""
        found, problems = self._catalogue.contributions(record)
        for problem in problems:
            tally.findings[problem] += 1
        credited = crediting.credits(record.source, owner, found)
        if credited and not credited[0].person:
            tally.findings["unmapped_owner"] += 1
        received = record.received_at
        return (
            (*key, record.version, record.source, owner, encode(credited)),
            credited,
            int(received.timestamp() * 1e6) if received else 0,
        )


class _Tally:
    """What the facts of a batch change, and how many of which type did what."""

    def __init__(self) -> None:
        self.deltas = Deltas()
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.findings: Counter[str] = Counter()

    def count(self, decided: Sequence[Decided], replaced: facts.Replaced) -> None:
        """Add the difference that writing these has made."""
        for number, (row, credited, received) in enumerate(decided, start=1):
            tenant, kind, text = row[0], row[1], row[6]
            if number not in replaced:
                self.outcomes[kind, "new"] += 1
                self.deltas.add(tenant, credited, received)
                continue
            former = replaced[number]
            if former is None:
                self.outcomes[kind, "stale"] += 1
            elif former == text:
                self.outcomes[kind, "same"] += 1
            else:
                self.outcomes[kind, "changed"] += 1
                self.deltas.retract(tenant, decode(former), received)
                self.deltas.add(tenant, credited, received)


def _newest(states: Sequence[S]) -> list[S]:
    """The highest version per key."""
    newest: dict[str, S] = {}
    for state in states:
        known = newest.get(state.key)
        if known is None or known.version < state.version:
            newest[state.key] = state
    return list(newest.values()) if len(newest) < len(states) else list(states)
