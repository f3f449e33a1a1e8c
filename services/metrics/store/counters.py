"""Counters: written by the one folder, while everybody else appends to `pending`.

A reader that must be exact (of single numbers here, of slices for boards) adds what is pending to
the counter, in one statement and thus in one snapshot.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from kit.database import Database, Transaction, columns
from schemas.periods import GRAINS

FOLD_LOCK = "metrics/fold"
MOST_CHANGES = 20_000  # counters of a tenant: who wants those of a larger fold looks at them all
CHANGES_SECONDS = 15.0  # kept at least: far longer than anybody takes who follows the folds

_TAKE_PENDING = """
WITH taken AS (
    DELETE FROM pending WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM pending WHERE tenant <> ALL ($2::text[])
            AND ($3::text IS NULL OR tenant = $3) LIMIT $1
    ))
    RETURNING *
)
SELECT tenant, metric, unit, person, subjects, day, sum(value)::bigint AS value,
    sum(count)::bigint AS count, coalesce(min(nullif(received, 0)), 0) AS received,
    count(*) AS deltas
FROM taken GROUP BY tenant, metric, unit, person, subjects, day
"""

# Every delta counts for the person, everything above and the organisation, in all periods.
# Subjects first: most deltas of a fold share the day, so that few rows are left for the periods.
_FOLD = """
WITH delta AS (
    SELECT * FROM unnest(
        $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[],
        {arrays}
    ) AS d (tenant, metric, unit, person, subjects, value, count, {starts})
), of_day AS MATERIALIZED (
    SELECT d.tenant, d.metric, d.unit, s.subject, {d_starts},
        sum(d.value)::bigint AS value, sum(d.count)::bigint AS count
    FROM delta d
    CROSS JOIN LATERAL (
        SELECT 'org:all'
        UNION ALL SELECT 'person:' || d.person WHERE d.person <> ''
        UNION ALL SELECT t FROM unnest(string_to_array(d.subjects, chr(31))) t WHERE t <> ''
    ) AS s (subject)
    GROUP BY d.tenant, d.metric, d.unit, s.subject, {d_starts}
), summed AS (
    SELECT tenant, metric, {grain} AS grain, {start} AS start, unit, subject,
        sum(value)::bigint AS value, sum(count)::bigint AS count
    FROM of_day GROUP BY GROUPING SETS ({sets})
    HAVING sum(value) <> 0 OR sum(count) <> 0
), of_tenant AS (
    -- Also those of whom nothing is left to add: what was pending is not any more.
    SELECT tenant, count(s.metric) <= {most} AS few
    FROM (SELECT DISTINCT tenant FROM delta) AS d LEFT JOIN summed s USING (tenant)
    GROUP BY tenant
), forgotten AS (
    DELETE FROM slice_change USING of_tenant
    -- Also those of a clock that was ahead: until it is as late as that, nothing would be old.
    WHERE slice_change.tenant = of_tenant.tenant
        AND version NOT BETWEEN {version} - {kept} AND {version} + {kept}
    RETURNING slice_change.tenant, version
), moved AS (
    -- Never behind an earlier sequence, whatever the clocks of two replicas say: who reads only
    -- what has changed since then finds it by its version.
    INSERT INTO fold_state AS s (tenant, sequence, changes_from)
    SELECT t.tenant, {version}, CASE WHEN few THEN coalesce(max(f.version), 0) ELSE {version} END
    FROM of_tenant t LEFT JOIN forgotten f USING (tenant)
    GROUP BY t.tenant, few ORDER BY t.tenant
    ON CONFLICT (tenant) DO UPDATE SET
        sequence = greatest(s.sequence + 1, excluded.sequence),
        changes_from = CASE WHEN excluded.changes_from = excluded.sequence
            THEN greatest(s.sequence + 1, excluded.sequence)
            ELSE greatest(s.changes_from, excluded.changes_from) END
    RETURNING tenant, sequence
), updated AS (
    UPDATE counter AS c SET value = c.value + s.value, count = c.count + s.count,
        version = greatest(c.version + 1, m.sequence)
    FROM summed s JOIN moved m USING (tenant)
    WHERE c.tenant = s.tenant AND c.metric = s.metric AND c.grain = s.grain AND c.start = s.start
        AND c.unit = s.unit AND c.subject = s.subject
    RETURNING c.tenant, c.metric, c.grain, c.start, c.unit, c.subject, c.version, c.value, c.count
), inserted AS (
    -- Not by ON CONFLICT, which takes a third longer: nobody else writes counters meanwhile.
    INSERT INTO counter AS c (tenant, metric, grain, start, unit, subject, value, count, version)
    SELECT tenant, metric, grain, start, unit, subject, s.value, s.count, m.sequence
    FROM summed s JOIN moved m USING (tenant)
    LEFT JOIN updated u USING (tenant, metric, grain, start, unit, subject)
    WHERE u.tenant IS NULL
    ORDER BY 1, 2, 3, 4, 5, 6
    RETURNING c.tenant, c.metric, c.grain, c.start, c.unit, c.subject, c.version, c.value, c.count
), folded AS (
    SELECT * FROM updated UNION ALL SELECT * FROM inserted
), touched AS (
    INSERT INTO unpublished AS u
    SELECT f.tenant, f.metric, f.grain, f.start, f.unit, f.subject, f.version FROM folded f
    JOIN unnest({published}) AS p (tenant, metric, grain) USING (tenant, metric, grain)
    ORDER BY 1, 2, 3, 4, 5, 6  -- as whoever publishes locks them
    ON CONFLICT (tenant, metric, grain, start, unit, subject) DO UPDATE
    SET version = excluded.version
)
INSERT INTO slice_change
    (tenant, version, metric, grain, start, unit, subjects, values, counts)
