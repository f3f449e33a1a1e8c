"""Deals out of facts, and forecasts of them, kept for as long as nothing has changed.

A tenant's deals are read in one pass, when numbers were folded since or a day has begun. A large
tenant's are read again only after a rest in proportion to how long reading took: in such a company
a deal doesn't move the forecast, and boards shouldn't wait for it. `now` moves in quarter hours, so
that an answer stays the same for as long.

Whose an open deal is, is decided as if it were won now: by today's directory. One forecast and one
backtest are computed at a time, in threads: numbers and boards come first, and nobody's forecast
waits for a large company's backtest.
"""

import asyncio
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from kit.clock import Clock
from kit.database import Database, Transaction
from schemas.crm import OPPORTUNITY
from schemas.directory import Directory
from schemas.periods import Calendar, Grain
from services.metrics.domain.credits import (
    QUARTER_HOUR,
    BadSharesError,
    Credit,
    Crediting,
    Shares,
    decode,
    read_shares,
)
from services.metrics.domain.forecast import backtest
from services.metrics.domain.forecast.backtest import Score
from services.metrics.domain.forecast.deals import Book, Deal, Share
from services.metrics.domain.forecast.forecaster import (
    AS_IT_IS,
    Change,
    Forecast,
    Forecaster,
    Window,
)
from services.metrics.domain.forecast.learning import Knowledge
from services.metrics.store import counters
from services.metrics.store.context import Context

ROWS_AT_ONCE = 100  # facts decoded before others get a turn: some milliseconds
REST_RATIO = 20.0  # reading a tenant's deals takes at most a twentieth of a processor
KEPT_DEALS = 500_000  # of all tenants together: some 700 MB
KEPT_ANSWERS = 1_000
PAST_PERIODS: dict[str, int] = {"month": 12, "quarter": 8, "half": 4, "year": 3}

_DEALS = """
SELECT id, source, owner_id, shares, territories, credits FROM fact
WHERE tenant = $1 AND type = $2
"""

T = TypeVar("T")


@dataclass(slots=True)
class _Kept:
    sequence: int
    day: date
    book: Book
    rested: float  # when it may be read again, by the monotonic clock


class Forecasts:
    """Forecasts of any tenant, by the business clock."""

    def __init__(self, database: Database, context: Context, clock: Clock) -> None:
        self._database = database
        self._context = context
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._answers: OrderedDict[Hashable, Any] = OrderedDict()
        self._turn = asyncio.Lock()
        self._trying = asyncio.Lock()

    async def forecast(
        self, tenant: str, subject: str, window: Window, *, counted: bool, changes: Sequence[Change]
    ) -> tuple[datetime, list[Forecast]]:
        """The forecast as it is, then with each of the changes; and of when it is."""
        async with self._turn:
            kept, now = await self._read(tenant)
            place = (tenant, kept.book.digest(), now, subject, window, counted, tuple(changes))

            def compute() -> list[Forecast]:
                forecaster = Forecaster(kept.book, Knowledge(now), ahead=window.end)
                return [
                    forecaster.forecast(subject, window, counted=counted, change=change)
                    for change in (AS_IT_IS, *changes)
                ]

            found = await self._answer(place, compute)
        return datetime.fromtimestamp(now, self._clock().tzinfo), found

    async def scores(
        self, tenant: str, subject: str, windows: Sequence[Window], *, counted: bool
    ) -> list[Score]:
        """How wrong forecasts of these past periods would have been, the latest first."""
        async with self._turn:
            kept, _ = await self._read(tenant)
        async with self._trying:
            past = kept.book.digest(max((window.end for window in windows), default=0))
            place = (tenant, past, subject, tuple(windows), counted)
            return await self._answer(
                place,
                lambda: backtest.scores(
                    backtest.trials(kept.book, subject, windows, counted=counted)
                ),
            )

    async def _answer(self, place: Hashable, compute: Callable[[], T]) -> T:
        if place not in self._answers:
            self._answers[place] = await asyncio.to_thread(compute)
            if len(self._answers) > KEPT_ANSWERS:
                self._answers.popitem(last=False)
        found: T = self._answers[place]
        return found

    async def _read(self, tenant: str) -> tuple[_Kept, int]:
        """The tenant's deals, and now."""
        instant = int(self._clock().timestamp())
        now = instant - instant % QUARTER_HOUR
        async with self._database.transaction() as transaction:
            sequence = (await counters.instant(transaction, tenant)).sequence
            directory = await self._context.directory_of(transaction, tenant)
            day = directory.calendar.local_day(self._clock())
            kept = self._kept.get(tenant)
            if (
                kept is not None
                and kept.day == day
                and (kept.sequence == sequence or time.monotonic() < kept.rested)
            ):
                self._kept.move_to_end(tenant)
                return kept, now
            began = time.monotonic()
            deals = await self._deals(transaction, tenant, instant)
        book = await asyncio.to_thread(Book, deals, directory.organisation.currency)
        ended = time.monotonic()
        kept = _Kept(sequence, day, book, ended + REST_RATIO * (ended - began))
        self._kept[tenant] = kept
        self._kept.move_to_end(tenant)
        while len(self._kept) > 1 and sum(len(k.book) for k in self._kept.values()) > KEPT_DEALS:
            self._kept.popitem(last=False)
        return kept, now

    async def _deals(self, transaction: Transaction, tenant: str, now: int) -> list[Deal]:
        crediting = await self._context.crediting(transaction, tenant)
        currency = crediting.directory.organisation.currency
        found: list[Deal] = []
        cursor = await transaction.driver.cursor(_DEALS, tenant, OPPORTUNITY)
        while rows := await cursor.fetch(ROWS_AT_ONCE):
            for row in rows:
                deal = _deal(row, crediting, currency, now)
                if deal is not None:
                    found.append(deal)
            await asyncio.sleep(0)
        return found


