"""The player against a server that isn't always in the mood, and the receiver of our webhooks."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime

import pytest
from standardwebhooks import Webhook

from simulator import player as players
from simulator import seed
from simulator.client import Telemetry, quantile
from simulator.days import Change, play
from simulator.delivery import Delivery, deliver
from simulator.player import Player, RefusedError, end_of_play
from simulator.receiver import Receiver
from simulator.vendors import Secrets

SECRETS = Secrets("hub", "pacesetter", "pipe", "pk_x")
START = date(2026, 11, 9)


@contextlib.asynccontextmanager
async def a_server(answer: Callable[[int], int | None]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Answers the n-th request with the status that `answer` gives; None hangs up."""
    taken: list[bytes] = []
    writers: list[asyncio.StreamWriter] = []
    seen = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                seen += 1
                status = answer(seen)
                if status is None:
                    break
                if status == 202:
                    taken.append(body)
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n".encode())
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", taken
    finally:
        server.close()
        for writer in writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


def some_deliveries() -> tuple[list[Change], list[Delivery]]:
    changes = list(play(2, START, 1))[:300]
    return changes, list(deliver(changes, 2, end_of_play(START, 1)))


async def test_everything_is_sent_until_it_is_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(players, "FIRST_RETRY_SECONDS", 0.001)
    changes, deliveries = some_deliveries()

    async with a_server(lambda n: {0: 503, 1: None}.get(n % 5, 202)) as (url, taken):
        player = Player(lambda source: f"{url}/{source}", SECRETS)
        await player.play(deliveries)

    assert sorted(taken) == sorted(delivery.request.body for delivery in deliveries)
    assert player.counts.retries > 0
    assert player.counts.requests == len(deliveries)
    assert player.counts.events == sum(delivery.request.events for delivery in deliveries)
    assert {(c.record, c.at) for c in player.acknowledged} == {(c.record, c.at) for c in changes}
    assert len(player.acknowledged) == len(changes)


async def test_a_refusal_ends_the_play_with_its_reason() -> None:
    _, deliveries = some_deliveries()

    async with a_server(lambda _: 401) as (url, _):
        with pytest.raises(RefusedError, match="401"):
            await Player(lambda source: f"{url}/{source}", SECRETS).play(deliveries[:3])


def test_a_receiver_takes_what_an_independent_library_has_signed() -> None:
    secret = seed.new_webhook_secret()
    receiver = Receiver(secret, 1)
    now = datetime.now(UTC)
    headers = {
        "webhook-id": "m1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign("m1", now, '{"a":1}'),
    }

    assert receiver.valid(headers, b'{"a":1}')
    assert not receiver.valid(headers, b'{"a":2}')
    assert not receiver.valid({**headers, "webhook-timestamp": str(int(time.time()) - 900)}, b"{}")


def test_a_quantile_lies_inside_its_bucket() -> None:
    text = 'x_bucket{le="1"} 50\nx_bucket{le="2"} 100\nx_bucket{le="+Inf"} 100\nx_count 100\n'
    telemetry = Telemetry.read("# TYPE x histogram\n" + text)

    assert telemetry.quantile("x", 0.5) == 1.0
    assert telemetry.quantile("x", 0.75) == 1.5
    assert str(quantile([], 0.5)) == "nan"
