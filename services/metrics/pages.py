"""The pages people look at: the TV leaderboard and the list of boards.

A page holds no data: it is the same file for everyone, and its script asks the API, which decides
what this person may see. Here is only what a browser needs before that: a way in, and the files.

- `?token=…` on any page is the way in. A token that is accepted becomes the cookie that kit.auth
  reads, and the browser is sent to the address without it, so that it stays out of history and
  bookmarks.
- The cookie is SameSite=Strict, which browsers withhold when a link in a chat or an e-mail leads
  here, redirects included. Such a visit first gets a page that loads the address again, now from
  our own site.
- Files live under the digest of all of them, so that they are cached for ever and never mixed: a
  page of one version imports modules of that version only. A screen that runs for weeks compares
  its own version with `/static/version.json` and reloads when they differ.
"""

import hashlib
import html
import re
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, RedirectResponse, Response

from kit.auth import COOKIE, Authenticator
from kit.http import Problem, json_response

FOLDER = Path(__file__).with_name("pages")
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# The longest a browser keeps a cookie; how long it is good for is up to the token inside.
COOKIE_SECONDS = 400 * 24 * 3600
# What RFC 6750 allows in a bearer token, within what fits into a header.
TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,4096}")
LOOPBACK = re.compile(r"localhost|127(\.\d+){3}|::1|\[::1\]|.+\.localhost")

PAGE_HEADERS = {
    # Everything comes from this service; nothing inline runs, and no text is ever parsed as HTML.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class File:
    """A static file as it is sent."""

    body: bytes
    media_type: str
    etag: str


@dataclass(frozen=True, slots=True)
class Site:
    """All files, read once. `version` is the digest of everything a browser could be showing."""

    version: str
    files: dict[str, File]
    pages: dict[str, str]

    def page(self, name: str, status: int = 200, **texts: str) -> HTMLResponse:
        """A page with its placeholders filled in; every text is escaped."""
        body = self.pages[name]
        for key, text in {"version": self.version, **texts}.items():
            body = body.replace(f"%{key}%", html.escape(text))
        return HTMLResponse(body, status, headers=PAGE_HEADERS)


def router(authenticator: Authenticator) -> APIRouter:
    """The routes of the pages, for the application to include."""
    routes = APIRouter(include_in_schema=False)
    site = _site()

    @routes.get("/")
    async def index(request: Request) -> Response:
        return await _enter(authenticator, site, request, "/") or site.page("index.html")

    @routes.get("/tv/{board}")
    async def board_page(request: Request, board: str) -> Response:
        address = f"/tv/{quote(board, safe='')}"
        return await _enter(authenticator, site, request, address) or site.page("board.html")

    @routes.get("/static/version.json")
    async def version() -> Response:
        return json_response({"version": site.version}, headers={"Cache-Control": "no-store"})

    @routes.get("/static/{name}")
    async def latest_file(request: Request, name: str) -> Response:
        return _file(site, request, name, "no-cache")

    @routes.get("/static/{version}/{name}")
    async def file_of_version(request: Request, version: str, name: str) -> Response:
        # While replicas are replaced, one may be asked for the files of another's version: what it
        # answers must not stay in a cache under that name.
        same = version == site.version
        return _file(
            site, request, name, "public, max-age=31536000, immutable" if same else "no-cache"
        )

    return routes


async def _enter(
    authenticator: Authenticator, site: Site, request: Request, address: str
) -> Response | None:
    """What stands between this request and the page: nothing for those who are in."""
    token = request.query_params.get("token")
    try:
        if token is None:
            await authenticator.authenticate(request)
            return None
        await authenticator.authenticate(_bearing(token.strip()))
    except Problem as problem:
        if problem.status != HTTPStatus.UNAUTHORIZED:
            raise
        if token is None and request.headers.get("sec-fetch-site") == "cross-site":
            return site.page("again.html", address=address)
        refused = token is not None or COOKIE in request.cookies
        reason = problem.detail if refused else "This page is for the people of the organisation."
        return site.page("enter.html", problem.status, reason=reason)
    response = RedirectResponse(address, HTTPStatus.SEE_OTHER, headers=PAGE_HEADERS)
    response.set_cookie(
        COOKIE,
        token.strip(),
        max_age=COOKIE_SECONDS,
        path="/",
        secure=not LOOPBACK.fullmatch(request.url.hostname or ""),
        httponly=True,
        samesite="strict",
    )
    return response


def _bearing(token: str) -> HTTPConnection:
    """A request that carries the token the way programs send it."""
    if not TOKEN.fullmatch(token):
        raise Problem(HTTPStatus.UNAUTHORIZED, "unauthorised", "This is not a token.")
    headers = Headers({"authorization": f"Bearer {token}"})
    return HTTPConnection({"type": "http", "headers": headers.raw})


def _file(site: Site, request: Request, name: str, caching: str) -> Response:
    file = site.files.get(name)
    if file is None:
        raise Problem(HTTPStatus.NOT_FOUND, "not-found", "There is no such file.")
    headers = {
        "Cache-Control": caching,
        "ETag": file.etag,
        "X-Content-Type-Options": "nosniff",
    }
    asked = request.headers.get("if-none-match", "")
    known = {tag.strip().removeprefix("W/") for tag in asked.split(",")}
    if file.etag in known or "*" in known:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(file.body, headers=headers, media_type=file.media_type)


@cache
def _site() -> Site:
    bodies = {path.name: path.read_bytes() for path in sorted(FOLDER.iterdir()) if path.is_file()}
    everything = hashlib.sha256()
    for name, body in bodies.items():
        everything.update(f"{name}:{len(body)}:".encode() + body)
    files, pages = {}, {}
    for name, body in bodies.items():
        suffix = Path(name).suffix
        if suffix == ".html":
            pages[name] = body.decode()
        elif suffix in MEDIA_TYPES:
            etag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
            files[name] = File(body, MEDIA_TYPES[suffix], etag)
    return Site(everything.hexdigest()[:16], files, pages)
