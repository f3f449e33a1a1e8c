"""What the tables know of an event's surroundings: what of its request, what of its record."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from kit.database import Transaction, columns
from schemas.crm import Discard


@dataclass(frozen=True, slots=True)
class PutAside:
    """An item of a request that is in quarantine."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be asked of the CRM about a record."""

    reason: str
    wanted_at: datetime
    attempts: int
    next_at: datetime
    problem: str


async def put_aside(
    transaction: Transaction, tenant: str, received: str, *, limit: int
) -> list[PutAside]:
    """What of a request is in quarantine, in its order."""
    rows = await transaction.driver.fetch(
        "SELECT index, reason FROM quarantine WHERE tenant = $1 AND received = $2"
        " ORDER BY index LIMIT $3",
        tenant,
        received,
        limit,
    )
    return [PutAside(*row) for row in rows]


async def discarded(
    transaction: Transaction, tenant: str, received: str, *, limit: int
) -> list[Discard]:
    """What of a request was given up, in its order."""
    rows = await transaction.driver.fetch(
        "SELECT body FROM replica WHERE tenant = $1 AND topic = $2 AND starts_with(key, $3)",
        tenant,
        Discard.topic,
        f"{tenant}/{received}.",
    )
    found = [Discard.decode(row["body"]) for row in rows]
    return sorted(found, key=lambda one: one.index)[:limit]


async def wanted(
    transaction: Transaction, tenant: str, places: Iterable[tuple[str, str, str]]
) -> dict[tuple[str, str, str], Wanted]:
    """What is to be asked by source, type and id; an empty id means all of the type."""
    asked = list(places)
    rows = await transaction.driver.fetch(
        "SELECT w.source, w.type, w.id, w.reason, w.wanted_at, w.attempts, w.next_at, w.problem"
        " FROM reread w JOIN unnest($2::text[], $3::text[], $4::text[]) AS k (source, type, id)"
        " USING (source, type, id) WHERE w.tenant = $1",
        tenant,
        *columns(asked, 3),
    )
    return {(row[0], row[1], row[2]): Wanted(*row[3:]) for row in rows}
