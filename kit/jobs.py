"""Work done by the clock: a coroutine run again and again, at most one run at a time per process.

A run that raises is logged, counted and tried at its next turn. What must happen in one replica
only takes `Transaction.try_lock` inside; nothing here knows about other processes.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from kit import telemetry

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """`run` every `seconds`; returning True means that there is more: it runs again at once."""

    name: str
    seconds: float
    run: Callable[[], Awaitable[bool | None]]


async def run_forever(job: Job) -> None:
    """Run the job until cancelled."""
    while True:
        more: bool | None = False
        try:
            with telemetry.JOB_SECONDS.labels(job.name).time():
                more = await job.run()
        except Exception:
            telemetry.JOB_FAILURES.labels(job.name).inc()
            log.exception("job_failed", job=job.name)
        await asyncio.sleep(0 if more else job.seconds)
