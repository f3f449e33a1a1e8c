"""Recounts: what is owed to the past after a change of what is counted.

A changed metric holds for every record that comes from then on. Those that came before are read
again from their topic, which keeps the last state of each, and applied as if they came now
(`services.metrics.recounting`). A tenant has one recount at a time: a further change makes it begin
again, for the record types of both.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from kit.clock import real_micros
from kit.database import Transaction, columns
from schemas.spm import MetricDocument
from services.metrics.domain.catalogue import Catalogue
from services.metrics.store import counters, facts
from services.metrics.store.context import Context

LAYOUT = "2"  # of credits and counters; when it changes, everything is counted anew at the start
_LAYOUT_KEY = ""  # among the record types whose digest is kept
PREPARE_LOCK = "metrics/prepare"

Offsets = dict[int, int]  # by partition

_REQUEST = """
INSERT INTO recount AS r
    (tenant, types, reason, requested_at, scan, positions, ends, done, total)
VALUES ($1, $2, $3, now(), '', '{}', '{}', 0, 0)
ON CONFLICT (tenant) DO UPDATE SET
    types = (
        SELECT string_agg(DISTINCT t, ' ' ORDER BY t) FROM unnest(string_to_array(
            excluded.types || CASE WHEN r.finished_at IS NULL THEN ' ' || r.types ELSE '' END, ' '
        )) t
    ),
    reason = excluded.reason, requested_at = excluded.requested_at, scan = '', positions = '{}',
    ends = '{}', done = 0, total = 0, finished_at = NULL
"""

_ALL = """
SELECT tenant, types, reason, requested_at, scan, positions, ends, done, total, finished_at
FROM recount
"""

_ADVANCE = """
UPDATE recount SET positions = $2, done = done + $3, finished_at = CASE WHEN $4 THEN now() END
WHERE scan = $1 AND positions = $5 AND finished_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class Recount:
    """A tenant's recount, as far as it is; `done` and `total` count messages of the topic."""

    tenant: str
    types: frozenset[str]
    reason: str
    requested_at: datetime
    scan: str
    positions: Offsets
    ends: Offsets
    done: int
    total: int
    finished_at: datetime | None


async def request(
    transaction: Transaction, tenant: str, types: Collection[str], *, reason: str
) -> None:
    """Have the tenant's records of these types counted again."""
    if types and await facts.any_facts(transaction, tenant):
        await transaction.driver.execute(_REQUEST, tenant, " ".join(sorted(types)), reason)


async def store_metrics(
    transaction: Transaction, context: Context, documents: Sequence[MetricDocument]
) -> None:
    """Keep newer metrics; what they change of the past is counted again."""
    before: dict[str, Catalogue] = {}
    for tenant in sorted({document.tenant for document in documents}):
        await transaction.lock(context.metrics.lock_name(tenant))
        before[tenant] = await context.catalogue_of(transaction, tenant)
    newer = await context.metrics.store(transaction, documents)
    for tenant in sorted({document.tenant for document in newer}):
        after = await context.catalogue_of(transaction, tenant)
        names = sorted({document.id for document in newer if document.tenant == tenant})
        reason = f"changed: {', '.join(names)}"[:200]
        await request(transaction, tenant, changed_types(before[tenant], after), reason=reason)
    await counters.bump(transaction, {document.tenant for document in newer}, real_micros())


def changed_types(before: Catalogue, after: Catalogue) -> frozenset[str]:
    """The record types that contribute something else by now."""
    types = before.digests.keys() | after.digests.keys()
    return frozenset(t for t in types if before.digests.get(t) != after.digests.get(t))


async def unseen_types(transaction: Transaction, shipped: Catalogue) -> tuple[bool, set[str]]:
    """Whether the layout has changed since this store was last served, and which record types."""
    rows = await transaction.driver.fetch("SELECT type, digest FROM catalogue_seen")
    seen = {row[0]: row[1] for row in rows}
    layout = seen.pop(_LAYOUT_KEY, "") != LAYOUT
    types = seen.keys() | shipped.digests.keys()
    return layout, {t for t in types if seen.get(t) != shipped.digests.get(t)}


async def remember_seen(transaction: Transaction, shipped: Catalogue) -> None:
    """The store is as this catalogue makes it, or will be."""
    rows = [*shipped.digests.items(), (_LAYOUT_KEY, LAYOUT)]
    await transaction.driver.execute("DELETE FROM catalogue_seen")
    await transaction.driver.execute(
        "INSERT INTO catalogue_seen SELECT * FROM unnest($1::text[], $2::text[])", *columns(rows, 2)
    )


async def of(transaction: Transaction, tenant: str) -> Recount | None:
    """The tenant's last recount."""
    row = await transaction.driver.fetchrow(f"{_ALL} WHERE tenant = $1", tenant)
    return None if row is None else _recount(row)


async def unfinished(transaction: Transaction) -> list[Recount]:
    """Those that one reading of the topic serves: of one scan, or all that wait for one."""
    rows = await transaction.driver.fetch(
        f"{_ALL} WHERE finished_at IS NULL ORDER BY scan = '', scan, tenant"
    )
    return [_recount(row) for row in rows if row["scan"] == rows[0]["scan"]]


async def begin(
    transaction: Transaction, tenants: Iterable[str], *, scan: str, starts: Offsets, ends: Offsets
) -> None:
    """Let these tenants' recounts share a reading of the topic, unless another has them already."""
    await transaction.driver.execute(
        "UPDATE recount SET scan = $2, positions = $3, ends = $4, total = $5"
        " WHERE tenant = ANY ($1::text[]) AND scan = '' AND finished_at IS NULL",
        sorted(tenants),
        scan,
        _text(starts),
        _text(ends),
        sum(ends[partition] - starts[partition] for partition in ends),
    )


async def advance(
    transaction: Transaction, scan: str, former: Offsets, positions: Offsets, *, finished: bool
) -> None:
    """Note how far a scan is, unless another replica was faster."""
    read = sum(positions[partition] - former[partition] for partition in positions)
    await transaction.driver.execute(
        _ADVANCE, scan, _text(positions), read, finished, _text(former)
    )


def _recount(row: Sequence[object]) -> Recount:
    tenant, types, reason, requested_at, scan, positions, ends, done, total, finished = row
    return Recount(
        tenant,  # type: ignore[arg-type]  # as the table has them
        frozenset(str(types).split()),
        reason,  # type: ignore[arg-type]
        requested_at,  # type: ignore[arg-type]
        scan,  # type: ignore[arg-type]
        _offsets(str(positions)),
        _offsets(str(ends)),
        done,  # type: ignore[arg-type]
        total,  # type: ignore[arg-type]
        finished,  # type: ignore[arg-type]
    )


def _text(offsets: Offsets) -> str:
    return msgspec.json.encode(dict(sorted(offsets.items()))).decode()


def _offsets(text: str) -> Offsets:
    return msgspec.json.decode(text, type=Offsets, strict=False)
