"""What CRMs call: authenticate over the raw bytes, keep them on Kafka, answer.

Nothing is interpreted here beyond what a clear 4xx needs; 202 means that Kafka has the request.
"""

import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from kit.http import Problem, json_response
from kit.publisher import MessageTooLargeError, PublishError
from schemas.crm import Received
from services.ingest import telemetry
from services.ingest.api.parts import Parts, unavailable
from services.ingest.domain import cloudevents, items, signatures
from services.ingest.domain.sources import Source

PATH = "/v1/sources/{source}/events"
# Never kept: whoever can read the raw log must not be able to send in our users' names.
CREDENTIALS = frozenset({"authorization", "proxy-authorization", "x-api-key", "cookie"})
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def add_route(app: FastAPI, parts: Parts) -> None:
    """A bare route: models would cost more than everything else that it does."""
    app.add_route(PATH, Receiver(parts).answer, ["POST", "OPTIONS"], include_in_schema=False)


class Receiver:
    """Takes requests of all sources."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._base = parts.settings.public_url.rstrip("/")

    async def answer(self, request: Request) -> Response:
        """202 with our id of the request, or a problem that says what to do."""
        source = self._parts.sources.get(request.path_params["source"])
        vendor = "unknown" if source is None else source.vendor
        try:
            answer = await self._handle(request, source)
        except Problem as problem:
            telemetry.REQUESTS.labels(vendor, problem.kind).inc()
            raise
        telemetry.REQUESTS.labels(vendor, "accepted").inc()
        return answer

    async def _handle(self, request: Request, source: Source | None) -> Response:
        if source is None:
            raise Problem(404, "unknown-source", "No source of this id is configured.")
        if request.method == "OPTIONS":
            return _handshake(request, source)
        received = await self._receive(request, source)
        return json_response({"id": received.id}, 202)

    async def _receive(self, request: Request, source: Source) -> Received:
        if source.paused:
            raise unavailable(self._parts.settings, "This source is paused; send it again later.")
        headers = _headers(request)
        _check_media(headers, source)
        body = await request.body()
        url = self._base + _target(request)
        auth = await _AUTHENTICATE[source.vendor](self._parts, request, source, url, headers, body)
        _check_shape(source, headers, body, self._parts.settings.max_items)
        received = self._received(source, headers, body, url=url, auth=auth)
        try:
            await self._parts.publisher.publish([received])
        except PublishError as error:
            raise unavailable(self._parts.settings) from error
        except MessageTooLargeError as error:
            raise Problem(413, "too-large", "Body and headers are too large together.") from error
        return received

    def _received(
        self, source: Source, headers: dict[str, str], body: bytes, *, url: str, auth: str
    ) -> Received:
        now = self._parts.now_us()
        return Received(
            tenant=source.tenant,
            version=now,
            source=source.id,
            vendor=source.vendor,
            id=f"{now:014x}{secrets.token_hex(6)}",  # in order of arrival when sorted
            received_at=datetime.fromtimestamp(now / 1_000_000, UTC),
            method="POST",
            url=url,
            headers={n: v for n, v in headers.items() if n not in CREDENTIALS},
            body=body,
            auth=auth,
            trace=_trace(headers.get("traceparent", "")),
        )


def _headers(request: Request) -> dict[str, str]:
    """Headers by lower-case name; those sent repeatedly are joined, as RFC 9110 has it."""
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _target(request: Request) -> str:
    """Path and query as they came over the wire: signatures cover them undecoded."""
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    query: bytes = request.scope.get("query_string", b"")
    return (raw + b"?" + query if query else raw).decode("latin-1")


def _trace(traceparent: str) -> str:
    """The caller's trace, or one that begins here."""
    if _TRACEPARENT.fullmatch(traceparent):
        return traceparent
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def _check_media(headers: dict[str, str], source: Source) -> None:
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "unsupported-media", "Send the body without Content-Encoding.")
    media = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    json = media == "application/json" or media.endswith("+json")
    if source.vendor == "cloudevents":
        json = json or media in ("application/cloudevents", "application/cloudevents-batch")
    if not json:
        raise Problem(415, "unsupported-media", "Send JSON, with its Content-Type.")


