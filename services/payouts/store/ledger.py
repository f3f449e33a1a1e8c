"""The ledger: append, read, and check that it says what the statements say."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from kit.database import Transaction, columns
from services.payouts.domain.keys import StatementKey
from services.payouts.domain.ledger import Posting

_POST = """
INSERT INTO transfer (tenant, statement, number, line, debit, credit, amount_minor, currency, cause)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[],
                     $7::bigint[], $8::text[], $9::text[])
"""


async def post(transaction: Transaction, postings: Sequence[Posting]) -> None:
    """Append transfers to the ledger; one that exists already is an error, never a second one."""
    if not postings:
        return
    found = columns(
        (
            (
                p.statement.tenant,
                str(p.statement),
                p.number,
                str(p.line),
                p.debit,
                p.credit,
                p.amount_minor,
                p.currency,
                p.cause,
            )
            for p in postings
        ),
        9,
    )
    await transaction.driver.execute(_POST, *found)


_UNBALANCED = """
WITH posted AS (
    SELECT tenant, statement, currency,
           sum(CASE WHEN credit LIKE 'payable:%' THEN amount_minor ELSE -amount_minor END) AS minor
    FROM transfer WHERE $1::text IS NULL OR tenant = $1 GROUP BY 1, 2, 3
), lined AS (
    SELECT tenant, payee || '/' || plan || '/' || period AS statement, currency,
           sum(posted_minor) AS minor
    FROM statement_line WHERE $1::text IS NULL OR tenant = $1 GROUP BY 1, 2, 3
), stated AS (
    SELECT tenant, payee || '/' || plan || '/' || period AS statement, currency,
           earned_minor AS minor
    FROM statement WHERE $1::text IS NULL OR tenant = $1
)
SELECT tenant, statement, currency, coalesce(posted.minor, 0) AS ledger,
       coalesce(lined.minor, 0) AS lines, coalesce(stated.minor, 0) AS statement_total
FROM posted FULL JOIN lined USING (tenant, statement, currency)
            FULL JOIN stated USING (tenant, statement, currency)
WHERE coalesce(posted.minor, 0) <> coalesce(lined.minor, 0)
   OR coalesce(lined.minor, 0) <> coalesce(stated.minor, 0)
ORDER BY tenant, statement, currency
LIMIT 1000
"""


@dataclass(frozen=True, slots=True)
class Imbalance:
    """A statement whose ledger, lines and total aren't the same amount (all in minor units)."""

    tenant: str
    statement: str
    currency: str
    ledger: int
    lines: int
    statement_total: int


async def unbalanced(transaction: Transaction, tenant: str | None) -> list[Imbalance]:
    """Statements that don't add up, the first thousand; of all tenants when None. One snapshot."""
    rows = await transaction.driver.fetch(_UNBALANCED, tenant)
    return [Imbalance(*row[:3], *(int(value) for value in row[3:])) for row in rows]


async def ledger_size(transaction: Transaction, tenant: str) -> int:
    """How many transfers the tenant's ledger holds."""
    return int(
        await transaction.driver.fetchval("SELECT count(*) FROM transfer WHERE tenant = $1", tenant)
    )


@dataclass(frozen=True, slots=True)
class Balance:
    """An account's sum in one currency; what is owed is negative."""

    account: str
    currency: str
    minor: int


async def balances(
    transaction: Transaction, tenant: str, *, after: tuple[str, str], limit: int
) -> list[Balance]:
    """The tenant's accounts after the given one."""
    rows = await transaction.driver.fetch(
        "SELECT account, currency, minor FROM balance WHERE tenant = $1 "
        'AND (account COLLATE "C", currency COLLATE "C") > ($2, $3) '
        'ORDER BY account COLLATE "C", currency COLLATE "C" LIMIT $4',
        tenant,
        *after,
        limit,
    )
    return [Balance(row[0], row[1], int(row[2])) for row in rows]


@dataclass(frozen=True, slots=True)
class TransferRow:
    """A transfer as posted."""

    id: int
    number: int
    line: str
    debit: str
    credit: str
    amount_minor: int
    currency: str
    cause: str
    posted_at: datetime


async def transfers(
    transaction: Transaction, key: StatementKey, *, after: int, limit: int
) -> list[TransferRow]:
    """A statement's transfers after the given number, in order."""
    rows = await transaction.driver.fetch(
        "SELECT id, number, line, debit, credit, amount_minor, currency, cause, posted_at "
        "FROM transfer WHERE tenant = $1 AND statement = $2 AND number > $3 "
        "ORDER BY number LIMIT $4",
        key.tenant,
        str(key),
        after,
        limit,
    )
    return [TransferRow(*row) for row in rows]
