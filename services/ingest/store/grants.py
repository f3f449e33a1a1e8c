"""What CRMs gave for refresh tokens, sealed: the only state that no topic has.

It has a schema of its own, which a rebuild leaves alone: what it held couldn't be had again.
"""

from collections.abc import Iterable

from kit.database import Transaction, columns


async def alone(transaction: Transaction, tenant: str, source: str, *, seconds: float) -> None:
    """Wait to be alone with a source's grant; who is silent for longer than that is cut off."""
    await transaction.lock(f"ingest/grant/{tenant}/{source}")
    await transaction.driver.execute(
        "SELECT set_config('idle_in_transaction_session_timeout', $1, true)",
        str(int(seconds * 1000)),
    )


async def find(transaction: Transaction, tenant: str, source: str, configured: str) -> str:
    """The sealed grant of a source, if it began with these credentials; else empty."""
    found = await transaction.driver.fetchval(
        "SELECT sealed FROM credentials.crm_grant"
        " WHERE tenant = $1 AND source = $2 AND configured = $3",
        *(tenant, source, configured),
    )
    return found or ""


async def keep(
    transaction: Transaction, tenant: str, source: str, configured: str, sealed: str
) -> None:
    """Put a source's grant in place of what was there."""
    await transaction.driver.execute(
        """
        INSERT INTO credentials.crm_grant (tenant, source, configured, sealed)
        VALUES ($1, $2, $3, $4)
        ON CONFLICT (tenant, source) DO UPDATE
        SET configured = excluded.configured, sealed = excluded.sealed
        """,
        *(tenant, source, configured, sealed),
    )


async def forget(transaction: Transaction, gone: Iterable[tuple[str, str]]) -> None:
    """Remove the grants of sources (tenant, id) that are no more."""
    await transaction.driver.execute(
        "DELETE FROM credentials.crm_grant g"
        " USING unnest($1::text[], $2::text[]) AS gone (tenant, source)"
        " WHERE g.tenant = gone.tenant AND g.source = gone.source",
        *columns(gone, 2),
    )
