"""From an event's publication to its viewers: `python -m tests.bench.viewers --help`.

A real process of the metrics service, on a Kafka and a PostgreSQL of its own, is watched by many
viewers of one board (Server-Sent Events, in a process of their own), while records are published:
calls of the 20 people on the board at a fixed rate, or, at a share of the rate at which that
process applies and folds what is waiting already, calls of 500 people, 20 of whom are on the board.
Each row of the board says how many records are behind it, so that it is known of each of their
events which version showed it first, and of each viewer when that arrived. Some viewers are cut off
every second and come back with the last version they know; what doesn't follow on it is missed.

The latency counts from the instant before the record is given to the producer. All processes share
the machine's monotonic clock, and its cores.
"""

import asyncio
import gc
import multiprocessing
import re
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Annotated, Any

import httpx
import msgspec
import numpy as np
import psutil
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from kit.publisher import Publisher
from kit.server import room_for
from kit.service import GC_THRESHOLDS
from kit.settings import KitSettings
from schemas.crm import Record
from tests.bench import receive, workload
from tests.bench.__main__ import Bench
from tests.bench.soak import a_bench
from tests.support import DEV_SECRET, a_record, bearer

BOARD = "bench"
PEOPLE = [f"p{number}" for number in range(20)]  # who are on the board
BATCHES_PER_SECOND = 20
WARM_UP = 0.2  # of the flood, before it
CONNECTING = 100  # at once
PATIENCE_SECONDS = 60.0
CUT_OFF_EVERY_SECONDS = 1.0
LOOK_SECONDS = 0.05
AT_ONCE = 2_000  # events of one call of the producer, when they are sent as fast as they are taken
LEVELS = {"p50": 50, "p95": 95, "p99": 99, "max": 100}
_EVENT = re.compile(rb"id: ([^\n]+)\nevent: (\w+)\ndata: ([^\n]*)\n\n")

Counts = dict[str, int]
console = Console()


class _Row(msgspec.Struct):
    subject: str
    count: int | None = 0


class _Shown(msgspec.Struct):
    """What is looked at of a snapshot or update."""

    rows: list[_Row]
    previous: str = ""


@dataclass(slots=True)
class Seen:
    """What all viewers have seen: each version is looked at once, and each arrival noted."""

    shown: dict[tuple[str, str], _Shown] = field(default_factory=dict)  # by kind and version
    counts: dict[str, Counts] = field(default_factory=lambda: {"": {}})
    arrivals: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    missed: int = 0
    snapshots: int = 0  # other than a viewer's first
    reconnects: int = 0
    refused: int = 0

    def arrived(self, known: str, kind: str, version: str, data: bytes, at: float) -> None:
        """An event that has reached a viewer who knew this version."""
        shown = self.shown.get((kind, version))
        if shown is None:
            shown = self.shown[kind, version] = msgspec.json.decode(data, type=_Shown)
            before = self.counts.get(shown.previous, {})
            self.counts[version] = before | {row.subject: row.count or 0 for row in shown.rows}
        if kind == "update":
            self.missed += shown.previous != known
        elif known:
            self.snapshots += 1
        if known:
            self.arrivals[known, version].append(at)

    def latencies(self, published: dict[str, list[float]]) -> "np.ndarray[Any, Any]":
        """Of each event to each viewer, ascending."""
        found = [np.empty(0)]
        for (known, version), arrivals in self.arrivals.items():
            before, after = self.counts[known], self.counts[version]
            events = [
                at for who, times in published.items() for at in times[before[who] : after[who]]
            ]
            found.append(np.subtract.outer(np.array(arrivals), np.array(events)).ravel())
        return np.sort(np.concatenate(found))


