"""Live boards: one computation for all viewers of a board, one serialisation for each audience.

A channel is a board of a tenant that somebody watches, and in it there is a *view* for each
audience that does: at most three, by what they may see. Every tick the hub asks which tenants'
numbers moved (in the store, so that it doesn't matter which replica moved them), computes their
channels again and appends the difference to each view's last updates. Viewers read from there at
their own pace: who has fallen out of it, or comes back with an unknown version, gets a snapshot. So
there is no queue per viewer, and a slow one costs nothing.

Where a view hides numbers, its events are the same for all its viewers still. One's own row comes
beside them, as an event `own` without a version: at the beginning, and whenever it has changed,
before the update of that change. It is to be shown in place of the view's row of that subject. A
row is serialised when it has changed, once for all streams of that person; nothing is compared or
serialised for who watches a view that hides nothing.

Who watches several boards is one viewer all the same, with a place in several channels and one flag
that all of them raise. A viewer who waits and reads what it is sent has news pushed to it: so one
version reaches thousands in the time that waking their tasks would take for hundreds.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

import msgspec
import structlog

from kit.telemetry import JOB_FAILURES
from services.metrics import telemetry
from services.metrics.domain.leaderboard import Audience, Board, Row, difference
from services.metrics.store.leaderboards import UnknownBoardError

# Of computing boards and telling viewers; then other work gets as long, before the next round.
LONG_ROUND_SECONDS = 0.05
LONGEST_REST_SECONDS = 0.5
WOKEN_AT_ONCE = 100  # viewers: what they are sent takes milliseconds, in which nothing else runs
IDLE_SECONDS = 60.0  # an unwatched channel is kept this long, for viewers who reconnect

log = structlog.get_logger(__name__)

Slot = tuple[str, str]  # tenant, board


class Computed(Protocol):
    """A board for all audiences, as `leaderboard.Standings` is one."""

    @property
    def version(self) -> str:
        """What changes whenever the board may have."""
        ...

    @property
    def kind(self) -> object:
        """What makes it another board, of which no row can be compared with one of this."""
        ...

    def shown(self, audience: Audience) -> Board:
        """The board for an audience."""
        ...

    def row(self, subject: str, audience: Audience) -> Row | None:
        """A subject's own row."""
        ...


class Pushing(Protocol):
    """A way to a viewer that nobody has to wait for, as `kit.streams.EventStream` is one."""

    @property
    def ready(self) -> bool:
        """Whether the viewer reads what it is sent."""
        ...

    def push(self, event: "Event") -> None:
        """Send an event now."""
        ...


C = TypeVar("C", bound=Computed)
Versions = Callable[[Iterable[str]], Awaitable[dict[str, str]]]


@dataclass(frozen=True)
class Event:
    """What is sent to a viewer; `version` is what the viewer knows afterwards, empty as before.

    Each of its forms is made once, for however many viewers.
    """

    board: str
    kind: str  # snapshot | update | own | gone
    version: str
    data: str

    @cached_property
    def sent(self) -> bytes:
        """As a Server-Sent Event of a stream of this board alone."""
        number = f"id: {self.version}\n" if self.version else ""
        return f"{number}event: {self.kind}\ndata: {self.data}\n\n".encode()

    @cached_property
    def message(self) -> str:
        """As a message of a feed of several boards."""
        head = msgspec.json.encode(
            {"board": self.board, "event": self.kind, "version": self.version}
        ).decode()
        return f'{head[:-1]},"data":{self.data}}}'

    @cached_property
    def sent_of_several(self) -> bytes:
        """The same as a Server-Sent Event; the id, which is the viewer's own, goes before it."""
        return f"event: {self.kind}\ndata: {self.message}\n\n".encode()


@dataclass(frozen=True, slots=True)
class Seat:
    """How a viewer watches a board.

    `version` is what the viewer knows, empty for nothing. `own` is whose row is shown whole
    although the audience doesn't see such numbers; empty for none.
    """

    version: str = ""
    audience: Audience = "finance"
    own: str = ""


