"""What waits to be read from the CRMs: how much and why, and asking by hand."""

from datetime import datetime, timedelta
from typing import Annotated

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from kit import pages
from kit.auth import Principal
from kit.http import Problem, json_response
from schemas.base import valid_id
from services.ingest.api.parts import Cursor, Limit, Name, Parts, body_schema, json_body
from services.ingest.crms import CLIENTS
from services.ingest.domain import fields, values
from services.ingest.domain.facts import BadEventError
from services.ingest.store import rereads

WHOLE = "*"  # in a path, in place of a record's id: the whole type
MAX_FIELDS = 100
_Place = tuple[str, str, str]
_FIELD_NAME = r"^[A-Za-z0-9_.\-]{1,102}$"
_FieldName = Annotated[str, msgspec.Meta(pattern=_FIELD_NAME)]


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A record, or without an id a whole type, that somebody wants to have read."""

    source: str
    type: str
    id: str | None = None
    fields: Annotated[list[_FieldName], msgspec.Meta(max_length=MAX_FIELDS)] = []


_SCHEMA = body_schema(
    "application/json",
    {
        "type": "object",
        "required": ["source", "type"],
        "additionalProperties": False,
        "properties": {
            "source": {"type": "string"},
            "type": {"type": "string", "description": "A record type, as opportunity."},
            "id": {
                "type": ["string", "null"],
                "description": "The record's id, <source>:<the CRM's>; else the whole type.",
            },
            "fields": {
                "type": "array",
                "maxItems": MAX_FIELDS,
                "items": {"type": "string", "pattern": _FIELD_NAME},
            },
        },
    },
)


def router(parts: Parts) -> APIRouter:
    """The routes under /v1/rereads."""
    api = APIRouter(prefix="/v1/rereads", tags=["rereads"])
    operator = parts.operator()

    def asked(tenant: str) -> list[str]:
        return [one.id for one in parts.sources.with_api() if one.tenant == tenant]

    def now() -> datetime:
        return values.aware(parts.now_us())

    @api.get("")
    async def page(
        cursor: Cursor = "", limit: Limit = 100, principal: Principal = operator
    ) -> Response:
        """How many records wait, why and since when; and the records, by source, type and id."""
        after = pages.place(cursor, _Place) or ("", "", "")
        tenant, able = principal.tenant, asked(principal.tenant)
        async with parts.database.transaction() as transaction:
            counts = await rereads.counts(transaction, tenant, asked=able, now=now())
            items = await rereads.page(
                transaction, tenant, asked=able, now=now(), after=after, limit=limit
            )
        last = items[-1] if len(items) == limit else None
        following = None if last is None else pages.cursor((last.source, last.type, last.id or ""))
        return json_response({"counts": counts, "items": items, "next": following})

    @api.post("", status_code=202, openapi_extra=_SCHEMA)
    async def ask(request: Request, principal: Principal = operator) -> Response:
        """Ask the CRM for a record, or for all of a type, as soon as it may be asked."""
        wanted: Asked = await json_body(request, Asked)
        source = parts.sources.known(principal.tenant, wanted.source)
        if source is None:
            raise Problem(404, "not-found", "No source of this id is configured.")
        if source.vendor not in CLIENTS:
            known = ", ".join(sorted(CLIENTS))
            raise Problem(422, "not-asked", f"Only sources of {known} can be asked.")
        _check(wanted)
        key = (principal.tenant, wanted.source, wanted.type, wanted.id or "")
        wish = rereads.Wish(*key, rereads.MANUAL, parts.now_us(), tuple(wanted.fields))
        async with parts.database.transaction() as transaction:
            await rereads.want(transaction, [wish], now=now(), delay=timedelta())
            await rereads.hasten(transaction, *key, now=now())
        waits = "" if wanted.source in asked(principal.tenant) else "no-credentials"
        return json_response({"state": waits or "waiting"}, 202)

    @api.delete("/{source}/{kind}/{number}", status_code=204)
    async def forget(
        source: Name, kind: Name, number: Name, principal: Principal = operator
    ) -> Response:
        """No longer ask for a record, or with * in place of its id for the whole type."""
        key = (kind, "" if number == WHOLE else number)
        async with parts.database.transaction() as transaction:
            gone = await rereads.remove(transaction, principal.tenant, source, [key])
        if not gone:
            raise Problem(404, "not-found", "This isn't waited for; it may have been answered.")
        return Response(status_code=204)

    return api


def _check(wanted: Asked) -> None:
    try:
        fields.record_type(wanted.type)
    except BadEventError as error:
        raise Problem(422, "invalid-request", f"type: {error}") from error
    number = wanted.id
    if number is not None and not (valid_id(number) and number.startswith(f"{wanted.source}:")):
        detail = f"id: a record's id is {wanted.source}: and then the CRM's id of it."
        raise Problem(422, "invalid-request", detail)
