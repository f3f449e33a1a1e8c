"""Metrics with one replica and with two: `python -m tests.bench.replicas --help`.

Real processes of the service, on a Kafka and a PostgreSQL of their own, apply and fold the same
records, which are published at once. The clock runs from then. Once all are applied and their
offsets are committed, single numbers and boards count them; once no delta waits any more, counters
do. One replica folds at a time, and what it takes is PostgreSQL's time: applying grows more with
replicas than folding. That every replica has a share of the partitions is seen by its CPU.

Where one replica, Kafka and PostgreSQL fill the cores, a second has nothing to run on. `--under`
is put before each replica's command, to give it less than there is: a quota of CPU, say. What is
shown then is whether replicas wait for each other.
"""

import asyncio
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Annotated

import asyncpg
import psutil
import typer
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from rich.console import Console
from rich.table import Table

from kit.consumer import group_of
from kit.settings import KitSettings
from schemas.crm import Record
from schemas.topics import BY_NAME
from tests.bench import consume, receive, workload
from tests.bench.__main__ import Bench
from tests.bench.measure import Measurement
from tests.bench.soak import a_bench
from tests.support import DEV_SECRET

WARM_UP, WARM_UPS = 5_000, 3  # records, and how often: partitions are shared meanwhile
LOOK_SECONDS = 0.1
PATIENCE_SECONDS = 600.0
console = Console()


async def _left(settings: KitSettings, dsn: str) -> tuple[int, int]:
    """Messages that no replica has committed, and deltas that no counter has."""
    topic = settings.topic_prefix + Record.topic
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka)
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    connection = await asyncpg.connect(dsn)
    await consumer.start()
    await admin.start()
    try:
        partitions = [TopicPartition(topic, n) for n in range(BY_NAME[Record.topic].partitions)]
        ends = await consumer.end_offsets(partitions)
        known = await admin.list_consumer_group_offsets(
            group_of(settings, "metrics"), partitions=partitions
        )
        waiting: int = await connection.fetchval("SELECT count(*) FROM pending")
        committed: int = sum(max(0, known[partition].offset) for partition in partitions)
        return sum(ends.values()) - committed, waiting
    finally:
        await consumer.stop()
        await admin.close()
        await connection.close()


async def _apply(settings: KitSettings, dsn: str, records: Sequence[Record]) -> tuple[float, float]:
    """Publish records; the seconds until they were applied, and until they were in counters."""
    began, applied = time.perf_counter(), 0.0
    await consume.preload(settings, records)
    while any(left := await _left(settings, dsn)):
        seconds = time.perf_counter() - began
        if not left[0] and not applied:
            applied = seconds
        if seconds > PATIENCE_SECONDS:
            raise RuntimeError(f"after {seconds:.0f} s messages and deltas are left: {left}")
        await asyncio.sleep(LOOK_SECONDS)
    seconds = time.perf_counter() - began
    return applied or seconds, seconds


def _cpu(processes: Sequence[psutil.Process]) -> list[float]:
    return [sum(process.cpu_times()[:2]) for process in processes]


def a_run(
    bench: Bench, replicas: int, events: int, under: Sequence[str]
) -> tuple[Measurement, Measurement, list[float]]:
    """Apply and fold the events with so many replicas; also the CPU seconds of each."""
    settings, dsn = bench.settings(), asyncio.run(bench.database())
    with ExitStack() as stack:
        processes = []
        for port in [receive.a_port() for _ in range(replicas)]:
            environment = {
                "PACESETTER_KAFKA": settings.kafka,
                "PACESETTER_TOPIC_PREFIX": settings.topic_prefix,
                "PACESETTER_LOG_LEVEL": "ERROR",
                "PACESETTER_DEV_SECRET": DEV_SECRET,
                "METRICS_DATABASE": dsn,
                "METRICS_PORT": str(port),
            }
            command = [*under, sys.executable, "-m", "services", "serve", "metrics"]
            pid = stack.enter_context(receive.server(command, port, environment))
            processes.append(psutil.Process(pid))
        asyncio.run(consume.preload(settings, workload.directory()))
        for seed in range(2, 2 + WARM_UPS):
            asyncio.run(_apply(settings, dsn, workload.records(WARM_UP, seed=seed)))
        before = _cpu(processes)
        applied, folded = asyncio.run(_apply(settings, dsn, workload.records(events)))
        cpu = [now - was for now, was in zip(_cpu(processes), before, strict=True)]
    total = sum(cpu)
    return Measurement(events, applied, total), Measurement(events, folded, total), cpu


def main(
    events: Annotated[int, typer.Option(min=1_000, help="Applied in each run.")] = 100_000,
    counts: Annotated[str, typer.Option(help="Replicas, a run each.")] = "1,2",
    under: Annotated[
        str, typer.Option(help="A command that runs what follows it, with less CPU.")
    ] = "",
) -> None:
    """How much more replicas do together than one does alone."""
    shown = Table(title=f"{events:,} events, events/s and ratios to one replica")
    for heading in ("replicas", "applied", "", "and folded", "", "CPU s/100 k", "of each"):
        shown.add_column(heading, justify="right")
    one: tuple[float, float] | None = None
    with a_bench() as bench:
        for count in map(int, counts.split(",")):
            console.print(f"[dim]{count} of {counts}")
            applied, folded, cpu = a_run(bench, count, events, shlex.split(under))
            one = one or (applied.rate, folded.rate)
            shown.add_row(
                str(count),
                f"{applied.rate:,.0f}",
                f"{applied.rate / one[0]:.2f}",
                f"{folded.rate:,.0f}",
                f"{folded.rate / one[1]:.2f}",
                f"{folded.cpu_per_100k:.2f}",
                " ".join(f"{each / sum(cpu):.0%}" for each in cpu),
            )
    console.print(shown)
    console.print(f"{psutil.cpu_count()} cores for replicas, Kafka and PostgreSQL.")


if __name__ == "__main__":
    typer.run(main)
