"""SIGKILL at any moment: afterwards nothing is lost and nothing is doubled."""

import asyncio
import random
from pathlib import Path

from deploy.local import Stack
from schemas.topics import SERVICES
from tests.support.play import a_play

KILLS = 50
DAYS = 2
PAUSE_SECONDS = (0.2, 1.2)  # between two kills: while starting, while working, while idle


async def test_fifty_kills_of_services_lose_and_double_nothing(
    stack: Stack, tmp_path: Path
) -> None:
    chance = random.Random(20261122)
    async with a_play(stack, tmp_path, name="kills", days=DAYS) as played:
        sending = asyncio.create_task(played.player.play(played.deliveries))
        for _ in range(KILLS):
            victim = chance.choice(SERVICES)
            await asyncio.sleep(chance.uniform(*PAUSE_SECONDS))
            played.system.kill(victim)
            played.system.start_service(victim)
        await played.system.wait_ready()
        await sending

        assert await played.settled() == []
        assert played.receiver.refused_signatures == 0
        # A kill between a receiver's answer and our commit repeats a message under the same id.
        assert played.receiver.distinct == len(await sent_webhooks(played.client))


async def sent_webhooks(client: "object") -> set[str]:
    """The webhook deliveries that notifications believes to have made."""
    found: set[str] = set()
    async for item in client.pages("notifications", "/v1/deliveries", state="sent"):  # type: ignore[attr-defined]
        if item["channel"] == "webhook":
            found.add(item["id"])
    return found


async def test_the_database_and_the_broker_may_die_too(stack: Stack, tmp_path: Path) -> None:
    async with a_play(stack, tmp_path, name="servers", days=1) as played:
        sending = asyncio.create_task(played.player.play(played.deliveries))
        await asyncio.sleep(3)
        await asyncio.to_thread(stack.kill_postgres)
        await asyncio.sleep(1)
        await asyncio.to_thread(stack.start_postgres)
        await asyncio.sleep(3)
        await asyncio.to_thread(stack.kill_kafka)
        await asyncio.sleep(1)
        await asyncio.to_thread(stack.start_kafka)
        await sending

        assert await played.settled() == []
