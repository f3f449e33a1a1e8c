"""People, teams, territories and who belongs where as what: written here, published to everyone.

Stored first, then published, then answered. Writing an entry as it already is changes nothing and
publishes it again, so that repeating a request heals one that failed half-way.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from kit import pages, spreadsheet
from kit.auth import Principal
from kit.database import Transaction
from kit.http import Problem, json_response
from schemas.directory import AnyEntry, Entry
from services.ingest.api.parts import (
    Cursor,
    Limit,
    Name,
    Parts,
    body_schema,
    check_match,
    json_body,
    versioned,
)
from services.ingest.domain import directory
from services.ingest.store import directory as store

MAX_FAULTS = 100  # of an import, in one answer


def router(parts: Parts) -> APIRouter:
    """The routes under /v1/directory."""
    api = APIRouter(prefix="/v1/directory", tags=["directory"])
    keeper = Keeper(parts)
    operator = parts.operator()

    @api.put("", openapi_extra=body_schema("application/json", _LIST))
    async def put_many(request: Request, principal: Principal = operator) -> Response:
        """Store a list of entries of any kinds, all or none."""
        found = await json_body(request, list[dict[str, Any]])
        keeper.check_count(len(found))
        lines = enumerate(found, 1)
        entries = _collect(principal.tenant, ((n, _kind(f), f) for n, f in lines), text=False)
        stored = await keeper.keep(principal.tenant, entries)
        return json_response({"stored": len(stored)})

    @api.post("/import", openapi_extra=body_schema("text/csv", {"type": "string"}))
    async def import_csv(
        request: Request,
        kind: Annotated[str, Query(description=f"One of {', '.join(directory.KINDS)}.")],
        principal: Principal = operator,
    ) -> Response:
        """Store the rows of a CSV file, columns `id` and the kind's fields, all or none."""
        rows = list(spreadsheet.rows(await request.body()))
        keeper.check_count(len(rows))
        entries = _collect(principal.tenant, ((n, kind, row) for n, row in rows), text=True)
        stored = await keeper.keep(principal.tenant, entries)
        return json_response({"stored": len(stored)})

    @api.get("/{kind}")
    async def page(
        kind: Name, cursor: Cursor = "", limit: Limit = 100, principal: Principal = operator
    ) -> Response:
        """The entries of one kind."""
        _known(kind)
        place = pages.place(cursor, tuple[str])
        after = "" if place is None else place[0]
        async with parts.database.transaction() as transaction:
            items = await store.page_of_entries(
                transaction, principal.tenant, kind, after=after, limit=limit
            )
        following = pages.cursor([items[-1].id]) if len(items) == limit else None
        return json_response({"items": items, "next": following})

    @api.get("/{kind}/{number}")
    async def get(
        request: Request, kind: Name, number: Name, principal: Principal = operator
    ) -> Response:
        """One entry, with its version as ETag."""
        _known(kind)
        key = f"{principal.tenant}/{kind}/{number}"
        async with parts.database.transaction() as transaction:
            found = (await store.entries(transaction, principal.tenant, [key])).get(key)
        if found is None or found.deleted:
            raise Problem(404, "not-found", "There is no such entry.")
        return pages.tagged(request, found, str(found.version))

    @api.put("/{kind}/{number}", openapi_extra=body_schema("application/json", _OBJECT))
    async def put(
        request: Request, kind: Name, number: Name, principal: Principal = operator
    ) -> Response:
        """Create or replace one entry; `If-Match` guards against overwriting someone's change."""
        _known(kind)
        fields = await json_body(request, dict[str, Any])
        entry = _entry(principal.tenant, kind, number, fields)
        stored = await keeper.keep(
            principal.tenant, [entry], if_match=request.headers.get("if-match")
        )
        return json_response(stored[0], headers={"ETag": f'"{stored[0].version}"'})

    @api.delete("/{kind}/{number}", status_code=204)
    async def delete(
        request: Request, kind: Name, number: Name, principal: Principal = operator
    ) -> Response:
        """Remove one entry; whoever relied on it is told."""
        _known(kind)
        await keeper.remove(
            principal.tenant, kind, number, if_match=request.headers.get("if-match")
        )
        return Response(status_code=204)

    return api


_OBJECT = {"type": "object"}
_LIST = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["kind", "id"],
        "properties": {
            "kind": {"type": "string", "enum": list(directory.KINDS)},
            "id": {"type": "string"},
        },
    },
}


