"""The CRMs that may send: created, changed, paused, given new secrets and removed.

Secrets go in and never come out, except those that we make, once. Writing a source as it already is
changes nothing and publishes it again, so that repeating a request heals one that failed half-way.
What the sources file has is shown, and is changed there.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from kit import pages
from kit.auth import Principal
from kit.http import Problem, json_response
from services.ingest.api.parts import NO_NUL, Cursor, Limit, Parts, body_schema, json_body
from services.ingest.api.source_changes import (
    DAY_SECONDS,
    MAX_OVERLAP_SECONDS,
    Keeper,
    Rotation,
    invalid,
    not_found,
    paused,
    removed,
)
from services.ingest.api.vault import MAX_SECRETS
from services.ingest.domain.vendors import all_vendors

MAX_BYTES = 256 * 1024  # of a source with its mapping: it travels in one message

Number = Annotated[str, Path(pattern=NO_NUL, max_length=300, description="The source's id.")]


def router(parts: Parts) -> APIRouter:
    """The routes under /v1/sources."""
    api = APIRouter(prefix="/v1/sources", tags=["sources"])
    keeper = Keeper(parts)
    _add_reads(api, parts, keeper)
    _add_writes(api, parts, keeper)
    _add_operations(api, parts, keeper)
    return api


def _add_reads(api: APIRouter, parts: Parts, keeper: Keeper) -> None:
    operator = parts.operator()

    @api.get("")
    async def page(
        cursor: Cursor = "", limit: Limit = 100, principal: Principal = operator
    ) -> Response:
        """The tenant's sources by id, without their secrets."""
        place = pages.place(cursor, tuple[str])
        after = "" if place is None else place[0]
        shown = await keeper.all(principal.tenant)
        numbers = sorted(number for number in shown if number > after)[:limit]
        following = pages.cursor([numbers[-1]]) if len(numbers) == limit else None
        return json_response({"items": [shown[n] for n in numbers], "next": following})

    @api.get("/{number}")
    async def get(request: Request, number: Number, principal: Principal = operator) -> Response:
        """One source, without its secrets, and its version as ETag."""
        found = (await keeper.all(principal.tenant)).get(number)
        if found is None:
            raise not_found()
        return pages.tagged(request, found, str(found["version"] or ""))


def _add_writes(api: APIRouter, parts: Parts, keeper: Keeper) -> None:
    operator = parts.operator()

    @api.post("", status_code=201, openapi_extra=body_schema("application/json", _NEW))
    async def create(request: Request, principal: Principal = operator) -> Response:
        """Create a source; the answer has the secret if it is ours to make, this once.

        Creating it again as it is answers 200; 409 says in which fields it differs.
        """
        fields = await _fields(request)
        number = fields.pop("id", None)
        if not isinstance(number, str) or "\x00" in number:  # which PostgreSQL's text can't hold
            raise invalid(["id is missing or not text"])
        change, before = await keeper.write(
            principal.tenant,
            number,
            lambda current: keeper.created(principal.tenant, number, fields, current),
        )
        status = 201 if before is None or before.deleted else 200
        headers = {"Location": f"/v1/sources/{number}"}
        return keeper.answer(change, status, headers)

    @api.put("/{number}", openapi_extra=body_schema("application/json", _SETTINGS))
    async def put(request: Request, number: Number, principal: Principal = operator) -> Response:
        """Create or replace a source; `If-Match` guards against overwriting someone's change.

        What is absent gets its default; but `secrets`, and credentials of an `api` that is there,
        stay as they are. Those given replace the ones before at once: rotate to leave no gap.
        """
        fields = await _fields(request)
        change, _ = await keeper.write(
            principal.tenant,
            number,
            lambda current: keeper.change(principal.tenant, number, fields, current),
            request=request,
        )
        return keeper.answer(change)

    @api.delete("/{number}", status_code=204)
    async def delete(request: Request, number: Number, principal: Principal = operator) -> Response:
        """Remove a source with its secrets; its records stay, and its past can be read again."""
        await keeper.write(principal.tenant, number, removed, request=request)
        return Response(status_code=204)


def _add_operations(api: APIRouter, parts: Parts, keeper: Keeper) -> None:
    operator = parts.operator()

    @api.post("/{number}/rotate", openapi_extra=body_schema("application/json", _ROTATION))
    async def rotate(request: Request, number: Number, principal: Principal = operator) -> Response:
        """Give a source a new secret; the ones before are accepted until the overlap ends.

        Without `secret` we make one, where that is ours to do, and show it this once.
        """
        body = await request.body()
        wanted = await json_body(request, Rotation) if body else Rotation()
        change, _ = await keeper.write(
            principal.tenant,
            number,
            lambda current: keeper.rotated(current, wanted),
            request=request,
        )
        return keeper.answer(change)

    @api.post("/{number}/pause")
    async def pause(request: Request, number: Number, principal: Principal = operator) -> Response:
        """Answer this CRM 503, so that it keeps what it would send, for as long as it does."""
        change, _ = await keeper.write(
            principal.tenant, number, lambda current: paused(current, yes=True), request=request
        )
        return keeper.answer(change)

    @api.post("/{number}/resume")
    async def resume(request: Request, number: Number, principal: Principal = operator) -> Response:
        """Take again what the CRM sends."""
        change, _ = await keeper.write(
            principal.tenant, number, lambda current: paused(current, yes=False), request=request
        )
        return keeper.answer(change)


async def _fields(request: Request) -> dict[str, Any]:
    found: dict[str, Any] = await json_body(request, dict[str, Any])
    if len(await request.body()) > MAX_BYTES:
        detail = f"A source takes at most {MAX_BYTES} bytes, with its mapping."
        raise Problem(413, "too-large", detail)
    return found


_SECRET = {"type": "string", "minLength": 1, "maxLength": 1000}
_PROPERTIES = {
    "vendor": {"type": "string", "enum": sorted(all_vendors())},
    "secrets": {"type": "array", "maxItems": MAX_SECRETS, "items": _SECRET, "writeOnly": True},
    "rate": {"type": "number", "minimum": 0, "description": "Requests per second; 0: no limit."},
    "paused": {"type": "boolean"},
    "mapping": {"type": "object"},
    "api": {"type": "object", "description": "How the CRM is asked for what its events lack."},
}
_SETTINGS = {"type": "object", "required": ["vendor"], "properties": _PROPERTIES}
_NEW = {
    "type": "object",
    "required": ["id", "vendor"],
    "properties": {"id": {"type": "string"}, **_PROPERTIES},
}
_ROTATION = {
    "type": "object",
    "properties": {
        "secret": _SECRET,
        "overlap_seconds": {
            "type": "integer",
            "minimum": 0,
            "maximum": MAX_OVERLAP_SECONDS,
            "default": DAY_SECONDS,
        },
    },
    "additionalProperties": False,
}
