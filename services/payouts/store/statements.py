"""Statements and their lines: locked, read, written."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kit.database import Transaction, columns
from services.payouts.domain.evaluate import Opening
from services.payouts.domain.keys import START, LineKey, Position, StatementKey
from services.payouts.domain.ledger import PostedLine, Sums
from services.payouts.store.arrays import POSITION, SINCE, SINCE_POSITION, STATEMENT, STATEMENTS

STATEMENT_COLUMNS = (
    "tenant, payee, plan, period, plan_revision, currency, earned_minor, credited, quota, "
    "attainment, tier, lines, components, posted, version"
)


def sums(row: Any) -> Sums:
    """The sums in a row of `statement`."""
    return Sums(
        key=StatementKey(row["tenant"], row["payee"], row["plan"], row["period"]),
        plan_revision=row["plan_revision"],
        currency=row["currency"],
        earned_minor=int(row["earned_minor"]),
        credited=row["credited"],
        quota=row["quota"],
        attainment=row["attainment"],
        tier=row["tier"],
        lines=row["lines"],
        components=row["components"],
        posted=row["posted"],
        version=row["version"],
    )


async def lock_statements(
    transaction: Transaction, keys: Sequence[StatementKey]
) -> dict[StatementKey, Sums]:
    """Be alone with these statements; those that didn't exist begin empty. `keys` are sorted."""
    found = columns(keys, 4)
    await transaction.driver.execute(
        f"INSERT INTO statement ({STATEMENT_COLUMNS}) "  # noqa: S608
        f"SELECT k.*, 0, '', 0, 0, NULL, NULL, 0, 0, '', 0, 0 FROM {STATEMENTS} "
        "ON CONFLICT DO NOTHING",
        *found,
    )
    rows = await transaction.driver.fetch(
        f"SELECT s.* FROM statement s JOIN {STATEMENTS} {STATEMENT} "  # noqa: S608
        "ORDER BY tenant, payee, plan, period FOR UPDATE OF s",
        *found,
    )
    return {(row := sums(found)).key: row for found in rows}


async def statements(
    transaction: Transaction, keys: Iterable[StatementKey]
) -> dict[StatementKey, Sums]:
    """Those of these statements that exist."""
    found = columns(sorted(keys), 4)
    rows = await transaction.driver.fetch(
        f"SELECT s.* FROM statement s JOIN {STATEMENTS} {STATEMENT}",  # noqa: S608
        *found,
    )
    return {(row := sums(found)).key: row for found in rows}


async def statement_keys(
    transaction: Transaction,
    tenant: str,
    *,
    plans: Iterable[str] | None = None,
    owners: Iterable[tuple[str, str]] | None = None,
) -> set[StatementKey]:
    """The tenant's statements; of some plans only, or those that some owners' records ever met."""
    if owners is not None:
        rows = await transaction.driver.fetch(
            "SELECT DISTINCT c.tenant, payee, plan, period FROM credit c JOIN record r "
            "ON (r.tenant, r.type, r.id) = (c.tenant, c.record_type, c.record_id) "
            "WHERE r.tenant = $1 AND c.reason = '' "
            "AND (source, owner_id) IN (SELECT * FROM unnest($2::text[], $3::text[]))",
            tenant,
            *columns(sorted(owners), 2),
        )
    else:
        rows = await transaction.driver.fetch(
            "SELECT tenant, payee, plan, period FROM statement "
            "WHERE tenant = $1 AND ($2::text[] IS NULL OR plan = ANY($2))",
            tenant,
            None if plans is None else list(plans),
        )
    return {StatementKey(*row) for row in rows}


_SAVE_STATEMENTS = """
UPDATE statement s SET
    plan_revision = n.plan_revision, currency = n.currency, earned_minor = n.earned_minor,
    credited = n.credited, quota = n.quota, attainment = n.attainment, tier = n.tier,
    lines = n.lines, components = n.components, posted = n.posted, version = n.version
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::int[], $6::text[], $7::numeric[],
            $8::numeric[], $9::numeric[], $10::numeric[], $11::int[], $12::int[], $13::text[],
            $14::bigint[], $15::bigint[])
    AS n (tenant, payee, plan, period, plan_revision, currency, earned_minor, credited, quota,
          attainment, tier, lines, components, posted, version)
WHERE (s.tenant, s.payee, s.plan, s.period) = (n.tenant, n.payee, n.plan, n.period)
"""


