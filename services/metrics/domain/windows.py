"""Windows: which days a board is about, which days it is compared with, and how they are read.

Days are the organisation's. A window is half-open; it is a period of the calendar, the last so many
days, or a range. Numbers of any window are sums of stored periods: `cover` finds the fewest.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import Literal

from schemas.periods import GRAINS, Calendar, Grain, written

Over = Literal["previous", "last_year"]
Since = Literal["day", "yesterday", "week"]
Piece = tuple[Grain, date]  # a stored period by its grain and first day

YEAR_OF_WEEKS = timedelta(days=364)  # keeps the weekday, which matters more than the date


@dataclass(frozen=True, slots=True)
class Window:
    """The days from `start` until before `end`; `grain` is empty where they aren't one period."""

    start: date
    end: date
    grain: Grain | Literal[""] = ""

    @property
    def text(self) -> str:
        """As periods are written; a range names its last day."""
        if self.grain:
            return written(self.grain, self.start)
        return f"range:{self.start}..{self.end - timedelta(days=1)}"

    def pieces(self, calendar: Calendar) -> tuple[Piece, ...]:
        """The stored periods that add up to it."""
        return ((self.grain, self.start),) if self.grain else cover(calendar, self.start, self.end)


def period(calendar: Calendar, grain: Grain, day: date) -> Window:
    """The period of this grain that contains the day."""
    start = calendar.start(grain, day)
    return Window(start, calendar.end(grain, start), grain)


def rolling(day: date, days: int) -> Window:
    """The last so many days, `day` being the last of them."""
    end = day + timedelta(days=1)
    return Window(end - timedelta(days=days), end)


def shown_day(window: Window, day: date) -> date:
    """The day that a board of the window is as of: the given one, or the nearest inside."""
    return max(window.start, min(day, window.end - timedelta(days=1)))


def before(window: Window, snapshot: date) -> Window | None:
    """The window until before the snapshot; None when nothing of it was over by then."""
    return Window(window.start, snapshot) if snapshot > window.start else None


def snapshot(calendar: Calendar, since: Since, day: date) -> date:
    """The day at whose beginning places were taken down, to compare today's with."""
    if since == "week":
        return calendar.start("week", day)
    return day - timedelta(days=1) if since == "yesterday" else day


def earlier(calendar: Calendar, window: Window, over: Over) -> Window | None:
    """The window's own past: the one right before it, or the same one of the year before.

    The same week, day or range of the year before is 364 days back, on the same weekdays; a month,
    quarter or half is the one with the same number in the fiscal year before. None when there is
    no such one.
    """
    if over == "previous":
        if window.grain:
            return period(calendar, window.grain, window.start - timedelta(days=1))
        return Window(window.start - (window.end - window.start), window.start)
    grain = window.grain
    if not grain or grain in ("day", "week"):
        return Window(window.start - YEAR_OF_WEEKS, window.end - YEAR_OF_WEEKS, window.grain)
    year = calendar.start("year", window.start)
    former = calendar.start("year", year - timedelta(days=1))
    number = _starts(calendar, grain, year).index(window.start)
    starts = _starts(calendar, grain, former)
    return period(calendar, grain, starts[number]) if number < len(starts) else None


def to_date(window: Window, past: Window, days: int) -> Window:
    """The first so many days of a past window: all of it when the present one is over."""
    if days >= (window.end - window.start).days:
        return past
    end = past.start + timedelta(days=max(days, 0))
    return past if end >= past.end else Window(past.start, end)


def _starts(calendar: Calendar, grain: Grain, year: date) -> list[date]:
    """The first days of a fiscal year's periods of this grain."""
    found, start, end = [], year, calendar.end("year", year)
    while start < end:
        found.append(start)
        start = calendar.end(grain, start)
    return found


@lru_cache(maxsize=1_000)
def cover(calendar: Calendar, start: date, end: date) -> tuple[Piece, ...]:
    """The fewest stored periods that together are the days from `start` until before `end`."""
    length = (end - start).days
    fewest: list[tuple[int, Grain, int]] = [(0, "day", 0)] * (length + 1)
    for position in range(length - 1, -1, -1):
        day = start + timedelta(days=position)
        choices = []
        for grain in GRAINS:
            if calendar.start(grain, day) == day:
                after = (calendar.end(grain, day) - start).days
                if after <= length:
                    choices.append((1 + fewest[after][0], grain, after))
        fewest[position] = min(choices)
    pieces, position = [], 0
    while position < length:
        _, grain, after = fewest[position]
        pieces.append((grain, start + timedelta(days=position)))
        position = after
    return tuple(pieces)
