"""Live boards: one computation and one serialisation for all viewers of a board.

A channel is a board of a tenant that somebody watches. Every tick the hub asks which tenants'
numbers moved (in the store, so that it doesn't matter which replica moved them), computes their
channels again and appends the difference to the channel's last updates. Viewers read from there
at their own pace: who has fallen out of it, or comes back with an unknown version, gets a
snapshot. So there is no queue per viewer, and a slow one costs nothing.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import msgspec
import structlog

from kit.telemetry import JOB_FAILURES
from services.metrics import telemetry
from services.metrics.domain.leaderboard import Board, difference

LONG_ROUND_SECONDS = 0.05  # of computing; then other work gets as long, before the next one
LONGEST_REST_SECONDS = 0.5
IDLE_SECONDS = 60.0  # an unwatched channel is kept this long, for viewers who reconnect

log = structlog.get_logger(__name__)

Slot = tuple[str, str]  # tenant, board
Compute = Callable[[str, str], Awaitable[Board]]
Versions = Callable[[Iterable[str]], Awaitable[dict[str, str]]]


@dataclass(frozen=True, slots=True)
class Event:
    """What is sent to a viewer; `version` is what the viewer knows afterwards."""

    kind: str  # snapshot | update
    version: str
    data: str


@dataclass(slots=True)
class _Channel:
    board: Board
    seen: str  # the tenant's version that `board` was computed for, changed rows or not
    updates: deque[tuple[str, Event]]  # with the version that each one follows on
    snapshot: Event | None = None
    viewers: int = 0
    unwatched_since: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def current(self) -> Event:
        """The whole board, serialised once however many ask."""
        if self.snapshot is None:
            data = msgspec.json.encode(self.board).decode()
            self.snapshot = Event("snapshot", self.board.version, data)
        return self.snapshot

    def after(self, version: str) -> list[Event]:
        """What brings a viewer from `version` to the present."""
        if version == self.board.version:
            return []
        found: list[Event] = []
        for previous, event in reversed(self.updates):
            found.append(event)
            if previous == version:
                return found[::-1]
        return [self.current()]


class Hub:
    """All channels of this process."""

    def __init__(self, compute: Compute, versions: Versions, *, updates: int) -> None:
        self._compute = compute
        self._versions = versions
        self._updates = updates
        self._channels: dict[Slot, _Channel] = {}
        self._computing = asyncio.Lock()
        self._resting_until = 0.0
        self.viewers = 0

    async def watch(self, tenant: str, board: str, version: str) -> AsyncIterator[Event]:
        """Events for a viewer who knows `version` (empty: nothing), for ever."""
        channel = await self._open((tenant, board))
        channel.viewers += 1
        self.viewers += 1
        telemetry.STREAMS.set(self.viewers)
        try:
            while True:
                changed = channel.changed
                for event in channel.after(version):
                    telemetry.STREAM_EVENTS.labels(event.kind).inc()
                    yield event
                    version = event.version
                if channel.changed is changed:
                    await changed.wait()
        finally:
            self.viewers -= 1
            telemetry.STREAMS.set(self.viewers)
            channel.viewers -= 1
            channel.unwatched_since = time.monotonic()

    async def tick(self) -> None:
        """Bring every channel up to date; the job calls it again and again."""
        self._drop_unwatched()
        began = time.monotonic()
        if not self._channels or began < self._resting_until:
            return
        versions = await self._versions(sorted({tenant for tenant, _ in self._channels}))
        for slot, channel in list(self._channels.items()):
            if channel.viewers and channel.seen != versions[slot[0]]:
                try:
                    async with self._computing:
                        await self._refresh(slot, channel)
                except Exception:
                    # One board that can't be computed must not hold up the others.
                    JOB_FAILURES.labels("boards").inc()
                    log.exception("board_failed", tenant=slot[0], board=slot[1])
        ended = time.monotonic()
        if ended - began > LONG_ROUND_SECONDS:
            self._resting_until = ended + min(ended - began, LONGEST_REST_SECONDS)

    async def _open(self, slot: Slot) -> _Channel:
        async with self._computing:
            channel = self._channels.get(slot)
            if channel is None:
                board = await self._computed(slot, "opened")
                channel = _Channel(board, board.version, deque(maxlen=self._updates))
                channel.unwatched_since = time.monotonic()
                self._channels[slot] = channel
            elif not channel.viewers:  # nobody kept it up to date
                channel.unwatched_since = time.monotonic()  # it is not dropped while we refresh it
                await self._refresh(slot, channel)
            return channel

    async def _refresh(self, slot: Slot, channel: _Channel) -> None:
        old, new = channel.board, await self._computed(slot, "moved")
        channel.seen = new.version
        if new.version == old.version:
            return
        if new.period != old.period or new.unit != old.unit:
            # A new period is another board: nothing of the old one is worth keeping.
            channel.board, channel.snapshot = new, None
            channel.updates.clear()
        else:
            rows, removed = difference(old, new)
            if not rows and not removed:
                return
            body = {
                "version": new.version,
                "previous": old.version,
                "as_of": new.as_of,
                "rows": rows,
                "removed": removed,
            }
            event = Event("update", new.version, msgspec.json.encode(body).decode())
            channel.board, channel.snapshot = new, None
            channel.updates.append((old.version, event))
        waiting, channel.changed = channel.changed, asyncio.Event()
        waiting.set()

    async def _computed(self, slot: Slot, cause: str) -> Board:
        telemetry.BOARDS.labels(cause).inc()
        with telemetry.BOARD_SECONDS.time():
            return await self._compute(*slot)

    def _drop_unwatched(self) -> None:
        before = time.monotonic() - IDLE_SECONDS
        for slot, channel in list(self._channels.items()):
            if not channel.viewers and channel.unwatched_since < before:
                del self._channels[slot]
