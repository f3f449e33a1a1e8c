"""Many viewers, one computation: what each is sent, however fast or late it reads."""

from collections.abc import AsyncIterator, Iterable

import msgspec

from services.metrics.boards import Event, Hub
from services.metrics.domain.leaderboard import Board, Row


class Numbers:
    """Stands for the store: one board of one person, computed when asked for."""

    def __init__(self) -> None:
        self.value = 0
        self.version = 0
        self.period = "month:2026-11-01"
        self.computed = 0

    async def compute(self, tenant: str, board: str) -> Board:
        self.computed += 1
        row = Row(1, "person:a", "A", "", str(self.value), 1, None, None, None, None, {})
        return Board(board, tenant, "m", "count", self.period, str(self.version), "now", [row])

    async def versions(self, tenants: Iterable[str]) -> dict[str, str]:
        return {tenant: str(self.version) for tenant in tenants}

    def move(self, *, by: int = 1) -> None:
        self.version += 1
        self.value += by


def a_hub(numbers: Numbers, updates: int = 4) -> Hub:
    return Hub(numbers.compute, numbers.versions, updates=updates)


async def following(events: AsyncIterator[Event]) -> tuple[str, str, str]:
    event = await anext(events)
    body = msgspec.json.decode(event.data)
    assert body["version"] == event.version
    return event.kind, body.get("previous", ""), event.version


async def test_all_viewers_share_one_computation() -> None:
    numbers = Numbers()
    hub = a_hub(numbers)
    viewers = [hub.watch("acme", "b", "") for _ in range(5)]
    assert [await following(v) for v in viewers] == [("snapshot", "", "0")] * 5
    numbers.move()
    await hub.tick()
    await hub.tick()

    assert [await following(v) for v in viewers] == [("update", "0", "1")] * 5
    assert numbers.computed == 2
    assert hub.viewers == 5
    for viewer in viewers:
        await viewer.aclose()  # type: ignore[attr-defined]
    assert hub.viewers == 0


async def test_a_move_that_shows_nothing_is_not_sent() -> None:
    numbers = Numbers()
    hub = a_hub(numbers)
    viewer = hub.watch("acme", "b", "")
    await following(viewer)
    numbers.move(by=0)
    await hub.tick()
    numbers.move()
    await hub.tick()

    assert await following(viewer) == ("update", "0", "2")


async def test_who_reads_slowly_gets_every_update_or_else_everything() -> None:
    numbers = Numbers()
    hub = a_hub(numbers, updates=3)
    slow, slower = hub.watch("acme", "b", ""), hub.watch("acme", "b", "")
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
    stays = hub.watch("acme", "b", "")
    await following(stays)
    for _ in range(2):
        numbers.move()
        await hub.tick()

    assert await following(hub.watch("acme", "b", "1")) == ("update", "1", "2")
    assert await following(hub.watch("acme", "b", "elsewhere")) == ("snapshot", "", "2")


async def test_an_unwatched_board_is_brought_up_to_date_for_the_next_viewer() -> None:
    numbers = Numbers()
    hub = a_hub(numbers)
    viewer = hub.watch("acme", "b", "")
    await following(viewer)
    await viewer.aclose()  # type: ignore[attr-defined]
    numbers.move()
    await hub.tick()
    assert numbers.computed == 1

    assert await following(hub.watch("acme", "b", "0")) == ("update", "0", "1")


async def test_a_new_period_is_another_board() -> None:
    numbers = Numbers()
    hub = a_hub(numbers)
    viewer = hub.watch("acme", "b", "")
    await following(viewer)
    numbers.period = "month:2026-12-01"
    numbers.move()
    await hub.tick()

    assert await following(viewer) == ("snapshot", "", "1")


async def test_a_board_that_cannot_be_computed_does_not_hold_up_the_others() -> None:
    class Fragile(Numbers):
        async def compute(self, tenant: str, board: str) -> Board:
            if board == "bad" and self.version:
                raise ValueError("a catalogue that fits no more")
            return await super().compute(tenant, board)

    numbers = Fragile()
    hub = a_hub(numbers)
    bad, good = hub.watch("acme", "bad", ""), hub.watch("acme", "good", "")
    await following(bad)
    await following(good)
    numbers.move()
    await hub.tick()

    assert await following(good) == ("update", "0", "1")
