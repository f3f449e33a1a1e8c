"""Pipedrive's API: v2 where it has the object, v1 for leads, notes and users."""

from collections.abc import AsyncIterator
from typing import ClassVar
from urllib.parse import quote

import msgspec

from services.ingest.crms.base import Asking, Page, resource
from services.ingest.crms.transport import Answer, Door, RefusedError, Session

BATCH = 100
_PATHS = {
    "opportunity": "v2/deals",
    "contact": "v2/persons",
    "account": "v2/organizations",
    "product": "v2/products",
    **dict.fromkeys(("call", "meeting", "email", "task"), "v2/activities"),
    "pipeline": "v2/pipelines",
    "stage": "v2/stages",
    "lead": "v1/leads",
    "note": "v1/notes",
    "user": "v1/users",
}


class _Pagination(msgspec.Struct, frozen=True):
    more_items_in_collection: bool = False
    next_start: int = 0


class _More(msgspec.Struct, frozen=True):
    next_cursor: str | None = None
    pagination: _Pagination | None = None


class _Page(msgspec.Struct, frozen=True):
    additional_data: _More | None = None


_decode = msgspec.json.Decoder(_Page).decode


class Pipedrive:
    """What Pipedrive is asked."""

    door: ClassVar[Door] = Door(
        url="https://api.pipedrive.com",
        oauth="https://oauth.pipedrive.com/oauth/token",
        domains=("pipedrive.com",),
        token_header=lambda token: ("x-api-token", token),
        address="api_domain",
        client_by_basic=True,
    )
    batch: ClassVar[int] = BATCH
    metadata: ClassVar[tuple[str, ...]] = ("pipeline", "stage", "user")
    whole: ClassVar[frozenset[str]] = frozenset({"pipeline", "stage", "user"})

    async def records(self, session: Session, asking: Asking) -> AsyncIterator[Answer]:
        """One batch; in v1 each alone. What isn't there is left out, or refused as not found."""
        path = resource(asking, _PATHS)
        if path.startswith("v2"):
            params = {"ids": ",".join(asking.ids), "limit": str(BATCH)}
            yield await session.ask("GET", f"/api/{path}", params=params)
            return
        for number in asking.ids:
            yield await session.ask("GET", f"/api/{path}/{quote(number, safe='')}")

    async def page(self, session: Session, asking: Asking, cursor: str) -> Page:
        """The next objects."""
        path = resource(asking, _PATHS)
        named = "cursor" if path.startswith("v2") else "start"
        params = {"limit": str(BATCH), **({named: cursor} if cursor else {})}
        answer = await session.ask("GET", f"/api/{path}", params=params)
        return Page((answer,), _following(answer))


def _following(answer: Answer) -> str:
    try:
        more = _decode(answer.body).additional_data
    except msgspec.DecodeError as error:
        raise RefusedError(f"the answer is not Pipedrive's: {error}") from error
    if more is None:
        return ""
    if more.pagination is not None and more.pagination.more_items_in_collection:
        return str(more.pagination.next_start)
    return more.next_cursor or ""
