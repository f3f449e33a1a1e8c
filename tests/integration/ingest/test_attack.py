"""What was found by attacking a running ingest, and must not come back."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kit import server
from services.ingest.crms import CLIENTS
from services.ingest.crms.transport import Session, UnavailableError
from services.ingest.domain.sources import Api, Source
from tests.integration.ingest.conftest import Ingest, running
from tests.support import TENANT, bearer

OPS = bearer("ops")
ELSEWHERE = [
    "http://127.0.0.1:1",
    "https://127.0.0.1",
    "https://169.254.169.254",
    "https://inside.example",
    "http://api.hubapi.com",
    "https://nothubapi.com",
    "https://api.hubapi.com.inside.example",
    "https://api.hubapi.com@inside.example",
    "https://inside.example\\@api.hubapi.com",
]


@pytest.fixture
async def ingest(ingest_settings: Any) -> AsyncIterator[Ingest]:
    """A service that asks no CRM: what is accepted here would otherwise be called."""
    settings, key = await ingest_settings()
    roles = {"roles": frozenset({"receive", "normalise"})}
    async with running(settings.model_copy(update=roles), key) as service:
        yield service


async def test_a_source_of_the_api_asks_only_its_vendor(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_SECRET_acme__HUB", "hub")
    source = {"id": "mine", "vendor": "hubspot", "secrets": ["env:INGEST_SECRET_acme__HUB"]}

    for name in ("url", "token_url"):
        for address in ELSEWHERE:
            asked = source | {"api": {name: address}}
            refused = await ingest.client.post("/v1/sources", json=asked, headers=OPS)
            assert refused.status_code == 422, (name, address)
            assert f"api.{name}" in refused.json()["detail"]
    own = source | {"api": {"url": "https://api-eu1.hubapi.com"}}
    taken = await ingest.client.post("/v1/sources", json=own, headers=OPS)
    assert taken.status_code == 201, taken.text


@pytest.mark.parametrize("address", ELSEWHERE)
async def test_one_that_is_kept_already_asks_nobody_else_either(address: str) -> None:
    with pytest.raises(UnavailableError, match=r"api\.url"):
        await asking(Api(url=address, token="t")).ask("GET", "/x")


async def test_what_a_crm_answers_names_no_other_host() -> None:
    session = asking(Api(url="https://api.hubapi.com", token="t"))

    with pytest.raises(UnavailableError, match=r"api\.url"):
        await session.ask("GET", "@inside.example/x")
    with pytest.raises(UnavailableError, match=r"api\.url"):
        await session.ask("GET", ".inside.example/x")


def asking(api: Api) -> Session:
    source = Source(id="mine", tenant=TENANT, vendor="hubspot", api=api)
    session = Session(source, CLIENTS["hubspot"].door, confined=True)
    session.http = httpx.AsyncClient(transport=httpx.MockTransport(_never))
    return session


def _never(request: httpx.Request) -> httpx.Response:
    raise AssertionError(request.url)


ODD_TYPE = {"type": "opportunity", "id": "id", "fields": {"amount": {"path": "a", "type": []}}}


async def test_odd_values_are_the_askers_fault(ingest: Ingest) -> None:
    odd: list[tuple[str, str, Any]] = [
        ("POST", "/v1/sources", {"id": "a\x00b", "vendor": "cloudevents"}),
        ("PUT", "/v1/sources/o", {"vendor": "cloudevents", "mapping": {"rules": [ODD_TYPE]}}),
        ("GET", "/v1/duplicates?until=9999-12-31T23:59:59-23:59", None),
    ]
    for method, path, body in odd:
        answer = await ingest.client.request(method, path, json=body, headers=OPS)
        assert answer.status_code == 422, (path, answer.text)


@contextmanager
def a_socket() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """An application behind our HTTP server, which is in a hurry."""
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.5)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        await Response(str(len(body)))(scope, receive, send)

    config = uvicorn.Config(app, http=server.BoundedProtocol, lifespan="off", log_config=None)
    with a_socket() as listening:
        serving = uvicorn.Server(config)
        task = asyncio.create_task(serving.serve([listening]))
        yield listening.getsockname()[1]
        serving.should_exit = True
        await task


HEAD = b"POST /x HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("begin", "trickle"),
    [
        (b"", b""),
        (b"", b"\r\n"),
        (b"PO", b""),
        (HEAD, b"x: y\r\n"),
        (HEAD + b"Content-Length: 1000\r\n\r\n", b"x"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (HEAD + b"Content-Length: 1\r\n\r\nx", b"\r\n"),
    ],
)
async def test_a_connection_that_trickles_is_ended(port: int, begin: bytes, trickle: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(begin)

    async def go_on() -> None:
        while True:
            writer.write(trickle)
            await asyncio.sleep(0.05)

    trickling = asyncio.create_task(go_on())
    try:
        async with asyncio.timeout(5):
            await _until_closed(reader)
    finally:
        trickling.cancel()
        writer.close()


@pytest.mark.parametrize("flood", [b"x: " + b"y" * 1000 + b"\r\n", b"z" * 1000])
async def test_a_head_without_end_is_refused(port: int, flood: bytes) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD + b"a: b\r\nlong: ")

    with pytest.raises(ConnectionError):
        await _write(writer, flood, 10_000)

    writer.close()


async def test_requests_that_follow_each_other_have_their_own_time(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(4):
        writer.write(HEAD + b"Content-Length: 2\r\n\r\nx")
        await asyncio.sleep(0.2)
        writer.write(b"x")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(1) == b"2"
    writer.close()


async def _until_closed(reader: asyncio.StreamReader) -> None:
    try:
        while await reader.read(1000):
            pass
    except ConnectionError:
        return


async def _write(writer: asyncio.StreamWriter, part: bytes, times: int) -> None:
    for _ in range(times):
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0)