@dataclass(slots=True)
class _View:
    """A board as one audience sees it."""

    board: Board
    updates: deque[tuple[str, Event]]  # with the version that each one follows on
    snapshot: Event | None = None

    def current(self) -> Event:
        """The whole board, serialised once however many ask."""
        if self.snapshot is None:
            data = msgspec.json.encode(self.board).decode()
            self.snapshot = Event(self.board.board, "snapshot", self.board.version, data)
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

    def advance(self, new: Board, *, anew: bool) -> bool:
        """Go on to another board; whether anything has changed."""
        old = self.board
        if anew:
            self.board, self.snapshot = new, None
            self.updates.clear()
            return True
        rows, removed = difference(old, new)
        if not rows and not removed:
            return False
        body = {
            "version": new.version,
            "previous": old.version,
            "as_of": new.as_of,
            "rows": rows,
            "removed": removed,
        }
        event = Event(new.board, "update", new.version, msgspec.json.encode(body).decode())
        self.board, self.snapshot = new, None
        self.updates.append((old.version, event))
        return True


@dataclass(slots=True)
class _Channel(Generic[C]):
    name: str  # of the board
    computed: C
    seen: str  # the tenant's version that `computed` is of, changed rows or not
    limit: int  # updates kept per view
    views: dict[Audience, _View] = field(default_factory=dict)
    own: dict[tuple[str, Audience], tuple[Row | None, Event | None]] = field(default_factory=dict)
    places: set["_Watching"] = field(default_factory=set)
    unwatched_since: float = 0.0
    gone: bool = False  # there is no such board any more
    failing: bool = False  # it couldn't be computed when it had to be

    def view(self, audience: Audience) -> _View:
        """The audience's view, from its first viewer on."""
        found = self.views.get(audience)
        if found is None:
            found = _View(self.computed.shown(audience), deque(maxlen=self.limit))
            self.views[audience] = found
        return found

    def own_row(self, subject: str, audience: Audience) -> Event | None:
        """The subject's own row, where the view hides something; the same one while it is equal."""
        known, event = self.own.get((subject, audience), (None, None))
        row = self.computed.row(subject, audience)
        if row != known:
            event = None
            if row is not None:
                event = Event(self.name, "own", "", msgspec.json.encode(row).decode())
            self.own[subject, audience] = (row, event)
        return event

    async def wake(self) -> None:
        """Tell everyone; over when they have been sent what they don't have to wait for."""
        places = list(self.places)
        for start in range(0, len(places), WOKEN_AT_ONCE):
            for place in places[start : start + WOKEN_AT_ONCE]:
                place.tell()
            await asyncio.sleep(0)


@dataclass(slots=True, eq=False)
class _Viewer:
    pushing: Pushing | None
    given: Counter[str]  # events by kind
    flag: asyncio.Event = field(default_factory=asyncio.Event)
    waits: bool = False  # for the flag: nothing is being sent to it

    async def woken(self) -> None:
        """Wait for the flag; meanwhile news may be pushed."""
        self.waits = True
        try:
            await self.flag.wait()
        finally:
            self.waits = False


class _Watching:
    """A viewer's place in a channel."""

    def __init__(self, channel: _Channel[Any], seat: Seat, viewer: _Viewer) -> None:
        self._channel = channel
        self._seat = seat
        self._viewer = viewer
        self._version = seat.version
        self._told: Event | None = None

    def tell(self) -> None:
        """Give the viewer what it has missed, or let it read on."""
        viewer, known = self._viewer, self._version
        pushing = viewer.pushing
        if not viewer.waits or self._channel.gone or pushing is None or not pushing.ready:
            viewer.flag.set()
            return
        try:
            for event in self.missed():
                pushing.push(event)
        except Exception:  # of one connection: the others are told all the same
            log.exception("push_failed", board=self._channel.name)
            self._version = known
            viewer.flag.set()

    def missed(self) -> list[Event]:
        """What the viewer hasn't been given yet, all of one instant."""
        channel, seat = self._channel, self._seat
        if channel.gone:
            found = [Event(channel.name, "gone", "", "null")]
        else:
            found = channel.view(seat.audience).after(self._version)
            if found:
                self._version = found[-1].version
            if seat.own:
                row = channel.own_row(seat.own, seat.audience)
                if row is not None and row is not self._told:
                    found = [row, *found]
                self._told = row
        for event in found:
            self._viewer.given[event.kind] += 1
        return found


