"""Several boards on one connection: the same messages over SSE and WebSocket, without gaps."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from kit.auth import COOKIE
from kit.server import BoundedProtocol
from services.metrics.api import feeds
from tests.integration.metrics.world import World, small_company, won
from tests.support import bearer

FIRST, SECOND = "revenue-month", "deals-month"
BOARDS = {"boards": {FIRST: "", SECOND: ""}}
REP = bearer("rep", person="p1")
TOKEN = REP["Authorization"].removeprefix("Bearer ")


@contextlib.asynccontextmanager
async def serving(world: World) -> AsyncIterator[str]:
    """The application on a port, as `kit.service.serve` has it but without its own life."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        world.app,
        lifespan="off",
        log_config=None,
        http=BoundedProtocol,
        ws="websockets-sansio",
        limit_concurrency=100,
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, 10)
        listener.close()


@contextlib.asynccontextmanager
async def streaming(
    address: str, last: str = ""
) -> AsyncIterator[Callable[[], Awaitable[tuple[str, Any]]]]:
    """Call it for the id and message of the next event of both boards."""
    headers = REP | ({"Last-Event-ID": last} if last else {})
    path = f"http://{address}/v1/feed?boards={FIRST},{SECOND}"
    async with (
        httpx.AsyncClient(timeout=10) as client,
        client.stream("GET", path, headers=headers) as answer,
    ):
        assert answer.status_code == 200
        lines = answer.aiter_lines()

        async def following() -> tuple[str, Any]:
            fields: dict[str, str] = {}
            async for line in lines:
                if not line and "data" in fields:
                    return fields["id"], json.loads(fields["data"])
                name, _, value = line.partition(": ")
                fields[name] = value
            raise EOFError

        yield following


@contextlib.asynccontextmanager
async def connected(
    address: str, first: object = BOARDS, headers: dict[str, str] = REP
) -> AsyncIterator[ClientConnection]:
    async with connect(f"ws://{address}/v1/feed/ws", additional_headers=headers) as websocket:
        await websocket.send(json.dumps(first))
        yield websocket


async def following(websocket: ClientConnection) -> Any:
    return json.loads(await asyncio.wait_for(websocket.recv(), 10))


async def refused(websocket: ClientConnection) -> tuple[str, int]:
    """The kind of problem that a connection ends with, and its code."""
    problem = await following(websocket)
    assert problem["event"] == "problem"
    with pytest.raises(ConnectionClosed) as closed:
        await following(websocket)
    assert closed.value.rcvd is not None
    return problem["data"]["type"].rpartition(":")[2], closed.value.rcvd.code


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2026, 11, 3, 12, tzinfo=UTC)
    monkeypatch.setattr("services.metrics.app.clock.load", lambda _: lambda: now)


@pytest.fixture
async def company(world: World) -> World:
    await world.apply(*small_company())
    async with world.client(bearer("ops")) as client:
        document = {"title": "Deals", "metric": "deals_won", "grain": "month"}
        answer = await client.put(f"/v1/boards/{SECOND}", json=document)
        assert answer.status_code == 200, answer.text
    return world


async def sell(world: World, number: str, owner_id: int = 1) -> None:
    await world.apply(won(number, owner_id=owner_id))
    await world.settle()
    await world.job("boards")


async def test_a_stream_of_several_boards_resumes_each_where_it_was(company: World) -> None:
    async with serving(company) as address, streaming(address) as stays:
        first = [await stays() for _ in range(2)]
        await sell(company, "crm:1")
        async with streaming(address) as other:
            _, (known, _) = await other(), await other()
        await sell(company, "crm:2")
        async with streaming(address, last=known) as back:
            missed = [await back() for _ in range(2)]
        async with streaming(address, last=f"{FIRST}=nonsense,what,={SECOND}=,x=y") as lost:
            anew = [await lost() for _ in range(2)]

    assert [(m["board"], m["event"]) for _, m in first] == [
        (FIRST, "snapshot"),
        (SECOND, "snapshot"),
    ]
    assert [(m["board"], m["event"]) for _, m in missed] == [(FIRST, "update"), (SECOND, "update")]
    assert [m["data"]["previous"] for _, m in missed] == [
        feeds.read_id(known)[FIRST],
        feeds.read_id(known)[SECOND],
    ]
    assert [m["data"]["rows"][0]["value"] for _, m in missed] == ["200.00", "2"]
    assert [m["event"] for _, m in anew] == ["snapshot"] * 2


async def test_a_websocket_carries_the_same_messages_and_resumes(company: World) -> None:
    async with serving(company) as address, streaming(address) as stream:
        async with connected(address) as websocket:
            assert [await following(websocket) for _ in range(2)] == [
                (await stream())[1] for _ in range(2)
            ]
            await sell(company, "crm:1")
            moved = [await following(websocket) for _ in range(2)]
            assert moved == [(await stream())[1] for _ in range(2)]
        await sell(company, "crm:2")
        known = {message["board"]: message["version"] for message in moved}
        async with connected(address, {"boards": known}) as websocket:
            missed = [await following(websocket) for _ in range(2)]

    assert [m["data"]["previous"] for m in missed] == [m["version"] for m in moved]
    assert company.app.state.service  # and nobody is left in it:
    async with company.client(REP) as client:
        gauge = (await client.get("/metrics")).text
    assert "pacesetter_metrics_streams 0.0" in gauge


