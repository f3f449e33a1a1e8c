"""Many viewers, one computation: what each is sent, however fast or late it reads."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import dataclass

import msgspec
import pytest

from services.metrics.boards import Event, Hub, Seat
from services.metrics.domain.leaderboard import Audience, Board, Row
from services.metrics.store.leaderboards import UnknownBoardError


class Numbers:
    """Stands for the store: one board of one person, computed when asked for."""

    def __init__(self) -> None:
        self.value = 0
        self.version = 0
        self.period = "month:2026-11-01"
        self.computed = 0
        self.shown = 0

    async def compute(self, _: str, board: str) -> "Standings":
        self.computed += 1
        return Standings(self, board, str(self.version), self.period, self.value)

    async def versions(self, tenants: Iterable[str]) -> dict[str, str]:
        return {tenant: str(self.version) for tenant in tenants}

    def move(self, *, by: int = 1) -> None:
        self.version += 1
        self.value += by


@dataclass
class Standings:
    """A board of one person, whose number is for managers."""

    numbers: Numbers
    board: str
    version: str
    kind: str
    value: int

    def shown(self, audience: Audience) -> Board:
        self.numbers.shown += 1
        row = self._row(hidden=audience == "everyone")
        return Board(self.board, "B", "m", "count", self.kind, self.version, "now", [row])

    def row(self, subject: str, audience: Audience) -> Row | None:
        assert audience == "everyone"  # others see their row anyway
        return self._row(hidden=False) if subject == "person:a" else None

    def _row(self, *, hidden: bool) -> Row:
        value = None if hidden else str(self.value)
        place = 1 + self.value // 10
        return Row(place, "person:a", "A", "", value, 1, None, None, None, None, {}, hidden=hidden)


def a_hub(numbers: Numbers, updates: int = 4) -> Hub[Standings]:
    return Hub(numbers.compute, numbers.versions, updates=updates)


async def following(events: AsyncIterator[Event]) -> tuple[str, str, str]:
    event = await anext(events)
    body = msgspec.json.decode(event.data)
    assert body["version"] == event.version
    return event.kind, body.get("previous", ""), event.version


async def test_all_viewers_share_one_computation() -> None:
    numbers = Numbers()
    hub = a_hub(numbers)
    viewers = [hub.watch("acme", {"b": Seat()}) for _ in range(5)]
    assert [await following(v) for v in viewers] == [("snapshot", "", "0")] * 5
    numbers.move()
    await hub.tick()
    await hub.tick()

    assert [await following(v) for v in viewers] == [("update", "0", "1")] * 5
    assert numbers.computed == 2
    assert hub.viewers == 5
    for viewer in viewers:
        await viewer.aclose()
    assert hub.viewers == 0


async def test_a_tick_is_over_when_everybody_has_been_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.metrics.boards.WOKEN_AT_ONCE", 2)
    numbers = Numbers()
    hub = a_hub(numbers)
    viewers = [hub.watch("acme", {"b": Seat()}) for _ in range(5)]
    for viewer in viewers:
        await following(viewer)
    waiting = [asyncio.ensure_future(anext(viewer)) for viewer in viewers]
    await asyncio.sleep(0)
    numbers.move()
    await hub.tick()

    assert all(each.done() for each in waiting)


async def test_who_watches_several_boards_is_one_viewer() -> None:
    numbers = Numbers()
    hub = a_hub(numbers)
    viewer = hub.watch("acme", {"a": Seat(), "b": Seat()})
    first = [await anext(viewer) for _ in range(2)]
    assert [(e.board, e.kind) for e in first] == [("a", "snapshot"), ("b", "snapshot")]
    assert hub.viewers == 1
    waiting = asyncio.ensure_future(anext(viewer))
    await asyncio.sleep(0)
    numbers.move()
    await hub.tick()
    second = [await waiting, await anext(viewer)]
    assert [(e.board, e.kind, e.version) for e in second] == [
        ("a", "update", "1"),
        ("b", "update", "1"),
    ]
    await viewer.aclose()
    assert hub.viewers == 0


async def test_what_moves_while_a_slow_viewer_reads_is_not_lost() -> None:
    numbers = Numbers()
    hub = a_hub(numbers)
    viewer = hub.watch("acme", {"a": Seat(), "b": Seat()})
    assert (await anext(viewer)).board == "a"
    numbers.move()  # it has been given the first board only
    await hub.tick()

    assert [(e.board, e.version) for e in [await anext(viewer), await anext(viewer)]] == [
        ("b", "1"),
        ("a", "1"),
    ]


async def test_a_deleted_board_is_gone_and_the_others_go_on() -> None:
    class Deleted(Numbers):
        async def compute(self, tenant: str, board: str) -> Standings:
            if (self.version and board == "a") or self.version > 1:
                raise UnknownBoardError("board", board, [])
            return await super().compute(tenant, board)

    numbers = Deleted()
    hub = a_hub(numbers)
    viewer = hub.watch("acme", {"a": Seat(), "b": Seat()})
    for _ in range(2):
        await anext(viewer)
    seen = []
    for _ in range(2):
        numbers.move()
        await hub.tick()
        seen.append(await anext(viewer))
        if len(seen) == 1:
            seen.append(await anext(viewer))

    assert [(e.board, e.kind) for e in seen] == [("a", "gone"), ("b", "update"), ("b", "gone")]
    with pytest.raises(StopAsyncIteration):
        await anext(viewer)
    assert hub.viewers == 0


async def test_an_event_has_the_same_content_in_each_of_its_forms() -> None:
    hub = a_hub(Numbers())
    event = await anext(hub.watch("acme", {"b": Seat()}))
    data = msgspec.json.decode(event.data)

    assert event.sent == b"id: 0\nevent: snapshot\ndata: " + event.data.encode() + b"\n\n"
    assert msgspec.json.decode(event.message) == {
        "board": "b",
        "event": "snapshot",
        "version": "0",
        "data": data,
    }
    assert event.sent_of_several == f"event: snapshot\ndata: {event.message}\n\n".encode()


async def test_a_move_that_shows_nothing_is_not_sent() -> None:
    numbers = Numbers()
    hub = a_hub(numbers)
    viewer = hub.watch("acme", {"b": Seat()})
    await following(viewer)
    numbers.move(by=0)
    await hub.tick()
    numbers.move()
    await hub.tick()

    assert await following(viewer) == ("update", "0", "2")


async def test_who_reads_slowly_gets_every_update_or_else_everything() -> None:
    numbers = Numbers()
    hub = a_hub(numbers, updates=3)
    slow, slower = hub.watch("acme", {"b": Seat()}), hub.watch("acme", {"b": Seat()})
    await following(slow)
    await following(slower)
    for _ in range(3):
        numbers.move()
        await hub.tick()
    assert [await following(slow) for _ in range(3)] == [
        ("update", "0", "1"),
        ("update", "1", "2"),
        ("update", "2", "3"),
    ]
    numbers.move()
    await hub.tick()

    assert await following(slower) == ("snapshot", "", "4")


async def test_who_comes_back_goes_on_where_it_was() -> None:
    numbers = Numbers()
    hub = a_hub(numbers)
    stays = hub.watch("acme", {"b": Seat()})
    await following(stays)
    for _ in range(2):
        numbers.move()
        await hub.tick()

    assert await following(hub.watch("acme", {"b": Seat("1")})) == ("update", "1", "2")
    assert await following(hub.watch("acme", {"b": Seat("elsewhere")})) == ("snapshot", "", "2")


async def test_an_unwatched_board_is_brought_up_to_date_for_the_next_viewer() -> None:
    numbers = Numbers()
    hub = a_hub(numbers)
    viewer = hub.watch("acme", {"b": Seat()})
    await following(viewer)
    await viewer.aclose()
    numbers.move()
    await hub.tick()
    assert numbers.computed == 1

    assert await following(hub.watch("acme", {"b": Seat("0")})) == ("update", "0", "1")


async def test_a_new_period_is_another_board() -> None:
    numbers = Numbers()
    hub = a_hub(numbers)
    viewer = hub.watch("acme", {"b": Seat()})
    await following(viewer)
    numbers.period = "month:2026-12-01"
    numbers.move()
    await hub.tick()

    assert await following(viewer) == ("snapshot", "", "1")


async def test_a_board_that_cannot_be_computed_does_not_hold_up_the_others() -> None:
    class Fragile(Numbers):
        async def compute(self, tenant: str, board: str) -> Standings:
            if board == "bad" and self.version:
                raise ValueError("a catalogue that fits no more")
            return await super().compute(tenant, board)

    numbers = Fragile()
    hub = a_hub(numbers)
    bad, good = hub.watch("acme", {"bad": Seat()}), hub.watch("acme", {"good": Seat()})
    await following(bad)
    await following(good)
    numbers.move()
    await hub.tick()

    assert await following(good) == ("update", "0", "1")


async def test_each_audience_is_computed_and_serialised_once() -> None:
    numbers = Numbers()
    hub = a_hub(numbers)
    open_ones = [hub.watch("acme", {"b": Seat("", "everyone")}) for _ in range(3)]
    full_ones = [hub.watch("acme", {"b": Seat("", "managers")}) for _ in range(3)]
    seen = [await anext(viewer) for viewer in (*open_ones, *full_ones)]
    assert numbers.shown == 2
    assert len({id(event) for event in seen}) == 2
    assert [msgspec.json.decode(e.data)["rows"][0]["value"] for e in seen] == [None] * 3 + ["0"] * 3
    numbers.move()
    await hub.tick()
    assert [await following(viewer) for viewer in full_ones] == [("update", "0", "1")] * 3
    numbers.move(by=10)  # another place, which everybody sees
    await hub.tick()

    assert [await following(v) for v in open_ones] == [("update", "0", "2")] * 3
    assert [await following(v) for v in full_ones] == [("update", "1", "2")] * 3
    assert numbers.computed == 3


async def test_ones_own_row_comes_beside_what_everybody_sees() -> None:
    numbers = Numbers()
    hub = a_hub(numbers)
    mine = hub.watch("acme", {"b": Seat("", "everyone", "person:a")})
    theirs = hub.watch("acme", {"b": Seat("", "everyone", "person:x")})
    own, snapshot = await anext(mine), await anext(mine)
    assert (own.kind, own.version, msgspec.json.decode(own.data)["value"]) == ("own", "", "0")
    assert (snapshot.kind, snapshot.version) == ("snapshot", "0")
    assert await following(theirs) == ("snapshot", "", "0")
    waiting = asyncio.ensure_future(anext(theirs))
    numbers.move()
    await hub.tick()
    moved = await anext(mine)
    await asyncio.sleep(0)

    assert (moved.kind, msgspec.json.decode(moved.data)["value"]) == ("own", "1")
    assert not waiting.done()  # nothing of it shows
    numbers.move(by=10)
    await hub.tick()
    assert [(await anext(mine)).kind, (await anext(mine)).kind] == ["own", "update"]
    assert (await waiting).kind == "update"


async def test_who_comes_back_is_told_the_own_row_first() -> None:
    numbers = Numbers()
    hub = a_hub(numbers)
    stays = hub.watch("acme", {"b": Seat("", "everyone", "person:a")})
    await anext(stays)
    numbers.move()
    await hub.tick()
    back = hub.watch("acme", {"b": Seat("0", "everyone", "person:a")})

    assert msgspec.json.decode((await anext(back)).data)["value"] == "1"


class Wire:
    """A way to a viewer, whose events come one after the other whichever way they are given."""

    def __init__(self, hub: Hub[Standings], seat: Seat, *boards: str) -> None:
        self.ready = True
        self.events: list[Event] = []
        self.pushed = 0
        self.blocked = asyncio.Event()
        self.blocked.set()
        self._watched = hub.watch("acme", dict.fromkeys(boards or ("b",), seat), self)
        self._task = asyncio.create_task(self._read())

    def push(self, event: Event) -> None:
        self.pushed += 1
        self.events.append(event)

    async def _read(self) -> None:
        async with aclosing(self._watched) as watched:
            async for event in watched:
                self.events.append(event)
                await self.blocked.wait()

    @property
    def seen(self) -> list[tuple[str, str]]:
        return [(event.kind, event.version) for event in self.events]

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_news_are_pushed_to_who_waits_for_them() -> None:
    numbers = Numbers()
    hub = a_hub(numbers)
    viewer = Wire(hub, Seat())
    await settled()
    assert viewer.pushed == 0  # the first events are given
    for _ in range(2):
        numbers.move()
        await hub.tick()

    assert viewer.seen == [("snapshot", "0"), ("update", "1"), ("update", "2")]
    assert viewer.pushed == 2
    await viewer.end()
    numbers.move()
    await hub.tick()
    assert viewer.pushed == 2
    assert hub.viewers == 0


async def test_who_does_not_read_is_given_news_when_it_does() -> None:
    numbers = Numbers()
    hub = a_hub(numbers, updates=2)
    stuck, slow = Wire(hub, Seat()), Wire(hub, Seat())
    await settled()
    slow.ready = False
    stuck.blocked.clear()
    stuck.ready = False
    numbers.move()
    await hub.tick()  # given, and there it stays
    stuck.ready = True  # the connection has room again, but an event is being sent
    for _ in range(3):
        numbers.move()
        await hub.tick()
        await settled()
    assert stuck.seen == [("snapshot", "0"), ("update", "1")]
    stuck.blocked.set()
    await settled()

    assert stuck.seen == [("snapshot", "0"), ("update", "1"), ("snapshot", "4")]
    assert [kind for kind, _ in slow.seen] == ["snapshot", *["update"] * 4]
    assert stuck.pushed == slow.pushed == 0
    numbers.move()
    await hub.tick()
    assert stuck.pushed == 1
    assert stuck.seen[-1] == ("update", "5")


async def test_ones_own_row_is_pushed_before_its_update_and_the_end_is_not() -> None:
    class Deleted(Numbers):
        async def compute(self, tenant: str, board: str) -> Standings:
            if self.version > 1:
                raise UnknownBoardError("board", board, [])
            return await super().compute(tenant, board)

    numbers = Deleted()
    hub = a_hub(numbers)
    viewer = Wire(hub, Seat("", "everyone", "person:a"))
    await settled()
    numbers.move(by=10)
    await hub.tick()
    assert [kind for kind, _ in viewer.seen] == ["own", "snapshot", "own", "update"]
    assert viewer.pushed == 2
    numbers.move()
    await hub.tick()
    await settled()

    assert viewer.seen[-1] == ("gone", "")
    assert viewer.pushed == 2
    assert hub.viewers == 0


async def test_a_push_that_fails_is_given_instead_and_the_others_are_pushed() -> None:
    class Broken(Wire):
        def push(self, event: Event) -> None:
            raise OSError(event.version)

    numbers = Numbers()
    hub = a_hub(numbers)
    broken, good = Broken(hub, Seat()), Wire(hub, Seat())
    await settled()
    numbers.move()
    await hub.tick()
    await settled()

    assert broken.seen == good.seen == [("snapshot", "0"), ("update", "1")]
    assert good.pushed == 1


async def test_a_board_that_is_watched_need_not_be_computed_again() -> None:
    class Fragile(Numbers):
        async def compute(self, tenant: str, board: str) -> Standings:
            if self.version == 1:
                raise ValueError("a catalogue that fits no more")
            return await super().compute(tenant, board)

    numbers = Fragile()
    hub = a_hub(numbers)
    assert hub.current("acme", "b") is None
    viewer = hub.watch("acme", {"b": Seat()})
    await following(viewer)
    found = [hub.current("acme", "b")]
    for _ in range(2):
        numbers.move()
        await hub.tick()
        found.append(hub.current("acme", "b"))
    await viewer.aclose()
    found.append(hub.current("acme", "b"))

    assert [each and each.version for each in found] == ["0", None, "2", None]
