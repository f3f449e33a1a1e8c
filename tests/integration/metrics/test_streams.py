"""Live boards over a real connection: snapshots, updates, resuming, ending."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import uvicorn

from kit.server import BoundedProtocol
from tests.integration.metrics.world import World, organisation, small_company, won
from tests.support import bearer

PATH = "/v1/boards/revenue-month/events"


@dataclass
class Sent:
    """An event as a browser understands it."""

    kind: str
    id: str
    data: Any


@contextlib.asynccontextmanager
async def serving(world: World) -> AsyncIterator[tuple[str, uvicorn.Server]]:
    """The application on a port, without its own life: no Kafka here."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(world.app, lifespan="off", log_config=None, http=BoundedProtocol)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", server
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, 10)
        listener.close()


@contextlib.asynccontextmanager
async def watching(
    address: str, last: str = "", **headers: str
) -> AsyncIterator[Callable[[], Awaitable[Sent]]]:
    """Call it for the next event."""
    given = (headers or bearer("rep", person="p1")) | ({"Last-Event-ID": last} if last else {})
    async with (
        httpx.AsyncClient(base_url=address, timeout=10) as client,
        client.stream("GET", PATH, headers=given) as answer,
    ):
        assert answer.status_code == 200
        lines = answer.aiter_lines()

        async def following() -> Sent:
            fields: dict[str, str] = {}
            async for line in lines:
                if not line and "data" in fields:
                    return Sent(fields["event"], fields["id"], json.loads(fields["data"]))
                name, _, value = line.partition(": ")
                fields[name] = value
            raise EOFError

        yield following


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2026, 11, 3, 12, tzinfo=UTC)
    monkeypatch.setattr("services.metrics.app.clock.load", lambda _: lambda: now)
    # On a busy machine a round takes long and the next ones rest: here each sale has its own.
    monkeypatch.setattr("services.metrics.boards.LONG_ROUND_SECONDS", 60.0)


@pytest.fixture
async def company(world: World) -> World:
    await world.apply(*small_company())
    return world


async def sell(world: World, number: str, owner_id: int = 1) -> None:
    await world.apply(won(number, owner_id=owner_id))
    await world.settle()
    await world.job("boards")


async def test_a_viewer_sees_a_snapshot_then_what_changes(company: World) -> None:
    async with serving(company) as (address, _), watching(address) as following:
        first = await following()
        await sell(company, "crm:1")
        second = await following()
        await sell(company, "crm:2", owner_id=2)
        third = await following()

    assert (first.kind, first.data["version"]) == ("snapshot", first.id)
    assert [row["rank"] for row in first.data["rows"]] == [None] * 4
    assert (second.kind, second.data["previous"], second.data["version"]) == (
        "update",
        first.id,
        second.id,
    )
    assert [(row["subject"], row["value"]) for row in second.data["rows"]] == [
        ("person:p1", "100.00")
    ]
    assert [row["subject"] for row in third.data["rows"]] == ["person:p2"]
    assert third.data["previous"] == second.id


async def test_a_viewer_who_comes_back_misses_nothing(company: World) -> None:
    async with serving(company) as (address, _):
        async with watching(address) as following, watching(address) as other:
            first, _ = await following(), await other()
            await sell(company, "crm:1")
            await following()
        async with watching(address) as stays:
            await stays()
            await sell(company, "crm:2")
            await sell(company, "crm:3")
            async with watching(address, last=first.id) as back:
                missed = [await back() for _ in range(3)]
            async with watching(address, last="of-another-life") as lost:
                anew = await lost()

    assert [event.kind for event in missed] == ["update"] * 3
    assert missed[0].data["previous"] == first.id
    assert missed[1].data["previous"] == missed[0].id
    assert missed[2].data["rows"][0]["value"] == "300.00"
    assert (anew.kind, anew.data["rows"][0]["value"]) == ("snapshot", "300.00")


async def test_a_board_that_becomes_another_one_is_sent_whole(company: World) -> None:
    async with serving(company) as (address, _), watching(address) as following:
        await following()
        await company.apply(organisation(version=2, currency="USD"))
        await company.job("boards")
        changed = await following()

    assert (changed.kind, changed.data["unit"]) == ("snapshot", "USD")


async def test_streams_end_promptly_with_the_process(company: World) -> None:
    async with serving(company) as (address, server), watching(address) as following:
        await following()
        began = time.monotonic()
        server.should_exit = True
        with pytest.raises((EOFError, httpx.RemoteProtocolError)):
            await following()

    assert time.monotonic() - began < 5


async def test_viewers_beyond_the_limit_are_sent_away(
    new_world: Callable[..., Awaitable[World]],
) -> None:
    world = await new_world(stream_limit=1)
    async with serving(world) as (address, _), watching(address) as following:
        await following()
        async with httpx.AsyncClient(base_url=address) as client:
            answer = await client.get(PATH, headers=bearer("rep"))

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
