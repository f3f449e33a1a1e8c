"""Run the benchmarks: `make bench`, or `python -m tests.bench --help`."""

import asyncio
import gc
import json
import shutil
import sys
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import psutil
import typer
import uvloop
from rich.console import Console

from deploy.local import Stack
from kit import logs
from kit.service import GC_THRESHOLDS
from kit.settings import KitSettings
from schemas.base import State
from schemas.crm import Record
from services.ingest.app import Settings as IngestSettings
from services.ingest.app import create_app as ingest_app
from services.metrics.app import Settings as MetricsSettings
from services.metrics.app import create_app as metrics_app
from services.payouts.app import Settings as PayoutsSettings
from services.payouts.app import create_app as payouts_app
from tests.bench import consume, receive, workload
from tests.bench.measure import Measurement, Stage, table

STAGES = ("receive", "normalise", "metrics", "payouts")
SERVICE_NAMES = ("ingest", "metrics", "payouts")
console = Console()


class Bench:
    """A stack, and what every stage needs of it."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack = stack
        self.folder = folder

    def settings(self) -> KitSettings:
        """Kit settings with topics of their own."""
        return KitSettings(kafka=self.stack.kafka, topic_prefix=f"b{uuid.uuid4().hex[:8]}.")

    async def database(self) -> str:
        """The DSN of a fresh database."""
        name = f"bench_{uuid.uuid4().hex[:8]}"
        connection = await asyncpg.connect(f"{self.stack.postgres}/postgres")
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()
        return f"{self.stack.postgres}/{name}"

    async def consumer_pair(
        self,
        build: Callable[[KitSettings, str], Any],
        *,
        topic: type[State],
        context: Sequence[State],
        states: Sequence[State],
        events: int,
        tables: Sequence[str],
        out_topic: type[State] | None = None,
    ) -> tuple[Measurement, Measurement]:
        """One run of ours and one of its floor, over the same messages."""
        settings, dsn = self.settings(), await self.database()
        service = build(settings, dsn)
        async with service.connected():
            pass  # makes topics and tables
        await consume.preload(settings, context)
        service = build(settings, dsn)
        if context:
            await consume.ours(service, messages=len(context), events=len(context))
        await consume.preload(settings, states)
        service = build(settings, dsn)
        ours, watch = await consume.ours(service, messages=len(states), events=events)
        written = await consume.rows_of(dsn, tables)
        out = await consume.messages_of(settings, out_topic.topic) if out_topic else []
        floor_dsn = await self.database()
        floor_service = build(settings, floor_dsn)
        await floor_service.database.migrate()
        await floor_service.database.close()
        floor = await consume.floor(
            settings,
            floor_dsn,
            topic=topic.topic,
            messages=watch.messages,
            events=events,
            tables=written,
            out_topic=out_topic.topic if out_topic else None,
            out=out,
        )
        return ours, floor


async def receive_stage(bench: Bench, name: str, *, events: int, per_request: int) -> Stage:
    """Signed posts into ingest, beside a bare route that only produces."""
    bodies = workload.hubspot_bodies(events, per_request=per_request)
    settings, dsn = bench.settings(), await bench.database()
    port = receive.a_port()
    command, environment = receive.ingest(
        bench.folder,
        kafka=settings.kafka,
        prefix=settings.topic_prefix,
        database=dsn,
        port=port,
        roles="receive",
    )

    def run(command: Sequence[str], environment: dict[str, str]) -> Measurement:
        with receive.server(command, port, environment) as pid:
            receive.measure(port, pid, bodies[: len(bodies) // 10], events=events)  # warm-up
            return receive.measure(port, pid, bodies, events=events)

    ours = await asyncio.to_thread(run, command, environment)
    topic = f"{settings.topic_prefix}crm.received.v1"
    bare = receive.bare("produce", settings.kafka, topic, port)
    floor = await asyncio.to_thread(run, bare, {})
    echo = receive.bare("echo", settings.kafka, topic, port)
    ceiling = await asyncio.to_thread(run, echo, {})
    return Stage(name, [ours], [floor], note=f"generator ceiling {ceiling.rate:,.0f} events/s")


async def repeated(
    name: str, runs: int, pair: Callable[[], Awaitable[tuple[Measurement, Measurement]]]
) -> Stage:
    """A consumer stage, measured in pairs."""
    stage = Stage(name, [], [])
    for number in range(runs):
        console.print(f"[dim]{name}: run {number + 1} of {runs}")
        ours, floor = await pair()
        stage.ours.append(ours)
        stage.floor.append(floor)
    return stage


def ingest_service(settings: KitSettings, dsn: str, folder: Path) -> Any:
    """Ingest with the bench's source."""
    receive.ingest(folder, kafka=settings.kafka, prefix="", database=dsn, port=0)
    own = IngestSettings(kit=settings, database=dsn, sources=folder / "sources.yaml")
    return ingest_app(own).state.service


