"""Work done by the clock: a coroutine run again and again, at most one run at a time per process.

A run that raises is logged, counted and tried at its next turn. What must happen in one replica
only takes `Transaction.try_lock` inside; nothing here knows about other processes.

Who knows that there is something to do may say so: what is rare is done at once then, and what goes
on and on with pauses.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from kit import telemetry

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """`run` every `seconds`; returning True means that there is more: it runs again at once.

    Setting `due` ends the wait. After a run for which it was set there is a `pause` in any case, by
    default of `seconds`.
    """

    name: str
    seconds: float
    run: Callable[[], Awaitable[bool | None]]
    pause: float | None = None
    due: asyncio.Event = field(default_factory=asyncio.Event)


async def run_forever(job: Job) -> None:
    """Run the job until cancelled."""
    while True:
        more: bool | None = False
        asked = job.due.is_set()
        job.due.clear()
        try:
            with telemetry.JOB_SECONDS.labels(job.name).time():
                more = await job.run()
        except Exception:
            telemetry.JOB_FAILURES.labels(job.name).inc()
            log.exception("job_failed", job=job.name)
        if more:
            await asyncio.sleep(0)
            continue
        pause = 0.0
        if asked:
            pause = job.seconds if job.pause is None else job.pause
            await asyncio.sleep(pause)
        # Not `wait_for`: before Python 3.12 it forgets a cancellation at which `due` is set.
        with suppress(TimeoutError):
            async with asyncio.timeout(job.seconds - pause):
                await job.due.wait()
