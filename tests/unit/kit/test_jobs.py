"""Jobs: by the clock, and at once for who says that there is something to do."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

from kit.jobs import Job, run_forever


@asynccontextmanager
async def running(
    seconds: float, pause: float | None = None
) -> AsyncIterator[tuple[Job, list[float]]]:
    """A job that notes when it runs, after its first run."""
    runs: list[float] = []

    async def run() -> None:
        runs.append(time.monotonic())

    job = Job("test", seconds, run, pause)
    task = asyncio.create_task(run_forever(job))
    await asyncio.sleep(0.01)
    try:
        yield job, runs
    finally:
        task.cancel()


async def test_a_job_runs_by_the_clock() -> None:
    async with running(0.02) as (_, runs):
        await asyncio.sleep(0.2)

    assert 2 < len(runs) < 15


async def test_what_is_due_is_done_at_once() -> None:
    async with running(60) as (job, runs):
        job.due.set()
        await asyncio.sleep(0.05)

    assert len(runs) == 2


async def test_what_is_due_again_and_again_is_done_with_pauses() -> None:
    async with running(60, 0.1) as (job, runs):
        for _ in range(50):
            job.due.set()
            await asyncio.sleep(0.005)

    assert 3 < len(runs) < 8
    assert all(later - earlier > 0.09 for earlier, later in pairwise(runs[1:]))


async def test_without_a_pause_of_its_own_it_is_done_by_the_clock() -> None:
    async with running(0.1) as (job, runs):
        for _ in range(50):
            job.due.set()
            await asyncio.sleep(0.005)

    assert 3 < len(runs) < 8
    assert all(later - earlier > 0.09 for earlier, later in pairwise(runs[1:]))


async def test_a_job_that_is_due_as_it_is_cancelled_ends() -> None:
    async def run() -> None:
        pass

    job = Job("test", 60, run)
    task = asyncio.create_task(run_forever(job))
    await asyncio.sleep(0.01)
    job.due.set()
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=1)

    assert done
