"""Whom the CRMs' owners are: those whose records count for nobody yet, and mapping them to people.

Mapping is writing entries of the directory; whoever counts records hears of it as of any other
change, and credits those that have waited.
"""

from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from datetime import date
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from kit import pages
from kit.auth import Principal
from kit.database import Transaction
from kit.http import Problem, json_response
from schemas.crm import USER, Record
from schemas.directory import AnyEntry, Entry, OwnerMapping, Person
from services.ingest.api.directory import MAX_FAULTS, Keeper
from services.ingest.api.parts import Cursor, Limit, Parts, body_schema, json_body
from services.ingest.domain import directory
from services.ingest.store import records as store

Text = Annotated[str, msgspec.Meta(max_length=directory.MAX_TEXT)]
_Place = tuple[int, Text, Text]  # how many records wait, then the source and the owner's id


class _Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: Text
    owner_id: Text
    person: Text
    valid_from: date | None = None


class _Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    items: list[_Item] = []
    by_email: bool = False
    dry_run: bool = False


class Waiting(msgspec.Struct, frozen=True, order=True):
    """An owner whom nobody is mapped to; those with the most records come first."""

    minus_records: int
    source: str
    owner_id: str

    @property
    def key(self) -> str:
        """The id of the record in which the CRM describes this owner."""
        return f"{self.source}:{self.owner_id}"


def router(parts: Parts) -> APIRouter:
    """The routes under /v1/owners."""
    api = APIRouter(prefix="/v1/owners", tags=["owners"])
    operator = parts.operator()
    keeper = Keeper(parts)

    @api.get("/unmapped")
    async def unmapped(
        cursor: Cursor = "", limit: Limit = 100, principal: Principal = operator
    ) -> Response:
        """Owners whose records count for nobody, the most records first, with who they may be."""
        tenant = principal.tenant
        place = pages.place(cursor, _Place)
        async with parts.database.transaction() as transaction:
            entries = await parts.replica.load(transaction, tenant)
            waiting = await _waiting(transaction, tenant, entries)
            if place is not None:
                waiting = [one for one in waiting if one > Waiting(*place)]
            page = waiting[:limit]
            users = await _users(transaction, tenant, page)
        named = directory.people_by_email(entries)
        last = page[-1] if len(waiting) > limit else None
        following = pages.cursor((last.minus_records, last.source, last.owner_id)) if last else None
        items = [_shown(one, users.get(one.key), named) for one in page]
        return json_response({"items": items, "next": following})

    @api.post("/map", openapi_extra=body_schema("application/json", _BODY))
    async def map_owners(request: Request, principal: Principal = operator) -> Response:
        """Map owners to people, all or none: those named, or all whose e-mail address names one."""
        wanted: _Wanted = await json_body(request, _Wanted)
        if bool(wanted.items) == wanted.by_email:
            detail = 'Send either "items" or "by_email": true.'
            raise Problem(422, "invalid-request", detail)
        tenant = principal.tenant
        async with parts.database.transaction() as transaction:
            entries = await parts.replica.load(transaction, tenant)
            waiting = await _waiting(transaction, tenant, entries)
            users = await _users(transaction, tenant, waiting) if wanted.by_email else {}
        items: Sequence[_Item] = wanted.items
        if wanted.by_email:
            named = directory.people_by_email(entries)
            items = [
                _Item(one.source, one.owner_id, person.id)
                for one in waiting
                if (person := _suggested(users.get(one.key), named)) is not None
            ]
        keeper.check_count(len(items))
        if wanted.dry_run:
            _mappings(tenant, items, entries)  # says what is wrong, as mapping would
        else:
            await keeper.change(tenant, lambda known: _mappings(tenant, items, known))
        counts = {(one.source, one.owner_id): -one.minus_records for one in waiting}
        shown = [
            msgspec.to_builtins(item) | {"records": counts.get((item.source, item.owner_id), 0)}
            for item in items
        ]
        return json_response({"mapped": shown, "dry_run": wanted.dry_run})

    return api


_BODY = {
    "type": "object",
    "properties": {
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["source", "owner_id", "person"],
                "properties": {
                    "source": {"type": "string"},
                    "owner_id": {"type": "string"},
                    "person": {"type": "string"},
                    "valid_from": {"type": "string", "format": "date"},
                },
            },
        },
        "by_email": {"type": "boolean"},
        "dry_run": {"type": "boolean"},
    },
}


async def _waiting(
    transaction: Transaction, tenant: str, entries: Sequence[Entry]
) -> list[Waiting]:
    mapped = {
        (entry.source, entry.owner_id)
        for entry in entries
        if isinstance(entry, OwnerMapping) and not entry.deleted
    }
    seen = await store.owners(transaction, tenant)
    return sorted(
        Waiting(-count, source, owner)
        for source, owner, count in seen
        if (source, owner) not in mapped
    )


async def _users(
    transaction: Transaction, tenant: str, owners: Sequence[Waiting]
) -> dict[str, Record]:
    """What the CRMs say of these owners, by the id of the record that says it."""
    found = await store.find_records(transaction, [(tenant, USER, one.key) for one in owners])
    return {user.id: user for user in found if not user.deleted}


def _suggested(user: Record | None, named: Mapping[str, Person]) -> Person | None:
    email = None if user is None else user.text("email")
    return named.get(email.casefold()) if email else None


def _shown(one: Waiting, user: Record | None, named: Mapping[str, Person]) -> dict[str, Any]:
    person = _suggested(user, named)
    return {
        "source": one.source,
        "owner_id": one.owner_id,
        "records": -one.minus_records,
        "name": user.text("name") if user else None,
        "email": user.text("email") if user else None,
        "suggestion": person.id if person else None,
    }


def _mappings(tenant: str, items: Sequence[_Item], known: Sequence[Entry]) -> list[AnyEntry]:
    """The entries that these items write, or all that is wrong with them, by place."""
    people = {e.id for e in known if isinstance(e, Person) and not e.deleted}
    mappings = [e for e in known if isinstance(e, OwnerMapping) and not e.deleted]
    taken = {mapping.id for mapping in mappings}
    of_owner: dict[tuple[str, str], dict[str, OwnerMapping]] = defaultdict(dict)
    for mapping in mappings:
        of_owner[mapping.source, mapping.owner_id][mapping.id] = mapping
    written: dict[str, AnyEntry] = {}
    faults: list[dict[str, Any]] = []
    for number, item in enumerate(items):
        try:
            mine = of_owner[item.source, item.owner_id]
            for mapping in directory.mapped(mine.values(), _mapping(tenant, item, people), taken):
                mine[mapping.id] = written[mapping.key] = mapping
                taken.add(mapping.id)
        except directory.BadEntryError as error:
            faults.append({"item": number, "what": str(error)})
    if faults:
        detail = f"{len(faults)} items are wrong and nothing was stored; see `errors`."
        raise Problem(422, "invalid-entries", detail, errors=faults[:MAX_FAULTS])
    return list(written.values())


def _mapping(tenant: str, item: _Item, people: Container[str]) -> OwnerMapping:
    if item.person not in people:
        raise directory.BadEntryError(f"there is no person {item.person!r:.60}")
    fields = msgspec.structs.asdict(item)
    made = directory.entry(tenant, "owner", "new", fields, version=0)
    assert isinstance(made, OwnerMapping)
    return made