class Viewer(asyncio.Protocol):
    """One viewer: a raw connection, opened again when it has ended."""

    def __init__(self, seen: Seen, port: int, token: str) -> None:
        self._seen = seen
        self._port = port
        self._token = token
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.version = ""
        self.ended = False

    async def connect(self) -> None:
        """Ask for what follows on the version that is known."""
        self._buffer = b""
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_connection(
                lambda: self, receive.HOST, self._port, family=socket.AF_INET
            )
        except OSError:
            self._seen.refused += 1
            self._again(1.0)
            return
        self._transport = transport
        last = f"Last-Event-ID: {self.version}\r\n" if self.version else ""
        transport.write(
            f"GET /v1/boards/{BOARD}/events HTTP/1.1\r\nHost: {receive.HOST}\r\n"
            f"Authorization: {self._token}\r\n{last}\r\n".encode()
        )

    def cut_off(self) -> None:
        """Lose the connection."""
        if self._transport is not None:
            self._seen.reconnects += 1
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Look for whole events, in whatever else HTTP sends."""
        now = time.monotonic()
        if not self._buffer and data.startswith(b"HTTP/1.1 5"):
            self._seen.refused += 1
        self._buffer += data
        end = 0
        for event in _EVENT.finditer(self._buffer):
            version = event[1].decode()
            self._seen.arrived(self.version, event[2].decode(), version, event[3], now)
            self.version, end = version, event.end()
        self._buffer = self._buffer[end:]

    def connection_lost(self, _: Exception | None) -> None:
        """Come back."""
        self._transport = None
        if not self.ended:
            self._again(0.0)

    def _again(self, pause: float) -> None:
        async def connect() -> None:
            await asyncio.sleep(pause)
            await self.connect()

        task = asyncio.get_running_loop().create_task(connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def watch(talk: Connection, port: int, viewers: int, reconnects: float) -> None:
    """The viewers' process: says when all are there, gets what was published, says what came."""
    room_for(viewers)
    gc.set_threshold(*GC_THRESHOLDS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_watch(talk, port, viewers, reconnects))


async def _watch(talk: Connection, port: int, count: int, reconnects: float) -> None:
    seen = Seen()
    token = bearer("ops", tenant=workload.TENANT)["Authorization"]
    viewers = [Viewer(seen, port, token) for _ in range(count)]
    began = time.monotonic()
    for start in range(0, count, CONNECTING):
        several = viewers[start : start + CONNECTING]
        await asyncio.gather(*(viewer.connect() for viewer in several))
        await _until(lambda several=several: all(v.version for v in several))
    talk.send(time.monotonic() - began)
    cpu, hearing = time.process_time(), asyncio.to_thread(talk.recv)
    told = asyncio.ensure_future(hearing)
    number = 0
    while not told.done():
        await asyncio.wait([told], timeout=CUT_OFF_EVERY_SECONDS)
        for _ in range(round(count * reconnects)):
            viewers[number % count].cut_off()
            number += 1
    published: dict[str, list[float]] = told.result()
    everything = {who: len(times) for who, times in published.items()}
    await _until(lambda: all(_holds(seen.counts[v.version], everything) for v in viewers))
    behind = sum(not _holds(seen.counts[v.version], everything) for v in viewers)
    cpu = time.process_time() - cpu
    for viewer in viewers:
        viewer.ended = True
    found = seen.latencies(published)
    talk.send(
        {
            "latencies": {n: float(np.percentile(found, q)) for n, q in LEVELS.items()},
            "seen": len(found),
            "versions": len(seen.counts),
            "missed": seen.missed,
            "behind": behind,
            "snapshots": seen.snapshots,
            "reconnects": seen.reconnects,
            "refused": seen.refused,
            "cpu": cpu,
        }
    )


def _holds(counts: Counts, everything: Counts) -> bool:
    return all(counts.get(who, 0) >= count for who, count in everything.items())


async def _until(done: Any) -> None:
    for _ in range(round(PATIENCE_SECONDS / LOOK_SECONDS)):
        if done():
            break
        await asyncio.sleep(LOOK_SECONDS)


