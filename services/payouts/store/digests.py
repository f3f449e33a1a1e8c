"""Digests of the derived tables, to compare stores."""

from kit.database import Transaction

# Sums of row hashes: independent of the order of rows, and never all of a table in memory.
_DIGESTS = {
    "replica": "SELECT ROW(tenant, topic, key, body) FROM replica",
    "record": "SELECT ROW(tenant, type, id, deleted, source, owner_id, fields) FROM record",
    "credit": """
        SELECT ROW(tenant, record_type, record_id, plan, component, payee, period, reason, day,
                   trim_scale(basis), trim_scale(amount), currency) FROM credit WHERE active""",
    "statement": """
        SELECT ROW(tenant, payee, plan, period, currency, trim_scale(earned_minor),
                   trim_scale(credited), trim_scale(quota), trim_scale(attainment), tier, lines,
                   components) FROM statement WHERE lines > 0""",
    "line": """
        SELECT ROW(tenant, payee, plan, period, component, record_type, record_id, day,
                   trim_scale(credited), currency, posted_minor, explain) FROM statement_line""",
    "ledger": """
        SELECT ROW(tenant, account, currency, statement, line, sum(amount_minor)) FROM entry
        GROUP BY tenant, account, currency, statement, line HAVING sum(amount_minor) <> 0""",
}


async def digests(transaction: Transaction) -> dict[str, str]:
    """Per table, how many rows there are and what they say."""
    found: dict[str, str] = {}
    for name, query in _DIGESTS.items():
        row = await transaction.driver.fetchrow(
            "SELECT count(*), coalesce(sum(hashtextextended(row::text, 0)::numeric), 0) "  # noqa: S608
            f"FROM ({query}) AS rows (row)"
        )
        assert row is not None
        found[name] = f"{row[0]}:{row[1]}"
    return found
