"""Our HTTP server: how many connections it takes, and whose time runs when."""

import asyncio
import contextlib
import gc
import resource
import socket
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from kit import server, telemetry
from kit.settings import KitSettings

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000
ANSWER = b"HTTP/1.1 200"
Open = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@contextlib.asynccontextmanager
async def serving(
    *,
    max_connections: int | None = None,
    answer: asyncio.Event | None = None,
    app: ASGIApp | None = None,
) -> AsyncIterator[Open]:
    """Opens connections to a server of `app`, or one that answers at once, or when it is told."""

    async def answering(_scope: Scope, _receive: Receive, send: Send) -> None:
        if answer is not None:
            await answer.wait()
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    config = uvicorn.Config(
        app or answering,
        http=server.BoundedProtocol,
        limit_concurrency=max_connections,
        lifespan="off",
        log_config=None,
    )
    opened: list[asyncio.StreamWriter] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        running = uvicorn.Server(config)
        task = asyncio.create_task(running.serve([listening]))

        async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            opened.append(writer)
            return reader, writer

        try:
            async with asyncio.timeout(20):
                yield connect
        finally:
            for writer in opened:
                writer.close()
            running.should_exit = True
            await task


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """The head of the answer to one request."""
    writer.write(GET)
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(ANSWER):
        assert await reader.readexactly(2) == b"ok"
    return head


async def go_on(writer: asyncio.StreamWriter) -> None:
    """Send, for as long as somebody takes it."""
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def test_connections_over_the_limit_are_answered_503_and_those_before_go_on() -> None:
    before = telemetry.CONNECTIONS_REFUSED._value.get()
    async with serving(max_connections=3) as connect:
        there = [await connect() for _ in range(3)]
        assert [(await ask(*one))[:12] for one in there] == [ANSWER] * 3

        for _ in range(20):
            reader, writer = await connect()
            writer.write(POST)  # also to who sends more before it reads
            refused = await reader.readuntil(b"\r\n\r\n")
            assert refused.startswith(b"HTTP/1.1 503")
            assert b"retry-after: 5" in refused
            assert b"connection: close" in refused
            assert await reader.read() == b""

        assert telemetry.CONNECTIONS_REFUSED._value.get() == before + 20
        assert [(await ask(*one))[:12] for one in there] == [ANSWER] * 3


async def test_probes_are_answered_over_the_limit() -> None:
    probe = b"GET /livez?x=1 HTTP/1.1\r\nHost: x\r\n\r\n"
    async with serving(max_connections=2) as connect:
        for _ in range(2):
            await ask(*await connect())
        reader, writer = await connect()
        writer.write(probe)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(ANSWER)
        assert await reader.readexactly(2) == b"ok"
        writer.write(GET)  # what isn't a probe is refused there as well
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 503")
        assert await reader.read() == b""


async def test_there_is_room_again_once_connections_end() -> None:
    never = asyncio.Event()
    async with serving(max_connections=2, answer=never) as connect:
        streams = [await connect() for _ in range(2)]
        for _, writer in streams:
            writer.write(GET)  # as an event stream: answered for as long as it is open
        reader, _ = await connect()
        assert (await reader.readline()).startswith(b"HTTP/1.1 503")

        for _, writer in streams:
            writer.close()
        never.set()

        taken = b""
        while not taken.startswith(ANSWER):  # the server hears of the ends in its own time
            await asyncio.sleep(0.01)
            taken = await ask(*await connect())


async def test_who_is_refused_and_stays_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REFUSED_SECONDS", 0.3)
    monkeypatch.setattr(server, "MAX_REFUSED", 2)
    async with serving(max_connections=1) as connect:
        await ask(*await connect())
        told = [await connect() for _ in range(2)]
        assert all([(await reader.readline()).startswith(b"HTTP/1.1 503") for reader, _ in told])

        reader, _ = await connect()  # one more than are told why
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""

        for _, writer in told:
            with pytest.raises(ConnectionError):
                await go_on(writer)
        reader, _ = await connect()
        assert (await reader.readline()).startswith(b"HTTP/1.1 503")


def test_five_thousand_viewers_are_possible() -> None:
    assert KitSettings().max_connections >= 5_000 * 1.5


def test_a_process_that_may_open_few_files_takes_fewer_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = {"now": (1024, 4096)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.update(now=new))

    assert server.room_for(2000) == 2000
    assert limits["now"] == (2000 + server.OTHER_FILES, 4096)
    assert server.room_for(10_000) == 4096 - server.OTHER_FILES
    assert limits["now"] == (4096, 4096)


async def test_the_time_that_we_take_to_answer_is_not_the_senders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.2)
    answer = asyncio.Event()
    async with serving(answer=answer) as connect:
        reader, writer = await connect()
        asked = asyncio.create_task(ask(reader, writer))
        await asyncio.sleep(1)
        assert not asked.done()
        answer.set()
        assert (await asked).startswith(ANSWER)

        # And the next request has all of its own time, and no more.
        began = asyncio.get_running_loop().time()
        writer.write(GET[:-2])
        assert await reader.read() == b""
        assert 0.15 < asyncio.get_running_loop().time() - began < 1


async def test_parts_of_an_answer_can_be_written_past_the_application() -> None:
    wanted: list[bool] = []

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        connection: server.BoundedProtocol = scope["extensions"][server.DIRECT]
        wanted.append(connection.body_wanted)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        wanted.append(connection.body_wanted)
        for part in (b"one,", b"two,"):
            connection.write_body(part)
        await send({"type": "http.response.body", "body": b"three,", "more_body": True})
        connection.write_body(b"four")
        await send({"type": "http.response.body", "body": b""})
        wanted.append(connection.body_wanted)

    async with serving(app=app) as connect:
        reader, writer = await connect()
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        body = await reader.readuntil(b"0\r\n\r\n")

    assert body == b"4\r\none,\r\n4\r\ntwo,\r\n6\r\nthree,\r\n4\r\nfour\r\n0\r\n\r\n"
    assert wanted == [False, True, False]


async def test_nothing_more_is_written_for_who_does_not_read() -> None:
    written, ended = [0], asyncio.Event()
    part = b"x" * 65_536

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        connection: server.BoundedProtocol = scope["extensions"][server.DIRECT]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while connection.body_wanted:
            connection.write_body(part)
            written[0] += len(part)
            await asyncio.sleep(0)
        ended.set()

    async with serving(app=app) as connect:
        _, writer = await connect()
        writer.write(GET)
        await ended.wait()

    assert written[0] < 64 * 2**20  # what the sockets' buffers take


async def test_a_head_asked_for_alone_gets_no_body() -> None:
    wanted: list[bool] = []

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        wanted.append(scope["extensions"][server.DIRECT].body_wanted)
        await send({"type": "http.response.body", "body": b""})

    async with serving(app=app) as connect:
        reader, writer = await connect()
        writer.write(GET.replace(b"GET", b"HEAD"))
        await reader.readuntil(b"\r\n\r\n")

    assert wanted == [False]


async def test_a_connection_that_has_ended_is_gone_without_the_collector() -> None:
    gone = asyncio.Event()

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        weakref.finalize(scope["extensions"][server.DIRECT], gone.set)
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    gc.collect()
    gc.disable()
    try:
        async with serving(app=app) as connect:
            reader, writer = await connect()
            await ask(reader, writer)
            writer.close()
            await writer.wait_closed()
            await gone.wait()
    finally:
        gc.enable()