class Keeper:
    """Publishes entries with growing versions and keeps them, alone with the tenant's directory.

    Published before the commit: should the commit fail, we read the entry back from the topic; and
    nobody publishes a later version in between.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def check_count(self, count: int) -> None:
        """Raise 413 when a request has more entries than are stored as one."""
        limit = self._parts.settings.max_entries
        if count > limit:
            detail = f"{count} entries in one request; send at most {limit}."
            raise Problem(413, "too-many-items", detail)

    async def change(
        self, tenant: str, decide: Callable[[Sequence[Entry]], Sequence[AnyEntry]]
    ) -> list[AnyEntry]:
        """Keep what is decided from the tenant's directory, which nobody else changes meanwhile."""
        async with self._parts.database.transaction() as transaction:
            await transaction.lock(self._parts.replica.lock_name(tenant))
            known = await self._parts.replica.load(transaction, tenant)
            wanted = decide(known)
            current = {entry.key: entry for entry in known}
            return await self._store(transaction, wanted, current)

    async def keep(
        self, tenant: str, wanted: Sequence[AnyEntry], *, if_match: str | None = None
    ) -> list[AnyEntry]:
        """Keep these entries; `if_match` is about the first."""
        async with self._parts.database.transaction() as transaction:
            await transaction.lock(self._parts.replica.lock_name(tenant))
            current = await store.entries(transaction, tenant, [entry.key for entry in wanted])
            if if_match is not None:
                check_match(if_match, current.get(wanted[0].key), "entry")
            return await self._store(transaction, wanted, current)

    async def _store(
        self,
        transaction: Transaction,
        wanted: Sequence[AnyEntry],
        current: Mapping[str, Entry],
    ) -> list[AnyEntry]:
        now = self._parts.now_us()
        kept = [versioned(entry, current.get(entry.key), now) for entry in wanted]
        await self._parts.replica.store(transaction, kept)
        await self._parts.publish(kept)
        return kept

    async def remove(self, tenant: str, kind: Name, number: Name, *, if_match: str | None) -> None:
        """Keep an entry as deleted."""
        key = f"{tenant}/{kind}/{number}"
        async with self._parts.database.transaction() as transaction:
            await transaction.lock(self._parts.replica.lock_name(tenant))
            found = (await store.entries(transaction, tenant, [key])).get(key)
            if found is None:
                raise Problem(404, "not-found", "There is no such entry.")
            if if_match is not None:
                check_match(if_match, found, "entry")
            gone = msgspec.structs.replace(found, deleted=True)
            gone = versioned(gone, found, self._parts.now_us())
            await self._parts.replica.store(transaction, [gone])
            await self._parts.publish([gone])


def _known(kind: str) -> None:
    if kind not in directory.KINDS:
        raise Problem(404, "not-found", f"Kinds are {', '.join(directory.KINDS)}.")


def _entry(tenant: str, kind: Name, number: Name, fields: Mapping[str, Any]) -> AnyEntry:
    try:
        return directory.entry(tenant, kind, number, fields, version=0)
    except directory.BadEntryError as error:
        raise Problem(422, "invalid-entry", str(error)) from error


def _kind(fields: Mapping[str, Any]) -> str:
    return str(fields.get("kind"))


_Row = Mapping[str, Any]


def _collect(tenant: str, rows: Iterator[tuple[int, str, _Row]], *, text: bool) -> list[AnyEntry]:
    """All entries, or all that is wrong with them, by line."""
    faults: list[dict[str, Any]] = []
    entries: dict[str, AnyEntry] = {}
    for line, kind, row in rows:
        fields = {name: value for name, value in row.items() if name not in ("kind", "id")}
        number = row.get("id")
        try:
            entry = directory.entry(
                tenant,
                kind,
                number if isinstance(number, str) else "",
                fields,
                version=0,
                text=text,
            )
            if entry.key in entries:
                raise directory.BadEntryError("the same kind and id occur twice")  # noqa: TRY301
            entries[entry.key] = entry
        except directory.BadEntryError as error:
            faults.append({"line": line, "what": str(error)})
    if faults:
        detail = f"{len(faults)} entries are wrong and nothing was stored; see `errors`."
        raise Problem(422, "invalid-entries", detail, errors=faults[:MAX_FAULTS])
    return list(entries.values())
