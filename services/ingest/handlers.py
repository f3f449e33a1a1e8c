"""Requests as received → records: read, join with what is known, store, give out the result."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kit.clock import Micros, real_micros
from kit.consumer import Batch
from kit.database import Transaction
from kit.replica import Replica
from schemas.base import State
from schemas.crm import CALL, EMAIL, MEETING, OPPORTUNITY, Received, Record
from schemas.directory import Entry
from services.ingest import store, telemetry
from services.ingest.domain import merge, readers
from services.ingest.domain.facts import Fact, Outcome, Unreadable
from services.ingest.domain.sources import VENDORS, Source
from services.ingest.gateway import Sources

_TYPES = frozenset({OPPORTUNITY, CALL, EMAIL, MEETING})


@dataclass(slots=True)
class _Touched:
    """What a batch says about one record, and the last request that said some of it."""

    received: Received
    facts: list[Fact] = field(default_factory=list)


Touched = dict[store.RecordKey, _Touched]


class Handlers:
    """What ingest does with messages, and with quarantined items read once more."""

    def __init__(
        self, sources: Sources, replica: Replica[Entry], *, now_us: Micros = real_micros
    ) -> None:
        self._sources = sources
        self._replica = replica
        self._now_us = now_us

    async def apply(self, transaction: Transaction, batch: Batch) -> Iterable[State]:
        """Take in requests and directory entries; returns the records touched.

        Entries are not given out again: their topic is where they come from.
        """
        await self._replica.store(transaction, batch.of(Entry))
        requests = batch.of(Received)
        if not requests:
            return []
        touched, unreadable = self._read(requests)
        for vendor, count in Counter(await store.put_aside(transaction, unreadable)).items():
            telemetry.QUARANTINED.labels(vendor if vendor in VENDORS else "other").inc(count)
        records = await self._record(transaction, touched)
        now = self._now_us()
        for request in requests:
            telemetry.AGE_SECONDS.observe(max(0, now - request.version) / 1_000_000)
        return records

    async def current(self, transaction: Transaction, states: Sequence[State]) -> list[Record]:
        """The same records as they are now."""
        keys = {_key(state) for state in states if isinstance(state, Record)}
        return await store.find_records(transaction, keys)

    def _read(
        self, requests: Sequence[Received]
    ) -> tuple[Touched, list[tuple[Received, Unreadable]]]:
        touched: Touched = {}
        unreadable: list[tuple[Received, Unreadable]] = []
        counts: Counter[tuple[str, str, str]] = Counter()
        sources: dict[tuple[str, str, str], Source] = {}  # looked up once per batch
        for received in requests:
            named = (received.tenant, received.source, received.vendor)
            source = sources.get(named)
            if source is None:
                source = sources[named] = self._source(received)
            for outcome in readers.read(received, source):
                if isinstance(outcome, Fact):
                    counts[received.vendor, outcome.type, outcome.op] += 1
                    key = (received.tenant, outcome.type, outcome.id)
                    found = touched.get(key)
                    if found is None:
                        found = touched[key] = _Touched(received)
                    found.received = received
                    found.facts.append(outcome)
                elif isinstance(outcome, Unreadable):
                    unreadable.append((received, outcome))
                else:
                    counts[received.vendor, "", outcome.kind] += 1
        _count(counts)
        return touched, unreadable

    def _source(self, received: Received) -> Source:
        """As configured now; a source that is gone is read as its vendor's defaults."""
        source = self._sources.get(received.source)
        if source is None or source.tenant != received.tenant or source.vendor != received.vendor:
            telemetry.UNKNOWN_SOURCES.inc()
            return Source(id=received.source, tenant=received.tenant, vendor=received.vendor)  # type: ignore[arg-type]  # an unknown one has no reader
        return source

    async def _record(self, transaction: Transaction, touched: Touched) -> list[Record]:
        """Insert what is new, join the rest with what is there."""
        now = self._now_us()
        said = {key: merge.of(one.facts) for key, one in touched.items()}
        fresh = [
            _record(key, said[key], merge.NOTHING, touched[key].received, now) for key in touched
        ]
        inserted = await store.insert_records(transaction, fresh)
        records = [record for record in fresh if _key(record) in inserted]
        updates: list[Record] = []
        known_keys = [key for key in touched if key not in inserted]
        for old in await store.lock_records(transaction, known_keys):
            before, key = merge.Known(old.fields, old.stages), _key(old)
            after = merge.join(before, said[key])
            if after == before:
                records.append(old)
                continue
            version = max(old.version + 1, now)
            updates.append(_record(key, after, before, touched[key].received, version))
        await store.update_records(transaction, updates)
        return records + updates

    async def replay(
        self, transaction: Transaction, items: Sequence[store.Quarantined]
    ) -> tuple[list[Record], list[store.Quarantined], list[store.Quarantined]]:
        """Read quarantined items once more: the records touched, the items read, those still bad.

        The caller publishes the records before it releases the items, so that a crash in between
        only repeats this.
        """
        outcomes = [readers.read(item.request, self._source(item.request)) for item in items]
        still = [
            (item, bad.reason)
            for item, found in zip(items, outcomes, strict=True)
            for bad in found
            if isinstance(bad, Unreadable)
        ]
        await store.explain(transaction, still)
        failed = {item.id for item, _ in still}
        done = [item for item in items if item.id not in failed]
        touched: dict[store.RecordKey, _Touched] = {}
        for item, found in zip(items, outcomes, strict=True):
            for fact in _facts(found) if item.id not in failed else ():
                key = (item.tenant, fact.type, fact.id)
                touched.setdefault(key, _Touched(item.request)).facts.append(fact)
        records = await self._record(transaction, touched)
        return records, done, [item for item, _ in still]


def _facts(outcomes: Iterable[Outcome]) -> list[Fact]:
    return [outcome for outcome in outcomes if isinstance(outcome, Fact)]


def _key(record: Record) -> store.RecordKey:
    return (record.tenant, record.type, record.id)


def _record(
    key: store.RecordKey,
    known: merge.Known,
    before: merge.Known,
    received: Received,
    version: int,
) -> Record:
    tenant, kind, number = key
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
        received_at=received.received_at,
        received=received.id,
        trace=received.trace,
    )


def _count(counts: Counter[tuple[str, str, str]]) -> None:
    for (vendor, kind, what), count in counts.items():
        if kind:
            label = kind if kind in _TYPES else "other"
            telemetry.FACTS.labels(vendor, label, what).inc(count)
        else:
            telemetry.IGNORED.labels(vendor, what).inc(count)