def metrics_service(settings: KitSettings, dsn: str) -> Any:
    """Metrics on a fresh store."""
    return metrics_app(MetricsSettings(kit=settings, database=dsn)).state.service


def payouts_service(settings: KitSettings, dsn: str) -> Any:
    """Payouts on a fresh store."""
    return payouts_app(PayoutsSettings(kit=settings, database=dsn)).state.service


async def run_stages(bench: Bench, chosen: Sequence[str], *, events: int, runs: int) -> list[Stage]:
    """The chosen stages, one after the other."""
    stages: list[Stage] = []
    if "receive" in chosen:
        for per_request, of in ((1, "single"), (100, "batches of 100")):
            name = f"receive only, {of}"
            count = min(events, 10_000) if per_request == 1 else events
            made = [
                await receive_stage(bench, name, events=count, per_request=per_request)
                for _ in range(runs)
            ]
            stages.append(
                Stage(
                    name,
                    [m for stage in made for m in stage.ours],
                    [m for stage in made for m in stage.floor],
                    made[-1].note,
                )
            )
    if "normalise" in chosen:
        raw = workload.received(events, per_request=20)
        stages.append(
            await repeated(
                "normalise",
                runs,
                lambda: bench.consumer_pair(
                    lambda settings, dsn: ingest_service(settings, dsn, bench.folder),
                    topic=type(raw[0]),
                    context=[],
                    states=raw,
                    events=events,
                    tables=["record", "event"],
                    out_topic=Record,
                ),
            )
        )
    if "metrics" in chosen:
        records = workload.records(events)
        stages.append(
            await repeated(
                "metrics apply",
                runs,
                lambda: bench.consumer_pair(
                    metrics_service,
                    topic=Record,
                    context=workload.directory(),
                    states=records,
                    events=events,
                    tables=["fact", "pending"],
                ),
            )
        )
    if "payouts" in chosen:
        deals = workload.deals(events // 4)
        stages.append(
            await repeated(
                "payouts apply",
                runs,
                lambda: bench.consumer_pair(
                    payouts_service,
                    topic=Record,
                    context=[*workload.directory(), *workload.goals(), workload.plan()],
                    states=deals,
                    events=len(deals),
                    tables=workload.PAYOUT_TABLES,
                ),
            )
        )
    return stages


def main(
    events: Annotated[int, typer.Option(help="Events per stage and run.")] = 100_000,
    runs: Annotated[int, typer.Option(help="Pairs of ours and floor; the median counts.")] = 3,
    only: Annotated[str, typer.Option(help=f"Comma separated: {', '.join(STAGES)}.")] = "",
    output: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
) -> None:
    """Measure each stage beside its bare floor, in one run, on a stack of its own."""
    chosen = only.split(",") if only else list(STAGES)
    unknown = set(chosen) - set(STAGES)
    if unknown:
        raise typer.BadParameter(f"unknown stages: {', '.join(sorted(unknown))}")
    logs.configure(KitSettings(log_level="CRITICAL"), service="bench")
    gc.freeze()  # as services do, see kit.service.serve
    gc.set_threshold(*GC_THRESHOLDS)
    folder = Path(tempfile.mkdtemp(prefix="pacesetter-bench-"))
    try:
        with (
            Stack(folder / "stack") as stack,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,  # as services do
        ):
            run = run_stages(Bench(stack, folder), chosen, events=events, runs=runs)
            stages = runner.run(run)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    memory = psutil.virtual_memory().total / 2**30
    hardware = f"{psutil.cpu_count()} cores, {memory:.0f} GiB, Python {sys.version.split()[0]}"
    console.print(table(stages, f"{hardware}; client, Kafka and PostgreSQL share the cores"))
    if output:
        output.write_text(json.dumps([stage.as_dict() for stage in stages], indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
