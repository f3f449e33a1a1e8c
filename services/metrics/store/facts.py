"""Facts: written only by a newer version of their record.

The guard is one race-free statement, which returns what was there before.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from typing import Any

from kit.database import Transaction, columns
from services.metrics.tables import PENDING

# tenant, type, id, version, source, owner, shares, territories, name, credits
FactRow = tuple[str, str, str, int, str, str, str, str, str, str]
# By number of the row, from 1: the credits that it has replaced, None where it was too old to be
# written. A row that isn't in here is new.
Replaced = dict[int, str | None]
DeltaRow = tuple[str, str, str, str, str, date, int, int, int]

FIRST = ("", -1)  # before the first credit of the first record
RECREDIT_ROWS = 5_000  # facts in memory at a time while a directory change is applied

_PENDING_COLUMNS = tuple(column.name for column in PENDING.columns)

# What is new needs no answer; the other rows do, by their number.
_UPSERT_FACTS = """
WITH given AS (
    SELECT * FROM unnest(
        $1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[],
        $8::text[], $9::text[], $10::text[]
    ) WITH ORDINALITY AS g (
        tenant, type, id, version, source, owner_id, shares, territories, name, credits, number
    )
), written AS (
    INSERT INTO fact AS f (
        tenant, type, id, version, source, owner_id, shares, territories, name, credits
    )
    SELECT tenant, type, id, version, source, owner_id, shares, territories, name, credits
    FROM given
    ON CONFLICT (tenant, type, id) DO UPDATE
    SET version = excluded.version, source = excluded.source, owner_id = excluded.owner_id,
        shares = excluded.shares, territories = excluded.territories, name = excluded.name,
        credits = excluded.credits
    WHERE f.version {newer} excluded.version
    RETURNING new.tenant, new.type, new.id, old.credits
)
SELECT g.number, w.credits FROM given g LEFT JOIN written w USING (tenant, type, id)
WHERE w.tenant IS NULL OR w.credits IS NOT NULL
"""
_UPSERT_NEWER = _UPSERT_FACTS.format(newer="<")
_UPSERT_AGAIN = _UPSERT_FACTS.format(newer="<=")

_SHARE = """
INSERT INTO shared_fact (tenant, source, owner_id, type, id)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
ON CONFLICT DO NOTHING
"""

_FACTS_OF_OWNERS = """
WITH o AS (SELECT * FROM unnest($2::text[], $3::text[]) AS o (source, owner_id))
SELECT f.type, f.id, f.source, f.owner_id, f.shares, f.territories, f.credits
FROM o JOIN fact f ON f.tenant = $1 AND f.source = o.source AND f.owner_id = o.owner_id
UNION
SELECT f.type, f.id, f.source, f.owner_id, f.shares, f.territories, f.credits
FROM o JOIN shared_fact s ON s.tenant = $1 AND s.source = o.source AND s.owner_id = o.owner_id
JOIN fact f ON f.tenant = $1 AND f.type = s.type AND f.id = s.id
"""

_FACTS_OF_TENANT = """
SELECT type, id, source, owner_id, shares, territories, credits FROM fact WHERE tenant = $1
"""

_RECREDIT = """
UPDATE fact f SET credits = new.credits
FROM unnest($2::text[], $3::text[], $4::text[]) AS new (type, id, credits)
WHERE f.tenant = $1 AND f.type = new.type AND f.id = new.id
"""

# A shared record has a credit for each of several people: it is a row for each.
_CREDITS_BEHIND = """
SELECT f.type, f.id, f.name, c.number - 1, c.value ->> 1, (c.value ->> 2)::bigint,
    (c.value ->> 3)::bigint, c.value ->> 4, c.value ->> 5
FROM fact f CROSS JOIN LATERAL jsonb_array_elements(f.credits::jsonb) WITH ORDINALITY
    AS c (value, number)
WHERE f.tenant = $1 AND f.type = $2 AND f.id >= $3 AND (f.id, c.number - 1) > ($3, $4::bigint)
    AND position($5::text in f.credits) > 0
    AND c.value ->> 0 = $5 AND c.value ->> 4 >= $6 AND c.value ->> 4 < $7
    AND ($8 = '' OR c.value ->> 1 = $8) AND c.value ->> 5 <> ''
    AND ($9 = 'org:all' OR $9 = 'person:' || (c.value ->> 5) OR c.value -> 6 ? $9)
    {owners}
ORDER BY f.id, c.number LIMIT $10
"""

_OF_OWNERS = """
    AND ((f.source, f.owner_id) IN (SELECT * FROM unnest(${first}::text[], ${second}::text[]))
        OR f.shares <> '')
"""

# The one or two values in the middle.
_MIDDLE = """
SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY value),
    percentile_disc(0.5) WITHIN GROUP (ORDER BY value DESC)
FROM (
    SELECT (c.value ->> 3)::bigint AS value
    FROM fact f CROSS JOIN LATERAL jsonb_array_elements(f.credits::jsonb) AS c (value)
    WHERE f.tenant = $1 AND f.type = $2 AND position($3::text in f.credits) > 0
        AND c.value ->> 0 = $3 AND c.value ->> 4 >= $4 AND c.value ->> 4 < $5
        AND ($6 = '' OR c.value ->> 1 = $6) AND c.value ->> 5 <> ''
        AND ($7 = 'org:all' OR $7 = 'person:' || (c.value ->> 5) OR c.value -> 6 ? $7)
        {owners}
) AS v
"""

# By owner, so that an index leads to the facts of a person or team.
_HOURS = """
WITH o AS (SELECT * FROM unnest($2::text[], $3::text[]) AS o (source, owner_id))
SELECT extract(isodow FROM l.at)::int, extract(hour FROM l.at)::int, count(*)
FROM o JOIN fact f ON f.tenant = $1 AND f.source = o.source AND f.owner_id = o.owner_id
    AND f.type = $4 AND position($5::text in f.credits) > 0
