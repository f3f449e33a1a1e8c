"""A metrics store on the real PostgreSQL, worked without Kafka."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import pytest
from fastapi import FastAPI

from kit.settings import KitSettings
from schemas.base import State
from services.metrics.app import create_app
from services.metrics.settings import Settings
from tests.integration.metrics.world import World


class Outbox:
    """Stands where the publisher is; the end-to-end test has the real one."""

    def __init__(self) -> None:
        self.states: list[State] = []

    async def publish(self, states: Iterable[State]) -> None:
        self.states.extend(states)


@pytest.fixture
async def new_world(
    new_database: Callable[[], Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., Awaitable[World]]]:
    """Call it for a service with a fresh store, without Kafka."""
    made: list[World] = []

    async def make(**settings: Any) -> World:
        outbox = Outbox()
        monkeypatch.setattr("services.metrics.app.Publisher", lambda _: outbox)
        world = World(_app(await new_database(), settings), outbox)
        await world.service.database.migrate()
        made.append(world)
        return world

    yield make
    for world in made:
        await world.service.database.close()


@pytest.fixture
async def world(new_world: Callable[..., Awaitable[World]]) -> World:
    """One such service."""
    return await new_world()


def _app(database: str, settings: dict[str, Any]) -> FastAPI:
    kit = KitSettings(dev_secret="a-secret-for-tests-only-not-for-use")
    return create_app(Settings(kit=kit, database=database, **settings))
