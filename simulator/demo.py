"""Everything at once: Kafka, PostgreSQL, the four services and a sales organisation at work.

`python -m simulator.demo` runs until Ctrl-C; `--for 60s` ends by itself, compares every number with
an independent computation and exits non-zero when one differs.
"""

import asyncio
import contextlib
import json
import math
import re
import signal
import sys
import time
import webbrowser
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import chain
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.live import Live

from deploy.local import Stack, StackError
from deploy.local.machine import free_port
from kit.clock import interpolate
from simulator import oracle, seed
from simulator.client import Client, quantile
from simulator.days import play
from simulator.delivery import Delivery, deliver
from simulator.organisation import Company, make_company
from simulator.player import (
    Player,
    RefusedError,
    TimeMap,
    end_of_play,
    standing_still,
    time_map,
)
from simulator.receiver import Receiver
from simulator.system import ServiceEndedError, System
from simulator.view import Monitor

START_DAY = date(2026, 11, 9)
DAYS = 15  # of play when no end is given: three weeks
RATE = 220  # vendor events per second, on average
LEAD_SECONDS = 0.5  # until the play begins, once everything is ready for it
REFRESH_SECONDS = 1.0
LINE_SECONDS = 5.0
SAMPLE_DAYS = 3  # looked at to know how many events a day has
SETTLE_SECONDS = 30.0  # of no movement, until what still differs is taken to differ
LATE_MAPPING_SHARE = 0.4  # of the first day, until a forgotten CRM account is mapped
DIFFERENCES_SHOWN = 40
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(s|m|h|)$")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}

