"""Records: the last known state of everything the CRMs have told, written in key order."""

from collections.abc import Iterable, Sequence
from typing import Any

from kit.database import Transaction, columns
from schemas.crm import OPPORTUNITY, STAGE, Record

RecordKey = tuple[str, str, str]  # tenant, type, id

_INSERT = """
INSERT INTO record (tenant, type, id, version, source, owner_id, deleted, stage, body)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[],
                     $7::boolean[], $8::text[], $9::bytea[]) AS new (t, k, i, v, s, o, d, g, b)
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
UPDATE record AS r
SET version = new.v, owner_id = new.o, deleted = new.d, stage = new.g, body = new.b
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[],
            $7::boolean[], $8::text[], $9::bytea[]) AS new (t, k, i, v, s, o, d, g, b)
WHERE (r.tenant, r.type, r.id) = (new.t, new.k, new.i)
"""


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
    rows = await transaction.driver.fetch(_LOCK, *columns(wanted, 3))
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
        [record.text("stage") or "" if record.type == OPPORTUNITY else "" for record in records],
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
        *columns(wanted, 3),
    )
    return [Record.decode(row["body"]) for row in rows]


async def find_newer(transaction: Transaction, records: Iterable[Record]) -> list[Record]:
    """Those of these records that are stored with a higher version, as stored."""
    known = [(record.tenant, record.type, record.id, record.version) for record in records]
    rows = await transaction.driver.fetch(
        "SELECT r.body FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])"
        " AS k (tenant, type, id, version) JOIN record r USING (tenant, type, id)"
        " WHERE r.version > k.version",
        *columns(known, 4),
    )
    return [Record.decode(row[0]) for row in rows]


async def stage_statuses(
    transaction: Transaction, sources: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], str]:
    """What the CRMs of these (tenant, source) say their stages mean: by tenant and record id."""
    wanted = sorted(set(sources))
    rows = await transaction.driver.fetch(
        "SELECT r.tenant, r.body FROM unnest($1::text[], $2::text[]) AS wanted (tenant, source)"
        " JOIN record r ON r.tenant = wanted.tenant AND r.type = $3"
        " AND starts_with(r.id, wanted.source || ':') WHERE NOT r.deleted",
        *columns(wanted, 2),
        STAGE,
    )
    stages = [(row[0], Record.decode(row[1])) for row in rows]
    return {
        (tenant, stage.id): status
        for tenant, stage in stages
        if (status := stage.text("status")) is not None
    }


async def stages_in_use(transaction: Transaction, tenant: str, source: str) -> list[str]:
    """The stages that deals of a source are in."""
    rows = await transaction.driver.fetch(
        "SELECT DISTINCT stage FROM record WHERE tenant = $1 AND source = $2 AND stage <> ''",
        tenant,
        source,
    )
    return [row[0] for row in rows]


async def lock_deals_in_stage(
    transaction: Transaction, tenant: str, source: str, stages: Iterable[str]
) -> list[Record]:
    """The deals of a source whose stage is one of these, kept from changing."""
    rows = await transaction.driver.fetch(
        "SELECT body FROM record WHERE tenant = $1 AND source = $2 AND stage = ANY ($3::text[])"
        " AND stage <> '' ORDER BY tenant, type, id FOR UPDATE",
        tenant,
        source,
        list(stages),
    )
    return [Record.decode(row[0]) for row in rows]


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
