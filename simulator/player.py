"""Sends deliveries to ingest at their time and doesn't give up until each is acknowledged.

Business time runs through working hours only: the time map skips nights and weekends in an instant
and stands still after the last day, so that what is due at the end is exact. CRMs try again when we
are away; so does the player, which is why a killed ingest may lose nothing.
"""

import asyncio
import random
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from zoneinfo import ZoneInfo

import httpx

from simulator.days import Change, working_days
from simulator.delivery import Delivery
from simulator.organisation import ZONE
from simulator.vendors import Secrets, signed

TimeMap = list[tuple[float, float]]

OPENS, CLOSES = clock_time(8, 0), clock_time(19, 0)
MIDNIGHT_NEARLY = clock_time(23, 30)  # everybody's evening has come by then, wherever they live
SKIP_SECONDS = 0.05  # real time that a night takes
FROZEN_SECONDS = 30 * 86_400.0  # real time for which the last moment lasts
CONCURRENCY = 16
QUEUE = 256
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.2, 3.0
TIMEOUT_SECONDS = 10.0  # the CRMs give up after 5 to 10 s and try again
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
SUCCESS, REDIRECT = 200, 300


class RefusedError(Exception):
    """Ingest answered with something that trying again can't change."""


def time_map(start_day: date, days: int, *, real_start: float, day_seconds: float) -> TimeMap:
    """`[real, business]` points: each working day takes `day_seconds`, then time stands still."""
    points: TimeMap = []
    real = real_start
    played = working_days(start_day, days)
    for day in played:
        points += [(real, _at(day, OPENS)), (real + day_seconds, _at(day, CLOSES))]
        real += day_seconds + SKIP_SECONDS
    evening = _at(played[-1], MIDNIGHT_NEARLY)
    return [*points, (real, evening), (real + FROZEN_SECONDS, evening + 1.0)]


def standing_still(start_day: date) -> TimeMap:
    """It is the first morning, and stays so."""
    now, morning = time.time(), _at(working_days(start_day, 1)[0], OPENS)
    return [(now, morning), (now + FROZEN_SECONDS, morning + 1.0)]


def real_time_of(points: TimeMap, business: float) -> float:
    """When it is this late: the inverse of the map; before the first point at once."""
    index = bisect_left([b for _, b in points], business)
    if index == 0:
        return 0.0
    if index == len(points):
        return points[-1][0]
    (r0, b0), (r1, b1) = points[index - 1], points[index]
    return r0 + (r1 - r0) * (business - b0) / (b1 - b0)


def end_of_play(start_day: date, days: int) -> datetime:
    """The last business time at which something is delivered: before the last day closes."""
    last = working_days(start_day, days)[-1]
    return datetime.fromtimestamp(_at(last, CLOSES), UTC) - timedelta(minutes=10)


def _at(day: date, when: clock_time) -> float:
    return datetime.combine(day, when, ZoneInfo(ZONE)).timestamp()


@dataclass(slots=True)
class Counts:
    """What has been sent so far."""

    requests: int = 0
    events: int = 0  # vendor events acknowledged
    changes: int = 0  # truth changes, all of whose events are acknowledged
    repeated: int = 0  # requests sent again on purpose
    late: int = 0
    retries: int = 0  # tries that failed and were made again
    sent_bytes: int = 0
    seconds: list[float] = field(default_factory=list)  # of the acknowledged tries


class Player:
    """Sends deliveries; `acknowledged` is what the oracle may expect to be there."""

    def __init__(
        self,
        hook_url: Callable[[str], str],
        secrets: Secrets,
        *,
        public_url: Callable[[str], str] | None = None,
        concurrency: int = CONCURRENCY,
        on_progress: Callable[[Delivery], None] | None = None,
    ) -> None:
        self._hook_url = hook_url
        self._public_url = public_url or hook_url
        self._secrets = secrets
        self._concurrency = concurrency
        self._on_progress = on_progress
        self._parts: Counter[tuple[tuple[str, str, str], datetime]] = Counter()
        self._stopping = asyncio.Event()
        self.counts = Counts()
        self.acknowledged: list[Change] = []

    def stop(self) -> None:
        """Send nothing new; what is under way is finished."""
        self._stopping.set()

    async def play(self, deliveries: Iterable[Delivery], points: TimeMap | None = None) -> None:
        """Send all, each at its mapped real time, or as fast as ingest takes them without a map."""
        try:
            await self._play(deliveries, points)
        except ExceptionGroup as group:
            refused = group.subgroup(RefusedError)
            if refused is None:
                raise
            raise RefusedError(str(refused.exceptions[0])) from group

    async def _play(self, deliveries: Iterable[Delivery], points: TimeMap | None) -> None:
        async with self._workers() as queue:
            for delivery in deliveries:
                if points is not None:
                    await self._until(real_time_of(points, delivery.at.timestamp()))
                if self._stopping.is_set():
                    return
                await queue.put(delivery)

    async def _until(self, real: float) -> None:
        wait = real - time.time()
        if wait > 0:
            try:
                await asyncio.wait_for(self._stopping.wait(), wait)
            except TimeoutError:
                return

    @asynccontextmanager
    async def _workers(self) -> AsyncIterator["asyncio.Queue[Delivery | None]"]:
        queue: asyncio.Queue[Delivery | None] = asyncio.Queue(QUEUE)
        limits = httpx.Limits(
            max_connections=self._concurrency, max_keepalive_connections=self._concurrency
        )
        async with (
            httpx.AsyncClient(limits=limits, timeout=TIMEOUT_SECONDS) as client,
            asyncio.TaskGroup() as tasks,
        ):
            for _ in range(self._concurrency):
                tasks.create_task(self._work(client, queue))
            yield queue
            for _ in range(self._concurrency):
                await queue.put(None)

    async def _work(
        self, client: httpx.AsyncClient, queue: "asyncio.Queue[Delivery | None]"
    ) -> None:
        while (delivery := await queue.get()) is not None:
            await self._send(client, delivery)
            self._account(delivery)

    async def _send(self, client: httpx.AsyncClient, delivery: Delivery) -> None:
        request, delay = delivery.request, FIRST_RETRY_SECONDS
        while True:
            began = time.perf_counter()
            headers = signed(
                request,
                url=self._public_url(request.source),
                secrets=self._secrets,
                now=time.time(),
            )
            try:
                answer = await client.post(
                    self._hook_url(request.source), content=request.body, headers=headers
                )
                if SUCCESS <= answer.status_code < REDIRECT:
                    self.counts.seconds.append(time.perf_counter() - began)
                    return
                if answer.status_code not in RETRIED:
                    raise RefusedError(
                        f"{request.source}: {answer.status_code} {answer.text[:300]}"
                    )
            except httpx.TransportError:
                pass  # away or restarting: tried again, and counted
            self.counts.retries += 1
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311  # jitter
            delay = min(delay * 2, LAST_RETRY_SECONDS)

    def _account(self, delivery: Delivery) -> None:
        counts = self.counts
        counts.requests += 1
        counts.events += delivery.request.events
        counts.sent_bytes += len(delivery.request.body)
        counts.repeated += delivery.repeated
        counts.late += delivery.late
        if not delivery.repeated:
            for part in delivery.parts:
                slot = (part.change.record, part.change.at)
                self._parts[slot] += 1
                if self._parts[slot] == part.of:
                    del self._parts[slot]
                    self.acknowledged.append(part.change)
                    counts.changes += 1
        if self._on_progress is not None:
            self._on_progress(delivery)
