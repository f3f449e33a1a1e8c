"""Errors are problem+json that say what to do, whatever the client sends."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from kit import http
from kit.http import Problem


def an_application() -> FastAPI:
    app = FastAPI()
    http.install(app, max_body_bytes=1000)

    @app.post("/echo")
    async def echo(body: dict[str, int]) -> dict[str, int]:
        return body

    @app.get("/refuse")
    async def refuse() -> None:
        raise Problem(409, "conflict", "Do it otherwise.", field="name")

    @app.get("/break")
    async def fail() -> None:
        raise KeyError("a secret detail")

    async def raw(request: Request) -> Response:
        return Response(await request.body())

    app.add_route("/raw", raw, methods=["POST"])
    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(an_application(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status
    assert response.headers["content-type"] == http.PROBLEM_JSON
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["type"].startswith("urn:pacesetter:problem:")
    assert body["detail"]
    return body


async def test_a_problem_carries_its_kind_detail_and_members(client: httpx.AsyncClient) -> None:
    body = problem(await client.get("/refuse"), 409)

    assert body["field"] == "name"
    assert body["detail"] == "Do it otherwise."


async def test_a_surprise_says_nothing_of_the_inside(client: httpx.AsyncClient) -> None:
    response = await client.get("/break")

    problem(response, 500)
    assert "secret" not in response.text


async def test_unknown_paths_and_methods_are_problems_too(client: httpx.AsyncClient) -> None:
    problem(await client.get("/nowhere"), 404)
    problem(await client.get("/echo"), 405)


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": "x"}', b"[" * 900, b"\xff\xfe"])
async def test_a_body_that_is_not_what_was_asked_for(
    client: httpx.AsyncClient, content: bytes
) -> None:
    response = await client.post(
        "/echo", content=content, headers={"content-type": "application/json"}
    )

    assert response.status_code in (400, 422)
    problem(response, response.status_code)


@pytest.mark.parametrize("path", ["/echo", "/raw"])
async def test_a_body_over_the_limit_is_refused_announced_or_not(
    client: httpx.AsyncClient, path: str
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"[" * 100

    problem(await client.post(path, content=b"x" * 1001), 413)
    problem(await client.post(path, content=endless()), 413)
    assert (await client.post("/raw", content=b"x" * 1000)).status_code == 200
