"""One record as it is now, and the CRM's owners whom nobody has been mapped to."""

from datetime import date

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from kit import pages
from kit.auth import Principal
from kit.http import Problem, json_response
from schemas.crm import Record
from schemas.directory import Directory, OwnerMapping
from services import access
from services.ingest import store
from services.ingest.api.parts import Name, Parts


def router(parts: Parts) -> APIRouter:
    """The routes under /v1/records and /v1/owners."""
    api = APIRouter(prefix="/v1", tags=["records"])
    anyone, operator = parts.anyone(), parts.operator()

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
        return pages.tagged(request, found, str(found.version))

    @api.get("/owners/unmapped")
    async def unmapped(principal: Principal = operator) -> Response:
        """Owners whose records count for nobody, the most records first."""
        async with parts.database.transaction() as transaction:
            seen = await store.owners(transaction, principal.tenant)
            entries = await parts.replica.load(transaction, principal.tenant)
        mapped = {
            (entry.source, entry.owner_id)
            for entry in entries
            if isinstance(entry, OwnerMapping) and not entry.deleted
        }
        items = [
            {"source": source, "owner_id": owner, "records": count}
            for source, owner, count in sorted(seen, key=lambda one: (-one[2], one))
            if (source, owner) not in mapped
        ]
        return json_response({"items": items, "next": None})

    return api


def _may_see(principal: Principal, directory: Directory, record: Record, today: date) -> bool:
    if access.sees_all(principal):
        return True
    owner = record.text("owner_id")
    person = directory.person_of(record.source, owner, today) if owner else None
    return person is not None and access.may_see_person(principal, directory, person.id, today)