async def _by_hubspot_signature(  # a signature covers this much
    parts: Parts, _: Request, source: Source, url: str, headers: dict[str, str], body: bytes
) -> str:
    method = signatures.is_hubspot(
        source.secrets,
        headers,
        method="POST",
        url=url,
        body=body,
        now_ms=parts.now_us() // 1000,
        legacy=source.legacy_signatures,
    )
    if method is None:
        raise Problem(
            401,
            "unauthorised",
            "X-HubSpot-Signature-v3 does not match, or its timestamp is over 5 minutes off. Check "
            "the app's secret in the sources file, this machine's clock, and that "
            "INGEST_PUBLIC_URL is the URL that HubSpot calls.",
        )
    return method


async def _by_basic(  # one signature for all vendors
    _parts: Parts, _: Request, source: Source, _url: str, headers: dict[str, str], _body: bytes
) -> str:
    given = headers.get("authorization", "")
    if not signatures.is_basic(source.secrets, source.username, given):
        raise Problem(
            401,
            "unauthorised",
            "Send the HTTP Basic user and password that the sources file has for this source.",
            headers={"WWW-Authenticate": 'Basic realm="pacesetter"'},
        )
    return "pipedrive.basic"


async def _by_api_key(  # one signature for all vendors
    parts: Parts,
    request: Request,
    source: Source,
    _url: str,
    _headers: dict[str, str],
    _body: bytes,
) -> str:
    principal = await parts.authenticator.authenticate(request)
    principal.require("ops")
    if principal.tenant != source.tenant:
        raise Problem(403, "forbidden", "This source belongs to another tenant.")
    return "cloudevents.key"


_AUTHENTICATE: dict[str, Callable[..., Any]] = {
    "hubspot": _by_hubspot_signature,
    "pipedrive": _by_basic,
    "cloudevents": _by_api_key,
}


def _check_shape(source: Source, headers: dict[str, str], body: bytes, max_items: int) -> None:
    """Only the outside: one bad item must not fail its request."""
    count, expected = _shape(source, headers)
    try:
        found = count(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Problem(400, "malformed", f"The body is not {expected}: {error}.") from error
    if found > max_items:
        detail = f"{found} events in one request; send at most {max_items}."
        raise Problem(413, "too-many-items", detail)


def _shape(source: Source, headers: dict[str, str]) -> tuple[Callable[[bytes], int], str]:
    """What counts a body's events, or raises because it isn't the second."""
    if source.vendor == "hubspot":
        return _length, "a JSON array of events"
    if source.vendor == "pipedrive":
        return _one_object, "a JSON object"
    mode = cloudevents.mode(headers.get("content-type", ""))
    if mode == cloudevents.BATCH:
        return _length, "a JSON array of events"
    if mode == cloudevents.STRUCTURED:
        return _one_object, "a JSON object"
    missing = [f"ce-{name}" for name in cloudevents.REQUIRED if not headers.get(f"ce-{name}")]
    if missing:
        detail = f"Headers {', '.join(missing)} are missing; or send application/cloudevents+json."
        raise Problem(400, "malformed", detail)
    return _one, "JSON"


def _length(body: bytes) -> int:
    return len(items.split(body))


def _one_object(body: bytes) -> int:
    items.check_object(body)
    return 1


def _one(body: bytes) -> int:
    items.check_json(body)
    return 1


def _handshake(request: Request, source: Source) -> Response:
    """The CloudEvents delivery handshake: whoever has a key may send."""
    origin = request.headers.get("webhook-request-origin")
    if source.vendor != "cloudevents" or not origin:
        raise Problem(
            405, "method-not-allowed", "Send events with POST.", headers={"Allow": "POST"}
        )
    headers = {"Allow": "POST", "WebHook-Allowed-Origin": origin}
    if "webhook-request-rate" in request.headers:
        headers["WebHook-Allowed-Rate"] = "*"
    return Response(status_code=200, headers=headers)
