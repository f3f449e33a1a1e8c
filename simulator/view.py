"""What the demo shows while it runs: a live terminal view, or plain lines without a terminal."""

import math
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import httpx
from rich.console import Group
from rich.layout import Layout
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from kit.clock import interpolate
from simulator.client import LAG, LATENCY, Client, Telemetry, quantile
from simulator.organisation import ZONE, Company
from simulator.player import Counts, TimeMap
from simulator.receiver import Receiver

BOARD = "revenue-month"
TOP = 10
RATE_SECONDS = 5.0


@dataclass(slots=True)
class Numbers:
    """What was last learnt from the services."""

    business: datetime
    phase: str = "starting"
    board: list[tuple[int, str, str, str]] = field(default_factory=list)
    earners: list[tuple[str, Decimal, Decimal]] = field(default_factory=list)
    total: Decimal = Decimal(0)
    alerts: list[tuple[str, str]] = field(default_factory=list)
    firing: int = 0
    p50: float = math.nan
    p99: float = math.nan
    lag_seconds: dict[str, float] = field(default_factory=dict)
    trouble: str = ""


class Monitor:
    """Asks the services now and then, and draws what they said."""

    def __init__(
        self,
        client: Client,
        company: Company,
        counts: Counts,
        receiver: Receiver,
        points: TimeMap,
        links: list[tuple[str, str]],
    ) -> None:
        self._client = client
        self._names = {person.id: person.name for person in company.people}
        self._counts = counts
        self._receiver = receiver
        self.points = points
        self._links = links
        self._recent: deque[tuple[float, int]] = deque()
        self._since: Telemetry | None = None
        self.latency: list[tuple[float, float]] = []
        self.numbers = Numbers(datetime.now(UTC))

    @property
    def rate(self) -> float:
        """Vendor events per second over the last seconds."""
        if not self._recent:
            return 0.0
        (t0, n0), (t1, n1) = self._recent[0], self._recent[-1]
        return (n1 - n0) / (t1 - t0) if t1 > t0 else 0.0

    def _note_rate(self) -> None:
        now = time.monotonic()
        self._recent.append((now, self._counts.events))
        while len(self._recent) > 2 and now - self._recent[0][0] > RATE_SECONDS:  # noqa: PLR2004  # a span
            self._recent.popleft()

    async def begin_latency(self) -> None:
        """Forget the latencies so far: those of the bulk load say nothing about the play."""
        self._since = await self._client.telemetry("metrics")

    async def refresh(self) -> None:
        """Ask the services again; what doesn't answer is named and keeps its last numbers."""
        numbers = self.numbers
        self._note_rate()
        numbers.business = datetime.fromtimestamp(interpolate(self.points, time.time()), UTC)
        numbers.trouble = ""
        for ask in (self._latency, self._lag, self._board, self._pay, self._alerts):
            try:
                await ask()
            except (httpx.HTTPError, RuntimeError, KeyError, ValueError) as error:
                name = ask.__name__.strip("_")
                numbers.trouble = f"{name}: {type(error).__name__} {error}"[:160]

    async def _latency(self) -> None:
        telemetry = await self._client.telemetry("metrics")
        self.latency = telemetry.since(self._since, LATENCY)
        self.numbers.p50 = quantile(self.latency, 0.5)
        self.numbers.p99 = quantile(self.latency, 0.99)

    async def _lag(self) -> None:
        for service in ("ingest", "metrics", "payouts", "notifications"):
            found = await self._client.telemetry(service)
            self.numbers.lag_seconds[service] = found.values.get(LAG, math.nan)

    async def _board(self) -> None:
        board = await self._client.get("metrics", f"/v1/boards/{BOARD}")
        self.numbers.board = [
            (
                int(row.get("rank") or 0),
                str(row["name"]),
                _money(row["value"]),
                _percent(row["attainment"]),
            )
            for row in board["rows"][:TOP]
        ]

    async def _pay(self) -> None:
        earned = await self._client.statements()
        best = sorted(earned.items(), key=lambda item: item[1][1], reverse=True)
        self.numbers.total = sum((pay for _, pay in earned.values()), Decimal(0))
        self.numbers.earners = [
            (self._names.get(payee, payee), credited, pay)
            for (payee, _, _), (credited, pay) in best[:TOP]
        ]

    async def _alerts(self) -> None:
        alerts = [alert async for alert in self._client.alerts()]
        alerts.sort(key=lambda alert: str(alert["raised_at"]), reverse=True)
        self.numbers.firing = sum(alert["state"] == "firing" for alert in alerts)
        self.numbers.alerts = [(alert["state"], alert["title"]) for alert in alerts[:TOP]]

    # --- drawing ---------------------------------------------------------------------------

    def line(self) -> str:
        """Everything in one line, for logs."""
        numbers, counts = self.numbers, self._counts
        leader = f"{numbers.board[0][1]} {numbers.board[0][2]}" if numbers.board else "-"
        return (
            f"{self._when} {numbers.phase:<9} {counts.events:>7} events {self.rate:>5.0f}/s "
            f"latency p50 {_ms(numbers.p50)} p99 {_ms(numbers.p99)} "
            f"lag {max(numbers.lag_seconds.values(), default=0.0):.1f}s "
            f"retries {counts.retries} "
            f"leads {leader} accrued {numbers.total:,.2f} firing {numbers.firing} "
            f"webhooks {self._receiver.distinct}+{self._receiver.repeated}"
            + (f" ({numbers.trouble})" if numbers.trouble else "")
        )

    @property
    def _when(self) -> str:
        return f"{self.numbers.business.astimezone(ZoneInfo(ZONE)):%a %d %b %H:%M}"

    def draw(self) -> Layout:
        """The terminal view."""
        layout = Layout()
        layout.split_column(
            Layout(self._head(), size=5),
            Layout(name="middle"),
            Layout(self._foot(), size=2 + len(self._links)),
        )
        layout["middle"].split_row(
            Layout(self._board_panel()), Layout(self._pay_panel()), Layout(self._alert_panel())
        )
        return layout

    def _head(self) -> Panel:
        numbers, counts = self.numbers, self._counts
        table = Table.grid(padding=(0, 3))
        table.add_row(
            f"[bold]{self._when}[/] {numbers.phase}",
            f"sent [bold]{counts.events:,}[/] events in {counts.requests:,} requests",
            f"[bold]{self.rate:,.0f}[/] events/s",
            f"{counts.repeated} repeated, {counts.late} late, {counts.retries} retries",
        )
        table.add_row(
            "event → queryable",
            f"p50 [bold]{_ms(numbers.p50)}[/]  p99 [bold]{_ms(numbers.p99)}[/]",
            "",
            f"webhooks out {self._receiver.distinct} distinct, {self._receiver.repeated} repeated",
        )
        lags = "  ".join(f"{name} {lag:.1f}s" for name, lag in numbers.lag_seconds.items())
        table.add_row("consumer lag", lags, "", Text(numbers.trouble, style="red"))
        return Panel(table, title="Pacesetter")

    def _board_panel(self) -> Panel:
        table = Table("#", "who", "revenue", "of goal", box=None, expand=True)
        for rank, who, value, attainment in self.numbers.board:
            table.add_row(str(rank), who, value, attainment)
        return Panel(table, title="Revenue this month")

    def _pay_panel(self) -> Panel:
        table = Table("who", "credited", "earned", box=None, expand=True)
        for who, credited, earned in self.numbers.earners:
            table.add_row(who, f"{credited:,.2f}", f"{earned:,.2f}")
        return Panel(table, title=f"Accrued this quarter: {self.numbers.total:,.2f}")

    def _alert_panel(self) -> Panel:
        lines = [
            Text(title, style="bold" if state == "firing" else "dim", no_wrap=True)
            for state, title in self.numbers.alerts
        ]
        return Panel(Group(*lines), title=f"Alerts: {self.numbers.firing} firing")

    def _foot(self) -> Panel:
        table = Table.grid(padding=(0, 2))
        for name, url in self._links:
            table.add_row(name, Text(url, no_wrap=True, overflow="ignore", style=f"link {url}"))
        return Panel(table, title="Look around (Ctrl-C ends everything)")


def _money(text: str | None) -> str:
    return "-" if text is None else f"{Decimal(text):,.2f}"


def _percent(text: str | None) -> str:
    return "-" if text is None else f"{Decimal(text):.0%}"


def _ms(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{seconds * 1000:.0f} ms"