class Hub(Generic[C]):
    """All channels of this process."""

    def __init__(
        self,
        compute: Callable[[str, str], Awaitable[C]],
        versions: Versions,
        *,
        updates: int,
    ) -> None:
        self._compute = compute
        self._versions = versions
        self._updates = updates
        self._channels: dict[Slot, _Channel[C]] = {}
        self._computing = asyncio.Lock()
        self._resting_until = 0.0
        self._given: Counter[str] = Counter()  # events by kind, not yet in the telemetry
        self.viewers = 0

    def current(self, tenant: str, board: str) -> C | None:
        """The board as its viewers have it, a round old at most; None when nobody watches it."""
        channel = self._channels.get((tenant, board))
        if channel is None or not channel.places or channel.failing:
            return None
        return channel.computed

    async def watch(
        self, tenant: str, boards: Mapping[str, Seat], pushing: Pushing | None = None
    ) -> AsyncGenerator[Event, None]:
        """Events of these boards for one viewer, for as long as there is one of them.

        While we wait for a slow reader, everything goes on. What is pushed isn't given here.
        """
        viewer = _Viewer(pushing, self._given)
        with ExitStack() as stack:
            stack.enter_context(self._counted())
            places = []
            for board, seat in boards.items():
                channel = await self._open((tenant, board))
                place = _Watching(channel, seat, viewer)
                stack.enter_context(_watched(channel, place))
                places.append(place)
            while places:
                viewer.flag.clear()
                for place in tuple(places):
                    for event in place.missed():
                        if event.kind == "gone":
                            places.remove(place)
                        yield event
                if places:
                    await viewer.woken()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.viewers += 1
        telemetry.STREAMS.set(self.viewers)
        try:
            yield
        finally:
            self.viewers -= 1
            telemetry.STREAMS.set(self.viewers)

    async def tick(self) -> None:
        """Bring every channel up to date; the job calls it again and again."""
        self._drop_unwatched()
        for kind, count in self._given.items():
            telemetry.STREAM_EVENTS.labels(kind).inc(count)
        self._given.clear()
        if not self._channels:
            return
        await asyncio.sleep(max(0.0, self._resting_until - time.monotonic()))
        began = time.monotonic()
        versions = await self._versions(sorted({tenant for tenant, _ in self._channels}))
        for slot, channel in list(self._channels.items()):
            if channel.places and channel.seen != versions[slot[0]]:
                try:
                    async with self._computing:
                        moved = await self._refresh(slot, channel)
                    if moved:
                        await channel.wake()
                except UnknownBoardError:
                    channel.gone = True
                    del self._channels[slot]
                    await channel.wake()
                except Exception:
                    # One board that can't be computed must not hold up the others.
                    channel.failing = True
                    JOB_FAILURES.labels("boards").inc()
                    log.exception("board_failed", tenant=slot[0], board=slot[1])
        ended = time.monotonic()
        if ended - began > LONG_ROUND_SECONDS:
            self._resting_until = ended + min(ended - began, LONGEST_REST_SECONDS)

    async def _open(self, slot: Slot) -> _Channel[C]:
        async with self._computing:
            channel = self._channels.get(slot)
            if channel is None:
                computed = await self._computed(slot, "opened")
                channel = _Channel(slot[1], computed, computed.version, self._updates)
                channel.unwatched_since = time.monotonic()
                self._channels[slot] = channel
            elif not channel.places:  # nobody kept it up to date
                channel.unwatched_since = time.monotonic()  # it is not dropped while we refresh it
                await self._refresh(slot, channel)
            return channel

    async def _refresh(self, slot: Slot, channel: _Channel[C]) -> bool:
        """Compute the channel again; whether there may be news for its viewers."""
        old, new = channel.computed, await self._computed(slot, "moved")
        channel.seen, channel.failing = new.version, False
        if new.version == old.version:
            return False
        channel.computed = new
        # A new period is another board: nothing of the old one is worth keeping.
        anew = new.kind != old.kind
        changed = anew
        for audience, view in channel.views.items():
            changed = view.advance(new.shown(audience), anew=anew) or changed
        return changed or bool(channel.own)

    async def _computed(self, slot: Slot, cause: str) -> C:
        telemetry.BOARDS.labels(cause).inc()
        with telemetry.BOARD_SECONDS.time():
            return await self._compute(*slot)

    def _drop_unwatched(self) -> None:
        before = time.monotonic() - IDLE_SECONDS
        for slot, channel in list(self._channels.items()):
            if not channel.places and channel.unwatched_since < before:
                del self._channels[slot]


@contextmanager
def _watched(channel: _Channel[Any], place: _Watching) -> Iterator[None]:
    channel.places.add(place)
    try:
        yield
    finally:
        channel.places.discard(place)
        channel.unwatched_since = time.monotonic()