@dataclass(slots=True)
class Events:
    """What is published: when each event of each person on the board was."""

    times: dict[str, list[float]] = field(
        default_factory=lambda: {f"person:{person}": [] for person in PEOPLE}
    )
    total: int = 0

    @property
    def shown(self) -> int:
        """How many are of people on the board."""
        return sum(map(len, self.times.values()))

    def records(self, count: int, people: int) -> list[Record]:
        """So many calls, one person after the other."""
        now, found = datetime.now(UTC).isoformat(), []
        for number in range(self.total, self.total + count):
            who = number % people
            found.append(
                a_record(
                    "call",
                    f"{workload.SOURCE}:{number}",
                    tenant=workload.TENANT,
                    owner_id=str(who),
                    occurred_at=now,
                    direction="outbound",
                    done=True,
                )
            )
            if who < len(PEOPLE):
                self.times[f"person:{PEOPLE[who]}"].append(time.monotonic())
        self.total += count
        return found


async def publish(
    settings: KitSettings, events: Events, rate: float, seconds: float, people: int
) -> None:
    """Publish calls at this rate."""
    publisher = Publisher(settings)
    await publisher.start()
    try:
        began, sent = time.monotonic(), 0
        for batch in range(round(seconds * BATCHES_PER_SECOND)):
            await asyncio.sleep(max(0.0, began + batch / BATCHES_PER_SECOND - time.monotonic()))
            due = int((batch + 1) * rate / BATCHES_PER_SECOND)
            if due > sent:
                await publisher.publish(events.records(due - sent, people))
            sent = due
    finally:
        await publisher.stop()


async def sustainable(settings: KitSettings, events: Events, count: int, port: int) -> float:
    """Events per second that get onto boards while more are always waiting."""
    publisher = Publisher(settings)
    await publisher.start()
    records = events.records(count, workload.PEOPLE)
    began = time.monotonic()
    for start in range(0, count, AT_ONCE):
        await publisher.publish(records[start : start + AT_ONCE])
    await publisher.stop()
    everything = {who: len(times) for who, times in events.times.items()}
    address = f"http://{receive.HOST}:{port}/v1/boards/{BOARD}"
    async with httpx.AsyncClient(headers=bearer("ops", tenant=workload.TENANT)) as client:
        while True:
            rows = (await client.get(address)).json()["rows"]
            if {row["subject"]: row["count"] for row in rows} == everything:
                return count / (time.monotonic() - began)
            if time.monotonic() - began > 10 * PATIENCE_SECONDS:
                raise RuntimeError("what was published doesn't arrive: see the log of metrics")
            await asyncio.sleep(LOOK_SECONDS)


async def prepare(settings: KitSettings, port: int) -> None:
    """People, and the board that is watched."""
    publisher = Publisher(settings)
    await publisher.start()
    await publisher.publish(workload.directory())
    await publisher.stop()
    document = {
        "title": "Bench",
        "metric": "calls_made",
        "grain": "year",
        "scope": {"people": PEOPLE},
    }
    headers = bearer("ops", tenant=workload.TENANT)
    address = f"http://{receive.HOST}:{port}/v1/boards/{BOARD}"
    async with httpx.AsyncClient(headers=headers) as client:
        (await client.put(address, json=document)).raise_for_status()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len((await client.get(address)).json()["rows"]) < len(PEOPLE):
            if time.monotonic() > deadline:
                raise RuntimeError("the people didn't arrive: see the log of metrics")
            await asyncio.sleep(0.2)


