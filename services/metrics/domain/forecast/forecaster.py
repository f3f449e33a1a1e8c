"""One subject's forecast: the distribution, and every part of it to be shown."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import msgspec
import numpy as np

from services.metrics.domain.forecast.deals import (
    DAY,
    EVERYTHING,
    UNKNOWN,
    Book,
    Floats,
    Ints,
)
from services.metrics.domain.forecast.learning import (
    HISTORY_DAYS,
    Knowledge,
    Model,
    RunRate,
    run_rate,
)
from services.metrics.domain.forecast.simulation import DRAWS, Prospects, draw

ENOUGH_CLOSED = 10  # closed deals of the whole organisation; fewer teach nothing
OWN_SIZES = 10.0  # sizes of all deals that a subject's own sizes are mixed with
MOST_DAYS = 731  # ahead
STEPS = 64  # of the integral over the days on which new deals come
SHOWN_DEALS = 50
QUANTILES = (0.1, 0.5, 0.9)

CategoryName = Literal["commit", "best_case", "pipeline"]
COMMIT_RATE, BEST_CASE_RATE = 0.7, 0.4
_EXPECTED = (
    "expected to close inside the period, on a day that hasn't passed, "
    "and a win rate from its stage of at least"
)
RULES: dict[CategoryName, str] = {
    "commit": f"{_EXPECTED} {COMMIT_RATE:.0%}",
    "best_case": f"{_EXPECTED} {BEST_CASE_RATE:.0%}",
    "pipeline": "all other open deals",
}


@dataclass(frozen=True, slots=True)
class Window:
    """A period as instants: its first second, and the first one after it."""

    start: int
    end: int


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A what-if: `win_rate` and `deal_size` multiply, the others replace what was learnt."""

    win_rate: float = 1.0
    deal_size: float = 1.0
    new_deals_per_week: float | None = None
    headcount: float | None = None


AS_IT_IS = Change()


@dataclass(frozen=True, slots=True)
class Distribution:
    """Minor units or a count; `mean` is the sum of its reasons."""

    p10: int
    p50: int
    p90: int
    mean: float


@dataclass(frozen=True, slots=True)
class OpenDeal:
    """An open deal's part; `amount` is None where sizes are taken from history."""

    id: str
    person: str
    stage: str
    days_in_stage: int
    amount: int | None
    expected_close: int | None
    category: CategoryName
    win_rate: float | None  # from its stage, some day
    chance: float | None  # to be won inside the period
    expected: float | None


@dataclass(frozen=True, slots=True)
class Category:
    """The open deals of a category and their known amounts."""

    name: CategoryName
    deals: int
    value: int


@dataclass(frozen=True, slots=True)
class OtherCurrency:
    """What is in another currency than the forecast, in minor units of it; it isn't converted."""

    unit: str
    won: int
    open: int


@dataclass(frozen=True, slots=True)
class StageRate:
    """A stage's win rate: as counted, and as used on average for the subject's open deals."""

    stage: str
    open: int
    won: int
    closed: int
    used: float
    median_days_to_win: float | None


@dataclass(frozen=True, slots=True)
class NewBusiness:
    """The run rate: new deals, how many of them are won in time, and what that is worth."""

    per_week: float
    seen: int
    sellers: int
    won: float
    mean_size: float
    expected: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """A forecast with its reasons; where there is no distribution, `missing` says why."""

    won: int
    distribution: Distribution | None
    missing: str
    categories: Sequence[Category]
    open_deals: Sequence[OpenDeal]  # the first `SHOWN_DEALS` by expected value
    stages: Sequence[StageRate]
    new: NewBusiness | None
    closed: int  # deals that were learnt from
    without_amount: int  # open deals
    other_currencies: Sequence[OtherCurrency]


@dataclass(frozen=True, slots=True)
class _Standing:
    """A subject's deals at this moment: won in the period, and open ones with where they are."""

    rows: Ints  # all known deals
    amounts: Ints
    won: int
    open: Ints
    open_amounts: Ints
    stage: Ints
    days: Ints
    rates: Floats


