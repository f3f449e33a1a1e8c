"""Close's API: objects one by one, whole types a page at a time, pipelines, users."""

from collections.abc import AsyncIterator
from typing import ClassVar
from urllib.parse import quote

import msgspec

from services.ingest.crms.base import Asking, Page, resource
from services.ingest.crms.transport import Answer, Door, RefusedError, Session, basic

PAGE = 100
_PATHS = {
    "opportunity": "opportunity",
    "lead": "lead",
    "contact": "contact",
    "task": "task",
    "call": "activity/call",
    "email": "activity/email",
    "meeting": "activity/meeting",
    "message": "activity/sms",
    "note": "activity/note",
    "stage": "pipeline",
    "pipeline": "pipeline",
    "user": "user",
}


class _Page(msgspec.Struct, frozen=True):
    data: list[msgspec.Raw]
    has_more: bool = False


_decode = msgspec.json.Decoder(_Page).decode


class Close:
    """What Close is asked."""

    door: ClassVar[Door] = Door(
        url="https://api.close.com",
        oauth="https://api.close.com/oauth2/token/",
        domains=("close.com",),
        token_header=lambda key: basic(key, ""),
    )
    batch: ClassVar[int] = 1  # there is no question for several
    metadata: ClassVar[tuple[str, ...]] = ("stage", "user")
    whole: ClassVar[frozenset[str]] = frozenset({"stage", "pipeline", "user"})

    async def records(self, session: Session, asking: Asking) -> AsyncIterator[Answer]:
        """Each object alone."""
        path = resource(asking, _PATHS)
        for number in asking.ids:
            yield await session.ask("GET", f"/api/v1/{path}/{quote(number, safe='')}/")

    async def page(self, session: Session, asking: Asking, cursor: str) -> Page:
        """The next objects. Those before them may go meanwhile, so that pages overlap by half."""
        path = resource(asking, _PATHS)
        skip = int(cursor or "0")
        params = {"_limit": str(PAGE), "_skip": str(skip)}
        answer = await session.ask("GET", f"/api/v1/{path}/", params=params)
        try:
            found = _decode(answer.body)
        except msgspec.DecodeError as error:
            raise RefusedError(f"the answer is not Close's: {error}") from error
        following = str(skip + max(1, len(found.data) // 2)) if found.has_more else ""
        return Page((answer,), following)
