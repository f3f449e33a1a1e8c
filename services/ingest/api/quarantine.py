"""What could not be read: look at it, fix the cause, read it again, or give it up."""

from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from kit import pages
from kit.auth import Principal
from kit.http import Problem, json_response
from kit.publisher import PublishError
from schemas.crm import Discard
from services.ingest.api.parts import (
    NO_NUL,
    Cursor,
    Limit,
    Name,
    Parts,
    PlaceNumber,
    shown_bytes,
    unavailable,
)
from services.ingest.store import quarantine
from services.ingest.store.quarantine import Filter, Quarantined

log = structlog.get_logger(__name__)

MAX_INDEX_DIGITS = 9  # fits in PostgreSQL's integer

Words = Annotated[str | None, Query(max_length=128, pattern=NO_NUL)]
Reason = Annotated[
    str | None,
    Query(max_length=500, pattern=NO_NUL, description="Only with these words in their reason."),
]
Why = Annotated[
    str, Query(min_length=1, max_length=500, pattern=NO_NUL, description="Why; it is kept.")
]
_Place = tuple[str, PlaceNumber]
ReplayLimit = Annotated[int, Query(ge=1, le=10_000, description="Items read in this call.")]


def _filter(source: Words = None, vendor: Words = None, reason: Reason = None) -> Filter:
    return Filter(source, vendor, reason)


Meant = Annotated[Filter, Depends(_filter)]


def router(parts: Parts) -> APIRouter:
    """The routes under /v1/quarantine."""
    api = APIRouter(prefix="/v1/quarantine", tags=["quarantine"])
    operator = parts.operator()

    @api.get("")
    async def page(
        meant: Meant,
        cursor: Cursor = "",
        limit: Limit = 100,
        principal: Principal = operator,
    ) -> Response:
        """Items put aside, oldest first."""
        items = await _page(parts, principal, meant, cursor, limit)
        following = _following(items, limit)
        return json_response({"items": [_summary(item) for item in items], "next": following})

    @api.get("/reasons")
    async def reasons(
        meant: Meant, limit: Limit = 100, principal: Principal = operator
    ) -> Response:
        """How many items there are of each reason, the commonest first."""
        async with parts.database.transaction() as transaction:
            found = await quarantine.reasons(
                transaction, principal.tenant, meant=meant, limit=limit
            )
        return json_response({"items": found, "next": None})

    @api.get("/{number}")
    async def get(number: Name, principal: Principal = operator) -> Response:
        """One item with its bytes and the headers that it came with."""
        found = await _find(parts, principal, number)
        return json_response(_summary(found) | _content(found))

    @api.delete("/{number}", status_code=204)
    async def discard(number: Name, reason: Why, principal: Principal = operator) -> Response:
        """Give an item up, for good: however often its request is read again, it stays away."""
        found = await _find(parts, principal, number)
        decision = Discard(
            tenant=principal.tenant,
            version=parts.now_us(),
            received=found.received,
            index=found.index,
            source=found.source,
            reason=reason,
            by=principal.person or "",
        )
        async with parts.database.transaction() as transaction:
            await quarantine.discard(transaction, [decision])
            # Before the commit: should that fail, we read the decision back from the topic.
            await parts.publish([decision])
        log.warning(
            "quarantined_item_discarded",
            tenant=principal.tenant,
            item=found.id,
            source=found.source,
            unreadable=found.reason,
            because=reason,
            by=principal.person or "a machine",
        )
        return Response(status_code=204)

    @api.post("/replay")
    async def replay(
        meant: Meant,
        cursor: Cursor = "",
        limit: ReplayLimit = 1000,
        principal: Principal = operator,
    ) -> Response:
        """Read items again, in order, with today's readers and sources; `next` goes on."""
        items = await _page(parts, principal, meant, cursor, limit)
        async with parts.database.transaction() as transaction:
            records, done, still = await parts.replay(transaction, items)
        # Published before they are released: a crash in between only repeats this.
        try:
            await parts.publish_records(records)
        except PublishError as error:
            raise unavailable(parts.settings) from error
        async with parts.database.transaction() as transaction:
            await quarantine.release(transaction, done)
        following = _following(items, limit)
        return json_response({"replayed": len(done), "still": len(still), "next": following})

    return api


async def _page(
    parts: Parts, principal: Principal, meant: Filter, cursor: str, limit: int
) -> list[Quarantined]:
    after = pages.place(cursor, _Place) or ("", -1)
    async with parts.database.transaction() as transaction:
        return await quarantine.quarantined(
            transaction, principal.tenant, meant=meant, after=after, limit=limit
        )


def _following(items: list[Quarantined], limit: int) -> str | None:
    return pages.cursor((items[-1].received, items[-1].index)) if len(items) == limit else None


async def _find(parts: Parts, principal: Principal, number: str) -> Quarantined:
    received, _, index = number.rpartition(".")
    found = None
    if index.isascii() and index.isdecimal() and len(index) <= MAX_INDEX_DIGITS:
        async with parts.database.transaction() as transaction:
            found = await quarantine.find_quarantined(
                transaction, principal.tenant, received, int(index)
            )
    if found is None:
        raise Problem(404, "not-found", "There is no such item; it may have been replayed.")
    return found


def _summary(item: Quarantined) -> dict[str, Any]:
    return {
        "id": item.id,
        "source": item.source,
        "vendor": item.vendor,
        "request": item.received,
        "index": item.index,
        "received_at": item.received_at,
        "reason": item.reason,
    }


def _content(item: Quarantined) -> dict[str, Any]:
    about = {"headers": item.request.headers, "url": item.request.url}
    return shown_bytes("raw", item.raw) | about
