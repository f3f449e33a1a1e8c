"""What happened to an event: asked by the request, the vendor's id of it, or the record."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from starlette.responses import Response

from kit import pages
from kit.auth import Principal
from kit.http import Problem, json_response
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
from services.ingest.store.events import FIRST
from services.ingest.tracing import Step, Trace, Tracer, UnavailableError

Text = Annotated[str, msgspec.Meta(max_length=128)]
_Place = tuple[Text, PlaceNumber, PlaceNumber]
_At = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]
_RecordPlace = tuple[_At, Text, PlaceNumber, PlaceNumber]

About = Annotated[str | None, Query(max_length=300, pattern=NO_NUL)]


def router(parts: Parts) -> APIRouter:
    """The routes under /v1/events."""
    api = APIRouter(prefix="/v1", tags=["events"])
    operator, tracer = parts.operator(), parts.tracer

    @api.get("/events")
    async def find(
        request: About = None,
        vendor_event: About = None,
        record: About = None,
        cursor: Cursor = "",
        limit: Limit = 100,
        principal: Principal = operator,
    ) -> Response:
        """What became of a request (our id of it), a vendor's event, or a record (type/id)."""
        if sum(one is not None for one in (request, vendor_event, record)) != 1:
            detail = "Ask by exactly one of request, vendor_event and record=<type>/<id>."
            raise Problem(422, "invalid-request", detail)
        try:
            found = await _found(
                tracer, principal.tenant, request, vendor_event, record, cursor, limit
            )
        except UnavailableError as error:
            raise unavailable(parts.settings, f"Kafka: {error}; ask again.") from error
        if not cursor and found.nothing:
            raise Problem(404, "not-found", "Nothing is known of it, or no longer.")
        return json_response(_page(found, limit, by_record=record is not None))

    @api.get("/events/{number}")
    async def get(number: Name, principal: Principal = operator) -> Response:
        """One item of a request (its id is <request>.<index>) as it came and is read today."""
        request, _, index = number.rpartition(".")
        try:
            found = await tracer.item(principal.tenant, request, index) if request else None
        except UnavailableError as error:
            raise unavailable(parts.settings, f"Kafka: {error}; ask again.") from error
        if found is None or not found[1]:
            detail = "The raw log has no such item; it keeps requests for as long as its topic."
            raise Problem(404, "not-found", detail)
        received = found[0].received
        shown = {
            "id": number,
            "message": found[0].ref,
            "received_at": received.received_at,
            "url": received.url,
            "headers": received.headers,
            "events": found[1],
        }
        return json_response(shown | shown_bytes("body", received.body))

    return api


async def _found(
    tracer: Tracer,
    tenant: str,
    request: str | None,
    vendor_event: str | None,
    record: str | None,
    cursor: str,
    limit: int,
) -> Trace:
    """The trace of whichever is given."""
    if record is not None:
        kind, _, number = record.partition("/")
        place = pages.place(cursor, _RecordPlace)
        return await tracer.of_record(tenant, kind, number, place, limit)
    after = pages.place(cursor, _Place) or FIRST
    if request is not None:
        return await tracer.of_request(tenant, request, after, limit)
    return await tracer.of_vendor_event(tenant, vendor_event or "", after, limit)


def _page(found: Trace, limit: int, *, by_record: bool) -> dict[str, Any]:
    following = None
    if len(found.items) == limit:
        following = pages.cursor(_place(found.items[-1], by_record=by_record))
    shown: dict[str, Any] = msgspec.to_builtins(found)
    return shown | {"next": following}


def _place(last: Step, *, by_record: bool) -> tuple[Any, ...]:
    place = (last.request, last.index, last.number)
    return (last.at, *place) if by_record else place
