"""Displays outside: which boards they show, where they are told, and how that went."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel
from starlette.responses import Response

from kit.auth import Principal
from kit.http import Problem, json_response
from services.metrics.api import documents
from services.metrics.api.boards import standings_of
from services.metrics.api.parts import PROBLEMS, Parts
from services.metrics.domain import displays as domain
from services.metrics.domain.catalogue import Mistake
from services.metrics.store import displays as store


class DeliveryOut(BaseModel):
    """How far the newest event is: waiting (for `next_attempt_at`), delivered or given up."""

    state: str
    event: str
    made_at: datetime
    next_attempt_at: datetime | None
    failures: int
    status: str
    delivered: str
    delivered_at: datetime | None


class DisplayOut(BaseModel):
    """A display; `secret` says where the secret is. `delivery` is null before the first event."""

    id: str
    url: str
    secret: str
    board: str
    top: int
    delivery: DeliveryOut | None


def add(routes: APIRouter, parts: Parts) -> None:
    """What there is under /displays."""
    unavailable: dict[int | str, dict[str, Any]] = {
        503: {"description": "Kafka is away; nothing was kept."}
    }

    @routes.get("/displays", response_model=dict[str, list[DisplayOut]], responses=PROBLEMS)
    async def displays(principal: Annotated[Principal, Depends(parts.principal)]) -> Response:
        """All displays of the organisation."""
        principal.require("ops")
        found = await _found(parts, principal)
        return json_response({"displays": list(found.values())})

    @routes.get("/displays/{display}", response_model=DisplayOut, responses=PROBLEMS)
    async def display(
        principal: Annotated[Principal, Depends(parts.principal)], display: str
    ) -> Response:
        """A display, and what came of the last attempt to tell it something."""
        principal.require("ops")
        found = await _found(parts, principal)
        if display not in found:
            raise _unknown(display)
        return json_response(found[display])

    @routes.put(
        "/displays/{display}",
        response_model=DisplayOut,
        responses=PROBLEMS | unavailable,
        openapi_extra=documents.BODY,
    )
    async def put_display(
        request: Request, principal: Annotated[Principal, Depends(parts.principal)], display: str
    ) -> Response:
        """Have a display told the order at the top of a board: now, and whenever it changes."""
        principal.require("ops")
        document = documents.named(await documents.body(request), display)
        wanted, mistakes = domain.read_display(document)
        documents.refuse(mistakes)
        assert wanted is not None
        try:
            parts.displays.check(principal.tenant, wanted)
        except ValueError as error:
            documents.refuse([Mistake("", str(error))])
        await standings_of(parts, principal, wanted.board, None)  # 404 when there is no such board
        async with parts.database.transaction() as transaction:
            await documents.write(parts, transaction, principal, "display", display, document)
        return json_response((await _found(parts, principal))[display])

    @routes.delete("/displays/{display}", status_code=204, responses=PROBLEMS | unavailable)
    async def delete_display(
        principal: Annotated[Principal, Depends(parts.principal)], display: str
    ) -> Response:
        """Tell it no more."""
        principal.require("ops")
        async with parts.database.transaction() as transaction:
            old = await documents.write(parts, transaction, principal, "display", display, None)
        if old is None or old.deleted:
            raise _unknown(display)
        return Response(status_code=204)


async def _found(parts: Parts, principal: Principal) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    async with parts.database.transaction() as transaction:
        for state in await parts.context.boards.load(transaction, principal.tenant):
            display, _ = domain.read_display(state.document)
            if state.kind == "display" and not state.deleted and display is not None:
                delivery = await store.delivery(transaction, state.tenant, state.id)
                found[state.id] = _shown(display, delivery)
    return found


def _shown(display: domain.Display, delivery: store.Delivery | None) -> dict[str, Any]:
    shown: dict[str, Any] = {name: getattr(display, name) for name in display.__struct_fields__}
    shown["delivery"] = delivery and {
        "state": delivery.state,
        "event": delivery.event,
        "made_at": delivery.made_at,
        "next_attempt_at": delivery.due_at,
        "failures": delivery.failures,
        "status": delivery.status,
        "delivered": delivery.delivered,
        "delivered_at": delivery.delivered_at,
    }
    return shown


def _unknown(display: str) -> Problem:
    return Problem(404, "not-found", f"There is no display {display!r:.80}.")
