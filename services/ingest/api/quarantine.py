"""What could not be read: look at it, fix the cause, read it again."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from kit import pages
from kit.auth import Principal
from kit.http import Problem, json_response
from services.ingest import store
from services.ingest.api.parts import (
    NO_NUL,
    Cursor,
    Limit,
    Name,
    Parts,
    PlaceNumber,
)

MAX_INDEX_DIGITS = 9  # fits in PostgreSQL's integer

SourceId = Annotated[
    str | None, Query(max_length=128, pattern=NO_NUL, description="Only of this source.")
]
_Place = tuple[str, PlaceNumber]
ReplayLimit = Annotated[int, Query(ge=1, le=10_000, description="Items read in this call.")]


def router(parts: Parts) -> APIRouter:
    """The routes under /v1/quarantine."""
    api = APIRouter(prefix="/v1/quarantine", tags=["quarantine"])
    operator = parts.operator()

    @api.get("")
    async def page(
        source: SourceId = None,
        cursor: Cursor = "",
        limit: Limit = 100,
        principal: Principal = operator,
    ) -> Response:
        """Items put aside, oldest first."""
        items = await _page(parts, principal, source, pages.place(cursor, _Place), limit)
        following = (
            pages.cursor((items[-1].received, items[-1].index)) if len(items) == limit else None
        )
        return json_response({"items": [_summary(item) for item in items], "next": following})

    @api.get("/{number}")
    async def get(number: Name, principal: Principal = operator) -> Response:
        """One item with its bytes and the headers that it came with."""
        received, _, index = number.rpartition(".")
        found = None
        if index.isdecimal() and len(index) <= MAX_INDEX_DIGITS:
            async with parts.database.transaction() as transaction:
                found = await store.find_quarantined(
                    transaction, principal.tenant, received, int(index)
                )
        if found is None:
            raise Problem(404, "not-found", "There is no such item; it may have been replayed.")
        return json_response(_summary(found) | _content(found))

    @api.post("/replay")
    async def replay(
        source: SourceId = None,
        cursor: Cursor = "",
        limit: ReplayLimit = 1000,
        principal: Principal = operator,
    ) -> Response:
        """Read items again, in order, with today's readers and sources; `next` goes on."""
        items = await _page(parts, principal, source, pages.place(cursor, _Place), limit)
        async with parts.database.transaction() as transaction:
            records, done, still = await parts.replay(transaction, items)
        # Published before they are released: a crash in between only repeats this.
        await parts.publish(records)
        async with parts.database.transaction() as transaction:
            await store.release(transaction, done)
        following = (
            pages.cursor((items[-1].received, items[-1].index)) if len(items) == limit else None
        )
        return json_response({"replayed": len(done), "still": len(still), "next": following})

    return api


async def _page(
    parts: Parts,
    principal: Principal,
    source: str | None,
    after: tuple[str, int] | None,
    limit: int,
) -> list[store.Quarantined]:
    async with parts.database.transaction() as transaction:
        return await store.quarantined(
            transaction, principal.tenant, source=source, after=after or ("", -1), limit=limit
        )


def _summary(item: store.Quarantined) -> dict[str, Any]:
    return {
        "id": item.id,
        "source": item.source,
        "vendor": item.vendor,
        "received": item.received,
        "index": item.index,
        "received_at": item.received_at,
        "reason": item.reason,
    }


def _content(item: store.Quarantined) -> dict[str, Any]:
    try:
        content: dict[str, Any] = {"raw": item.raw.decode()}
    except UnicodeDecodeError:
        content = {"raw_base64": item.raw}  # msgspec writes bytes as base64
    return content | {"headers": item.request.headers, "url": item.request.url}