console = Console()


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for."""

    folder: Path
    days: int
    day_seconds: float
    seed: int
    ends: bool
    opens: bool
    start_day: date = START_DAY


def plan_time(
    seconds: float | None, days: int | None, rate: float, seed_number: int
) -> tuple[int, float]:
    """How many days are played, and how long each takes, for the wanted length and rate."""
    usual = events_per_day(seed_number) / rate
    if seconds is None:
        return days or DAYS, usual
    whole = days or max(1, math.ceil(seconds / usual))
    return whole, seconds / whole


def events_per_day(seed_number: int) -> float:
    """Vendor events of an average day of this play."""
    morning = datetime.combine(START_DAY, datetime.min.time(), UTC)
    end = end_of_play(START_DAY, SAMPLE_DAYS)
    deliveries = deliver(play(seed_number, START_DAY, SAMPLE_DAYS), seed_number, end)
    return sum(d.request.events for d in deliveries if d.at >= morning) / SAMPLE_DAYS


class Demo:
    """One run, from an empty folder to the last comparison."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._began = time.monotonic()
        self._stop = asyncio.Event()
        self._company: Company = make_company(options.seed, options.start_day)
        self._stack = Stack(options.folder / "stack", owned=True)
        self.differences: list[str] = []

    async def run(self) -> int:
        """The exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        try:
            await self._until_stopped(self._whole())
        except (StackError, ServiceEndedError, TimeoutError, RefusedError, RuntimeError) as error:
            console.print(f"[red]{type(error).__name__}[/]", highlight=False)
            console.print(str(error), highlight=False, markup=False, soft_wrap=True)
            return 1
        finally:
            began = time.monotonic()
            await asyncio.to_thread(self._stack.down)
            self._say(f"stopped in {time.monotonic() - began:.1f} s more")
        return 1 if self.differences else 0

    async def _until_stopped(self, work: "asyncio._CoroutineLike[None]") -> None:
        """Run to the end, or until somebody wants to stop."""
        task, stop = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            self._say("stopping")
            task.cancel()
            await asyncio.wait({task})
        if not task.cancelled():
            task.result()

    async def _whole(self) -> None:
        options = self._options
        await asyncio.to_thread(self._fresh_stack)
        self._say("Kafka and PostgreSQL run")
        port = free_port()
        system = System(
            options.folder,
            self._stack,
            time_map=standing_still(options.start_day),
            fixed_ports=True,
            receiver_url=f"http://127.0.0.1:{port}/webhooks",
        )
        receiver = Receiver(system.webhook_secret, port)
        async with receiver.running(), _running(system), httpx.AsyncClient(timeout=20) as http:
            await system.wait_ready()
            self._say("the services are ready")
            client = Client(http, system.urls, system.headers)
            await seed.everything(client, self._company)
            self._say("people, goals and the plan are known")
            await self._play(system, client, receiver)

    def _fresh_stack(self) -> None:
        folder = self._options.folder
        if (folder / "stack").exists():
            self._stack.clean()
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.log"):
            old.unlink()
        self._stack.up()

    async def _play(self, system: System, client: Client, receiver: Receiver) -> None:
        options, points = self._options, system.time_map
        assert points is not None
        player = Player(system.hook_url, system.vendor_secrets)
        links = _links(system, self._company)
        monitor = Monitor(client, self._company, player.counts, receiver, points, links)
        history, visible = self._deliveries(points)
        async with _watching(monitor, system):
            self._say("the board is live; the past weeks come in")
            _print_links(links)
            if options.opens:
                await asyncio.to_thread(webbrowser.open, links[0][1])
            monitor.numbers.phase = "history"
            await player.play(history)
            self._say(f"{player.counts.events} events of the past are sent; the first day begins")
            await monitor.begin_latency()
            monitor.numbers.phase = "playing"
            points = time_map(
                options.start_day,
                options.days,
                real_start=time.time() + LEAD_SECONDS,
                day_seconds=options.day_seconds,
            )
            system.set_time(points)
            monitor.points = points
            began, before = max(time.time(), points[0][0]), player.counts.events
            mapping = asyncio.create_task(self._map_late(client, points))
            try:
                await player.play(visible, points)
                await mapping
            finally:
                mapping.cancel()
            seconds, sent = time.time() - began, player.counts.events - before
            monitor.numbers.phase = "draining"
            await system.wait_drained()
            await self._settle(player, client, points)
            await monitor.refresh()
            monitor.numbers.phase = "compared"
        self._summary(player, receiver, monitor, sent / seconds)
        if not options.ends:
            self._say("the play is over; everything stays up until Ctrl-C")
            await self._stop.wait()

    def _deliveries(self, points: TimeMap) -> tuple[Iterator[Delivery], Iterator[Delivery]]:
        """Those before the first visible morning, and the others."""
        options = self._options
        changes = play(options.seed, options.start_day, options.days, self._company)
        end = end_of_play(options.start_day, options.days)
        morning = datetime.fromtimestamp(points[0][1], UTC)
        deliveries = deliver(changes, options.seed, end, opens=morning)
        history: list[Delivery] = []
        for delivery in deliveries:
            if delivery.at >= morning:
                return iter(history), chain([delivery], deliveries)
            history.append(delivery)
        return iter(history), iter(())

    async def _map_late(self, client: Client, points: TimeMap) -> None:
        """In the middle of the first day, somebody maps a forgotten CRM account."""
        wait = points[0][0] + LATE_MAPPING_SHARE * self._options.day_seconds - time.time()
        await asyncio.sleep(max(0.0, wait))
        await seed.late(client, self._company)

    async def _settle(self, player: Player, client: Client, points: TimeMap) -> None:
        """Compare until nothing differs twice, or for as long as settling may take."""
        now = datetime.fromtimestamp(interpolate(points, time.time()), UTC)
        wanted = oracle.expected(self._company, player.acknowledged, seed.plan_document(), now)
        deadline, equal = time.monotonic() + SETTLE_SECONDS, 0
        while equal < 2 and time.monotonic() < deadline:  # noqa: PLR2004  # seen twice
            before, self.differences = self.differences, await oracle.compare(wanted, client)
            equal = 0 if self.differences else equal + 1
            if self.differences != before:  # still moving
                deadline = time.monotonic() + SETTLE_SECONDS
            await asyncio.sleep(0.5)
        self._compared = (len(wanted.values), len(wanted.earnings), len(wanted.alerts))
        self._earned = sum(one.earned for one in wanted.earnings.values())

    def _summary(self, player: Player, receiver: Receiver, monitor: Monitor, rate: float) -> None:
        counts, latency = player.counts, monitor.latency
        values, earnings, alerts = self._compared
        say = console.print
        say(
            f"sent      {counts.events:,} events of {counts.changes:,} changes in "
            f"{counts.requests:,} requests; {rate:,.0f} events/s while playing"
        )
        say(f"network   {counts.repeated} repeated, {counts.late} late, {counts.retries} retries")
        tries = sorted(counts.seconds)
        say(
            "answers   of ingest: "
            + ", ".join(f"p{p} {tries[len(tries) * p // 100] * 1000:,.0f} ms" for p in (50, 99))
        )
        say(
            "latency   event to queryable: "
            + ", ".join(
                f"p{p:g} {quantile(latency, p / 100) * 1000:,.0f} ms" for p in (50, 99, 100)
            )
        )
        say(f"pay       {self._earned:,.2f} accrued for {earnings} people and periods")
        say(
            f"alerts    {alerts} firing; webhooks {receiver.distinct} distinct, "
            f"{receiver.repeated} repeated, {receiver.refused_signatures} with a bad signature"
        )
        say(f"compared  {values:,} values, {earnings} earnings, {alerts} alerts")
        if self.differences:
            say(f"[red]{len(self.differences)} differences[/]")
            for line in self.differences[:DIFFERENCES_SHOWN]:
                say(f"  {line}", highlight=False, markup=False)
        else:
            say("[green]0 differences[/]: every store equals the independent computation")
        (self._options.folder / "differences.json").write_text(json.dumps(self.differences))

    def _say(self, what: str) -> None:
        console.print(f"[dim]{time.monotonic() - self._began:6.1f} s[/]  {what}", highlight=False)


@contextlib.asynccontextmanager
async def _running(system: System) -> AsyncIterator[None]:
    try:
        await system.start()
        yield
    finally:
        await system.stop()


@contextlib.asynccontextmanager
async def _watching(monitor: Monitor, system: System) -> AsyncIterator[None]:
    """Show what happens; a service that ends by itself ends the run."""
    parent = asyncio.current_task()
    assert parent is not None
    failures: list[ServiceEndedError] = []

    async def look() -> None:
        printed = 0.0
        with contextlib.ExitStack() as screen:
            live: Live | None = None
            if console.is_terminal:
                live = screen.enter_context(
                    Live(monitor.draw(), console=console, screen=True, auto_refresh=False)
                )
            while True:
                await monitor.refresh()
                try:
                    system.check_alive()
                except ServiceEndedError as error:
                    failures.append(error)
                    parent.cancel()
                    return
                if live is not None:
                    live.update(monitor.draw(), refresh=True)
                elif time.monotonic() - printed >= LINE_SECONDS:
                    printed = time.monotonic()
                    console.print(monitor.line(), highlight=False, soft_wrap=True, markup=False)
                await asyncio.sleep(REFRESH_SECONDS)

    task = asyncio.create_task(look())
    try:
        yield
    except asyncio.CancelledError:
        if failures:
            raise failures[0] from None
        raise
    finally:
        task.cancel()
        await asyncio.wait({task})


def _links(system: System, company: Company) -> list[tuple[str, str]]:
    """Where to look; the TV board's address signs the browser in for the others too."""
    token = system.token("admin")
    rep = next(person for person in company.people if person.role == "rep")
    quarter = oracle.periods_of(company.start_day)["quarter"]
    plan = seed.plan_document()["plan"]
    statement = f"/v1/statements/{rep.id}/{plan}/{quarter}"
    return [
        ("TV board, signs in", f"{system.url('metrics')}/tv/revenue-month?token={token}"),
        ("all boards", f"{system.url('metrics')}/"),
        (f"pay of {rep.name}", system.url("payouts") + statement),
        ("alerts", f"{system.url('notifications')}/v1/alerts?state=firing"),
        (f"{rep.name}'s token", system.token("rep", person=rep.id)),
        ("APIs", "  ".join(f"{url}/docs" for url in system.urls.values())),
    ]


