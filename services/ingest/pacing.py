"""How the backfill lane gives way to live requests.

What comes out of the lane shares the process, the topics, the database and the services behind with
what is live. Before each batch it waits until no live batch is late, and rests for as long as keeps
it within its share of the process's time and within its rate.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

LATE_SECONDS = 0.25  # a live batch in hand for longer needs the machine for itself
LONGEST_WAIT_SECONDS = 30.0  # then the lane goes on all the same: late is not never
CHECK_SECONDS = 0.02
BESIDE_LIVE = 0.25  # of the process's time, where live requests are read in it too


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
