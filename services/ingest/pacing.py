"""How the backfill lane, and what is asked of CRMs, give way to live requests.

What comes out of the lane shares the process, the topics, the database and the services behind with
what is live. Before each batch it waits until no live batch is late, and rests for as long as keeps
it within its share of the process's time and within its rate. What is large is read beside the
event loop.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from schemas.crm import Received
from services.ingest.domain import readers
from services.ingest.domain.facts import Outcome
from services.ingest.domain.sources import Source

LATE_SECONDS = 0.25  # a live batch in hand for longer needs the machine for itself
LONGEST_WAIT_SECONDS = 30.0  # then the lane goes on all the same: late is not never
CHECK_SECONDS = 0.02
BESIDE_LIVE = 0.25  # of the process's time, where live requests are read in it too
# Measured on 2 busy cores: HubSpot's deals take 1 to 2 ms each to read, 50 of them (140 KiB) 60 ms
# and 500 (1.4 MiB) over a second, in which nobody else is served; in a thread they hold the loop up
# for 5 to 80 ms. What is smaller than this takes 10 ms, and a thread costs 0.2 ms.
OFF_LOOP_BYTES = 16 * 1024


class GiveWay:
    """What the backfill lane puts around each batch of so many messages."""

    def __init__(
        self,
        live_lag_seconds: Callable[[], float],
        *,
        messages_per_second: float,
        share: float,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._live_lag = live_lag_seconds
        self._rate = messages_per_second
        self._rest_per_work = 1 / share - 1
        self._now = now
        self._sleep = sleep
        self._free_at = 0.0

    @asynccontextmanager
    async def __call__(self, messages: int) -> AsyncIterator[None]:
        """Around a batch: entered when it may be applied."""
        asked = self._now()
        await self._sleep(min(max(0.0, self._free_at - asked), LONGEST_WAIT_SECONDS))
        while self._live_lag() > LATE_SECONDS and self._now() - asked < LONGEST_WAIT_SECONDS:
            await self._sleep(CHECK_SECONDS)
        began = self._now()
        try:
            yield
        finally:
            ended = self._now()
            rested = ended + (ended - began) * self._rest_per_work
            self._free_at = max(rested, began + messages / self._rate)


async def read_aside(received: Received, source: Source) -> list[tuple[int, Outcome]]:
    """What a request says, read in a thread of its own where that takes long."""
    if len(received.body) <= OFF_LOOP_BYTES:
        return readers.read(received, source)
    return await asyncio.to_thread(readers.read, received, source)
