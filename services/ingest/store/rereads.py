"""What is to be asked of the CRMs: one row per record, or per type where everything may be stale.

A wish is a row until an answer that was asked for after it has been read and published. Without
credentials it waits, visible. What the CRM has nothing of, however often it was asked, is parked:
asked for once a week, until an event speaks of it again or somebody wants it. Several processes
share the work: who takes wishes leases them, and whoever dies leaves them to the others when the
lease ends.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import msgspec

from kit.database import Transaction, columns

MANUAL, METADATA = "manual", "metadata"  # reasons of our own, beside those of events
# Answers in a row without a record until it is parked: half a day, with the waits in between. A
# CRM's own copies have long agreed by then, and whoever may share a record has had a working day.
PARKED_AFTER = 12
ANSWERS = ("snapshot", "deleted", "merged")  # operations of facts that answer a wish for a record

_WANT = """
INSERT INTO reread
    (tenant, source, type, id, reason, fields, wanted_at, wanted, next_at, vendor_type)
SELECT t, s, k, i, r, coalesce(string_to_array(nullif(f, ''), ','), '{}'), $9, w, $10, v
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[],
            $8::text[]) AS new (t, s, k, i, r, f, w, v)
ORDER BY t, s, k, i
ON CONFLICT (tenant, source, type, id) DO UPDATE
SET reason = excluded.reason, wanted = greatest(reread.wanted, excluded.wanted),
    next_at = CASE WHEN reread.refused >= $11 AND excluded.wanted > reread.wanted
        THEN excluded.next_at ELSE reread.next_at END,
    refused = CASE WHEN excluded.wanted > reread.wanted THEN 0 ELSE reread.refused END,
    attempts = CASE WHEN reread.refused >= $11 AND excluded.wanted > reread.wanted
        THEN 0 ELSE reread.attempts END,
    vendor_type = coalesce(nullif(excluded.vendor_type, ''), reread.vendor_type),
    fields = CASE WHEN reread.fields = '{}' OR excluded.fields = '{}' THEN '{}'
        ELSE (SELECT array_agg(DISTINCT f ORDER BY f) FROM unnest(reread.fields || excluded.fields)
            AS f) END
