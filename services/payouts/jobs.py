"""Work done by the clock: the check that the ledger adds up, and the count of findings."""

import structlog

from kit.database import Database
from kit.jobs import Job
from services.payouts import store, telemetry
from services.payouts.domain.credit import REASONS

log = structlog.get_logger(__name__)


def verify_job(database: Database, *, seconds: float) -> Job:
    """Compare ledger, lines and totals of all statements again and again."""

    async def run() -> None:
        await verify(database)

    return Job("verify_ledger", seconds, run)


async def verify(database: Database) -> list[store.Imbalance]:
    """One comparison; sets the gauges and says what doesn't add up."""
    async with database.transaction() as transaction:
        wrong = await store.unbalanced(transaction, None)
        findings = await store.findings_by_reason(transaction)
    telemetry.UNBALANCED.set(len({(w.tenant, w.statement) for w in wrong}))
    for reason in REASONS:
        telemetry.FINDINGS.labels(reason).set(findings.get(reason, 0))
    for imbalance in wrong[:10]:
        log.error(
            "statement_unbalanced",
            tenant=imbalance.tenant,
            statement=imbalance.statement,
            ledger_minor=imbalance.ledger,
            lines_minor=imbalance.lines,
            total_minor=imbalance.statement_total,
        )
    return wrong
