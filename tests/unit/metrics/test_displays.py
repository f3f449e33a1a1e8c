"""What displays outside are told, and when it is tried again."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from services.metrics.domain import displays
from services.metrics.domain.displays import Display
from services.metrics.domain.leaderboard import Board, Row

NOW = datetime(2026, 11, 3, 12, tzinfo=UTC)
DOCUMENT = {"id": "lobby", "url": "https://x.example", "secret": "env:X", "board": "b", "top": 2}


def a_board(*ranks: int | None, version: str = "1795000000000000.7-20261103") -> Board:
    rows = [
        Row(rank, f"person:p{n}", f"P{n}", "", "1", 1, None, None, None, None, {})
        for n, rank in enumerate(ranks)
    ]
    return Board("b", "B", "m", "count", "month:2026-11-01", version, "now", rows)


def test_only_rows_with_a_place_are_shown() -> None:
    board = displays.top(a_board(1, 2, 2, None, None), 4)

    assert displays.places(board) == [(1, "person:p0"), (2, "person:p1"), (2, "person:p2")]
    assert displays.places(displays.top(board, 1)) == [(1, "person:p0")]


def test_an_event_is_a_cloud_event_in_the_order_of_its_sequence() -> None:
    display, _ = displays.read_display(DOCUMENT)
    assert display is not None
    late = msgspec.json.decode(displays.event("acme", display, a_board(1), NOW))

    assert {k: v for k, v in late.items() if k != "data"} == {
        "specversion": "1.0",
        "id": "1795000000000000.7-20261103",
        "source": "/acme/displays/lobby",
        "type": "com.pacesetter.board.rank-changed",
        "subject": "b",
        "time": "2026-11-03T12:00:00.000+00:00",
        "datacontenttype": "application/json",
        "sequence": "00001795000000000000.000000007",
    }
    assert late["data"]["rows"][0]["subject"] == "person:p0"
    versions = ("99.8-1", "1795000000000000-1", "1795000000000000.9-1", "1795000000000000.10-1")
    order = [displays.event("acme", display, a_board(1, version=v), NOW) for v in versions]
    sequences = [msgspec.json.decode(each)["sequence"] for each in order]
    assert sequences == sorted(set(sequences))


def test_retries_take_longer_each_time_and_end_after_a_day() -> None:
    pauses = []
    for failures in (1, 2, 3, 20, 5000):
        again = displays.retry_at(failures, NOW, NOW, jitter=0)
        assert again is not None
        pauses.append((again - NOW).total_seconds())
    spread = {displays.retry_at(1, NOW, NOW, jitter=jitter) for jitter in (-1, 0, 1)}

    assert pauses == [5, 10, 20, 600, 600]
    assert len(spread) == 3
    assert displays.retry_at(1, NOW, NOW + timedelta(hours=24), jitter=0) is None


@pytest.mark.parametrize(
    "change",
    [{"top": 0}, {"top": 51}, {"top": "2"}, {"url": 1}, {"more": 1}, {"board": None}],
)
def test_documents_that_will_not_do_say_why(change: dict[str, Any]) -> None:
    display, mistakes = displays.read_display(DOCUMENT | change)

    assert display is None
    assert next(iter(change)) in str(mistakes[0])


@pytest.mark.parametrize("secret", ["env:METRICS_SECRET_acme__LOBBY", "file:lobby.secret"])
def test_a_secret_is_named(secret: str) -> None:
    assert ":".join(displays.secret_place(secret, "acme")) == secret


@pytest.mark.parametrize(
    "secret",
    [
        "whsec_c2VjcmV0",
        "env:PATH",
        "env:METRICS_SECRET_other__LOBBY",
        "env:METRICS_SECRET_acme__",
        "env:LOBBY",
        "file:../other/lobby",
        "file:.hidden",
        "file:/etc/passwd",
        "",
    ],
)
def test_anything_but_a_name_of_ones_own_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="only named here"):
        displays.secret_place(secret, "acme")


def test_a_display_is_its_document() -> None:
    assert displays.read_display(DOCUMENT)[0] == Display(**DOCUMENT)  # type: ignore[arg-type]
