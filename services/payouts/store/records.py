"""Creditable records as last seen, kept so that they can be credited again."""

from collections.abc import Iterable
from typing import Any

import msgspec

from kit.database import Transaction, columns
from schemas.crm import Field, Record
from services.payouts.domain.keys import RecordKey, key_of
from services.payouts.store.arrays import JSON

CHUNK = 5000  # records read at once when everything is credited again

_FIELDS = msgspec.json.Decoder(dict[str, str | int | bool | None])

_KEEP = """
INSERT INTO record AS r (tenant, type, id, version, deleted, source, owner_id, fields)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::boolean[],
                     $6::text[], $7::text[], $8::text[])
ON CONFLICT (tenant, type, id) DO UPDATE SET
    version = excluded.version, deleted = excluded.deleted, source = excluded.source,
    owner_id = excluded.owner_id, fields = excluded.fields
WHERE r.version < excluded.version
RETURNING new.tenant, new.type, new.id
"""


async def keep_records(transaction: Transaction, records: Iterable[Record]) -> set[RecordKey]:
    """Remember those that are newer than what is known, and say which they are."""
    rows = sorted(
        (
            *key_of(record),
            record.version,
            record.deleted,
            record.source,
            record.text("owner_id") or "",
            _known_fields(record),
        )
        for record in records
    )
    if not rows:
        return set()
    found = await transaction.driver.fetch(_KEEP, *columns(rows, 8))
    return {RecordKey(*row) for row in found}


def _known_fields(record: Record) -> str:
    if record.deleted:
        return "{}"
    known = {name: f.value for name, f in record.fields.items() if f.state == "value"}
    return JSON.encode(known).decode()


_SELECT_RECORDS = """
SELECT tenant, type, id, version, deleted, source, fields FROM record r
WHERE tenant = $1 AND (type, id) > ($2, $3) {owned}
ORDER BY type, id LIMIT $4
"""
_OWNED = """
AND (source, owner_id) IN (SELECT * FROM unnest($5::text[], $6::text[]))
"""


async def records_after(
    transaction: Transaction,
    tenant: str,
    owners: set[tuple[str, str]] | None,
    after: tuple[str, str] = ("", ""),
) -> list[Record]:
    """The next records of these owners (None: of all) after (type, id)."""
    arguments: list[Any] = [tenant, *after, CHUNK]
    if owners is not None:
        arguments += columns(sorted(owners), 2)
    query = _SELECT_RECORDS.format(owned=_OWNED if owners is not None else "")
    rows = await transaction.driver.fetch(query, *arguments)
    return [
        Record(
            tenant=row["tenant"],
            version=row["version"],
            type=row["type"],
            id=row["id"],
            source=row["source"],
            vendor="",
            fields={
                name: Field("value", value, 0, "")
                for name, value in _FIELDS.decode(row["fields"]).items()
            },
            deleted=row["deleted"],
        )
        for row in rows
    ]
