"""What two stores must agree on: everything derived, without versions."""

import hashlib

import msgspec

from kit.database import Transaction
from services.metrics.store.context import Context

# Sums of hashes, so that no order is needed. chr(31) can't be part of an id.
_FACTS = """
SELECT count(*) || ':' || coalesce(sum(hashtextextended(
    concat_ws(chr(31), tenant, type, id, source, owner_id, credits), 0)::numeric), 0)
FROM fact
"""

_COUNTERS = """
SELECT count(*) || ':' || coalesce(sum(hashtextextended(
    concat_ws(chr(31), tenant, metric, grain, start, unit, subject, value, count), 0)::numeric), 0)
FROM counter WHERE value <> 0 OR count <> 0
"""


async def digests(transaction: Transaction) -> list[str]:
    """Digests of facts and of counters that say something; versions don't matter."""
    return [str(await transaction.driver.fetchval(query)) for query in (_FACTS, _COUNTERS)]


async def replicated_tenants(transaction: Transaction) -> list[str]:
    """Tenants with a directory or goals."""
    rows = await transaction.driver.fetch("SELECT DISTINCT tenant FROM replica ORDER BY tenant")
    return [row[0] for row in rows]


async def checksum(transaction: Transaction, context: Context) -> str:
    """Digest facts, folded counters and all that is replicated; the caller folds first."""
    parts = await digests(transaction)
    for tenant in await replicated_tenants(transaction):
        entries = await context.directory.load(transaction, tenant)
        goals = await context.goals.load(transaction, tenant)
        boards = await context.boards.load(transaction, tenant)
        contests = await context.contests.load(transaction, tenant)
        metrics = await context.metrics.load(transaction, tenant)
        for state in (*entries, *goals, *boards, *contests, *metrics):
            parts.append(msgspec.structs.replace(state, version=0).encode().decode())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
