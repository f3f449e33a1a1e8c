"""The whole service in this process, on real Kafka: from facts on topics to messages, and back."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import yaml
from aiokafka import AIOKafkaConsumer

from kit.kafka import create_topics
from kit.publisher import Publisher
from kit.rebuild import rebuild
from kit.settings import KitSettings
from schemas.spm import Alert
from services.notifications.app import create_app
from services.notifications.settings import Settings
from tests.integration.notifications.conftest import a_directory, a_measure
from tests.integration.notifications.test_alerts import a_deal
from tests.integration.notifications.test_webhooks import SECRET, Receiver, receiver
from tests.support import TENANT, bearer

__all__ = ["receiver"]


async def eventually(check: Callable[[], Awaitable[Any]], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        found = await check()
        if found:
            return found
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)


async def published(kit: KitSettings) -> dict[str, Alert]:
    """The newest state of every alert on the topic."""
    reader: Any = AIOKafkaConsumer(
        kit.topic_prefix + Alert.topic, bootstrap_servers=kit.kafka, auto_offset_reset="earliest"
    )
    await reader.start()
    try:
        newest: dict[str, Alert] = {}
        (partition,) = reader.assignment()
        end = (await reader.end_offsets([partition]))[partition]
        while await reader.position(partition) < end:
            for messages in (await reader.getmany(timeout_ms=100)).values():
                for message in messages:
                    alert = Alert.decode(message.value)
                    assert alert.key not in newest or newest[alert.key].version <= alert.version
                    newest[alert.key] = alert
        return newest
    finally:
        await reader.stop()


def working_day_before(now: datetime) -> datetime:
    day = now - timedelta(days=1)
    while day.weekday() > 4:
        day -= timedelta(days=1)
    return day


@pytest.mark.timeout(180)
async def test_from_facts_to_messages_through_a_restart_and_a_rebuild(  # noqa: PLR0915
    kit_settings: KitSettings,
    new_database: Callable[[], Awaitable[str]],
    receiver: Receiver,
    tmp_path: Path,
) -> None:
    endpoints = tmp_path / "endpoints.yaml"
    url = f"http://127.0.0.1:{receiver.port}/"
    endpoints.write_text(
        yaml.safe_dump(
            {"endpoints": [{"id": "chat", "tenant": TENANT, "url": url, "secret": SECRET}]}
        )
    )
    settings = Settings(
        kit=kit_settings, database=await new_database(), endpoints=endpoints, grace_seconds=0.5
    )
    day = working_day_before(datetime.now(UTC)).date().isoformat()
    deal = a_deal(closed_at=datetime.now(UTC).isoformat())
    await create_topics(kit_settings)
    publisher = Publisher(kit_settings)
    await publisher.start()
    await publisher.publish([*a_directory(), deal])
    await publisher.publish(
        [
            a_measure("calls_made", 7, day=day),
            a_measure("meetings_held", 1, day=day),
            a_measure("calls_made", 7, day=day, person="ben"),
        ]
    )

    async def run(until: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
        app = create_app(settings)
        transport = httpx.ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test") as client,
        ):
            return await until(client)

    async def all_sent(client: httpx.AsyncClient) -> Any:
        async def check() -> Any:
            found = (await client.get("/v1/deliveries", headers=bearer("ops"))).json()["items"]
            sent = {f"{d['channel']}/{d['recipient']}/{d['rule']}" for d in found
                    if d["state"] == "sent"}  # fmt: skip
            return sent if len(sent) >= 6 else None

        sent = await eventually(check)
        await eventually(lambda: _all_published(client, sent))
        ann = (await client.get("/v1/inbox", headers=bearer("rep", person="ann"))).json()
        assert [item["rule"] for item in ann["items"]][-1] == "big-deal-won"
        return sent

    async def _all_published(_: httpx.AsyncClient, sent: set[str]) -> bool:
        alerts = (await published(kit_settings)).values()
        return len([entry for alert in alerts for entry in alert.delivered]) >= len(sent)

    sent = await run(all_sent)
    low = "activity-below-expectation"
    assert {s for s in sent if "ann" not in s or low not in s} >= {
        "inbox/person:ann/big-deal-won", "inbox/team:north/big-deal-won",
        "webhook/chat/big-deal-won", f"inbox/person:ben/{low}", f"inbox/person:mia/{low}",
        f"webhook/chat/{low}",
    }  # fmt: skip
    first = await published(kit_settings)
    assert f"{TENANT}/{low}/person:ann/day:{day}" not in first  # 7 calls and a meeting will do
    assert f"{TENANT}/{low}/person:ben/day:{day}" in first
    received = len(receiver.got)

    async def live(client: httpx.AsyncClient) -> float:
        began = time.monotonic()
        now = datetime.now(UTC).isoformat()
        await publisher.publish([a_deal(number="crm:9", closed_at=now, owner_id="8")])

        async def check() -> Any:
            return (await client.get("/v1/inbox", headers=bearer("rep", person="ben"))).json()[
                "items"
            ][0]["subject"] == "record:opportunity/crm:9"

        await eventually(check)
        took = time.monotonic() - began
        await eventually(lambda: _sent_to_webhook(received + 1))
        await asyncio.sleep(1)
        return took

    async def _sent_to_webhook(count: int) -> bool:
        return len(receiver.got) >= count

    took = await run(live)
    assert took < 3, took
    assert len(receiver.got) == received + 1

    service = create_app(settings).state.service
    async with service.connected():
        before = await service.checksum()
    assert await rebuild(create_app(settings).state.service) == before
    await run(lambda _: asyncio.sleep(2))
    assert len(receiver.got) == received + 1
    ids = [headers["webhook-id"] for headers, _ in receiver.got]
    assert len(ids) == len(set(ids))
    await publisher.stop()


async def test_the_inbox_streams_over_http(
    kit_settings: KitSettings, new_database: Callable[[], Awaitable[str]]
) -> None:
    settings = Settings(kit=kit_settings, database=await new_database())
    await create_topics(kit_settings)
    publisher = Publisher(kit_settings)
    await publisher.start()
    config = uvicorn.Config(create_app(settings), host="127.0.0.1", port=0, log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: asyncio.sleep(0, server.started))
        port = server.servers[0].sockets[0].getsockname()[1]
        headers = bearer("rep", person="ann") | {"Last-Event-ID": "0"}
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
            client.stream("GET", "/v1/inbox/events", headers=headers) as answer,
        ):
            assert answer.status_code == 200
            await publisher.publish(
                [*a_directory(), a_deal(closed_at=datetime.now(UTC).isoformat())]
            )
            lines = []
            async for line in answer.aiter_lines():
                lines.append(line)
                if line.startswith("data:"):
                    break
        assert "event: message" in lines
        assert "Big deal won" in lines[-1]
    finally:
        server.should_exit = True
        await serving
        await publisher.stop()
