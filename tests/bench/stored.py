"""Metrics apply beside what is stored already: `python -m tests.bench.stored --help`.

The store is filled with facts of many owners and days, as the service writes them (of calls and of
deals), by one statement; then the same new events are applied, deals and calls of the same people.
What falls with the number of facts is what doesn't scale.
"""

import asyncio
import gc
import logging
from typing import Annotated, Any

import asyncpg
import typer
import uvloop
from rich.console import Console
from rich.progress import track
from rich.table import Table

from kit.service import GC_THRESHOLDS
from tests.bench import consume, workload
from tests.bench.__main__ import Bench, metrics_service
from tests.bench.measure import Measurement
from tests.bench.soak import a_bench

console = Console()

AT_ONCE = 250_000
# A call of somebody's, or a deal with its three credits, on one of the days of half a year.
_FILL = """
WITH made AS (
    SELECT n, n % $3 AS who, date '2026-01-05' + (n * 7919 % 180)::int AS day, n % 5 = 0 AS deal
    FROM generate_series($1::bigint, $2::bigint) AS n
), placed AS (
    SELECT *, extract(epoch FROM day)::bigint + 36000 AS at,
        format('["team:t%s"]', who % $4) AS subjects FROM made
)
INSERT INTO fact (tenant, type, id, version, source, owner_id, shares, territories, name, credits)
SELECT $5, CASE WHEN deal THEN 'opportunity' ELSE 'call' END, 'hub:s' || n, n, 'hub', who::text,
    '', '', 'Stored', CASE WHEN deal THEN
        format('[["opportunities_created","count",%1$s,1,"%2$s","p%3$s",%4$s],'
            '["deals_won","count",%1$s,1,"%2$s","p%3$s",%4$s],'
            '["revenue_won","USD",%1$s,450000,"%2$s","p%3$s",%4$s]]', at, day, who, subjects)
    ELSE format('[["calls_made","count",%s,1,"%s","p%s",%s]]', at, day, who, subjects) END
FROM placed
"""


async def fill(dsn: str, facts: int) -> None:
    """Put so many facts into the store."""
    connection = await asyncpg.connect(dsn)
    parts = range(1, facts + 1, AT_ONCE)
    for first in track(parts, f"{facts:,} facts", console=console, transient=True):
        last = min(first + AT_ONCE - 1, facts)
        numbers = (first, last, workload.PEOPLE, workload.TEAMS)
        await connection.execute(_FILL, *numbers, workload.TENANT)
    await connection.execute("VACUUM ANALYZE fact")
    await connection.execute("CHECKPOINT")
    await connection.close()


async def a_run(bench: Bench, *, facts: int, events: int) -> dict[str, Any]:
    """Apply the events beside so many facts."""
    settings, dsn = bench.settings(), await bench.database()
    async with metrics_service(settings, dsn).connected():
        pass  # makes topics and tables
    people = workload.directory()
    await consume.preload(settings, people)
    await consume.ours(metrics_service(settings, dsn), messages=len(people), events=len(people))
    if facts:
        await fill(dsn, facts)
    await consume.preload(settings, workload.records(events))
    service = metrics_service(settings, dsn)
    applied, watch = await consume.ours(service, messages=events, events=events)
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetchval(
        "SELECT (SELECT count(*) FROM fact) + (SELECT count(*) FROM pending)"
    )
    size = await connection.fetchval("SELECT pg_total_relation_size('fact')")
    stored = await connection.fetchval("SELECT count(*) FROM fact")
    await connection.close()
    return {
        "facts": facts,
        "applied": applied,
        "batches": len(watch.batches),
        "rows": (rows - facts) / events,
        "bytes": size / stored,
    }


def main(
    facts: Annotated[str, typer.Option(help="Stored before, a run each.")] = "0,1000000,5000000",
    events: Annotated[int, typer.Option(min=1000, help="Applied in each run.")] = 100_000,
) -> None:
    """How fast events are applied, by how many facts there are."""
    gc.freeze()  # as services do, see kit.service.serve
    gc.set_threshold(*GC_THRESHOLDS)
    with a_bench() as bench, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        # It complains of topics so new that they have no leader yet, and tries again.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        counts = map(int, facts.split(","))
        runs = [runner.run(a_run(bench, facts=count, events=events)) for count in counts]
    shown = Table(title=f"metrics apply, {events:,} events each")
    for heading in (
        *("facts before", "events/s", "of the first", "CPU s/100 k"),
        *("events/batch", "rows/event", "bytes/fact"),
    ):
        shown.add_column(heading, justify="right")
    first: Measurement = runs[0]["applied"]
    for run in runs:
        applied: Measurement = run["applied"]
        shown.add_row(
            f"{run['facts']:,}",
            f"{applied.rate:,.0f}",
            f"{applied.rate / first.rate:.2f}",
            f"{applied.cpu_per_100k:.2f}",
            f"{events / run['batches']:,.0f}",
            f"{run['rows']:.2f}",
            f"{run['bytes']:,.0f}",
        )
    console.print(shown)


if __name__ == "__main__":
    typer.run(main)
