"""Reading a CRM's answers doesn't hold up whoever else is served by the process."""

import asyncio
import time
from typing import Any

from services.ingest.domain import readers
from services.ingest.pacing import OFF_LOOP_BYTES, read_aside
from tests.unit.ingest.bodies import HUB
from tests.unit.ingest.test_answers import answer

DEALS = 500


def deal(number: int) -> Any:
    times = [{"value": str(n), "timestamp": f"2026-01-02T09:00:0{n}Z"} for n in range(6)]
    return {
        "id": str(number),
        "properties": {f"own_{n}": "x" * 20 for n in range(60)},
        "propertiesWithHistory": {"amount": times, "dealstage": times},
        "updatedAt": "2026-01-02T09:00:00Z",
    }


async def longest_wait(stop: asyncio.Event) -> float:
    """The longest time for which nothing else could run."""
    longest = 0.0
    while not stop.is_set():
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        longest = max(longest, time.perf_counter() - before)
    return longest


async def test_a_large_answer_is_read_beside_the_event_loop() -> None:
    received = answer(HUB, {"results": [deal(number) for number in range(DEALS)]})
    assert len(received.body) > OFF_LOOP_BYTES
    began = time.perf_counter()
    expected = readers.read(received, HUB)
    takes = time.perf_counter() - began
    stop = asyncio.Event()
    others = asyncio.create_task(longest_wait(stop))

    found = await read_aside(received, HUB)

    stop.set()
    assert await others < takes / 3
    assert found == expected
    assert len(found) == DEALS