SELECT tenant, sequence, metric, grain, start, unit,
    array_agg(subject), array_agg(value), array_agg(count)
FROM folded JOIN moved USING (tenant) JOIN of_tenant USING (tenant)
WHERE few GROUP BY tenant, sequence, metric, grain, start, unit
"""


def _fold_statement() -> str:
    first, end = 8, 8 + len(GRAINS)
    return _FOLD.format(
        arrays=", ".join(f"${n}::date[]" for n in range(first, end)),
        starts=", ".join(f"{grain}_" for grain in GRAINS),
        d_starts=", ".join(f"d.{grain}_" for grain in GRAINS),
        # Of each set only the start that it groups by is not null.
        grain="CASE " + " ".join(f"WHEN {g}_ IS NOT NULL THEN '{g}'" for g in GRAINS) + " END",
        start=f"coalesce({', '.join(f'{grain}_' for grain in GRAINS)})",
        sets=", ".join(f"(tenant, metric, unit, subject, {grain}_)" for grain in GRAINS),
        version=f"${end}::bigint",
        kept=f"${end + 1}::bigint",
        most=f"${end + 2}::bigint",
        published=", ".join(f"${end + n}::text[]" for n in (3, 4, 5)),
    )


_FOLD_STATEMENT = _fold_statement()

# PostgreSQL keeps its plan, which it doesn't for an array of tenants: half the time.
_INSTANT = """
SELECT coalesce((SELECT sequence FROM fold_state WHERE tenant = $1), 0),
    (SELECT count(*) FROM pending WHERE tenant = $1)
