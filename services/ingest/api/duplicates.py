"""Which facts came in more than once, by source.

A CRM that sends the same again is harmless and shows as `natural`. The same event with another
content is `synthetic`: either the CRM's ids are no ids, or somebody plays with them; each is shown.
"""

import re
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
from asyncpg.exceptions import QueryCanceledError
from fastapi import APIRouter, Query
from pydantic import AwareDatetime
from starlette.responses import Response

from kit import pages
from kit.auth import Principal
from kit.http import Problem, json_response
from services.ingest.api.parts import NO_NUL, Cursor, Limit, Parts
from services.ingest.domain import values
from services.ingest.store import events

DEFAULT_WINDOW = timedelta(days=1)
MAX_WINDOW = timedelta(days=31)
MICROSECOND = timedelta(microseconds=1)
UID = re.compile(r"[0-9a-f]{32}")

_Uid = Annotated[str, msgspec.Meta(max_length=32)]
Since = Annotated[
    AwareDatetime | None, Query(description="Received since; a day ago, unless given.")
]
Until = Annotated[AwareDatetime | None, Query(description="Received before; now, unless given.")]
SourceId = Annotated[
    str | None, Query(max_length=128, pattern=NO_NUL, description="Only of this source.")
]


def router(parts: Parts) -> APIRouter:
    """The route /v1/duplicates."""
    api = APIRouter(prefix="/v1", tags=["events"])
    operator = parts.operator()

    @api.get("/duplicates")
    async def duplicates(
        since: Since = None,
        until: Until = None,
        source: SourceId = None,
        cursor: Cursor = "",
        limit: Limit = 100,
        principal: Principal = operator,
    ) -> Response:
        """How often the same facts came in, and those that said something else each time."""
        window = _window(parts.now_us(), since, until, source)
        after = pages.place(cursor, _Uid) or ""
        if after and not UID.fullmatch(after):
            raise Problem(422, "invalid-cursor", "Send `next` of the page before as it is.")
        try:
            async with parts.database.transaction() as transaction:
                counts = await events.count_duplicates(transaction, principal.tenant, window)
                found = await events.contradictions(
                    transaction,
                    principal.tenant,
                    window,
                    after=bytes.fromhex(after),
                    limit=limit,
                )
        except QueryCanceledError as error:
            detail = "There are too many events in this window; ask for a shorter one."
            raise Problem(422, "window-too-large", detail) from error
        following = pages.cursor(found[-1].uid.hex()) if len(found) == limit else None
        answer = {
            "since": values.aware(window.since).isoformat(),
            "until": values.aware(window.until).isoformat(),
            "sources": counts,
            "items": [_contradiction(one) for one in found],
            "next": following,
        }
        return json_response(answer)

    return api


def _window(
    now_us: int, since: datetime | None, until: datetime | None, source: str | None
) -> events.Window:
    """The window asked for; 422 when it is none."""
    end = now_us if until is None else (until - values.EPOCH) // MICROSECOND
    begin = end - DEFAULT_WINDOW // MICROSECOND
    if since is not None:
        begin = (since - values.EPOCH) // MICROSECOND
    if not 0 <= begin < end <= values.LATEST_US or end - begin > MAX_WINDOW // MICROSECOND:
        detail = f"`since` must be before `until`, and at most {MAX_WINDOW.days} days before."
        raise Problem(422, "invalid-window", detail)
    return events.Window(begin, end, source)


def _contradiction(one: events.Contradiction) -> dict[str, Any]:
    return {
        "event_uid": one.uid.hex(),
        "source": one.source,
        "type": one.type,
        "record": one.id,
        "events": one.events,
        "contents": one.contents,
        "came": [
            {"id": number, "content": digest}
            for number, digest in zip(one.times, one.digests, strict=True)
        ],
    }