@dataclass(frozen=True, slots=True)
class _Outlook:
    prospects: Prospects
    new: NewBusiness


class Forecaster:
    """Forecasts of one moment, for any subject and period; what is learnt is learnt once."""

    def __init__(self, book: Book, knowledge: Knowledge, *, ahead: int) -> None:
        """`ahead` is the last instant that will be asked about."""
        days = max(0, math.ceil((ahead - knowledge.now) / DAY))
        if days > MOST_DAYS:
            raise ValueError(f"a forecast reaches {MOST_DAYS} days ahead; this is {days}")
        self._book = book
        self._knowledge = knowledge
        self._model = Model(book, knowledge, days)

    def distribution(
        self, subject: str, window: Window, *, counted: bool, draws: int = DRAWS
    ) -> Distribution | None:
        """The forecast of revenue (or of deals when `counted`) without its reasons."""
        standing = self._standing(subject, window, counted=counted)
        if self._missing(subject, standing):
            return None
        outlook = self._outlook(subject, window, standing, AS_IT_IS, counted=counted)
        seed = self._seed(subject, window, counted=counted)
        return _distribution(standing, outlook, draw(outlook.prospects, seed, draws))

    def forecast(
        self, subject: str, window: Window, *, counted: bool, change: Change = AS_IT_IS
    ) -> Forecast:
        """The forecast of revenue (or of deals when `counted`), as it is or as it would be."""
        standing = self._standing(subject, window, counted=counted)
        missing = self._missing(subject, standing)
        distribution = outlook = None
        if not missing:
            outlook = self._outlook(subject, window, standing, change, counted=counted)
            seed = self._seed(subject, window, counted=counted)
            distribution = _distribution(standing, outlook, draw(outlook.prospects, seed))
        rates = standing.rates if outlook else np.zeros(len(standing.open))
        categories = self._categories(window, standing, rates)
        known = np.where(standing.open_amounts == UNKNOWN, 0, standing.open_amounts)
        return Forecast(
            won=standing.won,
            distribution=distribution,
            missing=missing,
            categories=[
                Category(name, int((categories == at).sum()), int(known[categories == at].sum()))
                for at, name in enumerate(RULES)
            ],
            open_deals=self._open_deals(standing, categories, outlook),
            stages=self._stages(standing) if outlook else [],
            new=outlook.new if outlook else None,
            closed=int(self._model.closed.sum()),
            without_amount=int((standing.open_amounts == UNKNOWN).sum()),
            other_currencies=[] if counted else self._elsewhere(subject, window, standing),
        )

    def _standing(self, subject: str, window: Window, *, counted: bool) -> _Standing:
        book, until = self._book, self._knowledge.until
        rows, amounts = book.of(subject, counted=counted)
        known = book.created[rows] <= until
        rows, amounts = rows[known], amounts[known]
        closed = book.closed[rows] <= until
        inside = (book.closed[rows] >= window.start) & (book.closed[rows] < window.end)
        won = amounts[closed & inside & book.won[rows]]
        if until != EVERYTHING and not counted:
            # Facts keep no former amounts: looking back, what an open deal was worth is unknown.
            amounts = np.where(closed, amounts, UNKNOWN)
        is_open = rows[~closed]
        stage, entered = self._model.standing(is_open)
        return _Standing(
            rows=rows,
            amounts=amounts,
            won=int(won[won != UNKNOWN].sum()),
            open=is_open,
            open_amounts=amounts[~closed],
            stage=stage,
            days=np.maximum(self._knowledge.now - entered, 0) // DAY,
            rates=self._model.rates.of(stage, book.person[is_open], book.team[is_open]),
        )

    def _missing(self, subject: str, standing: _Standing) -> str:
        """Why nothing can be said; empty when something can."""
        closed = self._model.closed
        if closed.sum() < ENOUGH_CLOSED:
            return (
                f"{closed.sum()} deals of the last {HISTORY_DAYS} days are closed in the whole "
                f"organisation; a forecast learns from at least {ENOUGH_CLOSED}"
            )
        if not (closed & self._book.won).any():
            return f"no deal of the last {HISTORY_DAYS} days was won in the whole organisation"
        if not (self._book.created[standing.rows] >= self._model.since).any():
            return f"{subject} has no deals that were created in the last {HISTORY_DAYS} days"
        return ""

    def _outlook(
        self, subject: str, window: Window, standing: _Standing, change: Change, *, counted: bool
    ) -> _Outlook:
        book, model, now = self._book, self._model, self._knowledge.now
        begin, end = (max(0.0, (at - now) / DAY) for at in (window.start, window.end))

        def chance(days: float) -> Floats:
            people, teams = book.person[standing.open], book.team[standing.open]
            return model.chance(standing.stage, standing.days, people, teams, days)

        overall = model.rates.overall
        doubt = np.minimum(np.sqrt((1 - overall) / (overall * (model.rates.closed + 1))), 1)
        sizes, weights = self._sizes(standing, counted=counted)
        if not counted:
            sizes = sizes * change.deal_size
        rate = _changed(run_rate(model, subject, standing.rows), change)
        in_time, first_doubt = self._new_won(standing, begin, end, doubt)
        won = rate.per_day * min(in_time * change.win_rate, end)
        mean_size = float(sizes @ weights)
        unknown = standing.open_amounts == UNKNOWN
        scale = 1.0 if counted else change.deal_size
        prospects = Prospects(
            chance=np.clip((chance(end) - chance(begin)) * change.win_rate, 0, 1),
            size=np.where(unknown, 0, standing.open_amounts) * scale,
            unknown=unknown,
            group=standing.stage,
            doubt=doubt,
            new=won,
            new_doubt=rate.relative_variance(end) + first_doubt**2,
            sizes=sizes,
            weights=weights,
            size_doubt=_doubt_of_mean(sizes, weights),
        )
        new = NewBusiness(
            per_week=rate.per_day * 7,
            seen=rate.seen,
            sellers=rate.sellers,
            won=won,
            mean_size=mean_size,
            expected=won * mean_size,
        )
        return _Outlook(prospects, new)

    def _sizes(self, standing: _Standing, *, counted: bool) -> tuple[Floats, Floats]:
        """Sizes of won deals, the subject's own beside all, and the probability of each."""
        if counted:
            return np.ones(1), np.ones(1)
        book, won = self._book, self._model.closed & self._book.won
        own = standing.amounts[won[standing.rows]]
        every = book.amount[won]
        share = len(own) / (len(own) + OWN_SIZES)
        sizes = np.concatenate([own, every])
        weights = np.repeat(
            [share / max(len(own), 1), (1 - share) / len(every)], [len(own), len(every)]
        )
        # A deal won without an amount, or in another currency, adds nothing.
        return np.where(sizes == UNKNOWN, 0, sizes).astype(np.float64), weights

    def _new_won(
        self, standing: _Standing, begin: float, end: float, doubt: Floats
    ) -> tuple[float, float]:
        """Of one new deal a day, how many are won between `begin` and `end`, and the doubt."""
        book, model = self._book, self._model
        rows = standing.rows[book.created[standing.rows] >= model.since]
        first = np.searchsorted(book.stay_row, rows)  # a deal's stays follow each other
        alike, counts = np.unique(
            np.stack([book.stay_stage[first], book.person[rows], book.team[rows]]),
            axis=1,
            return_counts=True,
        )
        stage, person, team = alike
        share = counts / counts.sum()
        fresh = np.zeros_like(stage)

        def won(days: float) -> float:
            return float(model.chance(stage, fresh, person, team, days) @ share)

        return _integral(won, end) - _integral(won, begin), float(doubt[stage] @ share)

    def _seed(self, subject: str, window: Window, *, counted: bool) -> bytes:
        """Names what is asked, but not a change: scenarios meet the same luck."""
        named = (subject, window.start, window.end, counted, self._knowledge.now)
        return hashlib.sha256(msgspec.json.encode(named)).digest()

    def _categories(self, window: Window, standing: _Standing, rates: Floats) -> Ints:
        """Each open deal's place in `RULES`."""
        expected = self._book.expected[standing.open]
        soon = (expected >= max(window.start, self._knowledge.now)) & (expected < window.end)
        return np.select(
            [soon & (rates >= COMMIT_RATE), soon & (rates >= BEST_CASE_RATE)], [0, 1], 2
        )

    def _open_deals(
        self, standing: _Standing, categories: Ints, outlook: _Outlook | None
    ) -> list[OpenDeal]:
        book = self._book
        names = list(RULES)
        amounts, days = standing.open_amounts, standing.days
        expected = np.zeros(len(amounts)) if outlook is None else _expected(outlook)
        order = np.lexsort((standing.open, -amounts, -expected))[:SHOWN_DEALS].tolist()
        return [
            OpenDeal(
                id=(deal := book.deals[standing.open[at]]).id,
                person=deal.shares[0].person,
                stage=book.stages[standing.stage[at]],
                days_in_stage=int(days[at]),
                amount=None if amounts[at] == UNKNOWN else int(amounts[at]),
                expected_close=deal.expected_close,
                category=names[categories[at]],
                win_rate=None if outlook is None else float(standing.rates[at]),
                chance=None if outlook is None else float(outlook.prospects.chance[at]),
                expected=None if outlook is None else float(expected[at]),
            )
            for at in order
        ]

    def _elsewhere(self, subject: str, window: Window, standing: _Standing) -> list[OtherCurrency]:
        sums: dict[str, list[int]] = {}
        for row in standing.rows[self._book.foreign[standing.rows]].tolist():
            deal = self._book.deals[row]
            amount = self._book.part_of(deal, subject)
            if deal.closed_at is None or deal.won is None:
                sums.setdefault(deal.unit, [0, 0])[1] += amount
            elif deal.won and window.start <= deal.closed_at < window.end:
                sums.setdefault(deal.unit, [0, 0])[0] += amount
        return [OtherCurrency(unit, *both) for unit, both in sorted(sums.items())]

    def _stages(self, standing: _Standing) -> list[StageRate]:
        rates = self._model.rates
        return [
            StageRate(
                stage=self._book.stages[stage],
                open=int((mine := standing.stage == stage).sum()),
                won=int(rates.won[stage]),
                closed=int(rates.closed[stage]),
                used=float(standing.rates[mine].mean()),
                median_days_to_win=None if math.isnan(rates.days[stage]) else rates.days[stage],
            )
            for stage in np.unique(standing.stage).tolist()
        ]


