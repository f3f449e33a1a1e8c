"""Every SQL statement of ingest. Hot paths are set-based on the driver, written in key order."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from kit.database import Transaction
from schemas.crm import Received, Record
from schemas.directory import AnyEntry, Entry
from services.ingest.domain import merge, readers
from services.ingest.domain.facts import Unreadable

RecordKey = tuple[str, str, str]  # tenant, type, id

_INSERT = """
INSERT INTO record (tenant, type, id, version, source, owner_id, deleted, body)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[],
                     $7::boolean[], $8::bytea[]) AS new (t, k, i, v, s, o, d, b)
ORDER BY t, k, i
ON CONFLICT (tenant, type, id) DO NOTHING
RETURNING tenant, type, id
"""
_LOCK = """
SELECT r.body FROM unnest($1::text[], $2::text[], $3::text[]) AS wanted (t, k, i)
JOIN record AS r ON (r.tenant, r.type, r.id) = (wanted.t, wanted.k, wanted.i)
ORDER BY r.tenant, r.type, r.id FOR UPDATE OF r
"""
_UPDATE = """
UPDATE record AS r SET version = new.v, owner_id = new.o, deleted = new.d, body = new.b
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[],
            $7::boolean[], $8::bytea[]) AS new (t, k, i, v, s, o, d, b)
WHERE (r.tenant, r.type, r.id) = (new.t, new.k, new.i)
"""
_QUARANTINE = """
INSERT INTO quarantine
    (tenant, received, index, source, vendor, received_at, reason, raw, request)
SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[],
                     $6::timestamptz[], $7::text[], $8::bytea[], $9::bytea[])
    AS new (t, r, i, s, v, a, e, w, q)
ORDER BY t, r, i
ON CONFLICT (tenant, received, index) DO NOTHING
RETURNING vendor
"""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One item put aside."""

    tenant: str
    received: str
    index: int
    source: str
    vendor: str
    received_at: datetime
    reason: str
    raw: bytes
    request: Received

    @property
    def id(self) -> str:
        """Its public id."""
        return f"{self.received}.{self.index}"


async def insert_records(transaction: Transaction, records: Sequence[Record]) -> set[RecordKey]:
    """Store those that are not there yet, and return their keys."""
    if not records:
        return set()
    rows = await transaction.driver.fetch(_INSERT, *_columns(records))
    return {(row[0], row[1], row[2]) for row in rows}


async def lock_records(transaction: Transaction, keys: Iterable[RecordKey]) -> list[Record]:
    """The records of these keys as they are now, kept from changing until the transaction ends."""
    wanted = list(keys)
    if not wanted:
        return []
    rows = await transaction.driver.fetch(
        _LOCK, *(list(part) for part in zip(*wanted, strict=True))
    )
    return [Record.decode(row[0]) for row in rows]


async def update_records(transaction: Transaction, records: Sequence[Record]) -> None:
    """Replace records whose rows this transaction has locked."""
    if records:
        await transaction.driver.execute(_UPDATE, *_columns(records))


def _columns(records: Sequence[Record]) -> list[list[Any]]:
    return [
        [record.tenant for record in records],
        [record.type for record in records],
        [record.id for record in records],
        [record.version for record in records],
        [record.source for record in records],
        [record.text("owner_id") or "" for record in records],
        [record.deleted for record in records],
        [record.encode() for record in records],
    ]


async def find_record(
    transaction: Transaction, tenant: str, kind: str, number: str
) -> Record | None:
    """One record as it is now."""
    body = await transaction.driver.fetchval(
        "SELECT body FROM record WHERE tenant = $1 AND type = $2 AND id = $3", tenant, kind, number
    )
    return None if body is None else Record.decode(body)


async def find_records(transaction: Transaction, keys: Iterable[RecordKey]) -> list[Record]:
    """Those of these records that exist, as they are now."""
    wanted = list(keys)
    if not wanted:
        return []
    rows = await transaction.driver.fetch(
        "SELECT r.body FROM record r JOIN unnest($1::text[], $2::text[], $3::text[])"
        " AS k (tenant, type, id) USING (tenant, type, id)",
        *(list(part) for part in zip(*wanted, strict=True)),
    )
    return [Record.decode(row["body"]) for row in rows]


async def owners(transaction: Transaction, tenant: str) -> list[tuple[str, str, int]]:
    """Every (source, owner id) that records have, with how many, in order."""
    rows = await transaction.driver.fetch(
        """
        SELECT source, owner_id, count(*) FROM record
        WHERE tenant = $1 AND owner_id <> '' AND NOT deleted
        GROUP BY source, owner_id ORDER BY source, owner_id
        """,
        tenant,
    )
    return [(row[0], row[1], row[2]) for row in rows]


