"""A changed metric counts the past again, from real Kafka, and survives being killed meanwhile."""

import asyncio
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import yaml
from fastapi import FastAPI

from kit.kafka import create_topics
from kit.publisher import Publisher
from kit.rebuild import rebuild
from kit.settings import KitSettings
from schemas.base import State
from services.metrics.app import create_app
from services.metrics.settings import Settings
from tests.integration.metrics.world import call, small_company, won
from tests.support import bearer

MONTH = {"period": "month:2026-11-01", "subject": "team:all-sales"}
LONG_CALLS = {
    "title": "Long calls",
    "level": "driver",
    "unit": "count",
    "record": "call",
    "where": {"done": True, "duration_seconds": {"gte": 600}},
    "placed_by": "occurred_at",
}
WHY = {"reason": "we want to see them"}


def history() -> list[State]:
    calls = [
        call(f"crm:c{n}", owner_id=1 + n % 3, duration_seconds=60 * n, name=f"Call {n}")
        for n in range(20)
    ]
    return [*small_company(), *calls, won("crm:d1"), won("crm:d2", amount="23.45")]


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app)
    async with (
        app.state.service.running(),
        httpx.AsyncClient(transport=transport, base_url="http://m", headers=bearer("ops")) as ops,
    ):
        yield ops


@pytest.fixture
async def settings(
    kit_settings: KitSettings, new_database: Callable[[], Awaitable[str]]
) -> Settings:
    await create_topics(kit_settings)
    publisher = Publisher(kit_settings)
    await publisher.start()
    await publisher.publish(history())
    await publisher.stop()
    return Settings(kit=kit_settings, database=await new_database())


async def value(ops: httpx.AsyncClient, metric: str, **asked: str) -> Any:
    found = await ops.get("/v1/values", params=MONTH | {"metric": metric} | asked)
    return found.json().get("value", found.json())


async def until(ops: httpx.AsyncClient, metric: str, wanted: str | None) -> None:
    async with asyncio.timeout(30):
        while await value(ops, metric) != wanted:  # noqa: ASYNC110  # another process's work
            await asyncio.sleep(0.05)


async def finished(ops: httpx.AsyncClient) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            found = (await ops.get("/v1/recount")).json()
            if found is None or found["finished_at"]:
                return found or {}
            await asyncio.sleep(0.05)


async def test_a_new_metric_counts_the_past_and_a_changed_one_corrects_it(
    settings: Settings,
) -> None:
    async with serving(create_app(settings)) as ops:
        await until(ops, "calls_made", "20")
        added = await ops.put("/v1/metrics/long_calls", json=LONG_CALLS, params=WHY)
        assert added.status_code == 200, added.text
        await until(ops, "long_calls", "10")
        progress = await finished(ops)
        listed = await ops.get("/v1/records", params=MONTH | {"metric": "long_calls"})
        changed = LONG_CALLS | {"where": {"done": True, "duration_seconds": {"gte": 900}}}
        await ops.put("/v1/metrics/long_calls", json=changed, params={"reason": "too short"})
        await until(ops, "long_calls", "5")
        shown = (await ops.get("/v1/metrics/long_calls")).json()
        await ops.delete("/v1/metrics/long_calls", params={"reason": "not needed"})
        gone = await ops.get("/v1/values", params=MONTH | {"metric": "long_calls"})
        await finished(ops)
        calls = await value(ops, "calls_made")

    assert progress["share"] == 1.0
    assert progress["types"] == ["call"]
    assert [r["name"] for r in listed.json()["records"]] == [f"Call {n}" for n in range(10, 20)]
    assert (shown["origin"], shown["revision"]) == ("own", 2)
    assert [(r["revision"], r["reason"]) for r in shown["former"]] == [(1, WHY["reason"])]
    assert gone.status_code == 404
    assert calls == "20"


async def test_a_shipped_metric_is_changed_for_one_tenant_and_given_back(
    settings: Settings,
) -> None:
    async with serving(create_app(settings)) as ops:
        await until(ops, "revenue_won", "123.45")
        shipped = (await ops.get("/v1/metrics/revenue_won")).json()
        big = shipped["document"] | {"where": {"status": "won", "amount": {"gte": 100}}}
        put = await ops.put("/v1/metrics/revenue_won", json=big, params=WHY)
        assert put.status_code == 200, put.text
        await until(ops, "revenue_won", "100.00")
        await ops.delete("/v1/metrics/revenue_won", params=WHY)
        await until(ops, "revenue_won", "123.45")

    assert shipped["origin"] == "shipped"


async def test_a_recount_goes_on_where_a_killed_process_left_it(settings: Settings) -> None:
    first = create_app(settings)
    async with serving(first) as ops:
        await until(ops, "calls_made", "20")
    # Stopped before its job could begin: asked for, and nothing read yet.
    async with first.state.service.connected():
        transport = httpx.ASGITransport(app=first)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://m", headers=bearer("ops")
        ) as ops:
            await ops.put("/v1/metrics/long_calls", json=LONG_CALLS, params=WHY)
            waiting = (await ops.get("/v1/recount")).json()
            untouched = await value(ops, "long_calls")
    async with serving(create_app(settings)) as ops:
        await until(ops, "long_calls", "10")
        await finished(ops)

    assert waiting["finished_at"] is None
    assert untouched is None


async def test_a_rebuilt_store_has_the_same_numbers(settings: Settings) -> None:
    app = create_app(settings)
    async with serving(app) as ops:
        await until(ops, "calls_made", "20")
        await ops.put("/v1/metrics/long_calls", json=LONG_CALLS, params=WHY)
        await until(ops, "long_calls", "10")
        await finished(ops)
        before = await app.state.service.checksum()

    assert await rebuild(create_app(settings).state.service) == before


async def test_a_changed_shipped_catalogue_counts_the_past_at_the_next_start(
    settings: Settings, tmp_path: Any
) -> None:
    async with serving(create_app(settings)) as ops:
        await until(ops, "calls_made", "20")
    text = settings.catalogue.read_text()
    theirs = tmp_path / "catalogue.yaml"
    entry = yaml.safe_dump([{"id": "long_calls"} | LONG_CALLS], sort_keys=False)
    indented = textwrap.indent(entry, "  ")
    theirs.write_text(text.replace("\nmetrics:\n", f"\nmetrics:\n{indented}", 1))
    async with serving(create_app(settings.model_copy(update={"catalogue": theirs}))) as ops:
        await until(ops, "long_calls", "10")


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"title": "x"}, "record"),
        (LONG_CALLS | {"level": "top"}, "level"),
        (LONG_CALLS | {"id": "other"}, "other"),
        (LONG_CALLS | {"where": {"durations_seconds": {"gte": 5}}}, "duration_seconds"),
    ],
)
async def test_what_is_wrong_with_a_metric_is_said_and_nothing_kept(
    settings: Settings, document: dict[str, Any], says: str
) -> None:
    async with serving(create_app(settings)) as ops:
        linted = await ops.post("/v1/metrics/lint", json={"id": "long_calls"} | document)
        put = await ops.put("/v1/metrics/long_calls", json=document, params=WHY)
        kept = await ops.get("/v1/metrics/long_calls")

    assert put.status_code == 422 or says == "duration_seconds"  # an unknown field is a warning
    assert says in put.text or says in linted.text
    assert (kept.status_code == 404) is (put.status_code == 422)
