"""Every fact as it came in: where an event's trace begins, and what duplicates are counted from.

Rows are named by the request, the item's place in it and the fact's place in the item, so that a
request that is read twice after a crash leaves each once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kit.database import Transaction, columns

Place = tuple[str, int, int]  # request, index, number
FIRST: Place = ("", -1, -1)
EventRow = tuple[str, str, int, int, str, str, str, str, int, str, bytes, bytes]
MAX_VENDOR_EVENT = 128
FORGOTTEN_AT_ONCE = 20_000
MAX_SAME = 1000  # rows that tell of duplicates of a page of events
MAX_TIMES = 20  # of one contradiction
_NOT_FOR_EVER = "SET LOCAL statement_timeout = '20s'"  # a month of a large tenant is a lot

_APPEND = """
INSERT INTO event
    (tenant, received, index, number, source, type, id, op, at, vendor_event, uid, digest)
SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::int[], $5::text[], $6::text[],
                     $7::text[], $8::text[], $9::bigint[], $10::text[], $11::bytea[], $12::bytea[])
ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Event:
    """One fact as it came in."""

    received: str
    index: int
    number: int
    source: str
    type: str
    id: str
    op: str
    at: int
    vendor_event: str
    uid: bytes
    digest: bytes


_SELECT = (
    "SELECT received, index, number, source, type, id, op, at, vendor_event, uid, digest FROM event"
)


async def append(transaction: Transaction, rows: Sequence[EventRow]) -> None:
    """Keep these; those that are there already are the same."""
    if rows:
        await transaction.driver.execute(_APPEND, *columns(rows, 12))


async def of_record(
    transaction: Transaction,
    tenant: str,
    kind: str,
    ids: Sequence[str],
    *,
    after: tuple[int, str, int, int] | None = None,
    limit: int,
) -> list[Event]:
    """What was said of a record (and of those merged into it), the latest by position first.

    `after` is the position, request, index and number of the last one before.
    """
    rows = await transaction.driver.fetch(
        f"{_SELECT} WHERE tenant = $1 AND type = $2 AND id = ANY ($3::text[])"
        " AND ($5::bigint IS NULL OR (at, received, index, number) < ($5, $6, $7, $8))"
        " ORDER BY at DESC, received DESC, index DESC, number DESC LIMIT $4",
        tenant,
        kind,
        list(ids),
        limit,
        *(after or (None,) * 4),
    )
    return [Event(*row) for row in rows]


async def of_request(
    transaction: Transaction,
    tenant: str,
    received: str,
    *,
    after: Place = FIRST,
    limit: int,
) -> list[Event]:
    """What one request said, in its order."""
    rows = await transaction.driver.fetch(
        f"{_SELECT} WHERE tenant = $1 AND received = $2 AND (index, number) > ($4, $5)"
        " ORDER BY index, number LIMIT $3",
        tenant,
        received,
        limit,
        *after[1:],
    )
    return [Event(*row) for row in rows]


async def of_vendor_event(
    transaction: Transaction,
    tenant: str,
    vendor_event: str,
    *,
    after: Place = FIRST,
    limit: int,
) -> list[Event]:
    """Every time that the vendor's event of this id came in."""
    rows = await transaction.driver.fetch(
        f"{_SELECT} WHERE tenant = $1 AND vendor_event = $2"
        " AND (received, index, number) > ($4, $5, $6)"
        " ORDER BY received, index, number LIMIT $3",
        tenant,
        vendor_event[:MAX_VENDOR_EVENT],
        limit,
        *after,
    )
    return [Event(*row) for row in rows]


