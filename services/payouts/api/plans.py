"""Plans: read, checked, published and taken back."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from kit import pages
from kit.auth import Principal
from kit.clock import real_micros
from kit.consumer import Batch
from kit.database import Transaction
from kit.http import Problem, json_response
from kit.publisher import PublishError
from schemas.base import State, valid_id
from schemas.spm import PlanDocument
from services.payouts.api.shared import Api, Cursor, Limit, after, clean, page
from services.payouts.domain.plan import PlanError, Trouble
from services.payouts.domain.text import plan_of

_BODY = {
    "requestBody": {
        "required": True,
        "description": "The plan as YAML or JSON; see the guide to plans.",
        "content": {"application/yaml": {"schema": {"type": "string"}}, "application/json": {}},
    }
}


def routes(api: Api) -> APIRouter:
    """The routes of plans."""
    router = APIRouter(tags=["plans"])
    Caller = Annotated[Principal, Depends(api.principal)]  # noqa: N806  # a type

    @router.post("/plans/lint", openapi_extra=_BODY)
    async def lint_plan(request: Request, principal: Caller) -> Response:
        """Say everything that is wrong with a plan, and where."""
        _known(principal)
        try:
            await _read(api, request)
        except PlanError as error:
            return json_response({"valid": False, "errors": _shown(error.troubles)})
        return json_response({"valid": True, "errors": []})

    @router.put("/plans/{plan_id}", openapi_extra=_BODY)
    async def put_plan(plan_id: str, request: Request, principal: Caller) -> Response:
        """Publish a plan; what it changes in statements is posted before the answer."""
        principal.require("finance")
        try:
            document = await _read(api, request)
        except PlanError as error:
            detail = "; ".join(f"{t.where}: {t.what}" for t in error.troubles[:5])
            raise Problem(422, "invalid-plan", detail, errors=_shown(error.troubles)) from None
        if document["plan"] != plan_id:
            raise Problem(
                422,
                "invalid-plan",
                f"The document says plan: {document['plan']}, the address says {plan_id}.",
                errors=[{"where": "plan", "what": f"is not {plan_id}", "line": None}],
            )
        state, changed = await _change(api, principal, plan_id, request, lambda _: document)
        return json_response(
            {
                "plan": state.document,
                "revision": state.revision,
                "version": state.version,
                "changed": changed,
            },
            headers={"ETag": f'"{state.revision}"'},
        )

    @router.delete("/plans/{plan_id}")
    async def delete_plan(plan_id: str, request: Request, principal: Caller) -> Response:
        """Take a plan back, with all pay under it."""
        principal.require("finance")
        clean(plan_id)
        state, _ = await _change(api, principal, plan_id, request, None)
        return json_response({"revision": state.revision, "version": state.version})

    @router.get("/plans")
    async def list_plans(
        request: Request,
        principal: Caller,
        cursor: str | None = Cursor,
        limit: int | None = Limit,
    ) -> Response:
        """All plans in force or to come, by id."""
        _known(principal)
        (last,), size = after(cursor, 1), limit or api.settings.page_size
        async with api.database.transaction() as transaction:
            plans = await api.configuration.plans.load(transaction, principal.tenant)
        found = sorted((p for p in plans if not p.deleted and p.id > last), key=lambda p: p.id)
        return page(request, found[: size + 1], size, show=_listed, key=lambda p: (p.id,))

    @router.get("/plans/{plan_id}")
    async def get_plan(plan_id: str, request: Request, principal: Caller) -> Response:
        """A plan as published last."""
        _known(principal)
        async with api.database.transaction() as transaction:
            plan = await _current(api, transaction, principal.tenant, plan_id)
        if plan is None or plan.deleted:
            raise _missing(plan_id)
        return pages.tagged(
            request,
            {
                "id": plan.id,
                "revision": plan.revision,
                "version": plan.version,
                "document": plan.document,
            },
        )

    return router


def _known(principal: Principal) -> None:
    principal.require("rep", "manager", "finance", "ops")


def _missing(plan_id: str) -> Problem:
    return Problem(404, "not-found", f"There is no plan {plan_id}.")


async def _read(api: Api, request: Request) -> dict[str, Any]:
    """The request's plan document; raises `PlanError`."""
    body = await request.body()
    if len(body) > api.settings.max_plan_bytes:
        raise Problem(413, "too-large", f"A plan has at most {api.settings.max_plan_bytes} bytes.")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise PlanError([Trouble("text", "is not UTF-8")]) from None
    _, document = await run_in_threadpool(plan_of, text)
    return document


async def _change(
    api: Api,
    principal: Principal,
    plan_id: str,
    request: Request,
    edit: Callable[[PlanDocument | None], dict[str, Any]] | None,
) -> tuple[PlanDocument, bool]:
    """Store, apply and publish a plan's next state; `edit` None deletes it."""
    if not valid_id(plan_id):
        raise Problem(422, "invalid-request", "The plan's id has characters that ids can't have.")
    tenant = principal.tenant
    plans = api.configuration.plans
    async with api.database.transaction() as transaction:
        # Alone with the plans from here on: the next revision follows the one that is read.
        await api.configuration.lock(transaction, [tenant], {plans.lock_name(tenant)})
        current = await _current(api, transaction, tenant, plan_id)
        _check_match(request, current)
        if edit is None and (current is None or current.deleted):
            raise _missing(plan_id)
        document = edit(current) if edit else (current.document if current else {})
        deleted = edit is None
        changed = current is None or current.document != document or current.deleted != deleted
        if changed or current is None:
            current = PlanDocument(
                tenant=tenant,
                version=max(current.version + 1 if current else 0, real_micros()),
                id=plan_id,
                revision=current.revision + 1 if current else 1,
                document=document,
                deleted=deleted,
            )
        touched: list[State] = list(await api.apply(transaction, Batch([current])))
        # Before the commit and under the lock: should the commit fail, we read the plan back from
        # its topic; and nobody publishes a later revision in between.
        await _publish(api.publisher.publish, [current])
    await _publish(api.publisher.publish, touched)
    return current, changed


async def _publish(publish: Callable[[list[State]], Awaitable[None]], states: list[State]) -> None:
    try:
        await publish(states)
    except PublishError as error:
        raise Problem(
            503,
            "not-published",
            "Kafka does not answer. Send the same request again; it changes nothing twice.",
            headers={"Retry-After": "5"},
        ) from error


async def _current(
    api: Api, transaction: Transaction, tenant: str, plan_id: str
) -> PlanDocument | None:
    plans = await api.configuration.plans.load(transaction, tenant)
    return next((plan for plan in plans if plan.id == plan_id), None)


def _check_match(request: Request, current: PlanDocument | None) -> None:
    wanted = request.headers.get("if-match")
    if wanted is None:
        return
    exists = current is not None and not current.deleted
    tag = f'"{current.revision}"' if current and exists else None
    if not (exists if wanted.strip() == "*" else tag in {w.strip() for w in wanted.split(",")}):
        raise Problem(
            412,
            "changed-meanwhile",
            f"The plan is at revision {current.revision}; read it again before changing it."
            if current and exists
            else "There is no such plan.",
        )


def _shown(troubles: list[Trouble]) -> list[dict[str, object]]:
    return [{"where": t.where, "what": t.what, "line": t.line} for t in troubles]


def _listed(plan: PlanDocument) -> dict[str, object]:
    document = plan.document
    return {
        "id": plan.id,
        "revision": plan.revision,
        "version": plan.version,
        "name": document["name"],
        "currency": document["currency"],
        "period": document["period"],
        "effective": document["effective"],
    }