"""

_INSTANTS = """
SELECT tenant, coalesce(f.sequence, 0), coalesce(p.count, 0)
FROM unnest($1::text[]) AS t (tenant)
LEFT JOIN fold_state f USING (tenant)
LEFT JOIN (
    SELECT tenant, count(*) FROM pending WHERE tenant = ANY ($1::text[]) GROUP BY tenant
) AS p USING (tenant)
"""

_BUMP = """
INSERT INTO fold_state AS s (tenant, sequence, changes_from)
SELECT tenant, $2, 0 FROM unnest($1::text[]) AS t (tenant) ORDER BY tenant
ON CONFLICT (tenant) DO UPDATE SET sequence = greatest(s.sequence + 1, excluded.sequence)
"""

# Sums of a window: one counter of a calendar period, or the days of any other window. They are no
# bigints: what is pending may not fit into a counter.
_EXACT = """
SELECT metric, subject, unit, sum(value) AS value, sum(count) AS count FROM (
    SELECT metric, subject, unit, value, count FROM counter
    WHERE tenant = $1 AND metric = ANY ($2::text[]) AND grain = $3 AND start >= $4 AND start < $5
        AND subject = ANY ($6::text[])
    UNION ALL
    SELECT p.metric, s.subject, p.unit, p.value, p.count
    -- Not each delta's subjects, of which most aren't asked for: that takes twice as long for one.
    FROM pending p JOIN unnest($6::text[]) AS s (subject) ON s.subject = 'org:all'
        OR s.subject = 'person:' || p.person
        OR s.subject = ANY (string_to_array(p.subjects, chr(31)))
    WHERE tenant = $1 AND metric = ANY ($2::text[]) AND day >= $4 AND day < $5
) AS parts
GROUP BY metric, subject, unit HAVING sum(count) <> 0 ORDER BY metric, subject, unit
"""

_OF_KIND_IN_PERIOD = """
SELECT metric, subject, unit, value, count FROM counter
WHERE tenant = $1 AND metric = ANY ($2::text[]) AND grain = $3 AND start = $4
    AND unit = ANY ($5::text[]) AND count <> 0 AND starts_with(subject, $6)
"""

_OF_KIND_IN_DAYS = """
SELECT metric, subject, unit, sum(value)::bigint, sum(count)::bigint FROM counter
WHERE tenant = $1 AND metric = ANY ($2::text[]) AND grain = 'day' AND start >= $3 AND start < $4
    AND unit = ANY ($5::text[]) AND count <> 0 AND starts_with(subject, $6)
GROUP BY metric, subject, unit HAVING sum(count) <> 0
"""

_VARIANTS = """
SELECT metric, unit, sum(value)::bigint, sum(count)::bigint FROM counter
WHERE tenant = $1 AND starts_with(metric, $2 || '@') AND grain = $3 AND start >= $4 AND start < $5
    AND subject = $6 AND count <> 0
GROUP BY metric, unit HAVING sum(count) <> 0 ORDER BY metric, unit
"""

_SERIES = """
SELECT metric, start, unit, value, count FROM counter
WHERE tenant = $1 AND metric = ANY ($2::text[]) AND grain = $3 AND start >= $4 AND start < $5
    AND subject = $6 AND count <> 0
ORDER BY metric, start, unit
"""

_COUNTERS = """
SELECT metric, grain, start, unit, subject, value, count FROM counter
WHERE tenant = $1 AND count <> 0 AND ($2 = '' OR metric = $2)
    AND ($3 = '' OR (grain = $3 AND start = $4::date))
    AND ($5::text IS NULL
        OR (metric, grain, start, unit, subject) > ($5, $6::text, $7::date, $8::text, $9::text))
