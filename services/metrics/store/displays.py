"""What each display was last told, or is to be told."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from kit.database import Transaction, columns
from services.metrics.domain.displays import Places

Slot = tuple[str, str]  # tenant, display

_KEPT = "SELECT tenant, id, document, places FROM display"

_FORGET = """
DELETE FROM display USING unnest($1::text[], $2::text[]) AS gone (t, i) WHERE (tenant, id) = (t, i)
"""

# A failing receiver keeps its pause however often the order changes, unless it is another one now.
_PUT = """
INSERT INTO display AS d
    (tenant, id, document, places, event, body, made_at, due_at, failures, status)
SELECT t, i, v, p, e, b, $7, $7, 0, '' FROM unnest(
    $1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::bytea[]
) AS n (t, i, v, p, e, b)
ON CONFLICT (tenant, id) DO UPDATE SET
    document = excluded.document, places = excluded.places, event = excluded.event,
    body = excluded.body, made_at = excluded.made_at,
    due_at = CASE WHEN d.document = excluded.document
        THEN coalesce(d.due_at, excluded.due_at) ELSE excluded.due_at END,
    failures = CASE WHEN d.document = excluded.document THEN d.failures ELSE 0 END
"""

_TAKE = """
UPDATE display AS d SET due_at = $1::timestamptz + $2::interval
FROM (
    SELECT tenant, id FROM display WHERE due_at <= $1 ORDER BY due_at LIMIT $3
    FOR UPDATE SKIP LOCKED
) AS due
WHERE (d.tenant, d.id) = (due.tenant, due.id)
RETURNING d.tenant, d.id, d.document, d.event, d.body, d.made_at, d.failures
"""

# What has changed while it was sent is due at once.
_TAKEN = """
UPDATE display SET delivered = $3, delivered_at = $4::timestamptz, failures = 0, status = $5,
    due_at = CASE WHEN event = $3 THEN NULL ELSE $4::timestamptz END
WHERE tenant = $1 AND id = $2 AND document = $6
"""

_FAILED = """
UPDATE display SET failures = failures + 1, status = $3, due_at = $4
WHERE tenant = $1 AND id = $2 AND document = $5
"""

_DELIVERY = """
SELECT event, made_at, due_at, failures, delivered, delivered_at, status
FROM display WHERE tenant = $1 AND id = $2
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """For which version of its document a display was last told something, and what order."""

    document: int
    places: Places


@dataclass(frozen=True, slots=True)
class News:
    """What a display is to be told."""

    tenant: str
    id: str
    document: int
    places: Places
    event: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be sent now."""

    tenant: str
    id: str
    document: int
    event: str
    body: bytes
    made_at: datetime
    failures: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """How far the last event of a display is."""

    event: str
    made_at: datetime
    due_at: datetime | None
    failures: int
    delivered: str
    delivered_at: datetime | None
    status: str

    @property
    def state(self) -> str:
        """In a word."""
        if self.due_at is not None:
            return "waiting"
        return "delivered" if self.delivered == self.event else "given up"


async def kept(transaction: Transaction) -> dict[Slot, Kept]:
    """What is known of all displays."""
    rows = await transaction.driver.fetch(_KEPT)
    return {
        (tenant, number): Kept(document, [(place, subject) for place, subject in json.loads(order)])
        for tenant, number, document, order in rows
    }


async def put(transaction: Transaction, news: Sequence[News], now: datetime) -> None:
    """Have these sent, in place of what the displays haven't been told yet."""
    rows = [(n.tenant, n.id, n.document, json.dumps(n.places), n.event, n.body) for n in news]
    await transaction.driver.execute(_PUT, *columns(sorted(rows), 6), now)


async def forget(transaction: Transaction, gone: Iterable[Slot]) -> None:
    """Remove displays that are no more."""
    await transaction.driver.execute(_FORGET, *columns(sorted(gone), 2))


async def take(
    transaction: Transaction, now: datetime, *, lease: timedelta, limit: int
) -> list[Due]:
    """What is due; nobody else gets it, unless we have said nothing until the lease ends."""
    rows = await transaction.driver.fetch(_TAKE, now, lease, limit)
    return [Due(*row) for row in rows]


async def taken(transaction: Transaction, due: Due, now: datetime, status: str) -> None:
    """The receiver has it."""
    await transaction.driver.execute(
        _TAKEN, due.tenant, due.id, due.event, now, status, due.document
    )


async def failed(transaction: Transaction, due: Due, again: datetime | None, status: str) -> None:
    """The receiver doesn't; None gives up."""
    await transaction.driver.execute(_FAILED, due.tenant, due.id, status, again, due.document)


async def delivery(transaction: Transaction, tenant: str, number: str) -> Delivery | None:
    """How far a display's last event is; None before there was one."""
    row = await transaction.driver.fetchrow(_DELIVERY, tenant, number)
    return None if row is None else Delivery(*row)
