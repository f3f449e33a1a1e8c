"""A working week in seconds, with two replicas: every window once, in order, none too early."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from kit import clock as clocks
from kit.kafka import create_topics
from kit.publisher import Publisher
from kit.settings import KitSettings
from services.notifications.app import create_app
from services.notifications.settings import Settings
from tests.integration.notifications.conftest import a_directory, a_measure
from tests.integration.notifications.test_service import eventually

MONDAY = datetime(2026, 11, 2, 6, tzinfo=UTC)
DAY_SECONDS = 2.0


@pytest.mark.timeout(120)
async def test_a_week_in_seconds(
    kit_settings: KitSettings, new_database: Callable[[], Awaitable[str]], tmp_path: Path
) -> None:
    start = time.time() + 8
    time_map = tmp_path / "clock.json"
    week = timedelta(days=7).total_seconds()
    time_map.write_text(
        json.dumps(
            [
                [start, MONDAY.timestamp()],
                [start + 7 * DAY_SECONDS, MONDAY.timestamp() + week],
            ]
        )
    )
    kit = kit_settings.model_copy(update={"clock": time_map})
    clock = clocks.load(time_map)
    settings = Settings(kit=kit, database=await new_database(), grace_seconds=0.5)
    await create_topics(kit)
    publisher = Publisher(kit)
    await publisher.start()

    async with AsyncExitStack() as stack:
        stack.push_async_callback(publisher.stop)
        for _ in range(2):
            app = create_app(settings)
            await stack.enter_async_context(app.router.lifespan_context(app))
        await publisher.publish(a_directory(zone="Europe/Berlin"))
        for day in range(5):
            at = MONDAY + timedelta(days=day, hours=4)
            while clock() < at:  # noqa: ASYNC110  # a clock has no event
                await asyncio.sleep(0.02)
            written = at.date().isoformat()
            calls: list[Any] = [a_measure("calls_made", n, day=written, version=n) for n in (3, 9)]
            if day % 2:
                calls.append(a_measure("calls_made", 9, day=written, person="ben"))
            for call in calls:  # Ann always makes it; Ben every other day
                await publisher.publish([call])
        connection = await asyncpg.connect(settings.database)
        stack.push_async_callback(connection.close)

        async def sent() -> Any:
            rows = await connection.fetch(
                "SELECT subject, window_key, recipient, attempts FROM delivery"
                " WHERE state = 'sent' ORDER BY sequence"
            )
            return rows if len(rows) >= 6 else None

        rows = await eventually(sent, 40)
        await asyncio.sleep(1)
        assert await sent() == rows
        raised = await connection.fetch("SELECT window_key, raised_at FROM alert")

    expected = ["day:2026-11-02", "day:2026-11-04", "day:2026-11-06"]
    assert [row["window_key"] for row in rows[::2]] == expected
    assert {row["subject"] for row in rows} == {"person:ben"}
    assert {row["attempts"] for row in rows} == {1}
    for alert in raised:
        due = datetime.fromisoformat(alert["window_key"][4:] + "T17:00+00:00")
        assert due <= alert["raised_at"]
