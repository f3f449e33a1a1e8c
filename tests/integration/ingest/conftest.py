"""The real service in this process, on real Kafka and PostgreSQL."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer

from kit.auth import new_api_key, write_api_keys
from kit.settings import KitSettings
from schemas.base import State
from schemas.topics import BY_NAME
from services.ingest.app import Settings, create_app
from tests.support import TENANT
from tests.unit.ingest.bodies import sources_yaml

NewDatabase = Callable[[], Awaitable[str]]


class Ingest:
    """One running service: its HTTP, and what it has put onto Kafka."""

    def __init__(self, settings: Settings, app: Any, client: httpx.AsyncClient, key: str) -> None:
        self.settings = settings
        self.app = app
        self.service = app.state.service
        self.client = client
        self.key = key

    def configure(self, sources: str) -> None:
        """Replace the sources file."""
        assert self.settings.sources is not None
        self.settings.sources.write_text(sources)

    async def published(
        self, kind: type[State], until: Callable[[dict[str, Any]], bool], seconds: float = 20
    ) -> dict[str, Any]:
        """The newest state per key of a topic, once it is as expected."""
        name = self.settings.kit.topic_prefix + kind.topic
        reader = AIOKafkaConsumer(
            name,
            bootstrap_servers=self.settings.kit.kafka,
            auto_offset_reset="earliest",
            metadata_max_age_ms=500,  # partitions of a fresh topic may not all have leaders yet
        )
        await reader.start()
        newest: dict[str, Any] = {}
        deadline = time.monotonic() + seconds
        try:
            while not until(newest):
                assert time.monotonic() < deadline, newest
                for messages in (await reader.getmany(timeout_ms=100)).values():
                    for message in messages:
                        assert message.value is not None
                        state = BY_NAME[kind.topic].event.decode(message.value)
                        if state.version >= getattr(newest.get(state.key), "version", 0):
                            newest[state.key] = state
        finally:
            await reader.stop()
        return newest

    async def eventually(self, path: str, until: Callable[[Any], bool], **kwargs: Any) -> Any:
        """The answer of a GET, once it is as expected."""
        deadline = time.monotonic() + 20
        while not until(answer := await self.client.get(path, **kwargs)):
            assert time.monotonic() < deadline, (answer.status_code, answer.text)
            await asyncio.sleep(0.05)
        return answer


@pytest.fixture
def ingest_settings(
    kit_settings: KitSettings, new_database: NewDatabase, tmp_path: Path
) -> Callable[[], Awaitable[tuple[Settings, str]]]:
    """Settings on fresh topics and a fresh database, and an API key of our own."""

    async def make() -> tuple[Settings, str]:
        plain, key = new_api_key("sender", tenant=TENANT, roles=["ops"])
        write_api_keys(tmp_path / "keys.json", [key])
        (tmp_path / "sources.yaml").write_text(sources_yaml())
        kit = kit_settings.model_copy(update={"api_keys": tmp_path / "keys.json"})
        settings = Settings(
            kit=kit, database=await new_database(), sources=tmp_path / "sources.yaml"
        )
        return settings, plain

    return make


@asynccontextmanager
async def running(settings: Settings, key: str) -> AsyncIterator[Ingest]:
    """The service from start to stop."""
    app = create_app(settings)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    client = httpx.AsyncClient(transport=transport, base_url="http://somewhere.else")
    async with app.state.service.running(), client:
        yield Ingest(settings, app, client, key)


@pytest.fixture
async def ingest(ingest_settings: Any) -> AsyncIterator[Ingest]:
    """A running service."""
    async with running(*await ingest_settings()) as service:
        yield service