async def test_pings_are_answered(company: World) -> None:
    async with serving(company) as address, connected(address) as websocket:
        assert [(await following(websocket))["event"] for _ in range(2)] == ["snapshot"] * 2
        await websocket.send('{"ping": "are you there"}')
        assert await following(websocket) == {"event": "pong", "data": "are you there"}
        await asyncio.wait_for(await websocket.ping(), 10)
        await websocket.send("nonsense")

        assert await refused(websocket) == ("invalid-message", 1008)


@pytest.mark.parametrize(
    "headers", [{"Cookie": f"{COOKIE}={TOKEN}"}, {"x-other": "x"}], ids=["cookie", "first message"]
)
async def test_who_asks_may_be_known_by_cookie_or_first_message(
    company: World, headers: dict[str, str]
) -> None:
    first = BOARDS if "Cookie" in headers else BOARDS | {"token": TOKEN}
    async with serving(company) as address, connected(address, first, headers) as websocket:
        assert (await following(websocket))["event"] == "snapshot"


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (BOARDS, "unauthorised"),
        (BOARDS | {"token": "é\u0000"}, "unauthorised"),
        ({"boards": {"nonsense": ""}, "token": TOKEN}, "unknown-board"),
        ({"boards": {}, "token": TOKEN}, "invalid-boards"),
        ({"boards": {f"b{n}": "" for n in range(21)}, "token": TOKEN}, "invalid-boards"),
        ({"boards": {FIRST: 7}, "token": TOKEN}, "invalid-message"),
        ([[]], "invalid-message"),
    ],
)
async def test_a_first_message_that_will_not_do_is_refused(
    company: World, first: object, kind: str
) -> None:
    async with serving(company) as address, connected(address, first, {}) as websocket:
        assert await refused(websocket) == (kind, 1008)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (REP | {"Origin": "https://elsewhere.example"}, 403),
        (REP | {"Origin": "null"}, 403),
        ({"Authorization": "Bearer nonsense"}, 401),
        ({"Cookie": f"{COOKIE}=nonsense"}, 401),
    ],
)
async def test_strangers_do_not_get_a_websocket(
    company: World, headers: dict[str, str], status: int
) -> None:
    async with serving(company) as address:
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://{address}/v1/feed/ws", additional_headers=headers)
        async with connected(address, headers=REP | {"Origin": f"http://{address}"}) as websocket:
            assert (await following(websocket))["event"] == "snapshot"

    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body or b"")["detail"]


async def test_a_token_in_the_address_is_none(company: World) -> None:
    async with (
        serving(company) as address,
        connect(f"ws://{address}/v1/feed/ws?token={TOKEN}") as websocket,
    ):
        await websocket.send(json.dumps(BOARDS))
        assert await refused(websocket) == ("unauthorised", 1008)


async def test_who_says_nothing_is_sent_away(
    company: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "BEGIN_SECONDS", 0.1)
    async with (
        serving(company) as address,
        connect(f"ws://{address}/v1/feed/ws", additional_headers=REP) as websocket,
    ):
        assert await refused(websocket) == ("too-late", 1008)


async def test_a_full_replica_takes_no_more(
    new_world: Callable[..., Awaitable[World]],
) -> None:
    world = await new_world(stream_limit=1)
    first = {"boards": {FIRST: ""}}
    async with serving(world) as address, connected(address, first) as websocket:
        await following(websocket)
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://{address}/v1/feed/ws", additional_headers=REP)

    assert refused.value.response.status_code == 503


async def test_a_websocket_that_is_not_read_falls_back_to_a_snapshot(
    new_world: Callable[..., Awaitable[World]],
) -> None:
    """Updates pile up nowhere: what the socket doesn't take is computed when it does again."""
    world = await new_world(stream_updates=2)
    await world.apply(*small_company())
    first = {"boards": {FIRST: ""}}
    async with serving(world) as address, connected(address, first) as websocket:
        await following(websocket)
        held = asyncio.Event()
        real = WebSocket.send_text

        async def stalled(self: Any, data: str) -> None:
            await held.wait()
            await real(self, data)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(WebSocket, "send_text", stalled)
            for number in range(6):
                await sell(world, f"crm:{number}")
                await asyncio.sleep(0)
            held.set()
            late = [await following(websocket), await following(websocket)]

    assert [message["event"] for message in late] == ["update", "snapshot"]
    assert late[-1]["data"]["rows"][0]["value"] == "600.00"


@pytest.mark.parametrize("boards", ["", "a b", ",".join(f"b{n}" for n in range(21))])
async def test_boards_that_cannot_be_are_refused(company: World, boards: str) -> None:
    async with company.client(REP) as client:
        answer = await client.get("/v1/feed", params={"boards": boards})

    assert answer.status_code == 422


async def test_a_stream_of_an_unknown_board_is_refused(company: World) -> None:
    async with company.client(REP) as client:
        answer = await client.get("/v1/feed", params={"boards": f"{FIRST},nonsense"})

    assert answer.status_code == 404


async def test_a_connection_ends_with_the_last_of_its_boards(company: World) -> None:
    first = {"boards": {SECOND: ""}}
    async with serving(company) as address, connected(address, first) as websocket:
        await following(websocket)
        async with company.client(bearer("ops")) as client:
            assert (await client.delete(f"/v1/boards/{SECOND}")).status_code == 204
        await company.job("boards")
        assert await following(websocket) == {
            "board": SECOND,
            "event": "gone",
            "version": "",
            "data": None,
        }
        with pytest.raises(ConnectionClosed) as closed:
            await following(websocket)

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1000