async def put_aside(
    transaction: Transaction, items: Sequence[tuple[Received, Unreadable]]
) -> list[str]:
    """Quarantine what isn't there yet; returns the vendor of each item that is new."""
    if not items:
        return []
    rows = await transaction.driver.fetch(
        _QUARANTINE,
        [received.tenant for received, _ in items],
        [received.id for received, _ in items],
        [item.index for _, item in items],
        [received.source for received, _ in items],
        [received.vendor for received, _ in items],
        [received.received_at for received, _ in items],
        [item.reason for _, item in items],
        [item.raw for _, item in items],
        [readers.alone(received, item.raw).encode() for received, item in items],
    )
    return [row[0] for row in rows]


async def quarantined(
    transaction: Transaction,
    tenant: str,
    *,
    source: str | None = None,
    after: tuple[str, int] = ("", -1),
    limit: int,
) -> list[Quarantined]:
    """Items in the order in which they came, after the given one."""
    rows = await transaction.driver.fetch(
        """
        SELECT * FROM quarantine
        WHERE tenant = $1 AND (received, index) > ($2, $3) AND ($4::text IS NULL OR source = $4)
        ORDER BY received, index LIMIT $5
        """,
        tenant,
        *after,
        source,
        limit,
    )
    return [_quarantined(row) for row in rows]


async def find_quarantined(
    transaction: Transaction, tenant: str, received: str, index: int
) -> Quarantined | None:
    """One item."""
    row = await transaction.driver.fetchrow(
        "SELECT * FROM quarantine WHERE tenant = $1 AND received = $2 AND index = $3",
        tenant,
        received,
        index,
    )
    return None if row is None else _quarantined(row)


def _quarantined(row: Any) -> Quarantined:
    return Quarantined(**{**row, "request": Received.decode(row["request"])})


async def explain(transaction: Transaction, items: Sequence[tuple[Quarantined, str]]) -> None:
    """Give items that still can't be read their new reasons."""
    await transaction.driver.execute(
        """
        UPDATE quarantine AS q SET reason = new.e
        FROM unnest($1::text[], $2::text[], $3::int[], $4::text[]) AS new (t, r, i, e)
        WHERE (q.tenant, q.received, q.index) = (new.t, new.r, new.i)
        """,
        [item.tenant for item, _ in items],
        [item.received for item, _ in items],
        [item.index for item, _ in items],
        [reason for _, reason in items],
    )


async def release(transaction: Transaction, items: Sequence[Quarantined]) -> None:
    """Remove items that have been read after all."""
    await transaction.driver.execute(
        """
        DELETE FROM quarantine AS q USING unnest($1::text[], $2::text[], $3::int[]) AS old (t, r, i)
        WHERE (q.tenant, q.received, q.index) = (old.t, old.r, old.i)
        """,
        [item.tenant for item in items],
        [item.received for item in items],
        [item.index for item in items],
    )


async def entries(
    transaction: Transaction, tenant: str, keys: Sequence[str]
) -> dict[str, AnyEntry]:
    """The directory entries of these keys, deleted ones included."""
    rows = await transaction.driver.fetch(
        "SELECT body FROM replica WHERE tenant = $1 AND topic = $2 AND key = ANY($3::text[])",
        tenant,
        Entry.topic,
        list(keys),
    )
    found = [Entry.decode(row[0]) for row in rows]
    return {entry.key: entry for entry in found}  # type: ignore[misc]  # decode gives a variant


async def page_of_entries(
    transaction: Transaction, tenant: str, kind: str, *, after: str, limit: int
) -> list[Entry]:
    """Entries of one kind in key order, after the given id."""
    prefix = f"{tenant}/{kind}/"
    rows = transaction.driver.cursor(
        """
        SELECT body FROM replica
        WHERE tenant = $1 AND topic = $2 AND starts_with(key, $3) AND key > $4
        ORDER BY key
        """,
        tenant,
        Entry.topic,
        prefix,
        prefix + after,
    )
    page: list[Entry] = []
    async for row in rows:  # deleted entries stay in the replica, so LIMIT can't count
        entry = Entry.decode(row[0])
        if not entry.deleted:
            page.append(entry)
        if len(page) == limit:
            break
    return page


async def checksum(transaction: Transaction) -> str:
    """Digest what is derived: records without versions and provenance, quarantine, directory."""
    digest = hashlib.sha256()
    async for row in transaction.driver.cursor(
        'SELECT body FROM record ORDER BY tenant COLLATE "C", type COLLATE "C", id COLLATE "C"'
    ):
        digest.update(_derived(Record.decode(row[0])))
    async for row in transaction.driver.cursor(
        """
        SELECT tenant, received, index, source, vendor, reason, raw FROM quarantine
        ORDER BY tenant COLLATE "C", received COLLATE "C", index
        """
    ):
        digest.update(msgspec.json.encode(list(row)))
    async for row in transaction.driver.cursor(
        'SELECT tenant, topic, key, body FROM replica ORDER BY tenant, topic, key COLLATE "C"'
    ):
        digest.update(msgspec.json.encode(list(row)))
    return digest.hexdigest()


def _derived(record: Record) -> bytes:
    known = merge.Known(dict(sorted(record.fields.items())), record.stages)
    return msgspec.json.encode([record.tenant, record.type, record.id, record.source, known])
