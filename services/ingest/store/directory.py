"""The directory's replica, as its own routes need it."""

from collections.abc import Sequence

from kit.database import Transaction
from schemas.directory import AnyEntry, Entry


async def entries(
    transaction: Transaction, tenant: str, keys: Sequence[str]
) -> dict[str, AnyEntry]:
    """The directory entries of these keys, deleted ones included."""
    rows = await transaction.driver.fetch(
        "SELECT body FROM replica WHERE tenant = $1 AND topic = $2 AND key = ANY($3::text[])",
        tenant,
        Entry.topic,
        list(keys),
    )
    found = [Entry.decode(row[0]) for row in rows]
    return {entry.key: entry for entry in found}  # type: ignore[misc]  # decode gives a variant


async def page_of_entries(
    transaction: Transaction, tenant: str, kind: str, *, after: str, limit: int
) -> list[Entry]:
    """Entries of one kind in key order, after the given id."""
    prefix = f"{tenant}/{kind}/"
    rows = transaction.driver.cursor(
        """
        SELECT body FROM replica
        WHERE tenant = $1 AND topic = $2 AND starts_with(key, $3) AND key > $4
        ORDER BY key
        """,
        tenant,
        Entry.topic,
        prefix,
        prefix + after,
    )
    page: list[Entry] = []
    async for row in rows:  # deleted entries stay in the replica, so LIMIT can't count
        entry = Entry.decode(row[0])
        if not entry.deleted:
            page.append(entry)
        if len(page) == limit:
            break
    return page
