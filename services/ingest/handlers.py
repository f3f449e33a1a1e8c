"""Requests as received → records: read, join with what is known, store, give out the result."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec

from kit.clock import Micros, real_micros
from kit.consumer import Batch
from kit.database import Transaction
from kit.replica import Replica
from schemas.base import State
from schemas.crm import (
    OPPORTUNITY,
    RECORD_TYPES,
    STAGE,
    Backfilled,
    Discard,
    Received,
    Record,
    SourceState,
)
from schemas.directory import Entry
from services.ingest import telemetry
from services.ingest.domain import canonical, merge, readers, stages, values
from services.ingest.domain.facts import Fact, Outcome, Unreadable
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import all_vendors
from services.ingest.gateway import Sources
from services.ingest.pacing import read_aside
from services.ingest.store import events, grants, quarantine, records, rereads
from services.ingest.store.records import RecordKey

# A record that needs reading again is asked for only after the events around it have come in.
REREAD_DELAY = timedelta(seconds=5)
MERGES_IN_A_ROW = 8  # of a record into one that was merged itself


@dataclass(slots=True)
class _Touched:
    """What a batch says about one record, and the last request that said some of it."""

    received: Received
    facts: list[Fact] = field(default_factory=list)


@dataclass(slots=True)
class _Read:
    """What a batch of requests says."""

    touched: dict[RecordKey, _Touched] = field(default_factory=dict)
    unreadable: list[tuple[Received, int, Unreadable]] = field(default_factory=list)
    log: list[events.EventRow] = field(default_factory=list)
    wishes: list[rereads.Wish] = field(default_factory=list)
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def take(self, received: Received, outcomes: Iterable[tuple[int, Outcome]]) -> None:
        """Add what one request says."""
        for number, (index, outcome) in enumerate(outcomes):
            if isinstance(outcome, Fact):
                self.counts[received.vendor, outcome.type, outcome.op] += 1
                self._fact(received, index, number, outcome)
            elif isinstance(outcome, Unreadable):
                self.unreadable.append((received, index, outcome))
            else:
                self.counts[received.vendor, "", outcome.kind] += 1

    def _fact(self, received: Received, index: int, number: int, fact: Fact) -> None:
        self.log.append(
            (
                *(received.tenant, received.id, index, number, received.source),
                *(fact.type, fact.id, fact.op, fact.position[0]),
                fact.vendor_event[: events.MAX_VENDOR_EVENT],
                canonical.uid(received, fact),
                canonical.digest(fact),
            )
        )
        if fact.reread is not None:
            reason, fields = fact.reread.reason, fact.reread.fields
            place = (received.tenant, received.source, fact.type, fact.id)
            wish = rereads.Wish(*place, reason, received.version, fields, fact.vendor_type)
            self.wishes.append(wish)
        if not fact.id or not (fact.fields or fact.stages):
            return  # about all records of a type, or only that something of this one is missing
        key = (received.tenant, fact.type, fact.id)
        found = self.touched.get(key)
        if found is None:
            found = self.touched[key] = _Touched(received)
        found.received = received
        found.facts.append(fact)


class Handlers:
    """What ingest does with messages, and with quarantined items read once more."""

    def __init__(
        self, sources: Sources, replica: Replica[Entry], *, now_us: Micros = real_micros
    ) -> None:
        self._sources = sources
        self._replica = replica
        self._now_us = now_us

    async def apply(self, transaction: Transaction, batch: Batch) -> Iterable[State]:
        """Take in requests, entries, sources and discards; returns the records touched.

        Only these are given out: the others come from their topics.
        """
        await self._replica.store(transaction, batch.of(Entry))
        changed = await self._sources.replica.store(transaction, batch.of(SourceState))
        await self._sources.refresh(transaction)
        # The sources file may have one of the same name.
        in_file = self._sources.in_file
        gone = [(s.tenant, s.id) for s in changed if s.deleted and not in_file(s.id)]
        if gone:
            await grants.forget(transaction, gone)
        await quarantine.discard(transaction, batch.of(Discard))
        requests = batch.of(Received)
        if not requests:
            return []
        read = _Read()
        sources: dict[tuple[str, str, str], Source] = {}  # looked up once per batch
        for received in requests:
            named = (received.tenant, received.source, received.vendor)
            source = sources.get(named)
            if source is None:
                source = sources[named] = self.source_of(received)
            if isinstance(received, Backfilled):  # it may be large, and the door be open beside it
                read.take(received, await read_aside(received, source))
            else:
                read.take(received, readers.read(received, source))
        _count(read.counts)
        put_aside = await quarantine.put_aside(transaction, read.unreadable)
        for vendor, count in Counter(put_aside).items():
            telemetry.QUARANTINED.labels(vendor if vendor in all_vendors() else "other").inc(count)
        found = await self._keep(transaction, read)
        now = self._now_us()
        for received in requests:
            if not isinstance(received, Backfilled):
                telemetry.AGE_SECONDS.observe(max(0, now - received.version) / 1_000_000)
        return found

    async def current(self, transaction: Transaction, states: Sequence[State]) -> list[Record]:
        """Those of the same records that were changed since."""
        given = [state for state in states if isinstance(state, Record)]
        return await records.find_newer(transaction, given)

    async def preview(
        self, transaction: Transaction, received: Received
    ) -> tuple[list[tuple[int, Outcome]], list[tuple[Record | None, Record]]]:
        """What a request says, and each record that it touches as it is and as it would be.

        It is done and taken back, so that it is exactly what would happen.
        """
        outcomes = readers.read(received, self.source_of(received))
        read = _Read()
        read.take(received, outcomes)
        attempt = transaction.driver.transaction()
        await attempt.start()
        try:
            touched = await self._keep(transaction, read)
        finally:
            await attempt.rollback()
        known = await records.find_records(transaction, map(_key, touched))
        before = {_key(record): record for record in known}
        return outcomes, [(before.get(_key(record)), record) for record in touched]

    def source_of(self, received: Received) -> Source:
        """As configured now; a source that is gone is read as its vendor's defaults."""
        source = self._sources.known(received.tenant, received.source)
        if source is None or source.tenant != received.tenant or source.vendor != received.vendor:
            telemetry.UNKNOWN_SOURCES.inc()
            return Source(id=received.source, tenant=received.tenant, vendor=received.vendor)
        return source

    async def _keep(self, transaction: Transaction, read: _Read) -> list[Record]:
        """Store everything that was read; returns the records touched."""
        now = values.aware(self._now_us())
        await events.append(transaction, read.log)
        statuses = await self._statuses(transaction, read.touched)
        said = {key: merge.of(one.facts) for key, one in read.touched.items()}
        found = await self._record(transaction, read.touched, said, statuses)
        found |= await self._pass_on(transaction, found, read.touched, statuses)
        found |= await self._redecide(transaction, read)
        wishes = [wish for wish in read.wishes if not _granted(wish, found)]
        await rereads.want(transaction, wishes, now=now, delay=REREAD_DELAY)
        return list(found.values())

    async def _statuses(
        self, transaction: Transaction, touched: Mapping[RecordKey, _Touched]
    ) -> "_Statuses":
        """What stages mean, kept from changing, for sources where they decide."""
        decided_by: dict[RecordKey, tuple[str, str]] = {}
        meanings: set[tuple[str, str]] = set()
        for key, one in touched.items():
            if not _stages_decide(one.received):
                continue
            if key[1] == STAGE:
                meanings.add((key[0], one.received.source))
            elif key[1] == OPPORTUNITY:
                decided_by[key] = (key[0], one.received.source)
        for tenant, source in sorted(meanings):
            await transaction.lock(_stages_lock(tenant, source))
        shared = set(decided_by.values()) - meanings
        await transaction.lock_shared(_stages_lock(*pair) for pair in shared)
        known = {}
        if decided_by:
            known = await records.stage_statuses(transaction, decided_by.values())
        return _Statuses(decided_by, known)

    async def _record(
        self,
        transaction: Transaction,
        touched: Mapping[RecordKey, _Touched],
        said: Mapping[RecordKey, merge.Known],
        statuses: "_Statuses",
    ) -> dict[RecordKey, Record]:
        """Insert what is new, join the rest with what is there."""
        now = self._now_us()
        fresh = [
            _record(key, statuses.decided(key, said[key]), merge.NOTHING, touched[key], now)
            for key in said
        ]
        inserted = await records.insert_records(transaction, fresh)
        found = {key: record for record in fresh if (key := _key(record)) in inserted}
        updates: list[Record] = []
        known_keys = [key for key in said if key not in inserted]
        for old in await records.lock_records(transaction, known_keys):
            before, key = merge.recorded(old), _key(old)
            after = statuses.decided(key, merge.join(before, said[key]))
            if after == before:
                found[key] = old
                continue
            version = max(old.version + 1, now)
            updates.append(_record(key, after, before, touched[key], version))
        await records.update_records(transaction, updates)
        return found | {_key(record): record for record in updates}

    async def _pass_on(
        self,
        transaction: Transaction,
        found: Mapping[RecordKey, Record],
        touched: Mapping[RecordKey, _Touched],
        statuses: "_Statuses",
    ) -> dict[RecordKey, Record]:
        """What merged records leave to their survivors, and these to theirs."""
        changed: dict[RecordKey, Record] = {}
        for _ in range(MERGES_IN_A_ROW):
            passed: dict[RecordKey, list[merge.Known]] = defaultdict(list)
            heirs: dict[RecordKey, _Touched] = {}
            for key, record in found.items():
                survivor = merge.survivor(record.fields)
                if survivor and survivor != record.id:
                    heir = (key[0], key[1], survivor)
                    passed[heir].append(merge.inheritance(record.id, merge.recorded(record)))
                    heirs[heir] = touched[key]
            if not passed:
                break
            said = {key: merge.all_of(parts) for key, parts in passed.items()}
            found, touched = await self._record(transaction, heirs, said, statuses), heirs
            changed |= found
        return changed

    async def _redecide(self, transaction: Transaction, read: _Read) -> dict[RecordKey, Record]:
        """Deals whose stage has got another meaning, with the status that it gives them."""
        stage_ids: dict[tuple[str, str], set[str]] = defaultdict(set)
        for (tenant, kind, number), one in read.touched.items():
            if kind == STAGE and _stages_decide(one.received):
                stage_ids[tenant, one.received.source].add(number)
        now = self._now_us()
        updates: list[Record] = []
        for (tenant, source), changed in sorted(stage_ids.items()):
            known = await records.stage_statuses(transaction, [(tenant, source)])
            names = await records.stages_in_use(transaction, tenant, source)
            affected = [name for name in names if stages.record_id(source, name) in changed]
            for deal in await records.lock_deals_in_stage(transaction, tenant, source, affected):
                before = merge.recorded(deal)
                after = stages.by_metadata(before, tenant, source, known)
                if after != before:
                    decided = msgspec.structs.replace(
                        deal,
                        version=max(deal.version + 1, now),
                        fields=after.fields,
                        changed=merge.changed(before, after),
                        received_at=None,  # no request has caused it
                    )
                    updates.append(decided)
        await records.update_records(transaction, updates)
        return {_key(record): record for record in updates}

    async def replay(
        self, transaction: Transaction, items: Sequence[quarantine.Quarantined]
    ) -> tuple[list[Record], list[quarantine.Quarantined], list[quarantine.Quarantined]]:
        """Read quarantined items once more: the records touched, the items read, those still bad.

        The caller publishes the records before it releases the items, so that a crash in between
        only repeats this.
        """
        read = _Read()
        still: list[tuple[quarantine.Quarantined, str]] = []
        done: list[quarantine.Quarantined] = []
        for item in items:
            outcomes = readers.read(item.request, self.source_of(item.request))
            bad = [found.reason for _, found in outcomes if isinstance(found, Unreadable)]
            if bad:
                still.append((item, bad[0]))
            else:
                done.append(item)
                # Its place is the item's in the request that it came with.
                read.take(item.request, [(item.index, found) for _, found in outcomes])
        await quarantine.explain(transaction, still)
        found = await self._keep(transaction, read)
        return found, done, [item for item, _ in still]