async def same(transaction: Transaction, tenant: str, found: Iterable[Event]) -> list[Event]:
    """Every time that these facts came in, themselves included, up to a limit."""
    wanted = list(found)
    # A fact has the same record however often it comes, and records are indexed.
    rows = await transaction.driver.fetch(
        f"{_SELECT} WHERE tenant = $1 AND id = ANY ($2::text[]) AND type = ANY ($3::text[])"
        " AND uid = ANY ($4::bytea[]) ORDER BY received, index, number LIMIT $5",
        tenant,
        list({event.id for event in wanted}),
        list({event.type for event in wanted}),
        list({event.uid for event in wanted}),
        MAX_SAME,
    )
    return [Event(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class Window:
    """Which facts are looked at: those received since one instant and before another, µs."""

    since: int
    until: int
    source: str | None = None

    @property
    def arguments(self) -> tuple[str, str, str | None]:
        """As statements take them: requests' ids begin with the time of receipt."""
        return f"{self.since:014x}", f"{self.until:014x}", self.source


@dataclass(frozen=True, slots=True)
class Counted:
    """How often a source's facts came in: `natural` ones came again, `synthetic` ones differed."""

    source: str
    events: int
    distinct: int
    natural: int
    synthetic: int


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A fact that came in with different contents: where (the first times), and what each said."""

    source: str
    uid: bytes
    type: str
    id: str
    events: int
    contents: int
    times: list[str]
    digests: list[str]


async def count_duplicates(transaction: Transaction, tenant: str, window: Window) -> list[Counted]:
    """Of each source; raises asyncpg's QueryCanceledError when the window is too large."""
    await transaction.driver.execute(_NOT_FOR_EVER)
    rows = await transaction.driver.fetch(
        """
        SELECT source, sum(n)::bigint, count(*), sum(n - d)::bigint, sum(d - 1)::bigint FROM (
            SELECT source, count(*) AS n, count(DISTINCT digest) AS d FROM event
            WHERE tenant = $1 AND received >= $2 AND received < $3
                AND ($4::text IS NULL OR source = $4)
            GROUP BY source, uid
        ) AS fact GROUP BY source ORDER BY source
        """,
        tenant,
        *window.arguments,
    )
    return [Counted(*row) for row in rows]


async def contradictions(
    transaction: Transaction, tenant: str, window: Window, *, after: bytes = b"", limit: int
) -> list[Contradiction]:
    """Synthetic duplicates by uid; raises QueryCanceledError when the window is too large."""
    await transaction.driver.execute(_NOT_FOR_EVER)
    rows = await transaction.driver.fetch(
        """
        SELECT source, uid, min(type), min(id), count(*), count(DISTINCT digest),
            (array_agg(received || '.' || index ORDER BY received, index))[1:$7::int],
            (array_agg(encode(digest, 'hex') ORDER BY received, index))[1:$7::int]
        FROM event
        WHERE tenant = $1 AND received >= $2 AND received < $3
            AND ($4::text IS NULL OR source = $4) AND uid > $5
        GROUP BY source, uid HAVING count(DISTINCT digest) > 1 ORDER BY uid LIMIT $6
        """,
        tenant,
        *window.arguments,
        after,
        limit,
        MAX_TIMES,
    )
    return [Contradiction(*row) for row in rows]


async def forget(transaction: Transaction, before: str) -> int:
    """Remove some of what was received before this id; returns how many."""
    gone = await transaction.driver.fetchval(
        """
        WITH RECURSIVE tenants AS (
            (SELECT tenant FROM event ORDER BY tenant LIMIT 1)
            UNION ALL
            SELECT (SELECT e.tenant FROM event e WHERE e.tenant > t.tenant ORDER BY 1 LIMIT 1)
            FROM tenants t WHERE t.tenant IS NOT NULL
        ), old AS (
            SELECT e.ctid FROM tenants t CROSS JOIN LATERAL (
                SELECT ctid FROM event WHERE tenant = t.tenant AND received < $1
                ORDER BY received LIMIT $2
            ) e LIMIT $2
        ), gone AS (DELETE FROM event WHERE ctid = ANY (ARRAY(SELECT ctid FROM old)) RETURNING 1)
        SELECT count(*) FROM gone
        """,
        before,
        FORGOTTEN_AT_ONCE,
    )
    return int(gone)
