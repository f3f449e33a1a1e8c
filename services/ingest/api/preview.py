"""What a request would become: its canonical events, and the records as they would be after it.

Nothing is stored or published. The body and headers are those that the CRM would send; whether they
prove that they are the CRM's is said, and not required.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from kit.auth import Principal
from kit.http import Problem, json_response
from schemas.crm import Field, Record
from services.ingest.api.parts import Name, Parts, body_schema
from services.ingest.api.receive import PATH, as_received, check_media, check_shape, headers_of
from services.ingest.domain import canonical, merge, readers
from services.ingest.domain.facts import DELETED, Outcome
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import Arrival, RefusedError, Vendor, all_vendors

AUTH = "preview"  # how what is only looked at was authenticated
_ANYTHING = body_schema("*/*", {})


def router(parts: Parts) -> APIRouter:
    """The route /v1/sources/{id}/preview."""
    api = APIRouter(prefix="/v1/sources", tags=["sources"])
    operator = parts.operator()
    base = parts.settings.public_url.rstrip("/")

    @api.post("/{number}/preview", openapi_extra=_ANYTHING)
    async def preview(request: Request, number: Name, principal: Principal = operator) -> Response:
        """What this request, sent to the source's events, would become; nothing is stored."""
        source = parts.sources.get(number)
        if source is None or source.tenant != principal.tenant:
            raise Problem(404, "not-found", "No source of this id is configured.")
        now_us = parts.now_us()
        query = request.url.query
        arrival = Arrival(
            method="POST",
            url=base + PATH.format(source=source.id) + (f"?{query}" if query else ""),
            headers=headers_of(request),
            query=request.query_params,
            body=await request.body(),
            now_ms=now_us // 1000,
        )
        vendor = all_vendors()[source.vendor]
        answer = vendor.handshake(arrival, source)
        if answer is not None:
            return json_response({"handshake": {"status": answer.status, "media": answer.media}})
        check_media(arrival.headers, vendor)
        check_shape(arrival, vendor, most=parts.settings.max_items)
        signature = _signature(vendor, arrival, source)
        received = as_received(source, arrival, signature["method"] or AUTH, now_us=now_us)
        async with parts.database.transaction() as transaction:
            outcomes, changes = await parts.preview(transaction, received)
        shown = {
            "signature": signature,
            "events": [canonical.outcome(received, *one) for one in outcomes],
            "records": [_change(before, after) for before, after in changes],
        }
        return json_response(shown)

    return api


def offline(
    source: Source, body: bytes, headers: Mapping[str, str], *, most: int
) -> list[dict[str, Any]]:
    """The canonical events of a body that was sent with these headers; raises Problem."""
    vendor = all_vendors()[source.vendor]
    now = datetime.now(UTC)
    arrival = Arrival(
        method="POST",
        url=PATH.format(source=source.id),
        headers={name.lower(): value for name, value in headers.items()},
        query={},
        body=body,
        now_ms=int(now.timestamp() * 1000),
    )
    check_media(arrival.headers, vendor)
    check_shape(arrival, vendor, most=most)
    received = as_received(source, arrival, AUTH, now_us=arrival.now_ms * 1000)
    outcomes: Sequence[tuple[int, Outcome]] = readers.read(received, source)
    return [canonical.outcome(received, *one) for one in outcomes]


def _signature(vendor: Vendor, arrival: Arrival, source: Source) -> dict[str, Any]:
    """Whether the request proves that it is the vendor's; None where nobody can tell from it."""
    if vendor.verify is None:
        return {"valid": None, "method": None, "why": "It is sent with one of our API keys."}
    try:
        method = vendor.verify(arrival, source)
    except RefusedError as error:
        return {"valid": False, "method": None, "why": str(error)}
    if method is None:
        return {"valid": None, "method": None, "why": "It is sent with one of our API keys."}
    return {"valid": True, "method": method, "why": None}


def _change(before: Record | None, after: Record) -> dict[str, Any]:
    old = {} if before is None else before.fields
    names = merge.changed(merge.Known(old), merge.Known(after.fields))
    changed = {}
    for name in names:
        field = DELETED if name == "deleted" else name
        changed[name] = {"old": _value(old.get(field)), "new": _value(after.fields[field])}
    return {
        "type": after.type,
        "id": after.id,
        "known": before is not None,
        "changed": changed,
        "fields": {
            name: _value(field)
            for name, field in sorted(after.fields.items())
            if not name.startswith("_")
        },
        "stages": after.stages,
        "expected_before": after.expected_before,
        "deleted": after.deleted,
        "merged_into": merge.survivor(after.fields) or None,
        "merged_from": merge.merged_from(after.fields),
    }


def _value(field: Field | None) -> dict[str, Any]:
    if field is None:
        return {"state": "unknown"}
    return {"state": field.state} | ({"value": field.value} if field.state == "value" else {})