def past_windows(directory: Directory, grain: Grain, start: date) -> list[Window]:
    """The periods before the one that begins on `start`, the latest first."""
    calendar, found = directory.calendar, []
    for _ in range(PAST_PERIODS[grain]):
        end, start = start, calendar.start(grain, start - timedelta(days=1))
        found.append(window_of(calendar, start, end))
    return found


def window_of(calendar: Calendar, start: date, end: date) -> Window:
    """The organisation's local days from `start` until before `end`, as instants."""
    zone = ZoneInfo(calendar.zone)
    return Window(
        *(int(datetime(d.year, d.month, d.day, tzinfo=zone).timestamp()) for d in (start, end))
    )


def _deal(row: Sequence[Any], crediting: Crediting, currency: str, now: int) -> Deal | None:
    """What a fact says of its deal; None when that is nothing, or it counts for nobody."""
    number, source, owner, written, territories, text = row
    credited = decode(text)
    first: dict[str, Credit] = {}
    by_metric: dict[str, list[Credit]] = defaultdict(list)
    stages: list[tuple[int, str]] = []
    for credit in credited:
        metric, at, stage = credit.metric.partition("@")
        if at:
            if metric == "stages_entered":
                stages.append((credit.at, stage))
            continue
        first.setdefault(metric, credit)
        by_metric[metric].append(credit)
    won, lost = first.get("deals_won"), first.get("deals_lost")
    closed = won or lost
    if closed is not None:
        amounts = by_metric["revenue_won" if won else "revenue_lost"]
        shares = _shared([closed], amounts)
    else:
        amounts = by_metric["open_value"]
        shares = _as_of(now, crediting, (source, owner, written, territories), amounts)
    created = first.get("opportunities_created")
    instants = [at for at, _ in stages] + ([closed.at] if closed else [])
    if not shares or (created is None and not instants):
        return None
    expected = first.get("pipeline_value")
    return Deal(
        id=number,
        created=created.at if created is not None else min(instants),
        stages=tuple(stages),
        closed_at=closed.at if closed else None,
        won=None if closed is None else won is not None,
        shares=shares,
        unit=amounts[0].unit if amounts else currency,
        expected_close=expected.at if expected is not None else None,
    )


def _as_of(
    now: int, crediting: Crediting, whose: tuple[str, str, str, str], amounts: Sequence[Credit]
) -> tuple[Share, ...]:
    """The shares of an open deal, were it won now."""
    source, owner, written, territories = whose
    total = sum(credit.value for credit in amounts)
    won = [("deals_won", "count", now, 1)]
    revenue = [("revenue_won", credit.unit, now, total) for credit in amounts[:1]]
    credited = crediting.credits(
        source, owner, [*won, *revenue], shares=_read(written), territories=territories
    )
    return _shared(
        [c for c in credited if c.metric == "deals_won"],
        [c for c in credited if c.metric == "revenue_won"],
    )


def _shared(main: Iterable[Credit], amounts: Sequence[Credit]) -> tuple[Share, ...]:
    """Who has which part of a deal, first whose it is; nobody is left out."""
    found: dict[str, Share] = {}
    for credit in main:
        if credit.person:
            found[credit.person] = Share(credit.person, tuple(credit.subjects), None)
    for credit in amounts:
        if credit.person:
            known = found.get(credit.person)
            amount = credit.value + ((known and known.amount) or 0)
            found[credit.person] = Share(credit.person, tuple(credit.subjects), amount)
    return tuple(found.values())


def _read(written: str) -> Shares:
    try:
        return read_shares(written) if written else ()
    except BadSharesError:  # as when it was credited: it counts for its owner alone
        return ()
