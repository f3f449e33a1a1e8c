"""From an event to its record on crm.records.v1: `python -m tests.bench.latency --help`.

One ingest process, on a stack of its own, receives and normalises signed HubSpot requests of 20
events. First it gets them as fast as it takes them: the events of that part by the seconds from the
first request to the last record are its sustainable rate. Then a share of that rate is offered on a
schedule that waits for no answer, and an event's latency counts from the instant at which its
request was *due*: what a slow answer, or a late generator, holds up is not left out.

An event is published when a consumer has a version of its record in which the event's field stands
as of the event or later. Generator and consumer share one loop in one process, and one clock; what
they take of the CPU, and how late they send, is shown beside the result.
"""

import asyncio
import gc
import json
import logging
import math
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Annotated, Any

import asyncpg
import msgspec
import psutil
import typer
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from rich.console import Console
from rich.table import Table

from kit.service import GC_THRESHOLDS
from kit.settings import KitSettings
from schemas.crm import Field, Record
from schemas.topics import BY_NAME
from tests.bench import load, receive, workload
from tests.bench.__main__ import Bench
from tests.bench.consume import cpu_seconds
from tests.bench.soak import a_bench

console = Console()

PER_REQUEST = 20
BAR_SECONDS = 0.25  # of p99, at half the sustainable rate
WARM_UP = 0.1  # of the events that find the sustainable rate
IDLE_SECONDS = 2.0  # then a connection is not used again: the server closes it at 5
PATIENCE_SECONDS = 60.0  # without a new record; then events are lost, or ingest has stopped
# The fields of our records that the workload's properties become.
FIELDS = {
    "amount": "amount",
    "dealstage": "stage",
    "hs_call_status": "done",
    "hs_timestamp": "occurred_at",
    "hubspot_owner_id": "owner_id",
}


class _Published(msgspec.Struct, frozen=True):
    """What is looked at of a record."""

    id: str
    fields: dict[str, Field]


@dataclass(frozen=True, slots=True)
class Mark:
    """What shows that an event is in a record: the field, and the position that it has reached."""

    record: str
    name: str
    at: int


@dataclass(frozen=True, slots=True)
class Request:
    """A body, and the marks of its events."""

    body: bytes
    marks: list[Mark]


