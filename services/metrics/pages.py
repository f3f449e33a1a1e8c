"""The pages people look at: boards, for the wall and for the desk, and those of who is on them.

A page holds no data: it is the same file for everyone, and its script asks the API, which decides
what this person may see. Here is only what a browser needs before that: a way in, and the files.

- `?token=…` on any page is the way in. A token that is accepted becomes the cookie that kit.auth
  reads, and the browser is sent to the address without it, so that it stays out of history and
  bookmarks. Whatever else the address asks for stays in it.
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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote, urlencode

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
SUBJECTS = {"team": "teams", "territory": "territories", "role": "roles"}
OWN = "me"  # /people/me leads to one's own page
# The longest a browser keeps a cookie; how long it is good for is up to the token inside.
COOKIE_SECONDS = 400 * 24 * 3600
# What RFC 6750 allows in a bearer token, within what fits into a header.
TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,4096}")
PLACEHOLDER = re.compile(r"%([a-z]+)%")
LOOPBACK = re.compile(r"localhost|127(\.\d+){3}|::1|\[::1\]|.+\.localhost")

Query = Sequence[tuple[str, str]]

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

    def page(
        self, name: str, texts: Mapping[str, str], status: int = 200, fields: Query = ()
    ) -> HTMLResponse:
        """A page with its placeholders filled in; every text is escaped.

        `fields` are what a form of the page sends along.
        """
        hidden = "".join(
            f'<input type="hidden" name="{html.escape(key)}" value="{html.escape(value)}">'
            for key, value in fields
        )
        filled = {key: html.escape(text) for key, text in texts.items()}
        filled |= {"version": self.version, "fields": hidden}
        # In one go: a text that looks like a placeholder stays as it is.
        body = PLACEHOLDER.sub(lambda found: filled.get(found[1], found[0]), self.pages[name])
        return HTMLResponse(body, status, headers=PAGE_HEADERS)


def router(authenticator: Authenticator) -> APIRouter:
    """The routes of the pages, for the application to include."""
    routes = APIRouter(include_in_schema=False)
    site = _site()
    _add_pages(routes, authenticator, site)
    _add_files(routes, site)
    return routes


def _add_pages(routes: APIRouter, authenticator: Authenticator, site: Site) -> None:
    async def shown(request: Request, address: str, page: str, **texts: str) -> Response:
        refused = await _enter(authenticator, site, request, address)
        return refused or site.page(page, texts)

    @routes.get("/")
    async def index(request: Request) -> Response:
        return await shown(request, "/", "index.html")

    @routes.get("/tv/{board}")
    async def wall(request: Request, board: str) -> Response:
        return await shown(request, _address("tv", board), "board.html", place="wall")

    @routes.get("/boards/{board}")
    async def desk(request: Request, board: str) -> Response:
        return await shown(request, _address("boards", board), "board.html", place="desk")

    @routes.get("/organisation")
    async def organisation(request: Request) -> Response:
        return await shown(request, "/organisation", "subject.html", kind="org")

    @routes.get("/people/{person}")
    async def person(request: Request, person: str) -> Response:
        address = _address("people", person)
        refused = await _enter(authenticator, site, request, address)
        if refused is None and person == OWN:
            own = (await authenticator.authenticate(request)).person
            if own:
                address = _whole(_address("people", own), _others(request))
                return RedirectResponse(address, HTTPStatus.SEE_OTHER, headers=PAGE_HEADERS)
        return refused or site.page("subject.html", {"kind": "person"})

    for kind, folder in SUBJECTS.items():
        _add_subject(routes, kind, folder, shown)


def _add_subject(
    routes: APIRouter, kind: str, folder: str, shown: Callable[..., Awaitable[Response]]
) -> None:
    # The name of a role is the organisation's own words, which may have a slash.
    name = "{name:path}" if kind == "role" else "{name}"

    @routes.get(f"/{folder}/{name}")
    async def subject(request: Request, name: str) -> Response:
        return await shown(request, _address(folder, name), "subject.html", kind=kind)


def _add_files(routes: APIRouter, site: Site) -> None:
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


async def _enter(
    authenticator: Authenticator, site: Site, request: Request, address: str
) -> Response | None:
    """What stands between this request and the page: nothing for those who are in."""
    token = request.query_params.get("token")
    others = _others(request)
    address = _whole(address, others)
    try:
        if token is None:
            await authenticator.authenticate(request)
            return None
        await authenticator.authenticate(_bearing(token.strip()))
    except Problem as problem:
        if problem.status != HTTPStatus.UNAUTHORIZED:
            raise
        if token is None and request.headers.get("sec-fetch-site") == "cross-site":
            return site.page("again.html", {"address": address})
        refused = token is not None or COOKIE in request.cookies
        reason = problem.detail if refused else "This page is for the people of the organisation."
        return site.page("enter.html", {"reason": reason}, problem.status, others)
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


def _address(kind: str, name: str) -> str:
    return f"/{kind}/{quote(name, safe='')}"


def _others(request: Request) -> Query:
    """What an address asks for beside coming in."""
    return [(key, value) for key, value in request.query_params.multi_items() if key != "token"]


def _whole(address: str, query: Query) -> str:
    return f"{address}?{urlencode(query)}" if query else address


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
