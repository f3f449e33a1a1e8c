"""Streams: what is sent, what keeps them alive, and how they end."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from kit.server import DIRECT
from kit.streams import KEEP_ALIVE, EventStream


class Reader:
    """A server's side of a connection."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.gone = asyncio.Event()
        self.asked = False

    async def receive(self) -> Any:
        if not self.asked:
            self.asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def bodies(self) -> list[bytes]:
        return [m["body"] for m in self.sent if m["type"] == "http.response.body"]


class Source:
    """Events until it is closed, the first at once."""

    def __init__(self, *, ends: bool = False) -> None:
        self._ends = ends
        self.closed = False

    async def events(self) -> AsyncGenerator[str, None]:
        try:
            yield "one"
            if not self._ends:
                await asyncio.Event().wait()
        finally:
            self.closed = True

    def stream(self, keep_alive_seconds: float = 60) -> EventStream[str]:
        return EventStream(
            lambda _: self.events(),
            lambda event: event.encode(),
            keep_alive_seconds=keep_alive_seconds,
        )


async def test_a_stream_ends_with_its_events() -> None:
    reader, source = Reader(), Source(ends=True)
    await asyncio.wait_for(source.stream()({"type": "http"}, reader.receive, reader.send), 5)
    headers = dict(reader.sent[0]["headers"])

    assert headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"x-accel-buffering"] == b"no"
    assert b"content-length" not in headers
    assert reader.bodies == [b"one", b""]
    assert reader.sent[-1]["more_body"] is False


async def test_events_are_asked_of_nobody_once_their_reader_is_gone() -> None:
    reader, source = Reader(), Source()
    task = asyncio.create_task(source.stream()({"type": "http"}, reader.receive, reader.send))
    await asyncio.sleep(0.01)
    assert reader.bodies == [b"one"]
    reader.gone.set()
    await asyncio.wait_for(task, 5)

    assert source.closed


async def test_silence_is_broken_for_those_between() -> None:
    reader, source = Reader(), Source()
    stream = source.stream(keep_alive_seconds=0.02)
    task = asyncio.create_task(stream({"type": "http"}, reader.receive, reader.send))
    await asyncio.sleep(0.1)
    reader.gone.set()
    await asyncio.wait_for(task, 5)

    assert reader.bodies[0] == b"one"
    assert set(reader.bodies[1:]) == {KEEP_ALIVE}


async def test_what_goes_wrong_is_not_hidden() -> None:
    async def failing() -> AsyncGenerator[str, None]:
        yield "one"
        raise ValueError("broken")

    reader = Reader()
    stream = EventStream(lambda _: failing(), str.encode, keep_alive_seconds=60)
    with pytest.raises(ExceptionGroup) as raised:
        await stream({"type": "http"}, reader.receive, reader.send)

    assert raised.group_contains(ValueError)


class Connection:
    """A connection that takes parts of an answer, or doesn't."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.body_wanted = True

    def write_body(self, body: bytes) -> None:
        self._reader.sent.append({"type": "http.response.body", "body": body})


async def test_what_is_pushed_goes_between_what_is_asked_for() -> None:
    reader = Reader()
    connection = Connection(reader)
    streams: list[EventStream[str]] = []
    pushed = asyncio.Event()

    async def events(stream: EventStream[str]) -> AsyncGenerator[str, None]:
        streams.append(stream)
        yield "one"
        await pushed.wait()
        yield "three"

    stream = EventStream(events, str.encode, keep_alive_seconds=60)
    scope = {"type": "http", "extensions": {DIRECT: connection}}
    task = asyncio.create_task(stream(scope, reader.receive, reader.send))
    await asyncio.sleep(0.01)
    ready = [streams[0].ready]
    streams[0].push("two")
    connection.body_wanted = False
    ready.append(streams[0].ready)
    pushed.set()
    await asyncio.wait_for(task, 5)

    assert ready == [True, False]
    assert reader.bodies == [b"one", b"two", b"three", b""]


async def test_where_the_server_is_another_nothing_is_pushed() -> None:
    reader = Reader()

    async def events(stream: EventStream[str]) -> AsyncGenerator[str, None]:
        yield str(stream.ready)

    stream = EventStream(events, str.encode, keep_alive_seconds=60)
    await asyncio.wait_for(stream({"type": "http"}, reader.receive, reader.send), 5)

    assert reader.bodies == [b"False", b""]
