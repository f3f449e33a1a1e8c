"""The business clock: what day and hour it is for boards, rules and statements.

In production it is real time. A rehearsal (the demo, a drill) gives a *time map*: a JSON list of
`[real, business]` pairs in epoch seconds, ascending, between which business time is interpolated;
before the first and after the last it moves at real speed. The map is read again when it changes.
Signatures, leases, retries and telemetry never use it.
"""

import json
import time
from bisect import bisect_right
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

Clock = Callable[[], datetime]
Micros = Callable[[], int]


def real_time() -> datetime:
    """Now, in UTC."""
    return datetime.now(UTC)


def real_micros() -> int:
    """Real time in µs since the epoch: what versions grow with, also after a rebuild."""
    return time.time_ns() // 1000


def load(time_map: Path | None) -> Clock:
    """The business clock: real time, or as the map says."""
    if time_map is None:
        return real_time
    clock = _Mapped(time_map)
    clock()  # a map that can't be read is refused at the start
    return clock


class _Mapped:
    """Business time by a file, read again when it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_ns = -1
        self._points: list[tuple[float, float]] = []

    def __call__(self) -> datetime:
        changed = self._path.stat().st_mtime_ns
        if changed != self._read_ns:
            self._points = _read(self._path)
            self._read_ns = changed
        return datetime.fromtimestamp(interpolate(self._points, time.time()), UTC)


def _read(path: Path) -> list[tuple[float, float]]:
    points = [(float(real), float(business)) for real, business in json.loads(path.read_text())]
    if not points or points != sorted(points):
        raise ValueError(f"{path}: expected a non-empty ascending list of [real, business]")
    return points


def interpolate(points: list[tuple[float, float]], real: float) -> float:
    """Business time at `real` (epoch seconds), piecewise linear through the points."""
    after = bisect_right(points, (real, float("inf")))
    if after == 0:
        return points[0][1] + (real - points[0][0])
    r0, b0 = points[after - 1]
    if after == len(points):
        return b0 + (real - r0)
    r1, b1 = points[after]
    return b0 + (b1 - b0) * (real - r0) / (r1 - r0)
