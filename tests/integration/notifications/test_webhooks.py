"""Webhook messages: signed, retried under one id, given up visibly, never sent inside."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from standardwebhooks import Webhook

from services.notifications import store
from services.notifications.domain.deliveries import MAX_RETRY_AFTER_SECONDS, RETRY_SECONDS
from services.notifications.gateway import Endpoint, EndpointError, Sender, parse_endpoints
from services.notifications.jobs import Webhooks
from tests.integration.notifications.conftest import NewWorld, World, a_directory
from tests.integration.notifications.test_alerts import a_deal
from tests.support import TENANT

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


@dataclass
class Receiver:
    """A local HTTP server that answers as told and keeps what it got."""

    answers: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], str]] = field(default_factory=list)
    silent: bool = False
    port: int = 0
    extra: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = {
            name.lower(): value
            for name, _, value in (line.partition(": ") for line in head.split("\r\n")[1:-2])
        }
        body = (await reader.readexactly(int(headers["content-length"]))).decode()
        self.got.append((headers, body))
        if self.silent:
            with contextlib.suppress(ConnectionError):
                await reader.read()
        else:
            status = self.answers.pop(0) if self.answers else 200
            writer.write(
                f"HTTP/1.1 {status} x\r\ncontent-length: 0\r\n{self.extra}"
                "connection: close\r\n\r\n".encode()
            )
            with contextlib.suppress(ConnectionError):
                await writer.drain()
        writer.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    yield receiver
    server.close()


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    sender = Sender(connect_seconds=0.5, answer_seconds=0.5, development=True)
    yield sender
    await sender.close()


@dataclass
class Sending:
    world: World
    endpoint: Endpoint
    webhooks: Webhooks

    async def run_due(self) -> None:
        """As if the time of the next attempt had come."""
        async with self.world.database.transaction() as transaction:
            await transaction.driver.execute(
                "UPDATE delivery SET due_at = now() - interval '1 s' WHERE channel = 'webhook'"
            )
        await self.webhooks.run()

    async def row(self) -> dict[str, Any]:
        (row,) = await self.world.all(
            "SELECT *, due_at - now() AS wait FROM delivery WHERE channel = 'webhook'"
        )
        return row


@pytest.fixture
async def sending(new_world: NewWorld, receiver: Receiver, sender: Sender) -> Sending:
    world: World = await new_world()
    document = {
        "endpoints": [
            {
                "id": "chat",
                "tenant": TENANT,
                "url": f"http://127.0.0.1:{receiver.port}/hook?a=1",
                "secret": SECRET,
            }
        ]
    }
    (endpoint,) = parse_endpoints(document, world.rules, development=True)
    world.subscriptions.append(endpoint.subscription)
    webhooks = Webhooks(world.database, endpoint, sender, world.rules, lease_seconds=30, batch=20)
    await world.worker().everything(*a_directory(), a_deal())
    return Sending(world, endpoint, webhooks)


async def test_a_message_is_signed_and_sent_once(sending: Sending, receiver: Receiver) -> None:
    await sending.webhooks.run()
    await sending.run_due()

    ((headers, body),) = receiver.got
    message = Webhook(SECRET).verify(body, headers)
    assert message["type"] == "alert.firing"
    assert message["data"]["subject"] == "record:opportunity/crm:1"
    assert message["data"]["evidence"]["amount"] == "60000"
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    row = await sending.row()
    assert headers["webhook-id"] == str(row["id"])
    assert row["state"] == "sent"
    (alert,) = (await sending.world.alerts()).values()
    assert "webhook/chat" in alert.delivered


async def test_failures_are_retried_under_the_same_id(sending: Sending, receiver: Receiver) -> None:
    receiver.answers = [500, 302, 429]
    waits = []
    for _ in range(4):
        await sending.run_due()
        waits.append((await sending.row())["wait"].total_seconds())

    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    assert len(receiver.got) == 4
    for wait, seconds in zip(waits, RETRY_SECONDS[:3], strict=False):
        assert 0.75 * seconds <= wait <= 1.25 * seconds
    row = await sending.row()
    assert (row["state"], row["attempts"]) == ("sent", 4)


async def test_a_receiver_that_asks_for_time_gets_it(sending: Sending, receiver: Receiver) -> None:
    receiver.answers, receiver.extra = [429], "retry-after: 120\r\n"
    await sending.run_due()
    assert 115 < (await sending.row())["wait"].total_seconds() < 125


async def test_an_endless_wait_is_cut_to_the_longest(sending: Sending, receiver: Receiver) -> None:
    receiver.answers, receiver.extra = [429], f"retry-after: {'9' * 5000}\r\n"
    await sending.run_due()
    row = await sending.row()
    assert row["attempts"] == 1
    wait = row["wait"].total_seconds()
    assert MAX_RETRY_AFTER_SECONDS - 5 < wait < MAX_RETRY_AFTER_SECONDS + 5


async def test_after_the_last_attempt_a_message_is_parked(
    sending: Sending, receiver: Receiver
) -> None:
    receiver.answers = [503] * 100
    for _ in range(len(RETRY_SECONDS) + 3):
        await sending.run_due()

    row = await sending.row()
    assert (row["state"], row["last_error"]) == ("parked", "answered 503")
    assert len(receiver.got) == len(RETRY_SECONDS) + 1


async def test_a_silent_receiver_is_a_failure(sending: Sending, receiver: Receiver) -> None:
    receiver.silent = True
    await sending.run_due()
    row = await sending.row()
    assert row["state"] == "due"
    assert row["last_error"].startswith("ReadTimeout")


async def test_410_disables_the_endpoint(sending: Sending, receiver: Receiver) -> None:
    receiver.answers = [410]
    await sending.run_due()
    gone = await sending.row()
    await sending.world.worker().everything(a_deal(2, status="open"))
    await sending.world.worker().everything(*(a_deal(),), *a_directory(version=2))
    await sending.webhooks.run()

    assert gone["state"] == "parked"
    assert len(receiver.got) == 1


async def test_whoever_dies_while_sending_leaves_the_message_to_others(
    sending: Sending, receiver: Receiver
) -> None:
    world = sending.world
    async with world.database.transaction() as transaction:
        taken = await store.take_webhooks(transaction, TENANT, "chat", lease_seconds=30, limit=10)
    await sending.webhooks.run()
    leased = len(receiver.got)
    await sending.run_due()  # the lease is over

    assert (len(taken), leased, len(receiver.got)) == (1, 0, 1)
    assert receiver.got[0][0]["webhook-id"] == str(taken[0].id)


async def test_two_senders_at_once_send_once(sending: Sending, receiver: Receiver) -> None:
    await asyncio.gather(*(sending.webhooks.run() for _ in range(4)))
    assert len(receiver.got) == 1


async def test_inside_addresses_are_refused(sending: Sending, receiver: Receiver) -> None:
    (alert,) = (await sending.world.alerts()).values()
    strict = Sender(connect_seconds=0.5, answer_seconds=0.5, development=False)
    with pytest.raises(EndpointError, match="no public address"):
        await strict.send(sending.endpoint, (await sending.row())["id"], alert, "info")
    await strict.close()
    assert receiver.got == []
