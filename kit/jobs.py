"""Work done by the clock: a coroutine run again and again, at most one run at a time per process.

A run that raises is logged, counted and tried at its next turn. What must happen in one replica
only takes `Transaction.try_lock` inside; nothing here knows about other processes.

Who knows that there is something to do may say so: what is rare is done at once then, and what goes
on and on no more often than by the clock.
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

    Setting `due` ends the pause, except the one after a run for which it was set.
    """

    name: str
    seconds: float
    run: Callable[[], Awaitable[bool | None]]
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
        if more or asked:
            await asyncio.sleep(0 if more else job.seconds)
        else:
            with suppress(TimeoutError):
                await asyncio.wait_for(job.due.wait(), job.seconds)
