"""Facts: written only by a newer version of their record.

The guard is one race-free statement, which returns what was there before.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from kit.database import Transaction, columns
from services.metrics.tables import PENDING

FactRow = tuple[
    str, str, str, int, str, str, str
]  # tenant, type, id, version, source, owner, credits
# By number of the row, from 1: the credits that it has replaced, None where it was too old to be
# written. A row that isn't in here is new.
Replaced = dict[int, str | None]
DeltaRow = tuple[str, str, str, str, str, date, int, int, int]

RECREDIT_ROWS = 5_000  # facts in memory at a time while a directory change is applied

_PENDING_COLUMNS = tuple(column.name for column in PENDING.columns)

# What is new needs no answer; the other rows do, by their number.
_UPSERT_FACTS = """
WITH given AS (
    SELECT * FROM unnest(
        $1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[]
    ) WITH ORDINALITY AS g (tenant, type, id, version, source, owner_id, credits, number)
), written AS (
    INSERT INTO fact AS f (tenant, type, id, version, source, owner_id, credits)
    SELECT tenant, type, id, version, source, owner_id, credits FROM given
    ON CONFLICT (tenant, type, id) DO UPDATE
    SET version = excluded.version, source = excluded.source, owner_id = excluded.owner_id,
        credits = excluded.credits
    WHERE f.version < excluded.version
    RETURNING new.tenant, new.type, new.id, old.credits
)
SELECT g.number, w.credits FROM given g LEFT JOIN written w USING (tenant, type, id)
WHERE w.tenant IS NULL OR w.credits IS NOT NULL
"""

_FACTS_OF_OWNERS = """
SELECT f.type, f.id, f.source, f.owner_id, f.credits
FROM unnest($2::text[], $3::text[]) AS o (source, owner_id)
JOIN fact f ON f.tenant = $1 AND f.source = o.source AND f.owner_id = o.owner_id
"""

_FACTS_OF_TENANT = "SELECT type, id, source, owner_id, credits FROM fact WHERE tenant = $1"

_RECREDIT = """
UPDATE fact f SET credits = new.credits
FROM unnest($2::text[], $3::text[], $4::text[]) AS new (type, id, credits)
WHERE f.tenant = $1 AND f.type = new.type AND f.id = new.id
"""

_RECORDS_OF = """
SELECT f.type, f.id, c.value ->> 1 AS unit, (c.value ->> 2)::bigint AS at,
    (c.value ->> 3)::bigint AS value, c.value ->> 4 AS day, c.value ->> 5 AS person
FROM fact f CROSS JOIN LATERAL jsonb_array_elements(f.credits::jsonb) AS c
WHERE f.tenant = $1 AND f.type = $2 AND f.id > $3 AND position($4::text in f.credits) > 0
    AND c.value ->> 0 = $4 AND c.value ->> 4 >= $5 AND c.value ->> 4 < $6
    AND ($7 = '' OR c.value ->> 1 = $7) AND c.value ->> 5 <> ''
    AND ($8 = 'org:all' OR $8 = 'person:' || (c.value ->> 5)
        OR ($8 LIKE 'team:%' AND c.value -> 6 ? substr($8, 6)))
    {owners}
ORDER BY f.type, f.id LIMIT $9
"""

_OF_OWNERS = "AND (f.source, f.owner_id) IN (SELECT * FROM unnest($10::text[], $11::text[]))"


@dataclass(frozen=True, slots=True)
class StoredFact:
    """A fact as it is before it is credited again."""

    type: str
    id: str
    source: str
    owner_id: str
    credits: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which records: those behind one number. `owners` narrows the search where it is known."""

    tenant: str
    record_type: str
    metric: str
    start: date
    end: date
    unit: str
    subject: str
    owners: Sequence[tuple[str, str]] | None
    after: str
    limit: int


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one record adds to a number."""

    type: str
    id: str
    unit: str
    at: int
    value: int
    day: str
    person: str


async def write_facts(transaction: Transaction, facts: Sequence[FactRow]) -> Replaced:
    """Keep those that are newer than what is there.

    The caller sorts by key, so that two batches can't wait for each other in a circle.
    """
    columns: Iterable[Any] = zip(*facts, strict=True)
    rows = await transaction.driver.fetch(_UPSERT_FACTS, *columns)
    return {row[0]: row[1] for row in rows}


async def append(transaction: Transaction, deltas: Sequence[DeltaRow]) -> None:
    """Leave deltas for the folder."""
    if deltas:
        await transaction.driver.copy_records_to_table(
            PENDING.name, records=deltas, columns=_PENDING_COLUMNS
        )


async def facts_to_recredit(
    transaction: Transaction, tenant: str, owners: Iterable[tuple[str, str]] | None
) -> AsyncIterator[list[StoredFact]]:
    """The facts of these owners, or of the whole tenant, some thousands at a time."""
    query, arguments = _FACTS_OF_TENANT, [tenant]
    if owners is not None:
        pairs = sorted(owners)
        query = _FACTS_OF_OWNERS
        arguments += [[pair[0] for pair in pairs], [pair[1] for pair in pairs]]  # type: ignore[list-item]
    cursor = await transaction.driver.cursor(query, *arguments)
    while rows := await cursor.fetch(RECREDIT_ROWS):
        yield [StoredFact(*row) for row in rows]


async def recredit(
    transaction: Transaction, tenant: str, credited: Sequence[tuple[str, str, str]]
) -> None:
    """Replace the credits of these facts (type, id, credits); versions stay."""
    if credited:
        columns: Iterable[Any] = zip(*credited, strict=True)
        await transaction.driver.execute(_RECREDIT, tenant, *columns)


async def contributions(transaction: Transaction, wanted: Wanted) -> list[Contribution]:
    """A page of the records behind a number, by record id."""
    owners = wanted.owners
    query = _RECORDS_OF.format(owners="" if owners is None else _OF_OWNERS)
    rows = await transaction.driver.fetch(
        query,
        wanted.tenant,
        wanted.record_type,
        wanted.after,
        wanted.metric,
        wanted.start.isoformat(),
        wanted.end.isoformat(),
        wanted.unit,
        wanted.subject,
        wanted.limit,
        *([] if owners is None else columns(owners, 2)),
    )
    return [Contribution(*row) for row in rows]
