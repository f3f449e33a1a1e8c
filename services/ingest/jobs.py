"""Work of ingest by the clock: old events are forgotten."""

from collections.abc import Callable
from datetime import timedelta

from kit.database import Database
from kit.jobs import Job
from services.ingest.store import events

FORGET_SECONDS = 600.0


def forget_events(database: Database, *, now_us: Callable[[], int], days: int) -> Job:
    """Remove what was received longer ago, some at a time, so that nobody waits for it.

    The records stay, and so does the raw log; only the trace ends there.
    """
    kept = timedelta(days=days) // timedelta(microseconds=1)

    async def run() -> bool:
        async with database.transaction() as transaction:
            before = f"{max(0, now_us() - kept):014x}"
            return await events.forget(transaction, before) == events.FORGOTTEN_AT_ONCE

    return Job("forget-events", FORGET_SECONDS, run)