"""
_IS_DUE = "next_at <= $3 AND (leased_until IS NULL OR leased_until <= $3)"
# An answer that is in the log of events already, as after a rebuild: of a record any that came in
# since, of a type one that says that all of it has been read, by questions asked since.
_ANSWERED = f"""
EXISTS (
    SELECT 1 FROM event e
    WHERE e.tenant = r.tenant AND e.id = r.id AND e.type = r.type AND e.source = r.source
        AND e.op IN {ANSWERS}
        AND CASE WHEN r.id = '' THEN e.at >= r.wanted
            ELSE e.received COLLATE "C" >= lpad(to_hex(r.wanted), 14, '0') END
)
"""  # noqa: S608  # constants
_NAMED = """
unnest($3::text[], $4::text[]) AS named (k, i)
WHERE r.tenant = $1 AND r.source = $2 AND r.type = named.k AND r.id = named.i
"""


class Wish(msgspec.Struct, frozen=True):
    """One record (or, with an empty id, all of a type) to be read from the CRM."""

    tenant: str
    source: str
    type: str
    id: str
    reason: str
    wanted: int  # µs: when the request came in that says so; an answer from before is none
    fields: tuple[str, ...] = ()  # empty: all
    vendor_type: str = ""  # the vendor's name of the type, where it is known


class Leased(msgspec.Struct, frozen=True):
    """A wish in hand."""

    type: str
    id: str
    fields: tuple[str, ...]
    vendor_type: str
    attempts: int
    refused: int
    place: str


class Waiting(msgspec.Struct, frozen=True):
    """A wish as people see it."""

    source: str
    type: str
    id: str | None  # None: the whole type
    state: str
    reason: str
    fields: list[str]
    wanted_at: datetime
    attempts: int
    next_at: datetime
    problem: str


class Count(msgspec.Struct, frozen=True):
    """How many wishes of a kind there are."""

    source: str
    type: str
    reason: str
    state: str
    count: int
    oldest: datetime


Pair = tuple[str, str]  # tenant and source, or type and id


async def want(
    transaction: Transaction, wishes: Iterable[Wish], *, now: datetime, delay: timedelta
) -> None:
    """Remember what to ask for, after a while; a wish for something already wanted renews it."""
    newest = {(wish.tenant, wish.source, wish.type, wish.id): wish for wish in wishes}
    if not newest:
        return
    rows = [
        (w.tenant, w.source, w.type, w.id, w.reason, ",".join(w.fields), w.wanted, w.vendor_type)
        for w in newest.values()
    ]
    await transaction.driver.execute(_WANT, *columns(rows, 8), now, now + delay, PARKED_AFTER)


async def hasten(
    transaction: Transaction, tenant: str, source: str, kind: str, number: str, *, now: datetime
) -> None:
    """Ask for this one now, whatever has been in the way."""
    await transaction.driver.execute(
        "UPDATE reread SET next_at = $5, attempts = 0, refused = 0"
        " WHERE (tenant, source, type, id) = ($1, $2, $3, $4)",
        *(tenant, source, kind, number, now),
    )


async def due(transaction: Transaction, sources: Sequence[Pair], *, now: datetime) -> list[Pair]:
    """Those of these (tenant, source) for which there is something to ask."""
    rows = await transaction.driver.fetch(
        "SELECT t, s FROM unnest($1::text[], $2::text[]) AS asked (t, s)"  # noqa: S608  # constant
        f" WHERE EXISTS (SELECT 1 FROM reread WHERE tenant = t AND source = s AND {_IS_DUE})",
        *columns(sources, 2),
        now,
    )
    return [(row[0], row[1]) for row in rows]


async def unread(
    transaction: Transaction, types: Sequence[tuple[str, str, str]], *, since: int
) -> list[tuple[str, str, str]]:
    """Those of these (tenant, source, type) that haven't been read whole since, nor are wanted."""
    rows = await transaction.driver.fetch(
        """
        SELECT t, s, k FROM unnest($1::text[], $2::text[], $3::text[]) AS asked (t, s, k)
        WHERE NOT EXISTS (SELECT 1 FROM event e WHERE (e.tenant, e.id, e.type) = (t, '', k)
                AND e.source = s AND e.op = 'snapshot' AND e.at >= $4)
            AND NOT EXISTS (SELECT 1 FROM reread r
                WHERE (r.tenant, r.source, r.type, r.id) = (t, s, k, ''))
        """,
        *columns(types, 3),
        since,
    )
    return [(row[0], row[1], row[2]) for row in rows]


async def lease(
    transaction: Transaction,
    tenant: str,
    source: str,
    *,
    now: datetime,
    until: datetime,
    limit: int,
) -> list[Leased]:
    """Take what is due of a source, the longest due first; what is answered already goes."""
    taken = await transaction.driver.fetch(
        f"""
        SELECT type, id, {_ANSWERED} AS answered FROM reread AS r
        WHERE tenant = $1 AND source = $2 AND {_IS_DUE}
        ORDER BY next_at LIMIT $4 FOR UPDATE SKIP LOCKED
        """,  # noqa: S608  # constants
        *(tenant, source, now, limit),
    )
    await remove(transaction, tenant, source, [(row[0], row[1]) for row in taken if row[2]])
    rows = await transaction.driver.fetch(
        f"UPDATE reread AS r SET leased_until = $5 FROM {_NAMED}"  # noqa: S608  # constants
        " RETURNING r.type, r.id, r.fields, r.vendor_type, r.attempts, r.refused, r.place",
        *(tenant, source, *columns([(row[0], row[1]) for row in taken if not row[2]], 2), until),
    )
    return [Leased(row[0], row[1], tuple(row[2]), *row[3:]) for row in rows]


async def answered(
    transaction: Transaction,
    tenant: str,
    source: str,
    keys: Sequence[Pair],
    *,
    asked: int,
    again: datetime,
) -> None:
    """Remove wishes (by type and id) that are older than the question; others are due again."""
    await transaction.driver.execute(
        f"DELETE FROM reread AS r USING {_NAMED} AND r.wanted <= $5",  # noqa: S608  # constant
        *(tenant, source, *columns(keys, 2), asked),
    )
    await transaction.driver.execute(
        "UPDATE reread AS r SET leased_until = NULL, attempts = 0, refused = 0, problem = '',"  # noqa: S608
        f" place = '', next_at = $5 FROM {_NAMED}",
        *(tenant, source, *columns(keys, 2), again),
    )


