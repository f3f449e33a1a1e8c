"""Every SQL statement of payouts. Values in, values out; rows are written in their keys' order.

The order of locks is: configuration (advisory), records, statements. Whoever holds a statement's
row may read its credits and lines: nobody else can post to it meanwhile.
"""

from services.payouts.store.configuration import Configuration, Context
from services.payouts.store.credits import CreditRow, credits_in, credits_of, write_credits
from services.payouts.store.digests import digests
from services.payouts.store.ledger import (
    Balance,
    Imbalance,
    TransferRow,
    balances,
    ledger_size,
    post,
    transfers,
    unbalanced,
)
from services.payouts.store.reads import (
    FindingRow,
    ShownLine,
    ShownStatement,
    Visible,
    findings_by_reason,
    list_findings,
    list_statements,
    periods,
    statement,
)
from services.payouts.store.records import keep_records, records_after
from services.payouts.store.statements import (
    lines_in,
    lock_statements,
    openings,
    save_lines,
    save_statements,
    statement_keys,
    statements,
)

__all__ = [
    "Balance",
    "Configuration",
    "Context",
    "CreditRow",
    "FindingRow",
    "Imbalance",
    "ShownLine",
    "ShownStatement",
    "TransferRow",
    "Visible",
    "balances",
    "credits_in",
    "credits_of",
    "digests",
    "findings_by_reason",
    "keep_records",
    "ledger_size",
    "lines_in",
    "list_findings",
    "list_statements",
    "lock_statements",
    "openings",
    "periods",
    "post",
    "records_after",
    "save_lines",
    "save_statements",
    "statement",
    "statement_keys",
    "statements",
    "transfers",
    "unbalanced",
    "write_credits",
]
