"""SIGKILL of a process while it re-reads, before and after its answer is on Kafka."""

import asyncio
import json
import multiprocessing
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer
from sqlalchemy import text

from kit.database import Database
from kit.kafka import create_topics
from kit.publisher import Publisher
from schemas.base import State
from schemas.crm import Backfilled, Record
from services.ingest.app import MIGRATIONS, Settings
from services.ingest.gateway import Sources
from services.ingest.rereading import Rereading
from services.ingest.store import digest
from tests.integration.ingest.asking import World, a_world, hub_deal, source
from tests.integration.ingest.conftest import running
from tests.support import TENANT, bearer, crms

DEALS = 120
OPS = bearer("ops")


class Deadly(Publisher):
    """Ends its process with SIGKILL at one of its publishes."""

    after = True
    left = 1

    async def publish(self, states: Iterable[State], **more: Any) -> None:
        if not self.after and not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        await super().publish(states, **more)
        if self.after and not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


def victim(settings: Settings, *, after: bool) -> None:
    """A process that re-reads and dies at its second answer: when Kafka has it, or just before."""

    async def work() -> None:
        publisher = Deadly(settings.kit)
        publisher.after = after
        await publisher.start()
        sources = Sources(settings.sources)
        sources.load()
        database = Database(settings.database, migrations=MIGRATIONS)
        await Rereading(database, publisher, sources).run()

    asyncio.run(work())


@pytest.fixture
def hubspot() -> crms.HubSpot:
    deals = {str(n): hub_deal(str(n), deal_currency_code="EUR") for n in range(DEALS)}
    return crms.HubSpot(objects={"0-3": deals})


async def wanted(world: World) -> None:
    await world.want(*(("opportunity", f"hubs:{number}") for number in range(DEALS)))


async def checksum(database: Database) -> str:
    async with database.transaction() as transaction:
        return await digest.checksum(transaction)


async def answers(settings: Settings) -> list[Backfilled]:
    """What is on the topic of answers."""
    reader = AIOKafkaConsumer(
        settings.kit.topic_prefix + Backfilled.topic,
        bootstrap_servers=settings.kit.kafka,
        auto_offset_reset="earliest",
    )
    await reader.start()
    try:
        found: list[Backfilled] = []
        while messages := await reader.getmany(timeout_ms=2000):
            for each in messages.values():
                found += [Backfilled.decode(one.value) for one in each if one.value is not None]
        return found
    finally:
        await reader.stop()


async def test_a_kill_while_re_reading_loses_and_doubles_nothing(
    ingest_settings: Any, new_database: Any, tmp_path: Path, hubspot: crms.HubSpot
) -> None:
    settings, key = await ingest_settings()
    (tmp_path / "undisturbed").mkdir()
    async with a_world(
        await new_database(), tmp_path / "undisturbed", hubspot, "hubspot"
    ) as undisturbed:
        await wanted(undisturbed)
        await undisturbed.ask()
        assert await undisturbed.waiting() == []
        expected = await checksum(undisturbed.database)
        hubspot.asked.clear()

        entry = msgspec.to_builtins(source("hubspot", hubspot.url)) | {"secrets": ["s"]}
        settings.sources.write_text(json.dumps([entry]))
        database = Database(settings.database, migrations=MIGRATIONS)
        await database.migrate()
        await create_topics(settings.kit)
        world = World(database, tmp_path / "undisturbed", undisturbed.source)
        await wanted(world)
        processes = multiprocessing.get_context("spawn")
        for after in (True, False):
            process = processes.Process(target=victim, args=(settings,), kwargs={"after": after})
            process.start()
            await asyncio.to_thread(process.join, 60)
            assert process.exitcode == -signal.SIGKILL
            async with database.engine.begin() as connection:  # as if the lease had ended
                await connection.execute(text("UPDATE reread SET leased_until = now()"))
        assert 0 < len(await world.waiting()) < DEALS

        async with running(settings, key) as ingest:
            found = await ingest.published(Record, lambda found: len(found) >= DEALS, seconds=60)
            await ingest.eventually(
                "/v1/rereads", lambda answer: answer.json()["items"] == [], headers=OPS
            )
        assert sorted(found) == sorted(f"{TENANT}/opportunity/hubs:{n}" for n in range(DEALS))
        assert await checksum(database) == expected
        # And the kills were where they were to be: what one had put onto Kafka was asked for again.
        bodies = [one.body for one in await answers(settings) if "/objects/" in one.url]
        assert sum(len(json.loads(body)["results"]) for body in bodies) > DEALS
        await database.close()
