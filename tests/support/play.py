"""A whole system with a play in it, for tests that look at it from outside."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

import httpx

from deploy.local import Stack
from deploy.local.machine import free_port
from kit.clock import interpolate
from simulator import oracle, seed
from simulator.client import Client
from simulator.days import play
from simulator.delivery import Delivery, deliver
from simulator.organisation import Company, make_company
from simulator.player import Player, end_of_play, time_map
from simulator.receiver import Receiver
from simulator.system import System

START_DAY = date(2026, 11, 9)
SETTLE_SECONDS = 90.0


@dataclass
class Played:
    """A running system, who sells in it, and what is sent to it."""

    system: System
    client: Client
    company: Company
    player: Player
    receiver: Receiver
    deliveries: list[Delivery] = field(default_factory=list)

    async def settled(self) -> list[str]:
        """The differences to the independent computation, once nothing moves any more."""
        await self.system.wait_drained()
        points = self.system.time_map
        assert points is not None
        now = datetime.fromtimestamp(interpolate(points, time.time()), UTC)
        wanted = oracle.expected(self.company, self.player.acknowledged, seed.plan_document(), now)
        deadline = time.monotonic() + SETTLE_SECONDS
        differences = ["never compared"]
        while differences and time.monotonic() < deadline:
            differences = await oracle.compare(wanted, self.client)
            await asyncio.sleep(0.5)
        return differences


@asynccontextmanager
async def a_play(
    stack: Stack, folder: Path, *, name: str, days: int, seed_number: int = 1
) -> AsyncIterator[Played]:
    """All services running and seeded, at the evening of the last played day; nothing sent yet."""
    points = time_map(START_DAY, days, real_start=time.time() - days, day_seconds=0.5)
    port = free_port()
    system = System(
        folder, stack, time_map=points, name=name, receiver_url=f"http://127.0.0.1:{port}/webhooks"
    )
    receiver = Receiver(system.webhook_secret, port)
    company = make_company(seed_number, START_DAY)
    changes = play(seed_number, START_DAY, days, company)
    deliveries = list(deliver(changes, seed_number, end_of_play(START_DAY, days)))
    async with receiver.running(), httpx.AsyncClient(timeout=30) as http:
        await system.start()
        try:
            await system.wait_ready()
            client = Client(http, system.urls, system.headers)
            await seed.everything(client, company)
            await seed.late(client, company)
            player = Player(system.hook_url, system.vendor_secrets)
            yield Played(system, client, company, player, receiver, deliveries)
        finally:
            await system.stop()
