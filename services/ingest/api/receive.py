"""What CRMs call: authenticate over the raw bytes, keep them on Kafka, answer.

Nothing is interpreted here beyond what a clear 4xx needs; 202 means that Kafka has the request.

The door stands before the application's routes and layers, since these cost more than everything
that it does; it reads bodies up to the limit, times its answers and speaks problem+json like them.
"""

import os
import re
import time
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from math import ceil
from typing import Any
from urllib.parse import unquote_plus

import msgspec
from fastapi import FastAPI
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from kit import telemetry as kit_telemetry
from kit.http import PROBLEMS, Problem, read_body
from kit.kafka import partition_for
from kit.publisher import MessageTooLargeError, PublishError
from schemas.crm import Received
from schemas.topics import topic_of
from services.ingest import telemetry
from services.ingest.api.parts import Parts, unavailable
from services.ingest.domain import imports, values
from services.ingest.domain.rates import Limiter
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import (
    Answer,
    Arrival,
    MalformedError,
    RefusedError,
    Vendor,
    all_vendors,
)

# The most impatient CRM waits 5 s, and must hear from us that Kafka has not acknowledged.
ANSWER_SECONDS = 4.0
PATH = "/v1/sources/{source}/events"
_BEFORE, _AFTER = PATH.split("{source}")
MOMENT_US = 5000  # about Kafka's round trip: what comes meanwhile waits for the next batch anyway
_PARTITIONS = topic_of(Received).partitions
METHODS = "POST, GET, HEAD, OPTIONS"  # all but POST are some vendor's handshake
# Never kept: whoever can read the raw log must not be able to send in our users' names.
CREDENTIALS = frozenset({"authorization", "proxy-authorization", "x-api-key", "cookie"})
_NOT_KEPT = CREDENTIALS | imports.HEADERS  # only an import may say how it is to be read
ACCESS_TOKEN = "access_token"  # noqa: S105  # the query parameter that CloudEvents names for one
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_NO_QUERY: Mapping[str, str] = {}


def add_route(app: FastAPI, parts: Parts) -> None:
    """Put the door before the application, and into its OpenAPI document."""
    app.add_middleware(Door, parts=parts)
    described = app.openapi

    def openapi() -> dict[str, Any]:
        document = described()
        document["paths"].setdefault(PATH, _description())
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI has it extended


