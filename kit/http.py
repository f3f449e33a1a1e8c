"""HTTP as every service speaks it: problem+json errors (RFC 9457), body limits, telemetry.

`Problem` is the one exception for clients' mistakes; its `detail` says what to do. Unexpected
errors become a 500 without internals, and are logged with them.
"""

import time
from typing import Any

import msgspec
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kit import telemetry

log = structlog.get_logger(__name__)

PROBLEM_JSON = "application/problem+json"

# How OpenAPI describes every answer that is not success: `include_router(…, responses=PROBLEMS)`.
PROBLEMS: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "A problem (RFC 9457); `detail` says what to do.",
        "content": {
            PROBLEM_JSON: {
                "schema": {
                    "type": "object",
                    "required": ["type", "title", "status", "detail"],
                    "properties": {
                        "type": {"type": "string", "examples": ["urn:pacesetter:problem:taken"]},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string"},
                    },
                }
            }
        },
    }
}


class Problem(Exception):  # noqa: N818  # the RFC's word
    """An error answer: `kind` is stable for programs, `detail` tells a person what to do."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = headers or {}
        self.extra = extra

    def response(self) -> Response:
        """The answer as RFC 9457 has it."""
        body = {
            "type": f"urn:pacesetter:problem:{self.kind}",
            "title": self.kind.replace("-", " "),
            "status": self.status,
            "detail": self.detail,
            **self.extra,
        }
        return Response(
            msgspec.json.encode(body), self.status, headers=self.headers, media_type=PROBLEM_JSON
        )


def install(app: FastAPI, *, max_body_bytes: int) -> None:
    """Give an application our errors, limit and telemetry."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_surprise)
    app.add_middleware(_Limits, max_body_bytes=max_body_bytes)
    app.add_middleware(_Telemetry)


def json_response(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Any msgspec-encodable data as JSON; decimals as text."""
    body = msgspec.json.encode(data)
    return Response(body, status, headers=headers, media_type="application/json")


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The body of a request that no layer of ours has limited; 413 as soon as it is too large."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise _too_large(limit)
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        parts, size = [body], len(body)
        while message.get("more_body", False) and size <= limit:
            message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
        body = b"".join(parts)
    if message["type"] == "http.disconnect":
        raise _incomplete()
    if len(body) > limit:
        raise _too_large(limit)
    return body


async def _on_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _on_http_exception(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kinds = {404: "not-found", 405: "method-not-allowed"}
    kind = kinds.get(error.status_code, "http-error")
    headers = dict(error.headers or {})
    return Problem(error.status_code, kind, str(error.detail), headers=headers).response()


async def _on_invalid_request(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [
        {"where": ".".join(str(part) for part in item["loc"]), "what": item["msg"]}
        for item in error.errors()
    ]
    detail = "; ".join(f"{item['where']}: {item['what']}" for item in errors[:5])
    return Problem(422, "invalid-request", detail, errors=errors).response()


async def _on_disconnect(_: Request, __: Exception) -> Response:
    return _incomplete().response()  # nobody reads it; but it is no fault of ours to log


async def _on_surprise(request: Request, error: Exception) -> Response:
    log.error("request_failed", path=request.url.path, exc_info=error)
    return Problem(500, "internal", "Our fault; it has been logged. Try again later.").response()


class _Limits:
    """Refuses bodies over the limit, announced or not, before they are held in memory."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self._app = app
        self._max = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > self._max:
                await self._problem().response()(scope, receive, send)
                return
        seen, answered = 0, False

        async def limited() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max:
                raise self._problem()
            return message

        async def corrected(message: Message) -> None:
            """Answer 413 even where a framework took our exception for its own."""
            nonlocal answered
            if seen <= self._max:
                await send(message)
            elif not answered:
                answered = True
                await self._problem().response()(scope, receive, send)

        await self._app(scope, limited, corrected)

    def _problem(self) -> Problem:
        return _too_large(self._max)


def _incomplete() -> Problem:
    return Problem(400, "incomplete", "The connection ended within the body.")


def _too_large(limit: int) -> Problem:
    return Problem(413, "too-large", f"The body is over {limit} bytes; send it in smaller parts.")


class _Telemetry:
    """Times each request under its route template, so that ids never become labels."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            telemetry.HTTP_SECONDS.labels(_template(scope), f"{status // 100}xx").observe(
                time.perf_counter() - began
            )


def _template(scope: Scope) -> str:
    """The route's path, with names where ids stand; FastAPI notes it for its own routes only."""
    route, endpoint = scope.get("route"), scope.get("endpoint")
    if route is None and endpoint is not None:
        routes = scope["app"].routes
        route = next((r for r in routes if getattr(r, "endpoint", None) is endpoint), None)
    return getattr(route, "path", "none")
