"""The whole service in this process, on real Kafka: records in, numbers and boards out."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from aiokafka import AIOKafkaConsumer

from kit.kafka import create_topics
from kit.publisher import Publisher
from kit.rebuild import rebuild
from kit.settings import KitSettings
from schemas.spm import Goal, Measure
from services.metrics.app import create_app
from services.metrics.settings import Settings
from tests.integration.metrics.world import call, small_company, won
from tests.support import bearer

ASKED = {"subject": "team:all-sales", "metric": "revenue_won", "period": "month:2026-11-01"}


async def test_records_become_numbers_boards_and_measures(
    kit_settings: KitSettings, new_database: Callable[[], Awaitable[str]]
) -> None:
    app = create_app(Settings(kit=kit_settings, database=await new_database()))
    publisher = Publisher(kit_settings)
    await create_topics(kit_settings)
    await publisher.start()
    records = [won("crm:1", version=1), won("crm:2", amount="23.45"), call("crm:3")]
    await publisher.publish([*records, *small_company()])
    transport = httpx.ASGITransport(app=app)
    async with (
        app.state.service.running(),
        httpx.AsyncClient(transport=transport, base_url="http://m", headers=bearer("ops")) as ops,
    ):
        value = await _until(ops, lambda found: found["value"] == "123.45")
        put = await ops.put("/v1/goals", json=[ASKED | {"target": "246.90"}])
        await publisher.publish([won("crm:1", version=2, deleted=True)])
        corrected = await _until(ops, lambda found: found["value"] == "23.45")
        board = (await ops.get("/v1/boards/revenue-month", params={"date": "2026-11-03"})).json()
        await _until_folded(ops)
        ready = await ops.get("/readyz")
        telemetry = (await ops.get("/metrics")).text
        await asyncio.sleep(0.5)  # let measures out
    measures = await _all(kit_settings, Measure)
    goals = await _all(kit_settings, Goal)
    await publisher.stop()

    assert value["count"] == 2
    assert put.status_code == 200
    assert (corrected["target"], corrected["attainment"]) == ("246.90", "0.0950")
    assert [(r["rank"], r["name"]) for r in board["rows"]][:2] == [
        (1, "Person 1"),
        (None, "Person 2"),
    ]
    assert ready.status_code == 200
    assert 'pacesetter_metrics_facts_total{outcome="new",type="opportunity"}' in telemetry
    assert str(measures[ASKED["subject"], ASKED["metric"], ASKED["period"]].value) == "23.45"
    assert str(goals[ASKED["subject"], ASKED["metric"], ASKED["period"]].target) == "246.90"


async def test_a_rebuilt_store_is_the_same(
    kit_settings: KitSettings, new_database: Callable[[], Awaitable[str]]
) -> None:
    app = create_app(Settings(kit=kit_settings, database=await new_database()))
    service = app.state.service
    publisher = Publisher(kit_settings)
    await create_topics(kit_settings)
    await publisher.start()
    await publisher.publish(
        [won("crm:1"), *small_company(), won("crm:1", version=2, amount="7"), call("crm:2")]
    )
    await publisher.stop()
    transport = httpx.ASGITransport(app=app)
    async with (
        service.running(),
        httpx.AsyncClient(transport=transport, base_url="http://m", headers=bearer("ops")) as ops,
    ):
        await _until(ops, lambda found: found["value"] == "7.00")
        checksum = await service.checksum()
    again = create_app(Settings(kit=kit_settings, database=service.database._url))

    assert await rebuild(again.state.service) == checksum


async def _until(ops: httpx.AsyncClient, good: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + 30
    while True:
        answer = await ops.get("/v1/values", params=ASKED)
        if answer.status_code == 200 and good(answer.json()):
            return answer.json()
        assert time.monotonic() < deadline, answer.text
        await asyncio.sleep(0.05)


async def _until_folded(ops: httpx.AsyncClient) -> None:
    deadline = time.monotonic() + 10
    while (await ops.get("/v1/values/all")).json()["pending"]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def _all(settings: KitSettings, kind: type[Any]) -> dict[tuple[str, str, str], Any]:
    consumer: Any = AIOKafkaConsumer(
        settings.topic_prefix + kind.topic,
        bootstrap_servers=settings.kafka,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    newest: dict[tuple[str, str, str], Any] = {}
    try:
        while found := await consumer.getmany(timeout_ms=1000):
            for record in (r for records in found.values() for r in records):
                state = kind.decode(record.value)
                key = (state.subject, state.metric, state.period)
                if key not in newest or newest[key].version < state.version:
                    newest[key] = state
    finally:
        await consumer.stop()
    return newest
