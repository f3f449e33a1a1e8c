"""Sources configured by API: their replica, as their routes and the receiving door need it."""

from kit.database import Transaction
from schemas.crm import SourceState


async def find(transaction: Transaction, tenant: str, number: str) -> SourceState | None:
    """One source; a deleted one too."""
    row = await transaction.driver.fetchrow(
        "SELECT body FROM replica WHERE tenant = $1 AND topic = $2 AND key = $3",
        tenant,
        SourceState.topic,
        f"{tenant}/{number}",
    )
    return None if row is None else SourceState.decode(row["body"])


async def holders(transaction: Transaction, number: str) -> list[SourceState]:
    """The sources of this id of all tenants: at most one of them is not deleted."""
    rows = await transaction.driver.fetch(
        """
        SELECT r.body FROM replica_epoch AS e
        JOIN replica AS r ON r.tenant = e.tenant AND r.topic = e.topic
            AND r.key = e.tenant || '/' || $2
        WHERE e.topic = $1
        """,
        SourceState.topic,
        number,
    )
    return [SourceState.decode(row["body"]) for row in rows]


async def everything(transaction: Transaction) -> list[SourceState]:
    """The sources of all tenants, deleted ones too."""
    rows = await transaction.driver.fetch(
        "SELECT body FROM replica WHERE topic = $1 ORDER BY tenant, key", SourceState.topic
    )
    return [SourceState.decode(row["body"]) for row in rows]


async def epochs(transaction: Transaction) -> dict[str, str]:
    """A name per tenant that every change of one of its sources replaces."""
    rows = await transaction.driver.fetch(
        "SELECT tenant, epoch FROM replica_epoch WHERE topic = $1", SourceState.topic
    )
    return {row["tenant"]: row["epoch"] for row in rows}