async def put_off(
    transaction: Transaction,
    tenant: str,
    source: str,
    keys: Sequence[Pair],
    *,
    problem: str,
    until: Sequence[datetime],
    failed: bool,
    refused: bool,
) -> None:
    """Let wishes wait, each until its instant, with what was in the way.

    `failed`: the next wait will be longer. `refused`: the CRM has answered, and not with these.
    """
    rows = [(*key, instant) for key, instant in zip(keys, until, strict=True)]
    await transaction.driver.execute(
        """
        UPDATE reread AS r
        SET leased_until = NULL, problem = $6, next_at = named.u, attempts = r.attempts + $7,
            refused = r.refused + $8
        FROM unnest($3::text[], $4::text[], $5::timestamptz[]) AS named (k, i, u)
        WHERE r.tenant = $1 AND r.source = $2 AND r.type = named.k AND r.id = named.i
        """,
        *(tenant, source, *columns(rows, 3), problem, int(failed), int(refused)),
    )


async def go_on(
    transaction: Transaction, tenant: str, source: str, kind: str, place: str, *, now: datetime
) -> None:
    """Remember how far the reading of a type has come, for whoever goes on."""
    await transaction.driver.execute(
        "UPDATE reread SET leased_until = NULL, attempts = 0, refused = 0, problem = '',"
        " place = $4, next_at = $5 WHERE tenant = $1 AND source = $2 AND type = $3 AND id = ''",
        *(tenant, source, kind, place, now),
    )


async def remove(transaction: Transaction, tenant: str, source: str, keys: Sequence[Pair]) -> int:
    """Forget wishes; returns how many there were."""
    rows = await transaction.driver.fetch(
        f"DELETE FROM reread AS r USING {_NAMED} RETURNING 1",  # noqa: S608  # constant
        *(tenant, source, *columns(keys, 2)),
    )
    return len(rows)


_STATE = f"""
CASE WHEN NOT source = ANY ($2::text[]) THEN 'no-credentials' WHEN leased_until > $3 THEN 'asking'
    WHEN refused >= {PARKED_AFTER} THEN 'parked' WHEN problem <> '' THEN 'failing'
    ELSE 'waiting' END
"""


async def counts(
    transaction: Transaction, tenant: str, *, asked: Sequence[str], now: datetime
) -> list[Count]:
    """How many wishes wait, by source, type, reason and state; `asked`: sources that can be."""
    rows = await transaction.driver.fetch(
        f"""
        SELECT source, type, reason, {_STATE} AS state, count(*), min(wanted_at) FROM reread
        WHERE tenant = $1 GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
        """,  # noqa: S608  # constant
        *(tenant, list(asked), now),
    )
    return [Count(*row) for row in rows]


async def page(
    transaction: Transaction,
    tenant: str,
    *,
    asked: Sequence[str],
    now: datetime,
    after: tuple[str, str, str],
    limit: int,
) -> list[Waiting]:
    """Wishes by source, type and id, after the given one."""
    rows = await transaction.driver.fetch(
        f"""
        SELECT source, type, nullif(id, ''), {_STATE}, reason, fields, wanted_at, attempts,
            next_at, problem
        FROM reread WHERE tenant = $1 AND (source, type, id) > ($4, $5, $6)
        ORDER BY source, type, id LIMIT $7
        """,  # noqa: S608  # constant
        *(tenant, list(asked), now, *after, limit),
    )
    return [Waiting(*row) for row in rows]


async def by_reason(
    transaction: Transaction, sources: Sequence[Pair]
) -> list[tuple[str, int, datetime | None]]:
    """How many wait for each reason, and since when the oldest that could be asked for.

    What is parked waits too, but for nothing that would come by itself.
    """
    rows = await transaction.driver.fetch(
        """
        SELECT r.reason, count(*), min(r.wanted_at) FILTER (WHERE a.t IS NOT NULL AND refused < $3)
        FROM reread r LEFT JOIN unnest($1::text[], $2::text[]) AS a (t, s)
            ON (a.t, a.s) = (r.tenant, r.source)
        GROUP BY r.reason
        """,
        *columns(sources, 2),
        PARKED_AFTER,
    )
    return [(row[0], row[1], row[2]) for row in rows]