class Door:
    """Takes requests of all sources; everything else goes on to the application."""

    def __init__(
        self, app: ASGIApp, *, parts: Parts, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._parts = parts
        self._settings = parts.settings
        self._base = parts.settings.public_url.rstrip("/")
        self._monotonic = monotonic
        self._limiter = Limiter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what is sent to a source's events."""
        path: str = scope.get("path", "")
        name = path[len(_BEFORE) : -len(_AFTER)]
        if (
            scope["type"] != "http"
            or not (path.startswith(_BEFORE) and path.endswith(_AFTER))
            or not name
            or "/" in name
        ):
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        source = self._parts.sources.get(name)
        vendor = "unknown" if source is None else source.vendor
        outcome, status = "accepted", 202
        try:
            answer = await self._answer(scope, receive, name, source)
        except Problem as problem:
            outcome, status = problem.kind, problem.status
            await problem.response()(scope, receive, send)
        else:
            status = answer.status
            await _send(answer, send)
        finally:
            _requests(vendor, outcome).inc()
            _seconds(status // 100).observe(time.perf_counter() - began)

    async def _answer(
        self, scope: Scope, receive: Receive, name: str, source: Source | None
    ) -> Answer:
        """202 with our id of the request, or a problem that says what to do."""
        if source is None:
            problem = self._parts.sources.problem(name)
            if problem:
                raise unavailable(self._settings, f"This source can't be used now: {problem}.")
            raise Problem(404, "not-found", "No source of this id is configured.")
        vendor = all_vendors()[source.vendor]
        query: bytes = scope["query_string"]
        arrival = Arrival(
            method=scope["method"],
            url=self._base + _target(scope),
            headers=_joined(scope["headers"]),
            query=QueryParams(query) if query else _NO_QUERY,
            body=await read_body(scope, receive, self._settings.kit.max_body_bytes),
            now_ms=self._parts.now_us() // 1000,
        )
        asked = vendor.handshake(arrival, self._limited(source))
        if asked is not None:
            return asked
        if arrival.method != "POST":
            allowed = {"Allow": METHODS}
            raise Problem(405, "method-not-allowed", "Send events with POST.", headers=allowed)
        received = await self._receive(Request(scope), arrival, source, vendor)
        return vendor.answer(received) or Answer(202, b'{"id":"%b"}' % received.id.encode())

    async def _receive(
        self, request: Request, arrival: Arrival, source: Source, vendor: Vendor
    ) -> Received:
        if "receive" not in self._settings.roles:
            raise unavailable(self._settings, "This process doesn't receive; ask one that does.")
        if source.paused:
            raise unavailable(self._settings, "This source is paused; send it again later.")
        check_media(arrival.headers, vendor)
        auth = await self._authenticate(request, arrival, source, vendor)
        self._check_rate(source)
        check_shape(arrival, vendor, most=self._settings.max_items)
        received = as_received(source, arrival, auth, now_us=self._parts.now_us())
        try:
            await self._parts.publisher.publish([received], within=ANSWER_SECONDS)
        except PublishError as error:
            raise unavailable(self._settings) from error
        except MessageTooLargeError as error:
            raise Problem(413, "too-large", "Body and headers are too large together.") from error
        return received

    def _check_rate(self, source: Source) -> None:
        """Only of who has proved who it is: others must not use up what is the sender's."""
        limits = (
            (f"source/{source.id}", source.rate),
            (f"tenant/{source.tenant}", self._settings.tenant_rate),
        )
        wait = self._limiter.wait(limits, self._monotonic())
        if wait:
            detail = "More requests came than are taken; send it again after Retry-After seconds."
            headers = {"Retry-After": str(ceil(wait))}
            raise Problem(429, "rate-limited", detail, headers=headers)

    def _limited(self, source: Source) -> Source:
        """The source with the rate that holds for it, as handshakes tell it."""
        rates = [rate for rate in (source.rate, self._settings.tenant_rate) if rate]
        if not rates or min(rates) == source.rate:
            return source
        return msgspec.structs.replace(source, rate=min(rates))

    async def _authenticate(
        self, request: Request, arrival: Arrival, source: Source, vendor: Vendor
    ) -> str:
        """The method by which the request has proved whose it is."""
        if vendor.verify is not None:
            try:
                method = vendor.verify(arrival, source)
            except RefusedError as error:
                headers = {"WWW-Authenticate": error.challenge} if error.challenge else None
                raise Problem(401, "unauthorised", str(error), headers=headers) from error
            if method is not None:
                return method
        principal = await self._parts.authenticator.authenticate(request)
        principal.require("ops")
        if principal.tenant != source.tenant:
            raise Problem(403, "forbidden", "This source belongs to another tenant.")
        return f"{vendor.name}.key"


async def _send(answer: Answer, send: Send) -> None:
    headers = [(b"content-length", b"%d" % len(answer.body))]
    if answer.body:
        headers.append((b"content-type", answer.media.encode("latin-1")))
    for name, value in answer.headers.items():
        headers.append((name.lower().encode("latin-1"), value.encode("latin-1")))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


@cache
def _requests(vendor: str, outcome: str) -> Any:
    return telemetry.REQUESTS.labels(vendor, outcome)


@cache
def _seconds(hundreds: int) -> Any:
    return kit_telemetry.HTTP_SECONDS.labels(PATH, f"{hundreds}xx")


def _without(url: str, secret: str) -> str:
    """The URL without what is secret in its query, however that is written."""
    base, mark, query = url.partition("?")
    if not mark:
        return url
    hidden = {secret, ACCESS_TOKEN} - {""}
    kept = [one for one in query.split("&") if unquote_plus(one.partition("=")[0]) not in hidden]
    return f"{base}?{'&'.join(kept)}" if kept else base


def headers_of(request: Request) -> dict[str, str]:
    """Headers by lower-case name; those sent repeatedly are joined, as RFC 9110 has it."""
    return _joined(request.headers.raw)


def _joined(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for key, text in raw:
        name, value = key.decode("latin-1"), text.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _target(scope: Scope) -> str:
    """Path and query as they came over the wire: signatures cover them undecoded."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    return (raw + b"?" + query if query else raw).decode("latin-1")


def _fresh_id(place: str, now_us: int) -> str:
    """A request's id: in order of arrival when sorted, 40 bits of it random.

    Its last digits are chosen such that the requests of one moment go to one partition: they share
    batches, which costs a third less than one for each partition; the next moment's go to the next.
    """
    wanted = now_us // MOMENT_US % _PARTITIONS
    start, found = f"{now_us:014x}{os.urandom(5).hex()}", ""
    for last in range(256):
        found = f"{start}{last:02x}"
        if partition_for(f"{place}{found}".encode(), _PARTITIONS) == wanted:
            break
    return found


def _trace(traceparent: str) -> str:
    """The caller's trace, or one that begins here."""
    if traceparent and _TRACEPARENT.fullmatch(traceparent):
        return traceparent
    fresh = os.urandom(24).hex()
    return f"00-{fresh[:32]}-{fresh[32:]}-01"


def check_media(headers: Mapping[str, str], vendor: Vendor) -> None:
    """Raise 415 unless the body is in a form that the vendor sends."""
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "unsupported-media", "Send the body without Content-Encoding.")
    if not _is_media(headers.get("content-type", vendor.media[0]), vendor.media):
        what = " or ".join(vendor.media)
        raise Problem(415, "unsupported-media", f"Send {what}, with its Content-Type.")


@lru_cache(maxsize=1000)
def _is_media(content_type: str, known: tuple[str, ...]) -> bool:
    media = content_type.partition(";")[0].strip().lower()
    return media in known or media.endswith(tuple(f"+{one.partition('/')[2]}" for one in known))


def check_shape(arrival: Arrival, vendor: Vendor, *, most: int) -> None:
    """Raise 400 or 413, by the outside alone: one bad item must not fail its request."""
    try:
        found = vendor.count(arrival.headers, arrival.body)
    except MalformedError as error:
        raise Problem(400, "malformed", str(error)) from error
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        what = f"The body is not what {vendor.title} sends: {error}."
        raise Problem(400, "malformed", what) from error
    if found > most:
        detail = f"{found} events in one request; send at most {most}."
        raise Problem(413, "too-many-items", detail)


def as_received(source: Source, arrival: Arrival, auth: str, *, now_us: int) -> Received:
    """The request as it is kept: without credentials."""
    hidden = _NOT_KEPT | {source.header.lower()} if source.header else _NOT_KEPT
    return Received(
        tenant=source.tenant,
        version=now_us,
        source=source.id,
        vendor=source.vendor,
        id=_fresh_id(f"{source.tenant}/{source.id}/", now_us),
        received_at=values.aware(now_us),
        method="POST",
        url=_without(arrival.url, source.query),
        headers={n: v for n, v in arrival.headers.items() if n not in hidden},
        body=arrival.body,
        auth=auth,
        trace=_trace(arrival.headers.get("traceparent", "")),
    )


def _description() -> dict[str, Any]:
    """The door in OpenAPI; what a body holds is each vendor's own."""
    media = sorted({one for vendor in all_vendors().values() for one in vendor.media})
    source = {
        "name": "source",
        "in": "path",
        "required": True,
        "description": "The id of a configured source.",
        "schema": {"type": "string"},
    }
    accepted = {
        "description": "Kafka has the request; `id` names it. Some vendors want another answer.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["id"],
                    "properties": {"id": {"type": "string"}},
                }
            }
        },
    }
    about = (
        "What a CRM sends, as it sends it: its own body, headers and proof. Not known: 404; not "
        "proved: 401; too often: 429; paused, or Kafka is away: 503 with Retry-After."
    )
    asked = {"200": {"description": "The vendor's handshake is answered."}, **PROBLEMS}
    shared = {"tags": ["receive"], "parameters": [source]}
    return {
        "post": {
            **shared,
            "summary": "Receive events",
            "description": about,
            "operationId": "receive_events",
            "requestBody": {"content": {one: {"schema": {}} for one in media}},
            "responses": {"202": accepted, **PROBLEMS},
        },
        **{
            method: {
                **shared,
                "summary": "Answer a handshake",
                "operationId": f"handshake_{method}",
                "responses": asked,
            }
            for method in ("get", "options")
        },
    }
