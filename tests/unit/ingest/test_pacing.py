"""The backfill lane gives way to live requests."""

import pytest

from services.ingest.pacing import LONGEST_WAIT_SECONDS, GiveWay


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 100.0
        self.late_until = 0.0

    async def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.001)

    def lag(self) -> float:
        return 1.0 if self.now < self.late_until else 0.0

    def lane(self, *, rate: float = 1e9, share: float = 1.0) -> GiveWay:
        return GiveWay(
            self.lag,
            messages_per_second=rate,
            share=share,
            now=lambda: self.now,
            sleep=self.sleep,
        )


async def test_it_keeps_its_rate() -> None:
    clock = Clock()
    lane = clock.lane(rate=10)
    for _ in range(11):
        async with lane(5):
            pass

    assert clock.now == pytest.approx(105, abs=0.1)


async def test_idle_time_is_nothing_to_rest_from() -> None:
    clock = Clock()
    lane = clock.lane(share=0.25)
    async with lane(1):
        await clock.sleep(0.1)
    await clock.sleep(3600)
    began = clock.now
    async with lane(1):
        assert clock.now - began < 0.1


async def test_it_keeps_its_share_of_the_time() -> None:
    clock = Clock()
    lane = clock.lane(share=0.25)
    began, worked = clock.now, 0.0
    for seconds in (0.1, 0.4, 0.2, 0.3):
        async with lane(1):
            await clock.sleep(seconds)
        worked += seconds
    async with lane(1):
        pass

    assert worked / (clock.now - began) == pytest.approx(0.25, abs=0.01)


async def test_it_waits_while_a_live_batch_is_late_but_not_for_ever() -> None:
    clock = Clock()
    lane = clock.lane()
    clock.late_until = clock.now + 2
    async with lane(1):
        assert clock.now >= clock.late_until

    began, clock.late_until = clock.now, clock.now + 1e6
    async with lane(1):
        pass
    assert clock.now - began == pytest.approx(LONGEST_WAIT_SECONDS, abs=0.1)
