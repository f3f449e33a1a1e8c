"""Which counters changed since their measures were published."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from kit.database import Transaction, columns

PUBLISH_LOCK = "metrics/publish"

_UNPUBLISHED = """
SELECT u.tenant, u.metric, u.grain, u.start, u.unit, u.subject, c.version, c.value, c.count
FROM unpublished u JOIN counter c USING (tenant, metric, grain, start, unit, subject)
ORDER BY 1, 2, 3, 4, 5, 6 LIMIT $1
"""

_PUBLISHED = """
DELETE FROM unpublished u
USING unnest($1::text[], $2::text[], $3::text[], $4::date[], $5::text[], $6::text[], $7::bigint[])
    AS p (tenant, metric, grain, start, unit, subject, version)
WHERE (u.tenant, u.metric, u.grain, u.start, u.unit, u.subject)
    = (p.tenant, p.metric, p.grain, p.start, p.unit, p.subject) AND u.version <= p.version
"""

_PUBLISH_AGAIN = """
INSERT INTO unpublished
SELECT c.tenant, c.metric, c.grain, c.start, c.unit, c.subject, c.version
FROM unnest($1::text[], $2::text[], $3::text[], $4::date[]) AS k (tenant, metric, grain, start)
JOIN counter c USING (tenant, metric, grain, start)
ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Touched:
    """A counter to publish."""

    tenant: str
    metric: str
    grain: str
    start: date
    unit: str
    subject: str
    version: int
    value: int
    count: int


async def unpublished(transaction: Transaction, limit: int) -> list[Touched]:
    """Counters to publish, as they are now."""
    rows = await transaction.driver.fetch(_UNPUBLISHED, limit)
    return [Touched(*row) for row in rows]


async def unpublished_count(transaction: Transaction) -> int:
    """How many counters wait to be published."""
    return int(await transaction.driver.fetchval("SELECT count(*) FROM unpublished"))


async def mark_published(transaction: Transaction, touched: Sequence[Touched]) -> None:
    """Forget what was published, except what has changed meanwhile."""
    keys = [(t.tenant, t.metric, t.grain, t.start, t.unit, t.subject, t.version) for t in touched]
    await transaction.driver.execute(_PUBLISHED, *columns(keys, 7))


async def publish_again(
    transaction: Transaction, keys: Sequence[tuple[str, str, str, date]]
) -> None:
    """Have all subjects' counters of these (tenant, metric, grain, start) published."""
    if keys:
        await transaction.driver.execute(_PUBLISH_AGAIN, *columns(sorted(keys), 4))