@dataclass(frozen=True, slots=True)
class _Statuses:
    """What the stages of some deals mean: their (tenant, source), and statuses by stage record."""

    decided_by: Mapping[RecordKey, tuple[str, str]]
    known: stages.Statuses

    def decided(self, key: RecordKey, known: merge.Known) -> merge.Known:
        """The state of the record, with the status that its stage gives it."""
        pair = self.decided_by.get(key)
        return known if pair is None else stages.by_metadata(known, *pair, self.known)


def _stages_decide(received: Received) -> bool:
    """Whether a deal's stage says whether it is won, by what the CRM says that stages mean."""
    vendor = all_vendors().get(received.vendor)
    return vendor is not None and vendor.stages_decide


def _granted(wish: rereads.Wish, found: Mapping[RecordKey, Record]) -> bool:
    """Whether the fields that an event lacks are known from elsewhere by now."""
    record = found.get((wish.tenant, wish.type, wish.id))
    return (
        wish.reason == "missing_fields"
        and record is not None
        and (record.deleted or all(record.get(name) is not None for name in wish.fields))
    )


def _stages_lock(tenant: str, source: str) -> str:
    return f"ingest/stages/{tenant}/{source}"


def _key(record: Record) -> RecordKey:
    return (record.tenant, record.type, record.id)


def _record(
    key: RecordKey,
    known: merge.Known,
    before: merge.Known,
    touched: _Touched,
    version: int,
) -> Record:
    """The record's next state, after what a batch has said of it."""
    tenant, kind, number = key
    received, last = touched.received, touched.facts[-1] if touched.facts else None
    return Record(
        tenant=tenant,
        version=version,
        type=kind,
        id=number,
        source=received.source,
        vendor=received.vendor,
        fields=known.fields,
        deleted=known.deleted,
        changed=merge.changed(before, known),
        stages=known.stages,
        expected_before=known.expected_before,
        # Nobody waits for what was imported, so that it has no latency to be measured.
        received_at=None if isinstance(received, Backfilled) else received.received_at,
        received=received.id,
        trace=received.trace,
        op=last.op if last is not None else "",
        actor=last.actor.id if last is not None and last.actor is not None else "",
    )


def _count(counts: Counter[tuple[str, str, str]]) -> None:
    for (vendor, kind, what), count in counts.items():
        if kind:
            label = kind if kind in RECORD_TYPES else "other"
            telemetry.FACTS.labels(vendor, label, what).inc(count)
        else:
            telemetry.IGNORED.labels(vendor, what).inc(count)
