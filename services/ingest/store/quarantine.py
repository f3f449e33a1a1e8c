"""Quarantine: what could not be read, with its bytes and the reason, until it can be.

Or until it is given up. That is a state of its own, so that the item stays away however often its
request is read again, and in whichever order the two come.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kit.database import Transaction, columns
from kit.replica import Replica
from schemas.crm import Discard, Received
from services.ingest.domain import readers
from services.ingest.domain.facts import Unreadable

_QUARANTINE = """
INSERT INTO quarantine
    (tenant, received, index, source, vendor, received_at, reason, raw, request)
SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[],
                     $6::timestamptz[], $7::text[], $8::bytea[], $9::bytea[])
    AS new (t, r, i, s, v, a, e, w, q)
WHERE NOT EXISTS (
    SELECT FROM replica WHERE tenant = t AND topic = $10 AND key = t || '/' || r || '.' || i
)
ORDER BY t, r, i
ON CONFLICT (tenant, received, index) DO NOTHING
RETURNING vendor
"""

_DISCARDS: Replica[Discard] = Replica(Discard)


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


async def put_aside(
    transaction: Transaction, items: Sequence[tuple[Received, int, Unreadable]]
) -> list[str]:
    """Quarantine what is neither there nor given up; returns the vendors of what is new."""
    if not items:
        return []
    await _DISCARDS.share(transaction, {received.tenant for received, _, _ in items})
    rows = await transaction.driver.fetch(
        _QUARANTINE,
        [received.tenant for received, _, _ in items],
        [received.id for received, _, _ in items],
        [index for _, index, _ in items],
        [received.source for received, _, _ in items],
        [received.vendor for received, _, _ in items],
        [received.received_at for received, _, _ in items],
        [item.reason for _, _, item in items],
        [item.raw for _, _, item in items],
        [readers.alone(received, item.raw).encode() for received, _, item in items],
        Discard.topic,
    )
    return [row[0] for row in rows]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which items are meant; None means any. `reason` is a part of the reason's words."""

    source: str | None = None
    vendor: str | None = None
    reason: str | None = None

    @property
    def arguments(self) -> tuple[str | None, str | None, str | None]:
        """As statements take them."""
        return self.source, self.vendor, self.reason


ANY = Filter()


async def quarantined(
    transaction: Transaction,
    tenant: str,
    *,
    meant: Filter = ANY,
    after: tuple[str, int] = ("", -1),
    limit: int,
) -> list[Quarantined]:
    """Items in the order in which they came, after the given one."""
    rows = await transaction.driver.fetch(
        """
        SELECT * FROM quarantine
        WHERE tenant = $1 AND ($2::text IS NULL OR source = $2)
            AND ($3::text IS NULL OR vendor = $3)
            AND ($4::text IS NULL OR strpos(lower(reason), lower($4)) > 0)
            AND (received, index) > ($5, $6)
        ORDER BY received, index LIMIT $7
        """,
        tenant,
        *meant.arguments,
        *after,
        limit,
    )
    return [_quarantined(row) for row in rows]


@dataclass(frozen=True, slots=True)
class Reason:
    """How many items of a source share a reason, and since when they have come."""

    source: str
    vendor: str
    reason: str
    items: int
    first_received_at: datetime
    last_received_at: datetime


async def reasons(
    transaction: Transaction, tenant: str, *, meant: Filter = ANY, limit: int
) -> list[Reason]:
    """The commonest reasons first."""
    rows = await transaction.driver.fetch(
        """
        SELECT source, vendor, reason, count(*), min(received_at), max(received_at)
        FROM quarantine
        WHERE tenant = $1 AND ($2::text IS NULL OR source = $2)
            AND ($3::text IS NULL OR vendor = $3)
            AND ($4::text IS NULL OR strpos(lower(reason), lower($4)) > 0)
        GROUP BY source, vendor, reason ORDER BY count(*) DESC, source, vendor, reason LIMIT $5
        """,
        tenant,
        *meant.arguments,
        limit,
    )
    return [Reason(*row) for row in rows]


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
    await _remove(transaction, [(item.tenant, item.received, item.index) for item in items])


async def discard(transaction: Transaction, decisions: Sequence[Discard]) -> None:
    """Give items up, those too that have not come yet: their bytes go, the decisions stay."""
    await _DISCARDS.store(transaction, decisions)
    await _remove(transaction, [(one.tenant, one.received, one.index) for one in decisions])


async def _remove(transaction: Transaction, places: Sequence[tuple[str, str, int]]) -> None:
    if places:
        await transaction.driver.execute(
            "DELETE FROM quarantine AS q"
            " USING unnest($1::text[], $2::text[], $3::int[]) AS old (t, r, i)"
            " WHERE (q.tenant, q.received, q.index) = (old.t, old.r, old.i)",
            *columns(places, 3),
        )
