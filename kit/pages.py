"""Lists in pages, and answers that needn't be sent twice.

A cursor names the place where a page ended; it is opaque to who gets it, and anything but one of
ours is refused. An ETag names an answer's content, or the version that a caller gives.
"""

import base64
import hashlib
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from kit.http import Problem

ETAG_CHARACTERS = 32  # of the content's SHA-256

_NUL = rb"\u0000"  # as JSON writes it; PostgreSQL's text can't hold it


def cursor(place: object) -> str:
    """The opaque name of a place in a list."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def place(text: str | None, kind: Any) -> Any:
    """The place that `cursor` has named, as this type; None for the first page, 422 otherwise."""
    if not text:
        return None
    try:
        named = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        if _NUL in named:
            raise ValueError("no text of ours has a NUL")  # noqa: TRY301  # one answer for all
        return msgspec.json.decode(named, type=kind)
    except (ValueError, RecursionError) as error:  # base64's and msgspec's errors are ValueErrors
        detail = "Send `next` of the page before as it is, or no cursor for the first page."
        raise Problem(422, "invalid-cursor", detail) from error


def tagged(request: Request, data: object, tag: str = "") -> Response:
    """JSON with an ETag (of the content, unless given); 304 for who has it already."""
    body = msgspec.json.encode(data)
    etag = f'"{tag or hashlib.sha256(body).hexdigest()[:ETAG_CHARACTERS]}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if has(request, etag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


def has(request: Request, etag: str) -> bool:
    """Whether the asker names this ETag, quotes included, as one that it has."""
    given = request.headers.get("if-none-match", "")
    return etag in {each.strip().removeprefix("W/") for each in given.split(",")}