ORDER BY metric, grain, start, unit, subject LIMIT $10
"""

# Zero instead of gone: versions go on, and what was published is corrected. Who follows the folds
# has to look at all counters once.
_RESET = """
WITH moved AS (
    INSERT INTO fold_state AS s (tenant, sequence, changes_from) VALUES ($1, $2, $2)
    ON CONFLICT (tenant) DO UPDATE SET
        sequence = greatest(s.sequence + 1, excluded.sequence),
        changes_from = greatest(s.sequence + 1, excluded.sequence)
    RETURNING sequence
), reset AS (
    UPDATE counter SET value = 0, count = 0, version = greatest(version + 1, sequence)
    FROM moved WHERE tenant = $1 AND (value <> 0 OR count <> 0)
    RETURNING tenant, metric, grain, start, unit, subject, version
)
INSERT INTO unpublished AS u SELECT r.* FROM reset r
JOIN unnest($3::text[], $4::text[]) AS p (metric, grain) USING (metric, grain)
ON CONFLICT (tenant, metric, grain, start, unit, subject) DO UPDATE SET version = excluded.version
"""


class Instant(NamedTuple):
    """Of a tenant's numbers: two reads of the same instant are equal, and a later one is greater.

    Until the sequence moves, pending deltas are only added to.
    """

    sequence: int = 0  # moves with every fold, and with all else that changes boards
    pending: int = 0  # deltas


@dataclass(frozen=True, slots=True)
class Window:
    """Local days from `start` to before `end`; `grain` when they are a calendar period."""

    start: date
    end: date
    grain: str = ""

    def counters(self) -> tuple[str, date, date]:
        """Grain and range of the counters that make it up."""
        return self.grain or "day", self.start, self.end


@dataclass(frozen=True, slots=True)
class Group:
    """Pending deltas of one lowest grain, taken and summed."""

    tenant: str
    metric: str
    unit: str
    person: str
    subjects: str  # joined with domain.credits.SEPARATOR
    day: date
    value: int
    count: int
    received: int
    deltas: int


@dataclass(frozen=True, slots=True)
class Sum:
    """A number as stored: minor units or a count, and how many records make it up."""

    metric: str
    unit: str
    value: int
    count: int


@dataclass(frozen=True, slots=True)
class SubjectSum:
    """A subject's number."""

    metric: str
    subject: str
    unit: str
    value: int
    count: int


@dataclass(frozen=True, slots=True)
class Point:
    """A number of one period in a series of them."""

    metric: str
    start: date
    unit: str
    value: int
    count: int


@dataclass(frozen=True, slots=True)
class CounterRow:
    """A counter with its key, without the tenant."""

    metric: str
    grain: str
    start: date
    unit: str
    subject: str
    value: int
    count: int


async def take_pending(
    transaction: Transaction, limit: int | None, *, but: Iterable[str] = (), only: str | None = None
) -> list[Group]:
    """Remove up to `limit` deltas, of `only` one tenant or of all `but` some; gives them summed.

    None is no limit.
    """
    rows = await transaction.driver.fetch(_TAKE_PENDING, limit, list(but), only)
    return [Group(*row) for row in rows]


async def waiting_tenants(transaction: Transaction) -> list[str]:
    """The tenants whose deltas wait."""
    rows = await transaction.driver.fetch("SELECT DISTINCT tenant FROM pending ORDER BY tenant")
    return [row[0] for row in rows]


async def waits(transaction: Transaction, *, more_than: int, but: Iterable[str]) -> bool:
    """Whether more than so many deltas wait, those of some tenants aside."""
    query = "SELECT true FROM pending WHERE tenant <> ALL ($2::text[]) OFFSET $1 LIMIT 1"
    return bool(await transaction.driver.fetchval(query, more_than, list(but)))


async def fold(
    transaction: Transaction,
    groups: Sequence[Group],
    starts: Sequence[tuple[date, ...]],
    *,
    now: int,
    published: Sequence[tuple[str, str, str]],
) -> None:
    """Add groups to the counters, `starts` being the first days of each one's periods (GRAINS).

    Tells all replicas, as `bump` does. `now` is in µs; `published` lists what of it is to be
    published: (tenant, metric, grain).
    """
    await transaction.driver.execute(
        _FOLD_STATEMENT,
        [g.tenant for g in groups],
        [g.metric for g in groups],
        [g.unit for g in groups],
        [g.person for g in groups],
        [g.subjects for g in groups],
        [g.value for g in groups],
        [g.count for g in groups],
        *columns(starts, len(GRAINS)),
        now,
        round(1e6 * CHANGES_SECONDS),
        MOST_CHANGES,
        *columns(published, 3),
    )