def _print_links(links: list[tuple[str, str]]) -> None:
    if not console.is_terminal:
        for name, url in links:
            console.print(f"  {name}: {url}", highlight=False, soft_wrap=True, markup=False)


def seconds_of(text: str) -> float:
    """`90`, `60s`, `5m`, `1h` in seconds."""
    match = _DURATION.match(text.strip())
    if match is None:
        raise typer.BadParameter("write a duration such as 60s, 5m or 1h")
    return float(match[1]) * _UNITS[match[2]]


def main(
    length: Annotated[
        str,
        typer.Option(
            "--for", help="Play for so long (60s, 5m), compare every number, and end by itself."
        ),
    ] = "",
    days: Annotated[
        int | None, typer.Option(min=1, max=250, help="Working days to play; 15 unless --for.")
    ] = None,
    rate: Annotated[
        float, typer.Option(min=1, help="CRM events per second, on average; --for adjusts it.")
    ] = RATE,
    folder: Annotated[
        Path, typer.Option(help="Where data and logs go; the data of an earlier run is deleted.")
    ] = Path(".local/demo"),
    seed_number: Annotated[
        int, typer.Option("--seed", help="Another number, another organisation and other days.")
    ] = 1,
    *,
    opens: Annotated[bool, typer.Option("--open", help="Open the TV board in a browser.")] = False,
) -> None:
    """Run Pacesetter on this machine with a sales organisation at work in it.

    Starts Kafka, PostgreSQL and the four services in a fresh folder, plays working days of 40
    people (nights are skipped), and shows boards, pay and alerts as they move. Nothing is left
    running.
    """
    seconds = seconds_of(length) if length else None
    whole, day_seconds = plan_time(seconds, days, rate, seed_number)
    options = Options(
        folder=folder.absolute(),
        days=whole,
        day_seconds=day_seconds,
        seed=seed_number,
        ends=seconds is not None,
        opens=opens,
    )
    sys.exit(asyncio.run(Demo(options).run()))


if __name__ == "__main__":
    typer.run(main)
