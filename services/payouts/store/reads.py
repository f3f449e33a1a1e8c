"""What people read: statements with their lines, lists, findings."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from kit.database import Transaction, columns
from services.payouts.domain.keys import LineKey, StatementKey
from services.payouts.domain.ledger import PostedLine, Sums
from services.payouts.store.statements import STATEMENT_COLUMNS, sums


@dataclass(frozen=True, slots=True)
class ShownLine:
    """A line with the record's version that it stands for."""

    key: LineKey
    posted: PostedLine
    record_version: int


@dataclass(frozen=True, slots=True)
class ShownStatement:
    """A statement with all of its lines, in the order in which they count."""

    row: Sums
    lines: list[ShownLine]


async def statement(transaction: Transaction, key: StatementKey) -> ShownStatement | None:
    """One statement, as of one moment: a single query, so that total and lines agree."""
    rows = await transaction.driver.fetch(
        "SELECT s.*, l.component, l.record_type, l.record_id, l.day, "
        "l.credited AS line_credited, l.currency AS line_currency, "
        "l.posted_minor, l.explain, r.version AS record_version FROM statement s "
        "LEFT JOIN statement_line l USING (tenant, payee, plan, period) "
        "LEFT JOIN record r ON (r.tenant, r.type, r.id) = (s.tenant, l.record_type, l.record_id) "
        "WHERE (s.tenant, s.payee, s.plan, s.period) = ($1, $2, $3, $4) "
        'ORDER BY l.component, l.day, l.record_type COLLATE "C", l.record_id COLLATE "C"',
        *key,
    )
    if not rows:
        return None
    lines = [
        ShownLine(
            LineKey(row["component"], row["record_type"], row["record_id"]),
            PostedLine(
                row["day"],
                row["line_credited"],
                row["line_currency"],
                row["posted_minor"],
                row["explain"],
            ),
            row["record_version"],
        )
        for row in rows
        if row["component"] is not None
    ]
    return ShownStatement(sums(rows[0]), lines)


async def periods(transaction: Transaction, tenant: str) -> list[str]:
    """All periods that the tenant has statements or findings in."""
    rows = await transaction.driver.fetch(
        "SELECT period FROM statement WHERE tenant = $1 "
        "UNION SELECT period FROM credit WHERE tenant = $1 AND reason <> ''",
        tenant,
    )
    return sorted(row["period"] for row in rows)


Visible = Sequence[tuple[str, str]] | None  # (period, payee) pairs; None: all


async def list_statements(
    transaction: Transaction,
    tenant: str,
    *,
    visible: Visible,
    after: tuple[str, str, str],
    limit: int,
    period: str | None = None,
    plan: str | None = None,
    with_lines: bool = False,
) -> list[Sums]:
    """Statements by (payee, plan, period), in byte order, after the given one."""
    rows = await transaction.driver.fetch(
        f"SELECT {STATEMENT_COLUMNS} FROM statement WHERE tenant = $1 "  # noqa: S608
        'AND (payee COLLATE "C", plan COLLATE "C", period COLLATE "C") > ($2, $3, $4) '
        "AND ($6::text IS NULL OR period = $6) AND ($7::text IS NULL OR plan = $7) "
        "AND (NOT $8 OR lines > 0) "
        "AND ($9 OR (period, payee) IN (SELECT * FROM unnest($10::text[], $11::text[]))) "
        'ORDER BY payee COLLATE "C", plan COLLATE "C", period COLLATE "C" LIMIT $5',
        tenant,
        *after,
        limit,
        period,
        plan,
        with_lines,
        visible is None,
        *columns(visible or (), 2),
    )
    return [sums(row) for row in rows]


@dataclass(frozen=True, slots=True)
class FindingRow:
    """A record that a plan means and can't count."""

    record_type: str
    record_id: str
    record_version: int
    plan: str
    component: str
    payee: str
    period: str
    day: date | None
    currency: str
    reason: str


async def list_findings(
    transaction: Transaction,
    tenant: str,
    *,
    visible: Visible,
    after: tuple[str, str, str, str],
    limit: int,
    reason: str | None = None,
    of: StatementKey | None = None,
) -> list[FindingRow]:
    """Findings by (record type, record id, plan, component), after the given one."""
    rows = await transaction.driver.fetch(
        "SELECT record_type, record_id, r.version, plan, component, payee, period, day, currency, "
        "reason FROM credit c JOIN record r "
        "ON (r.tenant, r.type, r.id) = (c.tenant, c.record_type, c.record_id) "
        "WHERE c.tenant = $1 AND active AND reason <> '' "
        'AND (record_type COLLATE "C", record_id COLLATE "C", plan COLLATE "C", '
        'component COLLATE "C") > ($2, $3, $4, $5) '
        "AND ($7::text IS NULL OR reason = $7) "
        "AND ($8::text IS NULL OR (payee, plan, period) = ($8, $9, $10)) "
        "AND ($11 OR (period, payee) IN (SELECT * FROM unnest($12::text[], $13::text[]))) "
        'ORDER BY record_type COLLATE "C", record_id COLLATE "C", plan COLLATE "C", '
        'component COLLATE "C" LIMIT $6',
        tenant,
        *after,
        limit,
        reason,
        *(of[1:] if of else (None, None, None)),
        visible is None,
        *columns(visible or (), 2),
    )
    return [FindingRow(*row) for row in rows]


async def findings_by_reason(transaction: Transaction) -> dict[str, int]:
    """How many findings there are, of all tenants."""
    rows = await transaction.driver.fetch(
        "SELECT reason, count(*) FROM credit WHERE active AND reason <> '' GROUP BY reason"
    )
    return {row[0]: row[1] for row in rows}
