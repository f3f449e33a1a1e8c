"""Prometheus instruments of payouts: what each means, and what to do when it moves."""

from prometheus_client import Counter, Gauge

CREDITS = Counter(
    "pacesetter_payouts_credits_total",
    "Decisions about newly seen record versions, by outcome: `credited`, `withdrawn`, or the "
    "reason for a finding. A reason that grows: read GET /v1/findings and fix mapping or data.",
    ["outcome"],
)
STATEMENTS_EVALUATED = Counter(
    "pacesetter_payouts_statements_evaluated_total",
    "Statements evaluated. Far above the rate of won deals: somebody edits plans or goals.",
)
TRANSFERS_POSTED = Counter(
    "pacesetter_payouts_transfers_posted_total",
    "Transfers appended to the ledger, by direction (`accrued`, `reversed`). Many reversals: deals "
    "are being reopened or plans changed; the transfers name their cause.",
    ["direction"],
)
FINDINGS = Gauge(
    "pacesetter_payouts_findings",
    "Records that a plan means and can't count, by reason. Above zero: somebody isn't paid until "
    "it is fixed; see GET /v1/findings.",
    ["reason"],
)
UNBALANCED = Gauge(
    "pacesetter_payouts_unbalanced_statements",
    "Statements whose lines and ledger differ at the last check. Must be 0; page otherwise, and "
    "see GET /v1/ledger/verify for which.",
)