async def save_statements(transaction: Transaction, rows: Sequence[Sums]) -> None:
    """Write the sums of locked statements."""
    if not rows:
        return
    found = columns(
        (
            (
                *row.key,
                row.plan_revision,
                row.currency,
                row.earned_minor,
                row.credited,
                row.quota,
                row.attainment,
                row.tier,
                row.lines,
                row.components,
                row.posted,
                row.version,
            )
            for row in rows
        ),
        15,
    )
    await transaction.driver.execute(_SAVE_STATEMENTS, *found)


async def lines_in(
    transaction: Transaction, since: Mapping[StatementKey, Position]
) -> dict[StatementKey, dict[LineKey, PostedLine]]:
    """The lines of each statement as posted, from the given position on."""
    found: dict[StatementKey, dict[LineKey, PostedLine]] = {key: {} for key in since}
    rows = await transaction.driver.fetch(
        "SELECT tenant, payee, plan, period, component, record_type, record_id, "  # noqa: S608
        "day, credited, currency, posted_minor, explain "
        f"FROM statement_line JOIN {SINCE} {STATEMENT} WHERE {POSITION} >= {SINCE_POSITION}",
        *columns(((*key, *position) for key, position in since.items()), 7),
    )
    for row in rows:
        found[StatementKey(*row[:4])][LineKey(*row[4:7])] = PostedLine(*row[7:])
    return found


async def openings(
    transaction: Transaction, since: Mapping[StatementKey, Position]
) -> dict[StatementKey, dict[str, Opening]]:
    """What the lines before the given position come to, by component."""
    later = {key: position for key, position in since.items() if position > START}
    found: dict[StatementKey, dict[str, Opening]] = {key: {} for key in since}
    rows = await transaction.driver.fetch(
        "SELECT tenant, payee, plan, period, component, sum(credited), sum(posted_minor), count(*) "  # noqa: S608
        f"FROM statement_line JOIN {SINCE} {STATEMENT} WHERE {POSITION} < {SINCE_POSITION} "
        "GROUP BY tenant, payee, plan, period, component",
        *columns(((*key, *position) for key, position in later.items()), 7),
    )
    for *key, component, credited, earned, lines in rows:
        found[StatementKey(*key)][component] = Opening(credited, int(earned), lines)
    return found


_SAVE_LINES = """
INSERT INTO statement_line (tenant, payee, plan, period, component, record_type, record_id,
                            day, credited, currency, posted_minor, explain)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
                     $7::text[], $8::date[], $9::numeric[], $10::text[], $11::bigint[],
                     $12::text[])
ON CONFLICT (tenant, payee, plan, period, component, record_type, record_id) DO UPDATE SET
    day = excluded.day, credited = excluded.credited, currency = excluded.currency,
    posted_minor = excluded.posted_minor, explain = excluded.explain
"""
_REMOVE_LINES = """
DELETE FROM statement_line USING
unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
    AS k (tenant, payee, plan, period, component, record_type, record_id)
WHERE (statement_line.tenant, statement_line.payee, statement_line.plan, statement_line.period,
       statement_line.component, statement_line.record_type, statement_line.record_id)
    = (k.tenant, k.payee, k.plan, k.period, k.component, k.record_type, k.record_id)
"""


async def save_lines(
    transaction: Transaction,
    lines: Sequence[tuple[StatementKey, LineKey, PostedLine]],
    gone: Sequence[tuple[StatementKey, LineKey]],
) -> None:
    """Write changed lines of locked statements, and remove those that nothing is left of."""
    if lines:
        found = columns(
            (
                (
                    *key,
                    *line,
                    row.day,
                    row.credited,
                    row.currency,
                    row.posted_minor,
                    row.explain,
                )
                for key, line, row in lines
            ),
            12,
        )
        await transaction.driver.execute(_SAVE_LINES, *found)
    if gone:
        found = columns(((*key, *line) for key, line in gone), 7)
        await transaction.driver.execute(_REMOVE_LINES, *found)
