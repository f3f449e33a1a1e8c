"""Statements with everything behind them, earnings, and findings."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from kit import pages
from kit.auth import Principal
from kit.http import Problem
from schemas.money import from_minor
from schemas.periods import written
from services.access import require_person
from services.payouts import store
from services.payouts.api.shared import (
    Api,
    Cursor,
    Limit,
    after,
    clean,
    page,
    period_of,
)
from services.payouts.domain.credit import REASONS
from services.payouts.domain.evaluate import QUOTA_FINDINGS, evaluate
from services.payouts.domain.exact import plain
from services.payouts.domain.keys import StatementKey
from services.payouts.domain.ledger import Sums, summed
from services.payouts.domain.plan import Component, Flat, RevisedPlan
from services.payouts.store import Context, FindingRow, ShownStatement, TransferRow

NUMBER_DIGITS = 18  # of a transfer's number: what fits 64 bits
FINDINGS_SHOWN = 100  # on one statement; the list of findings has them all


def routes(api: Api) -> APIRouter:
    """The routes of statements and findings."""
    router = APIRouter(tags=["statements"])
    Caller = Annotated[Principal, Depends(api.principal)]  # noqa: N806  # a type

    @router.get("/statements")
    async def list_statements(
        request: Request,
        principal: Caller,
        period: str | None = None,
        plan: str | None = None,
        cursor: str | None = Cursor,
        limit: int | None = Limit,
    ) -> Response:
        """The statements that the caller may see, by payee, plan and period."""
        clean(period, plan)
        if period is not None:
            period_of(period)
        size = limit or api.settings.page_size
        payee, after_plan, after_period = after(cursor, 3)
        async with api.database.transaction() as transaction:
            context = await api.configuration.context(transaction, principal.tenant)
            rows = await store.list_statements(
                transaction,
                principal.tenant,
                visible=await api.visible(transaction, principal, context.directory),
                after=(payee, after_plan, after_period),
                limit=size + 1,
                period=period,
                plan=plan,
            )
        return page(request, rows, size, show=_listed, key=lambda row: row.key[1:])

    @router.get("/statements/{payee}/{plan}/{period}")
    async def get_statement(
        payee: str, plan: str, period: str, request: Request, principal: Caller
    ) -> Response:
        """One statement: total, components, lines, slices, records, findings."""
        key = _key(principal, payee, plan, period)
        async with api.database.transaction() as transaction:
            context = await api.configuration.context(transaction, principal.tenant)
            _require(api, principal, context, key)
            shown = await store.statement(transaction, key)
            findings = await store.list_findings(
                transaction,
                principal.tenant,
                visible=None,
                after=("", "", "", ""),
                limit=FINDINGS_SHOWN,
                of=key,
            )
        shown = shown or _empty(context, key)
        return pages.tagged(request, _tree(context, shown, findings))

    @router.get("/statements/{payee}/{plan}/{period}/transfers")
    async def list_transfers(
        payee: str,
        plan: str,
        period: str,
        request: Request,
        principal: Caller,
        cursor: str | None = Cursor,
        limit: int | None = Limit,
    ) -> Response:
        """What was posted to the ledger for a statement, in order."""
        key = _key(principal, payee, plan, period)
        size = limit or api.settings.page_size
        (last,) = after(cursor, 1)
        if last and not (last.isdecimal() and last.isascii() and len(last) <= NUMBER_DIGITS):
            raise Problem(422, "invalid-cursor", "Send `next` of the page before, as it is.")
        async with api.database.transaction() as transaction:
            context = await api.configuration.context(transaction, principal.tenant)
            _require(api, principal, context, key)
            rows = await store.transfers(transaction, key, after=int(last or 0), limit=size + 1)
        return page(request, rows, size, show=_transfer, key=lambda row: (str(row.number),))

    @router.get("/earnings/all")
    async def list_earnings(
        request: Request,
        principal: Caller,
        cursor: str | None = Cursor,
        limit: int | None = Limit,
    ) -> Response:
        """What everyone has earned, where anything counts; by payee, plan and period."""
        principal.require("finance", "ops")
        size = limit or api.settings.page_size
        payee, plan, period = after(cursor, 3)
        async with api.database.transaction() as transaction:
            rows = await store.list_statements(
                transaction,
                principal.tenant,
                visible=None,
                after=(payee, plan, period),
                limit=size + 1,
                with_lines=True,
            )
        return page(request, rows, size, show=_earned, key=lambda row: row.key[1:])

    @router.get("/findings")
    async def list_findings(
        request: Request,
        principal: Caller,
        reason: str | None = None,
        cursor: str | None = Cursor,
        limit: int | None = Limit,
    ) -> Response:
        """Records that a plan means and can't count, and why."""
        if reason is not None and reason not in REASONS:
            raise Problem(422, "invalid-request", f"reason is one of {', '.join(REASONS)}.")
        size = limit or api.settings.page_size
        kind, number, plan, component = after(cursor, 4)
        async with api.database.transaction() as transaction:
            context = await api.configuration.context(transaction, principal.tenant)
            rows = await store.list_findings(
                transaction,
                principal.tenant,
                visible=await api.visible(transaction, principal, context.directory),
                after=(kind, number, plan, component),
                limit=size + 1,
                reason=reason,
            )
        return page(
            request,
            rows,
            size,
            show=_finding,
            key=lambda row: (row.record_type, row.record_id, row.plan, row.component),
        )

    return router


