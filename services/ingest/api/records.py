"""One record as it is now, and where it went when it was merged into another."""

from datetime import date

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from kit import pages
from kit.auth import Principal
from kit.http import Problem
from schemas.crm import Record
from schemas.directory import Directory
from services import access
from services.ingest.api.parts import Name, Parts
from services.ingest.domain import merge
from services.ingest.store import records as store


def router(parts: Parts) -> APIRouter:
    """The routes under /v1/records."""
    api = APIRouter(prefix="/v1", tags=["records"])
    anyone = parts.anyone()

    @api.get("/records/{kind}/{number}")
    async def get(
        request: Request, kind: Name, number: Name, principal: Principal = anyone
    ) -> Response:
        """A record's known state, its version as ETag, for whoever may see its owner's numbers."""
        async with parts.database.transaction() as transaction:
            found = await store.find_record(transaction, principal.tenant, kind, number)
            entries = await parts.replica.load(transaction, principal.tenant)
        directory = Directory(principal.tenant, entries)
        today = directory.calendar.local_day(parts.clock())
        if found is None or not _may_see(principal, directory, found, today):
            raise Problem(404, "not-found", "There is no such record, or it isn't yours to see.")
        shown = msgspec.to_builtins(found) | {
            "merged_into": merge.survivor(found.fields) or None,
            "merged_from": merge.merged_from(found.fields),
        }
        return pages.tagged(request, shown, str(found.version))

    return api


def _may_see(principal: Principal, directory: Directory, record: Record, today: date) -> bool:
    if access.sees_all(principal):
        return True
    owner = record.text("owner_id")
    person = directory.person_of(record.source, owner, today) if owner else None
    return person is not None and access.may_see_person(principal, directory, person.id, today)
