"""The broker dies under load: senders hear 503 with Retry-After; what was accepted is kept."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from aiokafka import AIOKafkaConsumer

from deploy.local import Stack
from schemas.crm import Received
from tests.bench import receive, workload

SENDERS = 8
DEATHS = 1
SECONDS_DEAD = 7.0  # longer than the door waits for an acknowledgement
SECONDS_ALIVE = 3.0
PATIENCE_SECONDS = 60.0


@dataclass
class Sender:
    """Sends numbered deals until told to stop, each until it is accepted."""

    url: str
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    accepted: dict[int, str] = field(default_factory=dict)  # deal → our id of the request
    refused: list[httpx.Response] = field(default_factory=list)
    others: list[httpx.Response] = field(default_factory=list)
    slowest: float = 0.0

    async def run(self, first: int) -> None:
        """Send deals `first`, `first + SENDERS`, …"""
        deal = first
        async with httpx.AsyncClient(timeout=30) as client:
            while not self.stopping.is_set():
                await self._until_accepted(client, deal)
                deal += SENDERS

    async def _until_accepted(self, client: httpx.AsyncClient, deal: int) -> None:
        body = json.dumps([an_event(deal)]).encode()
        while True:
            answer = await client.post(
                self.url, content=body, headers=workload.signed(body, self.url)
            )
            self.slowest = max(self.slowest, answer.elapsed.total_seconds())
            if answer.status_code == httpx.codes.ACCEPTED:
                self.accepted[deal] = answer.json()["id"]
                return
            refused = answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
            (self.refused if refused else self.others).append(answer)
            await asyncio.sleep(0.2)


def an_event(deal: int) -> dict[str, Any]:
    """A deal's amount, as HubSpot tells it."""
    return {
        "eventId": deal,
        "subscriptionId": 1,
        "portalId": 1,
        "occurredAt": 1_767_225_600_000,
        "attemptNumber": 0,
        "objectId": deal,
        "subscriptionType": "deal.propertyChange",
        "propertyName": "amount",
        "propertyValue": str(deal),
    }


async def test_nothing_acknowledged_is_lost_when_the_broker_dies(
    stack: Stack, tmp_path: Path, new_database: Any, kit_settings: Any
) -> None:
    port = receive.a_port()
    command, environment = receive.ingest(
        tmp_path,
        kafka=kit_settings.kafka,
        prefix=kit_settings.topic_prefix,
        database=await new_database(),
        port=port,
    )
    sender = Sender(f"http://{receive.HOST}:{port}{receive.PATH}")
    with receive.server(command, port, environment):
        sending = [asyncio.create_task(sender.run(first)) for first in range(1, SENDERS + 1)]
        for _ in range(DEATHS):
            await asyncio.sleep(SECONDS_ALIVE)
            await asyncio.to_thread(stack.kill_kafka)
            await asyncio.sleep(SECONDS_DEAD)
            await asyncio.to_thread(stack.start_kafka)
        await asyncio.sleep(SECONDS_ALIVE)
        sender.stopping.set()
        await asyncio.gather(*sending)

        assert not sender.others, sender.others[0].text
        assert sender.refused
        assert all(answer.headers["retry-after"].isdigit() for answer in sender.refused)
        assert sender.slowest < 5, "HubSpot would have given up"
        assert all(answer.json()["status"] == 503 for answer in sender.refused)
        kept = await received_ids(kit_settings)
        assert set(sender.accepted.values()) <= kept
        await all_are_records(environment["INGEST_DATABASE"], len(sender.accepted))


async def received_ids(settings: Any) -> set[str]:
    """The ids of all requests on the raw topic."""
    reader = AIOKafkaConsumer(
        settings.topic_prefix + Received.topic,
        bootstrap_servers=settings.kafka,
        auto_offset_reset="earliest",
    )
    await reader.start()
    found: set[str] = set()
    try:
        ends = await reader.end_offsets(list(reader.assignment()))
        while any([await reader.position(tp) < end for tp, end in ends.items()]):
            for messages in (await reader.getmany(timeout_ms=200)).values():
                found |= {Received.decode(message.value or b"").id for message in messages}
    finally:
        await reader.stop()
    return found


async def all_are_records(database: str, count: int) -> None:
    """Wait until every accepted deal is a record."""
    connection = await asyncpg.connect(database)
    deadline = time.monotonic() + PATIENCE_SECONDS
    try:
        while (found := await connection.fetchval("SELECT count(*) FROM record")) < count:
            assert time.monotonic() < deadline, f"{found} of {count}"
            await asyncio.sleep(0.2)
    finally:
        await connection.close()
    assert found == count