@contextmanager
def metrics(bench: Bench, settings: KitSettings, viewers: int) -> Iterator[tuple[int, int]]:
    """The real service with its default settings as far as they suffice; its port and pid."""
    port = receive.a_port()
    environment = {
        "PACESETTER_KAFKA": settings.kafka,
        "PACESETTER_TOPIC_PREFIX": settings.topic_prefix,
        "PACESETTER_LOG_LEVEL": "WARNING",
        "PACESETTER_DEV_SECRET": DEV_SECRET,
        "METRICS_DATABASE": asyncio.run(bench.database()),
        "METRICS_PORT": str(port),
        # Who is cut off comes back before the service has noticed.
        "METRICS_STREAM_LIMIT": str(max(5_000, 2 * viewers)),
        "PACESETTER_MAX_CONNECTIONS": str(max(10_000, 3 * viewers)),
    }
    command = [sys.executable, "-m", "services", "serve", "metrics"]
    with receive.server(command, port, environment) as pid:
        yield port, pid


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is published: events per second, or a share of what `flood` events say can be."""

    rate: float
    share: float
    flood: int
    seconds: float


def a_run(bench: Bench, viewers: int, load: Load, cut_off: float) -> Table:
    """One run, and its figures."""
    settings = bench.settings()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    events, rate, people = Events(), load.rate, len(PEOPLE)
    figures = {}
    with metrics(bench, settings, viewers) as (port, pid):
        asyncio.run(prepare(settings, port))
        if load.share:
            people = workload.PEOPLE
            asyncio.run(sustainable(settings, events, round(load.flood * WARM_UP), port))
            found = asyncio.run(sustainable(settings, events, load.flood, port))
            figures["sustainable, events/s"] = f"{found:,.0f}"
            rate = load.share * found
        watching = context.Process(target=watch, args=(theirs, port, viewers, cut_off), daemon=True)
        watching.start()
        connected: float = ours.recv()
        process = psutil.Process(pid)
        cpu, before = sum(process.cpu_times()[:2]), events.shown
        psutil.cpu_percent()  # from now on
        asyncio.run(publish(settings, events, rate, load.seconds, people))
        ours.send(events.times)
        seen = ours.recv()
        busy = psutil.cpu_percent() / 100
        cpu = sum(process.cpu_times()[:2]) - cpu
        memory = process.memory_info().rss
        watching.join(PATIENCE_SECONDS)
    title = f"{viewers:,} viewers, {rate:,.0f} events/s for {load.seconds:g} s"
    shown = Table(title=title, show_header=False)
    shown.add_column()
    shown.add_column(justify="right")
    figures |= {f"event → viewer, {n}": f"{1000 * s:,.0f} ms" for n, s in seen["latencies"].items()}
    figures |= {
        "events seen by viewers": f"{seen['seen']:,} of {(events.shown - before) * viewers:,}",
        "versions of the board": f"{seen['versions']:,}",
        "forced reconnects": f"{seen['reconnects']:,}",
        "versions missed": f"{seen['missed']:,}",
        "viewers without the last": f"{seen['behind']:,}",
        "snapshots after reconnects": f"{seen['snapshots']:,}",
        "connections refused": f"{seen['refused']:,}",
        "all connected after": f"{connected:,.1f} s",
        "CPU of metrics, of a core": f"{cpu / load.seconds:.0%}",
        "CPU of viewers": f"{seen['cpu'] / load.seconds:.0%}",
        "of everything, of all cores": f"{busy:.0%}",
        "memory of metrics": f"{memory / 2**20:,.0f} MiB",
    }
    for name, value in figures.items():
        shown.add_row(name, value)
    return shown


def main(
    viewers: Annotated[int, typer.Option(min=1, help="Of one board.")] = 5_000,
    seconds: Annotated[float, typer.Option(min=1, help="How long events are published.")] = 60,
    rate: Annotated[float, typer.Option(min=0.1, help="Events per second.")] = 20,
    share: Annotated[
        float, typer.Option(min=0, max=1, help="Of the sustainable rate, instead of `rate`.")
    ] = 0,
    flood: Annotated[
        int, typer.Option(min=1_000, help="Events that find the sustainable rate.")
    ] = 100_000,
    cut_off: Annotated[
        float, typer.Option(min=0, max=1, help="Share of viewers that are cut off every second.")
    ] = 0.01,
) -> None:
    """How long events take to their viewers, and whether any misses something."""
    load = Load(rate=rate, share=share, flood=flood, seconds=seconds)
    with a_bench() as bench:
        console.print(a_run(bench, viewers, load, cut_off))
    console.print(f"{psutil.cpu_count()} cores for service, viewers, Kafka and PostgreSQL.")


if __name__ == "__main__":
    typer.run(main)
