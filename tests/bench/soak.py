"""Long runs of ingest: `python -m tests.bench.soak --help`.

`million` puts a history onto the raw topic shuffled and repeated, and compares what ingest makes of
it with what it makes of the clean one. `memory` sends events through HTTP for as long as it takes,
and watches the process's memory.
"""

import asyncio
import gc
import json
import random
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import httpx
import psutil
import typer
import uvloop
from rich.console import Console
from rich.progress import Progress, TextColumn
from rich.table import Table

from deploy.local import Stack
from kit import logs
from kit.settings import KitSettings
from services.ingest.app import Settings, create_app
from tests.bench import consume, load, receive, workload
from tests.bench.__main__ import Bench, ingest_service

cli = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
console = Console()

PER_REQUEST = 100
SENT_AT_ONCE = 20_000  # events between two looks at how far ingest is behind
FURTHEST_BEHIND_SECONDS = 5.0
_LAG = re.compile(r"^pacesetter_consumer_lag_seconds (\S+)$", re.MULTILINE)


@contextmanager
def a_bench() -> Iterator[Bench]:
    """A stack of its own."""
    logs.configure(KitSettings(log_level="CRITICAL"), service="bench")
    folder = Path(tempfile.mkdtemp(prefix="pacesetter-soak-"))
    try:
        with Stack(folder / "stack") as stack:
            yield Bench(stack, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@cli.command()
def million(
    events: Annotated[int, typer.Option(help="Events that are sent in the shuffled run.")] = (
        1_000_000
    ),
    repeats: Annotated[int, typer.Option(help="How often each event is sent in it.")] = 4,
    seed: Annotated[int, typer.Option(help="Of the shuffle.")] = 1,
) -> None:
    """A million duplicated, shuffled events end in the state of the clean history."""
    with a_bench() as bench, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        clean = list(workload.hubspot_events(events // repeats))
        shuffled = clean * repeats
        random.Random(seed).shuffle(shuffled)
        console.print(f"{len(clean):,} events, then {len(shuffled):,} shuffled ones")
        first = runner.run(_state(bench, clean, per_request=20))
        gc.collect()
        second = runner.run(_state(bench, shuffled, per_request=17))
    console.print(f"clean     {first}\nshuffled  {second}")
    if first != second:
        raise typer.Exit(1)
    console.print("the same state")


async def _state(bench: Bench, events: list[dict[str, object]], *, per_request: int) -> str:
    """The checksum of what ingest makes of these events, cut into requests in this order."""
    settings, dsn = bench.settings(), await bench.database()
    service = ingest_service(settings, dsn, bench.folder)
    async with service.connected():
        pass  # makes topics and tables
    requests = [
        workload.a_request(json.dumps(events[start : start + per_request]).encode())
        for start in range(0, len(events), per_request)
    ]
    await consume.preload(settings, requests)
    measured, _ = await consume.ours(service, messages=len(requests), events=len(events))
    console.print(f"{measured.rate:,.0f} events/s")
    own = Settings(kit=settings, database=dsn, sources=bench.folder / "sources.yaml")
    service = create_app(own).state.service
    async with service.connected():
        found: str = await service.checksum()
    return found


@cli.command()
def memory(
    events: Annotated[int, typer.Option(help="Events to send.")] = 10_000_000,
) -> None:
    """The memory of one ingest process, receiving and normalising, over ten million events."""
    with a_bench() as bench:
        settings = bench.settings()
        dsn = asyncio.run(bench.database())
        port = receive.a_port()
        command, environment = receive.ingest(
            bench.folder,
            kafka=settings.kafka,
            prefix=settings.topic_prefix,
            database=dsn,
            port=port,
        )
        with receive.server(command, port, environment) as pid:
            samples = _send(events, port, psutil.Process(pid))
    shown = Table("events", "resident MiB", "events/s")
    for sent, resident, rate in samples:
        shown.add_row(f"{sent:,}", f"{resident / 2**20:,.0f}", f"{rate:,.0f}")
    console.print(shown)


def _send(events: int, port: int, process: psutil.Process) -> list[tuple[int, int, float]]:
    """Send, waiting for the normaliser when it is behind; memory at every twentieth part."""
    url = f"http://{receive.HOST}:{port}{receive.PATH}"
    samples: list[tuple[int, int, float]] = []
    began = time.monotonic()
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[mib]} MiB"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("events", total=events, mib=0)
        for sent in range(0, events, SENT_AT_ONCE):
            bodies = workload.hubspot_bodies(
                SENT_AT_ONCE, per_request=PER_REQUEST, seed=sent, first=sent
            )
            requests = [
                load.prepared(
                    receive.PATH, f"{receive.HOST}:{port}", body, workload.signed(body, url)
                )
                for body in bodies
            ]
            _send_patiently(port, requests)
            _wait_for(port)
            done, resident = sent + SENT_AT_ONCE, process.memory_info().rss
            bar.update(task, completed=done, mib=resident // 2**20)
            if done % (events // 20) < SENT_AT_ONCE:
                samples.append((done, resident, done / (time.monotonic() - began)))
    return samples


def _send_patiently(port: int, requests: list[bytes]) -> None:
    """Send all, and all again when one was refused, as CRMs do."""
    while True:
        try:
            asyncio.run(
                load.send_all(receive.HOST, port, requests, connections=receive.CONNECTIONS)
            )
        except* load.RefusedError:
            console.print("[yellow]a request was refused; the part is sent again")
            time.sleep(5)
        else:
            return


def _wait_for(port: int) -> None:
    """Until the normaliser has nearly caught up."""
    while True:
        try:
            page = httpx.get(f"http://{receive.HOST}:{port}/metrics", timeout=60).text
        except httpx.TimeoutException:
            continue  # the machine is busy with something else as well
        found = _LAG.search(page)
        if found is None or float(found.group(1)) < FURTHEST_BEHIND_SECONDS:
            return
        time.sleep(0.2)


if __name__ == "__main__":
    cli()
