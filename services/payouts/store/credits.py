"""What records count for, now and before."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

from kit.database import Transaction, columns
from services.payouts.domain.credit import Outcome
from services.payouts.domain.evaluate import Credit
from services.payouts.domain.keys import Position, RecordKey, StatementKey
from services.payouts.store.arrays import POSITION, SINCE, SINCE_POSITION, STATEMENT


@dataclass(frozen=True, slots=True)
class CreditRow:
    """A row of `credit`: an outcome, for a record, perhaps of the past."""

    record: RecordKey
    outcome: Outcome
    active: bool = True

    @property
    def slot(self) -> tuple[str, str, str, str]:
        """What tells it from the record's other rows."""
        o = self.outcome
        return (o.plan, o.component, o.payee, o.period)

    @property
    def statement(self) -> StatementKey | None:
        """Where it counts or counted; None for a finding."""
        o = self.outcome
        if o.reason:
            return None
        return StatementKey(self.record.tenant, o.payee, o.plan, o.period)

    @property
    def position(self) -> Position:
        """Where it stands among the statement's credits."""
        return Position(self.outcome.day or date.min, self.record.type, self.record.id)


_CREDIT_COLUMNS = "plan, component, payee, period, day, basis, amount, currency, reason"


async def credits_of(
    transaction: Transaction, records: Iterable[RecordKey]
) -> dict[RecordKey, list[CreditRow]]:
    """All rows of these records, past ones included."""
    keys = sorted(records)
    found: dict[RecordKey, list[CreditRow]] = {key: [] for key in keys}
    rows = await transaction.driver.fetch(
        f"SELECT tenant, record_type, record_id, {_CREDIT_COLUMNS}, active FROM credit "  # noqa: S608
        "JOIN unnest($1::text[], $2::text[], $3::text[]) AS k (tenant, record_type, record_id) "
        "USING (tenant, record_type, record_id)",
        *columns(keys, 3),
    )
    for tenant, kind, number, *outcome, active in rows:
        key = RecordKey(tenant, kind, number)
        found[key].append(CreditRow(key, Outcome(*outcome), active))
    return found


_WRITE_CREDITS = """
INSERT INTO credit (tenant, record_type, record_id, plan, component, payee, period,
                    active, reason, day, basis, amount, currency)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
                     $7::text[], $8::boolean[], $9::text[], $10::date[], $11::numeric[],
                     $12::numeric[], $13::text[])
ON CONFLICT (tenant, record_type, record_id, plan, component, payee, period) DO UPDATE SET
    active = excluded.active, reason = excluded.reason, day = excluded.day,
    basis = excluded.basis, amount = excluded.amount, currency = excluded.currency
"""


async def write_credits(transaction: Transaction, rows: Iterable[CreditRow]) -> None:
    """Write rows as they are now."""
    ordered = sorted(rows, key=lambda row: (row.record, row.slot))
    if not ordered:
        return
    found = columns(
        (
            (
                *row.record,
                *row.slot,
                row.active,
                row.outcome.reason,
                row.outcome.day,
                row.outcome.basis,
                row.outcome.amount,
                row.outcome.currency,
            )
            for row in ordered
        ),
        13,
    )
    await transaction.driver.execute(_WRITE_CREDITS, *found)


async def credits_in(
    transaction: Transaction, since: Mapping[StatementKey, Position]
) -> dict[StatementKey, list[Credit]]:
    """What counts in each statement from the given position on."""
    found: dict[StatementKey, list[Credit]] = {key: [] for key in since}
    rows = await transaction.driver.fetch(
        "SELECT tenant, payee, plan, period, component, record_type, record_id, day, basis, amount "  # noqa: S608
        f"FROM credit JOIN {SINCE} {STATEMENT} "
        f"WHERE active AND reason = '' AND {POSITION} >= {SINCE_POSITION}",
        *columns(((*key, *position) for key, position in since.items()), 7),
    )
    for row in rows:
        found[StatementKey(*row[:4])].append(Credit(*row[4:]))
    return found