def _key(principal: Principal, payee: str, plan: str, period: str) -> StatementKey:
    clean(payee, plan, period)
    grain, start = period_of(period)
    return StatementKey(principal.tenant, payee, plan, written(grain, start))


def _require(api: Api, principal: Principal, context: Context, key: StatementKey) -> None:
    day = api.day_of(context.directory, key.period)
    require_person(principal, context.directory, key.payee, day)


def _empty(context: Context, key: StatementKey) -> ShownStatement:
    """The statement of somebody who has no credit yet; 404 when there can't be one."""
    revised = context.plans.get(key.plan)
    if revised is None or key.payee not in context.directory.people:
        raise Problem(404, "not-found", "There is no such statement: check payee, plan and period.")
    grain, start = period_of(key.period)
    if grain != revised.plan.period or context.directory.calendar.start(grain, start) != start:
        raise Problem(
            404,
            "not-found",
            f"The plan pays by {revised.plan.period}; "
            f"the address must name the first day of one, such as "
            f"{context.directory.calendar.period(revised.plan.period, start)}.",
        )
    found = evaluate(revised.plan, [], context.quotas(key.payee, revised.plan, key.period))
    return ShownStatement(summed(Sums.empty(key), revised, found, posted=0), [])


def _tree(context: Context, shown: ShownStatement, findings: list[FindingRow]) -> dict[str, object]:
    row = shown.row
    revised = context.plans.get(row.key.plan)
    person = context.directory.people.get(row.key.payee)
    components = msgspec.json.decode(row.components)
    return {
        **_listed(row),
        "payee_name": person.name if person else None,
        "plan_name": revised.plan.name if revised else None,
        "findings": [_on_quota(c) for c in components if c["finding"]]
        + [_on_record(finding) for finding in findings],
        "components": [_component(revised, row.currency, c, shown) for c in components],
    }


def _component(
    revised: RevisedPlan | None, currency: str, sums: dict[str, Any], shown: ShownStatement
) -> dict[str, object]:
    defined = None
    if revised is not None:
        defined = next((c for c in revised.plan.components if c.id == sums["id"]), None)
    return {
        "id": sums["id"],
        "rule": str(defined.credit) if defined else None,
        "rate": _rate(defined) if defined else None,
        **{name: sums[name] for name in ("credited", "quota", "attainment", "tier")},
        "earned": from_minor(sums["earned_minor"], currency),
        "lines": [
            {
                "record": {
                    "type": line.key.record_type,
                    "id": line.key.record_id,
                    "version": line.record_version,
                },
                **msgspec.json.decode(line.posted.explain),
                "earned": from_minor(line.posted.posted_minor, line.posted.currency),
            }
            for line in shown.lines
            if line.key.component == sums["id"]
        ],
    }


def _rate(component: Component) -> dict[str, object]:
    rate = component.rate
    if isinstance(rate, Flat):
        return {"type": "flat", "rate": plain(rate.rate)}
    return {
        "type": "tiers_marginal",
        "measure": rate.measure,
        "boundary": rate.boundary,
        "tiers": [{"from": plain(t.start), "rate": plain(t.rate)} for t in rate.tiers],
    }


def _listed(row: Sums) -> dict[str, object]:
    return {
        "payee": row.key.payee,
        "plan": row.key.plan,
        "plan_revision": row.plan_revision,
        "period": row.key.period,
        "currency": row.currency,
        "earned": from_minor(row.earned_minor, row.currency),
        "credited": plain(row.credited),
        "quota": None if row.quota is None else plain(row.quota),
        "attainment": None if row.attainment is None else plain(row.attainment),
        "tier": row.tier,
        "lines": row.lines,
        "version": row.version,
    }


def _earned(row: Sums) -> dict[str, object]:
    return {
        "payee": row.key.payee,
        "plan": row.key.plan,
        "period": row.key.period,
        "currency": row.currency,
        "earned": from_minor(row.earned_minor, row.currency),
    }


def _on_quota(component: dict[str, Any]) -> dict[str, object]:
    reason = component["finding"]
    return {
        "component": component["id"],
        "reason": reason,
        "text": QUOTA_FINDINGS[reason],
        "record": None,
    }


def _on_record(row: FindingRow) -> dict[str, object]:
    return {
        "component": row.component,
        "reason": row.reason,
        "text": REASONS[row.reason],
        "record": {"type": row.record_type, "id": row.record_id, "version": row.record_version},
    }


def _finding(row: FindingRow) -> dict[str, object]:
    return {
        **_on_record(row),
        "plan": row.plan,
        "payee": row.payee or None,
        "period": row.period or None,
        "day": row.day,
        "currency": row.currency or None,
    }


def _transfer(row: TransferRow) -> dict[str, object]:
    return {
        "id": row.id,
        "number": row.number,
        "line": row.line,
        "debit": row.debit,
        "credit": row.credit,
        "amount": from_minor(row.amount_minor, row.currency),
        "currency": row.currency,
        "cause": row.cause,
        "posted_at": row.posted_at,
    }
