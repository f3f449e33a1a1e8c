from datetime import UTC, date, datetime
from decimal import Decimal
from io import StringIO

from rich.console import Console

from simulator.client import Client
from simulator.organisation import make_company
from simulator.player import Counts
from simulator.receiver import Receiver
from simulator.seed import new_webhook_secret
from simulator.view import Monitor

NOON = datetime(2026, 11, 9, 17, 0, tzinfo=UTC)


def a_monitor() -> Monitor:
    monitor = Monitor(
        Client(None, {}, {}),  # type: ignore[arg-type]  # nothing is asked here
        make_company(1, date(2026, 11, 9)),
        Counts(requests=12, events=345, repeated=1, late=2),
        Receiver(new_webhook_secret(), 1),
        [(0.0, 0.0)],
        [("TV board", "http://127.0.0.1:8002/tv/revenue-month")],
    )
    monitor.numbers.business = NOON
    monitor.numbers.phase = "playing"
    monitor.numbers.p50, monitor.numbers.p99 = 0.175, 0.4812
    monitor.numbers.board = [(1, "Ann", "12500.00", "0.2500")]
    monitor.numbers.earners = [("Ann", Decimal(12500), Decimal("750.5"))]
    monitor.numbers.total = Decimal("750.5")
    monitor.numbers.alerts = [("firing", "Big deal won: Alder Foods")]
    monitor.numbers.firing = 1
    return monitor


def test_a_terminal_shows_board_pay_alerts_and_links() -> None:
    console = Console(file=StringIO(), width=140, height=40)

    console.print(a_monitor().draw())

    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for part in ("Mon 09 Nov 12:00", "345", "175 ms", "481 ms", "12,500.00", "750.50"):
        assert part in shown
    for part in ("Big deal won: Alder Foods", "1 firing", "8002/tv/revenue-month"):
        assert part in shown


def test_a_log_gets_one_line() -> None:
    line = a_monitor().line()

    assert "Mon 09 Nov 12:00 playing" in line
    assert "p50 175 ms p99 481 ms" in line
    assert "leads Ann 12500.00 accrued 750.50 firing 1" in line
