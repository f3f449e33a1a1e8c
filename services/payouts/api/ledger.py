"""The ledger as finance asks about it: whether it adds up, and the accounts."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from kit.auth import Principal
from kit.http import json_response
from schemas.money import from_minor
from services.payouts import store
from services.payouts.api.shared import Api, Cursor, Limit, after, page


def routes(api: Api) -> APIRouter:
    """The routes of the ledger."""
    router = APIRouter(prefix="/ledger", tags=["ledger"])
    Caller = Annotated[Principal, Depends(api.principal)]  # noqa: N806  # a type

    @router.get("/verify")
    async def verify(principal: Caller) -> Response:
        """Whether every statement's total, lines and ledger are the same amount."""
        principal.require("finance")
        async with api.database.transaction() as transaction:
            wrong = await store.unbalanced(transaction, principal.tenant)
            size = await store.ledger_size(transaction, principal.tenant)
        return json_response(
            {
                "balanced": not wrong,
                "transfers": size,
                "unbalanced": [
                    {
                        "statement": w.statement,
                        "currency": w.currency,
                        "ledger_minor": w.ledger,
                        "lines_minor": w.lines,
                        "total_minor": w.statement_total,
                    }
                    for w in wrong
                ],
            }
        )

    @router.get("/balances")
    async def balances(
        request: Request,
        principal: Caller,
        cursor: str | None = Cursor,
        limit: int | None = Limit,
    ) -> Response:
        """All accounts with their balance; what is owed to payees is negative."""
        principal.require("finance")
        size = limit or api.settings.page_size
        account, currency = after(cursor, 2)
        async with api.database.transaction() as transaction:
            rows = await store.balances(
                transaction, principal.tenant, after=(account, currency), limit=size + 1
            )
        return page(
            request,
            rows,
            size,
            show=lambda row: {
                "account": row.account,
                "currency": row.currency,
                "balance": from_minor(row.minor, row.currency),
            },
            key=lambda row: (row.account, row.currency),
        )

    return router