def _distribution(standing: _Standing, outlook: _Outlook, ends: Floats) -> Distribution:
    low, middle, high = (
        standing.won + round(float(end))
        for end in np.quantile(ends, QUANTILES, method="inverted_cdf")
    )
    mean = standing.won + float(_expected(outlook).sum()) + outlook.new.expected
    return Distribution(low, middle, high, mean)


def _expected(outlook: _Outlook) -> Floats:
    """What each open deal adds to the mean."""
    prospects = outlook.prospects
    return prospects.chance * np.where(prospects.unknown, outlook.new.mean_size, prospects.size)


def _changed(rate: RunRate, change: Change) -> RunRate:
    if change.new_deals_per_week is not None:
        rate = replace(rate, per_day=change.new_deals_per_week / 7)
    if change.headcount is not None:
        if not rate.sellers:
            raise ValueError("headcount: nobody has created deals lately that more people could")
        rate = replace(rate, per_day=rate.per_day * change.headcount / rate.sellers)
    return rate


def _doubt_of_mean(sizes: Floats, weights: Floats) -> float:
    """The relative variance of a weighted mean, as a sample of sizes yet to come knows it."""
    mean = float(sizes @ weights)
    variance = float(np.square(sizes - mean) @ weights)
    return variance * float(np.square(weights).sum()) / mean**2 if mean else 0.0


def _integral(of: Callable[[float], float], days: float) -> float:
    """Of a function of days from 0 to `days`, by trapezes."""
    if days <= 0:
        return 0.0
    steps = min(math.ceil(days), STEPS)
    values = [of(days * step / steps) for step in range(steps + 1)]
    return (sum(values) - (values[0] + values[-1]) / 2) * days / steps