@dataclass(slots=True)
class Awaited:
    """Events on their way, and how long those took that have arrived."""

    missing: int = 0
    seconds: list[float] = field(default_factory=list)
    last: float = 0.0  # when the latest arrived
    _due: dict[tuple[str, str], list[tuple[int, float]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def expect(self, marks: Iterable[Mark], due: float) -> None:
        """Wait for these; their latency counts from `due`."""
        for mark in marks:
            self._due[mark.record, mark.name].append((mark.at, due))
            self.missing += 1

    def saw(self, record: _Published, now: float) -> None:
        """Take note of a version of a record."""
        for name, known in record.fields.items():
            waiting = self._due.pop((record.id, name), None)
            if waiting is None:
                continue
            arrived = [due for at, due in waiting if at <= known.at]
            if len(arrived) < len(waiting):
                self._due[record.id, name] = [one for one in waiting if one[0] > known.at]
            self.seconds += [now - due for due in arrived]
            self.missing -= len(arrived)
            self.last = now

    async def all(self) -> None:
        """Return when nothing is missing any more; raises RuntimeError when nothing comes."""
        began = time.perf_counter()
        while self.missing:
            if time.perf_counter() - max(began, self.last) > PATIENCE_SECONDS:
                raise RuntimeError(f"{self.missing:,} events were not published: see ingest's log")
            await asyncio.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Run:
    """One run's figures; CPU in seconds per second."""

    sustainable: float
    offered: float
    achieved: float
    latencies: list[float]  # ascending
    late: list[float]  # how long after it was due each request was sent, ascending
    cpu: float  # of the ingest process
    own_cpu: float
    busy: float  # of all the machine's CPU, whoever used it
    stolen: float  # of it, by the host for others: while it does, everything here stands still


@asynccontextmanager
async def observed(settings: KitSettings) -> AsyncIterator[Awaited]:
    """What comes out on crm.records.v1, as long as this is open."""
    awaited = Awaited()
    topic = BY_NAME[Record.topic]
    name = settings.topic_prefix + topic.name
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka, auto_offset_reset="earliest")
    await consumer.start()
    consumer.assign([TopicPartition(name, number) for number in range(topic.partitions)])
    decoder = msgspec.json.Decoder(_Published)

    async def watch() -> None:
        while True:
            found = await consumer.getmany(timeout_ms=200)
            now = time.perf_counter()
            for messages in found.values():
                for message in messages:
                    if message.value is not None:
                        awaited.saw(decoder.decode(message.value), now)

    try:
        async with asyncio.TaskGroup() as group:  # what fails in `watch` ends the run
            watching = group.create_task(watch())
            yield awaited
            watching.cancel()
    finally:
        await consumer.stop()


def prepared(count: int, *, first: int) -> list[Request]:
    """So many events, numbered from `first`, in requests."""
    events = list(workload.hubspot_events(count, seed=first, first=first))
    parts = [events[start : start + PER_REQUEST] for start in range(0, count, PER_REQUEST)]
    return [
        Request(json.dumps(part, separators=(",", ":")).encode(), [_mark(one) for one in part])
        for part in parts
    ]


def _mark(event: dict[str, object]) -> Mark:
    at = int(str(event["occurredAt"])) * 1000  # ms to µs
    return Mark(f"{workload.SOURCE}:{event['objectId']}", FIELDS[str(event["propertyName"])], at)


def _posted(port: int, body: bytes) -> bytes:
    """The bytes of a request that is signed now."""
    host = f"{receive.HOST}:{port}"
    headers = workload.signed(body, f"http://{host}{receive.PATH}")
    return load.prepared(receive.PATH, host, body, headers)


async def saturated(port: int, requests: Sequence[Request], awaited: Awaited) -> float:
    """Events per second that get through when more are always waiting."""
    posts = [_posted(port, request.body) for request in requests]
    events = sum(len(request.marks) for request in requests)
    began = time.perf_counter()
    for request in requests:
        awaited.expect(request.marks, began)
    await load.send_all(receive.HOST, port, posts, connections=receive.CONNECTIONS)
    await awaited.all()
    return events / (awaited.last - began)


async def paced(
    port: int, requests: Sequence[Request], awaited: Awaited, *, every: float
) -> list[float]:
    """Send one request every so many seconds, whatever became of those before.

    Returns how late each was sent.
    """
    idle: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []
    late: list[float] = []

    async def post(request: Request, due: float) -> None:
        content = _posted(port, request.body)
        while idle and time.perf_counter() - idle[0][0] > IDLE_SECONDS:
            idle.pop(0)[2].close()
        if idle:
            _, reader, writer = idle.pop()
        else:
            reader, writer = await asyncio.open_connection(receive.HOST, port)
        late.append(time.perf_counter() - due)
        await load.exchange(reader, writer, content)
        idle.append((time.perf_counter(), reader, writer))

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number, request in enumerate(requests):
            due = began + number * every
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            awaited.expect(request.marks, due)
            group.create_task(post(request, due))
    await awaited.all()
    for _, _, writer in idle:
        writer.close()
    return late


async def checkpoint(dsn: str) -> None:
    """Let PostgreSQL recycle its log, as one that has run for minutes does.

    A new cluster makes a file for every 16 MiB, in the middle of somebody's commit.
    """
    connection = await asyncpg.connect(dsn)
    await connection.execute("CHECKPOINT")
    await connection.close()


def shares(before: Any, after: Any) -> dict[str, float]:
    """How much of all CPU time between two readings was used here, and how much by other guests."""
    spent = {name: getattr(after, name) - getattr(before, name) for name in before._fields}
    idle = spent["idle"] + spent.get("iowait", 0.0)
    total = sum(spent.values()) - spent.get("guest", 0.0) - spent.get("guest_nice", 0.0)
    stolen = spent.get("steal", 0.0)
    return {"busy": 1 - (idle + stolen) / total, "stolen": stolen / total}


async def measured(
    settings: KitSettings,
    dsn: str,
    port: int,
    pid: int,
    *,
    events: int,
    share: float,
    seconds: float,
) -> Run:
    """Find the sustainable rate of this process, then offer it a share of that."""
    process = psutil.Process(pid)
    async with observed(settings) as awaited:
        warm_up = max(PER_REQUEST, round(events * WARM_UP))
        await saturated(port, prepared(warm_up, first=0), awaited)
        sustainable = await saturated(port, prepared(events, first=warm_up), awaited)
        await checkpoint(dsn)
        offered = sustainable * share
        count = max(1, round(offered * seconds / PER_REQUEST)) * PER_REQUEST
        requests = prepared(count, first=warm_up + events)
        awaited.seconds.clear()
        gc.collect()
        gc.freeze()  # or what was prepared is looked through while it is sent
        cpu, own = sum(process.cpu_times()[:2]), cpu_seconds()
        before = psutil.cpu_times()
        began = time.perf_counter()
        late = await paced(port, requests, awaited, every=PER_REQUEST / offered)
        took = awaited.last - began
        run = Run(
            sustainable=sustainable,
            offered=offered,
            achieved=count / took,
            latencies=sorted(awaited.seconds),
            late=sorted(late),
            cpu=(sum(process.cpu_times()[:2]) - cpu) / took,
            own_cpu=(cpu_seconds() - own) / took,
            **shares(before, psutil.cpu_times()),
        )
        gc.unfreeze()
    return run


def a_run(bench: Bench, *, events: int, share: float, seconds: float) -> Run:
    """One run, with a process, topics and a database of its own."""
    settings = bench.settings()
    dsn = asyncio.run(bench.database())
    port = receive.a_port()
    command, environment = receive.ingest(
        bench.folder,
        kafka=settings.kafka,
        prefix=settings.topic_prefix,
        database=dsn,
        port=port,
        roles="receive,normalise",
    )
    with (
        receive.server(command, port, environment) as pid,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(
            measured(settings, dsn, port, pid, events=events, share=share, seconds=seconds)
        )


def quantile(ascending: Sequence[float], level: float) -> float:
    """The smallest value that so many are not above."""
    return ascending[max(0, math.ceil(len(ascending) * level) - 1)]


def table(runs: Sequence[Run]) -> Table:
    """A column per run."""
    shown = Table(title="event due → record published")
    shown.add_column()
    for number in range(len(runs)):
        shown.add_column(f"run {number + 1}", justify="right")
    figures: dict[str, list[str]] = {
        "sustainable, events/s": [f"{run.sustainable:,.0f}" for run in runs],
        "offered": [f"{run.offered:,.0f}" for run in runs],
        "achieved": [f"{run.achieved:,.0f}" for run in runs],
    }
    for name, level in {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}.items():
        figures[name] = [f"{1000 * quantile(run.latencies, level):,.0f} ms" for run in runs]
    figures |= {
        "sent late, p99": [f"{1000 * quantile(run.late, 0.99):,.1f} ms" for run in runs],
        "CPU of ingest, of a core": [f"{run.cpu:.0%}" for run in runs],
        "of generator and consumer": [f"{run.own_cpu:.0%}" for run in runs],
        "of everything, of all cores": [f"{run.busy:.0%}" for run in runs],
        "stolen by the host": [f"{run.stolen:.1%}" for run in runs],
    }
    for name, values in figures.items():
        shown.add_row(name, *values)
    return shown


def main(
    seconds: Annotated[float, typer.Option(min=1, help="How long events are offered.")] = 60,
    share: Annotated[
        float, typer.Option(min=0.01, max=1, help="Of the sustainable rate, offered.")
    ] = 0.5,
    events: Annotated[
        int, typer.Option(min=PER_REQUEST, help="Events that find the sustainable rate.")
    ] = 200_000,
    runs: Annotated[int, typer.Option(min=1, help="Each with a fresh process and store.")] = 3,
) -> None:
    """How long events take to their published records, at a share of the sustainable rate."""
    gc.set_threshold(*GC_THRESHOLDS)  # as services do, see kit.service.serve
    made = []
    with a_bench() as bench:
        # It complains of topics so new that they have no leader yet, and tries again.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        for number in range(runs):
            console.print(f"[dim]run {number + 1} of {runs}")
            made.append(a_run(bench, events=events, share=share, seconds=seconds))
    console.print(table(made))
    p99 = [quantile(run.latencies, 0.99) for run in made]
    within = sum(one < BAR_SECONDS for one in p99)
    console.print(
        f"p99 at {share:.0%} of the sustainable rate: {1000 * median(p99):,.0f} ms, the median of "
        f"{runs}. Under the bar of {1000 * BAR_SECONDS:.0f} ms (at 50%): {within} of {runs} runs. "
        f"{psutil.cpu_count()} cores for all."
    )


if __name__ == "__main__":
    typer.run(main)