async def bump(transaction: Transaction, tenants: Iterable[str], version: int) -> None:
    """Tell all replicas that boards of these tenants may have changed."""
    names = sorted(set(tenants))
    if names:
        await transaction.driver.execute(_BUMP, names, version)


async def instant(transaction: Transaction, tenant: str) -> Instant:
    """What the tenant's numbers are as of now."""
    return Instant(*await transaction.driver.fetchrow(_INSTANT, tenant))


async def instants(transaction: Transaction, tenants: Iterable[str]) -> dict[str, Instant]:
    """What each tenant's numbers are as of now."""
    names = sorted(set(tenants))
    rows = await transaction.driver.fetch(_INSTANTS, names)
    return {row[0]: Instant(row[1], row[2]) for row in rows}


async def forget_counters(
    transaction: Transaction, tenant: str, *, version: int, published: Sequence[tuple[str, str]]
) -> None:
    """Set a tenant's counters to nothing; the caller credits all its facts from scratch.

    Tells all replicas, as `bump` does.
    """
    await transaction.lock(FOLD_LOCK)
    await transaction.driver.execute("DELETE FROM pending WHERE tenant = $1", tenant)
    await transaction.driver.execute(_RESET, tenant, version, *columns(published, 2))


async def exact(
    transaction: Transaction,
    tenant: str,
    *,
    metrics: Sequence[str],
    window: Window,
    subjects: Sequence[str],
) -> list[SubjectSum]:
    """Numbers of subjects, including deltas that aren't folded yet."""
    rows = await transaction.driver.fetch(_EXACT, tenant, metrics, *window.counters(), subjects)
    return [
        SubjectSum(metric, subject, unit, int(value), int(count))
        for metric, subject, unit, value, count in rows
    ]


async def of_kind(
    transaction: Transaction,
    tenant: str,
    *,
    metrics: Sequence[str],
    window: Window,
    units: Sequence[str],
    kind: str,
) -> list[SubjectSum]:
    """The folded numbers of all subjects of a kind: `person`, `team`, `territory` or `role`."""
    query = _OF_KIND_IN_PERIOD if window.grain else _OF_KIND_IN_DAYS
    when = (window.grain, window.start) if window.grain else (window.start, window.end)
    rows = await transaction.driver.fetch(query, tenant, metrics, *when, units, f"{kind}:")
    return [SubjectSum(*row) for row in rows]


async def variants(
    transaction: Transaction, tenant: str, *, metric: str, window: Window, subject: str
) -> list[Sum]:
    """The folded numbers of a metric that is counted apart: `stages_entered@<stage>`, say."""
    rows = await transaction.driver.fetch(_VARIANTS, tenant, metric, *window.counters(), subject)
    return [Sum(*row) for row in rows]


async def series(
    transaction: Transaction,
    tenant: str,
    *,
    metrics: Sequence[str],
    grain: str,
    start: date,
    end: date,
    subject: str,
) -> list[Point]:
    """A subject's folded numbers, period by period, of those that start within the days given."""
    rows = await transaction.driver.fetch(_SERIES, tenant, metrics, grain, start, end, subject)
    return [Point(*row) for row in rows]


async def counters(
    transaction: Transaction,
    tenant: str,
    *,
    metric: str,
    period: tuple[str, date] | None,
    after: tuple[str, str, date, str, str] | None,
    limit: int,
) -> list[CounterRow]:
    """A page of a tenant's folded numbers in the order of their keys."""
    grain, start = period or ("", None)
    rows = await transaction.driver.fetch(
        _COUNTERS, tenant, metric, grain, start, *(after or (None,) * 5), limit
    )
    return [CounterRow(*row) for row in rows]


async def vacuum(database: Database) -> None:
    """Make the space of folded deltas usable again; every fold reads the whole table."""
    async with database.engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        raw = await autocommit.get_raw_connection()
        assert raw.driver_connection is not None
        await raw.driver_connection.execute("VACUUM (INDEX_CLEANUP OFF) pending")
