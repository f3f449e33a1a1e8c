"""The door for messages: records become facts and deltas; directory changes credit facts again.

Nothing is emitted from here: measures are published from what the folder has marked, in the same
transaction as the numbers, so that a crash in between only delays them.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import TypeVar

from kit.clock import real_micros
from kit.consumer import Batch
from kit.database import Transaction
from schemas.base import State
from schemas.crm import Record
from schemas.directory import Entry
from schemas.spm import BoardDocument, ContestState, Goal, MetricDocument
from services.metrics import telemetry
from services.metrics.domain.catalogue import Catalogue
from services.metrics.domain.credits import (
    SEPARATOR,
    BadSharesError,
    Change,
    Credit,
    Crediting,
    Deltas,
    Shares,
    contributed,
    decode,
    directory_change,
    encode,
    read_shares,
)
from services.metrics.store import counters, facts, recounts
from services.metrics.store.context import Context
from services.metrics.store.definitions import store_boards
from services.metrics.store.goals import store_goals

S = TypeVar("S", bound=State)
RecordKey = tuple[str, str, str]  # tenant, type, id
# A record's fact before it is known whether it is news: the row, its credits, when it was received.
Decided = tuple[facts.FactRow, list[Credit], int]

MAX_NAME = 200  # characters of a record's name that are kept
NO_SHARES: Shares = ()
WRITTEN_AT_ONCE = 400  # facts per statement; larger parts overlap less, smaller cost round trips


class Handler:
    """Applies batches to the store."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def apply(self, transaction: Transaction, batch: Batch) -> Iterable[State]:
        """Apply one batch; what it changes is published after it is folded."""
        # Structs check instances by Python code, so that asking the type is worth it here.
        records = [state for state in batch.states if type(state) is Record]
        if len(records) < len(batch.states):
            entries, goals = _newest(batch.of(Entry)), _newest(batch.of(Goal))
            await self._apply_directory(transaction, entries)
            await recounts.store_metrics(
                transaction, self._context, _newest(batch.of(MetricDocument))
            )
            await store_goals(transaction, self._context, goals, now_us=real_micros())
            await store_boards(transaction, self._context, _newest(batch.of(BoardDocument)))
            await self._context.contests.store(transaction, _newest(batch.of(ContestState)))
        await self.apply_records(transaction, records)
        return ()

    async def _apply_directory(self, transaction: Transaction, entries: Sequence[Entry]) -> None:
        replica = self._context.directory
        before: dict[str, list[Entry]] = {}
        for tenant in sorted({entry.tenant for entry in entries}):
            await transaction.lock(replica.lock_name(tenant))
            before[tenant] = await replica.load(transaction, tenant)
        changed = {entry.tenant for entry in await replica.store(transaction, entries)}
        for tenant in sorted(changed):
            after = await replica.load(transaction, tenant)
            change = directory_change(before[tenant], after)
            await self.credit_again(transaction, tenant, change)
            if change.rules:
                types = (await self._context.catalogue_of(transaction, tenant)).record_types
                await recounts.request(
                    transaction, tenant, types, reason="territories' rules have changed"
                )
        await counters.bump(transaction, changed, real_micros())

    async def credit_again(self, transaction: Transaction, tenant: str, change: Change) -> None:
        """Make the tenant's facts what they would be, had they come after this directory."""
        if not change.calendar and not change.everyone and not change.owners:
            return
        crediting = await self._context.crediting(transaction, tenant)
        if change.calendar:
            published = await self._context.published(transaction, tenant)
            await counters.forget_counters(
                transaction, tenant, version=real_micros(), published=published
            )
        owners = None if change.calendar or change.everyone else change.owners
        async for stored in facts.facts_to_recredit(transaction, tenant, owners):
            deltas = Deltas()
            credited = []
            for fact in stored:
                old = decode(fact.credits)
                shares = _shares(fact.shares)
                new = crediting.credits(
                    fact.source,
                    fact.owner_id,
                    contributed(old, shared=bool(shares)),
                    shares=shares,
                    territories=fact.territories,
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

    async def apply_records(
        self, transaction: Transaction, states: Sequence[Record], *, again: bool = False
    ) -> None:
        """Facts and deltas of records; `again`, also of versions that have been applied before."""
        if not states:
            return
        by_version = sorted(states, key=attrgetter("version"))
        newest = {(state.tenant, state.type, state.id): state for state in by_version}
        records = sorted(newest.items(), key=itemgetter(0))  # two batches lock in one order
        tenants = sorted({key[0] for key in newest})
        await self._context.share(transaction, tenants)
        ways = {tenant: await self._way(transaction, tenant) for tenant in tenants}
        tally = _Tally()
        writing: asyncio.Task[facts.Replaced] | None = None
        written: list[Decided] = []
        try:
            # PostgreSQL writes one part while we count the last and decide the next: two cores.
            for start in range(0, len(records), WRITTEN_AT_ONCE):
                part = records[start : start + WRITTEN_AT_ONCE]
                decided = [_decide(ways[key[0]], key, record, tally) for key, record in part]
                replaced = None if writing is None else await writing
                rows = [fact[0] for fact in decided]
                writing = asyncio.create_task(facts.write_facts(transaction, rows, again=again))
                await asyncio.sleep(0)  # the statement is on its way before we go on
                if replaced is not None:
                    tally.count(written, replaced)
                written = decided
            assert writing is not None
            tally.count(written, await writing)
        finally:
            if writing is not None and not writing.done():
                await asyncio.wait([writing])  # the connection must be ours again to roll back
        await facts.share(transaction, tally.shared)
        await facts.append(transaction, tally.deltas.rows())
        for (kind, outcome), count in tally.outcomes.items():
            label = kind if kind in self._context.shipped.record_types else "other"
            telemetry.FACTS.labels(label, outcome).inc(count)
        for reason, count in tally.findings.items():
            telemetry.FINDINGS.labels(reason).inc(count)

    async def _way(self, transaction: Transaction, tenant: str) -> "_Way":
        return _Way(
            await self._context.catalogue_of(transaction, tenant),
            await self._context.crediting(transaction, tenant),
        )


@dataclass(frozen=True, slots=True)
class _Way:
    """How a tenant's records become facts."""

    catalogue: Catalogue
    crediting: Crediting


def _decide(way: _Way, key: RecordKey, record: Record, tally: "_Tally") -> Decided:
    """The fact that the record makes now."""
    fields = record.fields
    field = fields.get("owner_id")
    owner = str(field.value) if field is not None and field.state == "value" else ""
    found, problems = way.catalogue.contributions(record)
    for problem in problems:
        tally.findings[problem] += 1
    matching = way.crediting.directory.territories_matching(record.get)
    territories = SEPARATOR.join(matching) if matching else ""
    written, shares = "", NO_SHARES
    if "shares" in fields:
        written = record.text("shares") or ""
        shares = _shares(written)
        if shares:
            tally.shared += [(key[0], record.source, who, key[1], key[2]) for who, _ in shares]
        elif written:
            tally.findings["bad_shares"] += 1
    credited = way.crediting.credits(
        record.source, owner, found, shares=shares, territories=territories
    )
    if credited and not credited[0].person:
        tally.findings["unmapped_owner"] += 1
    name = "" if record.deleted else record.text("name") or ""
    received = record.received_at
    return (
        (
            *key,
            record.version,
            record.source,
            owner,
            written if shares else "",
            territories,
            name[:MAX_NAME],
            encode(credited),
        ),
        credited,
        int(received.timestamp() * 1e6) if received else 0,
    )


def _shares(text: str) -> Shares:
    """The shares that are written; none when they make no sense."""
    if not text:
        return NO_SHARES
    try:
        return read_shares(text)
    except BadSharesError:
        return NO_SHARES


class _Tally:
    """What the facts of a batch change, and how many of which type did what."""

    def __init__(self) -> None:
        self.deltas = Deltas()
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.findings: Counter[str] = Counter()
        self.shared: list[tuple[str, str, str, str, str]] = []

    def count(self, decided: Sequence[Decided], replaced: facts.Replaced) -> None:
        """Add the difference that writing these has made."""
        for number, (row, credited, received) in enumerate(decided, start=1):
            tenant, kind, text = row[0], row[1], row[-1]
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