CROSS JOIN LATERAL jsonb_array_elements(f.credits::jsonb) AS c (value)
CROSS JOIN LATERAL (
    SELECT to_timestamp((c.value ->> 2)::bigint) AT TIME ZONE $6 AS at
) AS l
WHERE c.value ->> 0 = $5 AND c.value ->> 4 >= $7 AND c.value ->> 4 < $8
    AND ($9 = 'person:' || (c.value ->> 5) OR c.value -> 6 ? $9)
GROUP BY 1, 2 ORDER BY 1, 2
"""

_NAMES = "SELECT id, name FROM fact WHERE tenant = $1 AND type = $2 AND name <> ''"


@dataclass(frozen=True, slots=True)
class StoredFact:
    """A fact as it is before it is credited again."""

    type: str
    id: str
    source: str
    owner_id: str
    shares: str
    territories: str
    credits: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which credits: those behind one number. `owners` narrows the search where it is known."""

    tenant: str
    record_type: str
    metric: str
    start: date
    end: date
    unit: str
    subject: str
    owners: Sequence[tuple[str, str]] | None
    after: tuple[str, int]  # record id and number of the last one seen
    limit: int


@dataclass(frozen=True, slots=True)
class CreditBehind:
    """What one record adds to a number for one person."""

    type: str
    id: str
    name: str
    number: int  # of the credit among the record's
    unit: str
    at: int
    value: int
    day: str
    person: str


async def write_facts(
    transaction: Transaction, facts: Sequence[FactRow], *, again: bool = False
) -> Replaced:
    """Keep those that are newer than what is there; `again`, also those that are as new.

    The caller sorts by key, so that two batches can't wait for each other in a circle.
    """
    columns: Iterable[Any] = zip(*facts, strict=True)
    rows = await transaction.driver.fetch(_UPSERT_AGAIN if again else _UPSERT_NEWER, *columns)
    return {row[0]: row[1] for row in rows}


async def share(transaction: Transaction, shared: Iterable[tuple[str, str, str, str, str]]) -> None:
    """Remember who has a share of which record (tenant, source, owner, type, id).

    Who no longer has one may stay: this only finds facts that may have to be credited again.
    """
    rows = sorted(set(shared))
    if rows:
        await transaction.driver.execute(_SHARE, *columns(rows, 5))


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


async def any_facts(transaction: Transaction, tenant: str) -> bool:
    """Whether the tenant has facts."""
    query = "SELECT EXISTS (SELECT FROM fact WHERE tenant = $1)"
    return bool(await transaction.driver.fetchval(query, tenant))


async def tenants(transaction: Transaction) -> list[str]:
    """Every tenant with facts."""
    rows = await transaction.driver.fetch(
        # One look into the index for each of them, however many facts they have.
        "WITH RECURSIVE t AS ((SELECT tenant FROM fact ORDER BY tenant LIMIT 1) UNION ALL"
        " SELECT (SELECT f.tenant FROM fact f WHERE f.tenant > t.tenant ORDER BY 1 LIMIT 1)"
        " FROM t WHERE t.tenant IS NOT NULL) SELECT tenant FROM t WHERE tenant IS NOT NULL"
    )
    return [row[0] for row in rows]


async def credits_behind(transaction: Transaction, wanted: Wanted) -> list[CreditBehind]:
    """A page of the credits behind a number, by record id."""
    owners = wanted.owners
    narrowed = "" if owners is None else _OF_OWNERS.format(first=11, second=12)
    query = _CREDITS_BEHIND.format(owners=narrowed)
    rows = await transaction.driver.fetch(
        query,
        wanted.tenant,
        wanted.record_type,
        *wanted.after,
        wanted.metric,
        wanted.start.isoformat(),
        wanted.end.isoformat(),
        wanted.unit,
        wanted.subject,
        wanted.limit,
        *([] if owners is None else columns(owners, 2)),
    )
    return [CreditBehind(*row) for row in rows]


async def median(transaction: Transaction, wanted: Wanted) -> Fraction | None:
    """The middle one of the values behind a number, or the mean of two; None without any."""
    owners = wanted.owners
    narrowed = "" if owners is None else _OF_OWNERS.format(first=8, second=9)
    low, high = await transaction.driver.fetchrow(
        _MIDDLE.format(owners=narrowed),
        wanted.tenant,
        wanted.record_type,
        wanted.metric,
        wanted.start.isoformat(),
        wanted.end.isoformat(),
        wanted.unit,
        wanted.subject,
        *([] if owners is None else columns(owners, 2)),
    )
    return None if low is None else Fraction(low + high, 2)


async def hours(
    transaction: Transaction, wanted: Wanted, owners: Sequence[tuple[str, str]], *, zone: str
) -> list[tuple[int, int, int]]:
    """How many credits of records of these owners fall on which weekday (1 is Monday) and hour.

    Hours are local to `zone`; what others share with the subject is left out.
    """
    rows = await transaction.driver.fetch(
        _HOURS,
        wanted.tenant,
        *columns(owners, 2),
        wanted.record_type,
        wanted.metric,
        zone,
        wanted.start.isoformat(),
        wanted.end.isoformat(),
        wanted.subject,
    )
    return [(row[0], row[1], row[2]) for row in rows]


async def names(transaction: Transaction, tenant: str, record_type: str) -> dict[str, str]:
    """What people call the records of a type; for the few of stages, pipelines and the like."""
    rows = await transaction.driver.fetch(_NAMES, tenant, record_type)
    return {row[0]: row[1] for row in rows}
