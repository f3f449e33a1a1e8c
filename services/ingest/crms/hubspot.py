"""HubSpot's CRM API: objects in batches with the history of what counts, pipelines, owners (v3).

What deals are linked to is a question of its own (v4). Only the first page of a deal's links is
read: it has more than are kept of a record.

All of a type is found by its ids, a page at a time, and then read in batches: only a batch can name
all properties, because a URL can't hold them.
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import ClassVar

import msgspec

from schemas.crm import OPPORTUNITY
from services.ingest.crms.base import Asking, Page, resource
from services.ingest.crms.transport import Answer, Door, RefusedError, Session
from services.ingest.domain.vendors import hubspot

BATCH = 50  # with histories; 100 without
KEPT_SECONDS = 3600.0
_OWNERS = "/crm/v3/owners"
_HISTORY = frozenset({"dealstage", "amount", "hubspot_owner_id", "closedate"})
_LINKED = {OPPORTUNITY: ("contact", "account")}  # what a type's objects are asked their links to


class _Result(msgspec.Struct, frozen=True, rename="camel"):
    id: str = ""
    name: str = ""
    hubspot_defined: bool = False


class _Next(msgspec.Struct, frozen=True):
    after: str


class _Paging(msgspec.Struct, frozen=True):
    next: _Next | None = None


class _Page(msgspec.Struct, frozen=True):
    results: list[_Result] = []
    paging: _Paging | None = None

    @property
    def cursor(self) -> str:
        return self.paging.next.after if self.paging and self.paging.next else ""


_decode = msgspec.json.Decoder(_Page, strict=False).decode


class HubSpot:
    """What HubSpot is asked."""

    door: ClassVar[Door] = Door(
        url="https://api.hubapi.com",
        oauth="https://api.hubapi.com/oauth/v1/token",
        domains=("hubapi.com",),
    )
    batch: ClassVar[int] = BATCH
    metadata: ClassVar[tuple[str, ...]] = ("stage", "user")
    whole: ClassVar[frozenset[str]] = frozenset({"stage", "pipeline", "user"})

    async def records(self, session: Session, asking: Asking) -> AsyncIterator[Answer]:
        """One batch; what HubSpot can't find is in the answer, as errors.

        Links come first: when it has to be broken off, no object counts as read without them.
        """
        named = _object_type(asking)
        inputs = [{"id": number} for number in asking.ids]
        for kind in _LINKED.get(asking.type, ()):
            links = await self._links(session, named, hubspot.type_ids()[kind], inputs)
            if links is not None:
                yield links
        known = await self._properties(session, asking, named)
        yield await session.ask(
            "POST",
            f"/crm/v3/objects/{named}/batch/read",
            json={
                "properties": sorted(known - _HISTORY),
                "propertiesWithHistory": sorted(known & _HISTORY),
                "inputs": inputs,
            },
        )

    async def page(self, session: Session, asking: Asking, cursor: str) -> Page:
        """The next objects; pipelines with their stages; owners."""
        after = {"after": cursor} if cursor else {}
        if asking.type in ("stage", "pipeline"):
            return Page((await session.ask("GET", "/crm/v3/pipelines/deals"),))
        if asking.type == "user":
            answer = await session.ask("GET", _OWNERS, params={"limit": "100", **after})
            return Page((answer,), _read(answer).cursor)
        params = {"limit": str(BATCH), **after}
        path = f"/crm/v3/objects/{_object_type(asking)}"
        listed = _read(await session.ask("GET", path, params=params))
        ids = tuple(one.id for one in listed.results if one.id)
        if not ids:
            return Page((), listed.cursor)
        some = replace(asking, ids=ids)
        return Page(tuple([each async for each in self.records(session, some)]), listed.cursor)

    async def _links(
        self, session: Session, named: str, far: str, inputs: list[dict[str, str]]
    ) -> Answer | None:
        path = f"/crm/v4/associations/{named}/{far}/batch/read"
        until, _ = session.kept.get(path, (0.0, None))
        if session.now() < until:
            return None
        try:
            return await session.ask("POST", path, json={"inputs": inputs})
        except RefusedError as error:  # it takes a permission of its own
            if not error.divisible:
                session.kept[path] = (session.now() + KEPT_SECONDS, None)
            return None

    async def _properties(self, session: Session, asking: Asking, named: str) -> set[str]:
        """Those that have a meaning, and the company's own: a read gives only what it names."""
        wanted = {field.removeprefix("x_") for field in asking.fields if field.startswith("x_")}
        return {
            *hubspot.properties(asking.type),
            *wanted,
            *await self._own_properties(session, named),
        }

    async def _own_properties(self, session: Session, named: str) -> frozenset[str]:
        until, known = session.kept.get(named, (0.0, frozenset()))
        now = session.now()
        if now < until:
            return frozenset(known)
        try:
            answer = await session.ask("GET", f"/crm/v3/properties/{named}")
            found = frozenset(one.name for one in _read(answer).results if not one.hubspot_defined)
        except RefusedError:  # it takes a permission of its own
            found = frozenset()
        session.kept[named] = (now + KEPT_SECONDS, found)
        return found


def _object_type(asking: Asking) -> str:
    return resource(asking, hubspot.type_ids(), own=True)


def _read(answer: Answer) -> _Page:
    try:
        return _decode(answer.body)
    except msgspec.DecodeError as error:
        raise RefusedError(f"the answer is not HubSpot's: {error}") from error
