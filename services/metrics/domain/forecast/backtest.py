"""How wrong forecasts would have been: the same forecaster, put into the past.

At 25, 50 and 75 % of each past period it is asked what it asks now, with what was known then: the
deals that existed, the stages entered and the closings until that instant. What facts keep no
history of is unknown to it: what an open deal was worth (a size from history stands for it, so that
the real forecast, which has amounts, is rather better than what is published), and when it was
expected to close (which the forecast doesn't use). Whose deal it was is as today; deals that were
deleted since are missing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.metrics.domain.forecast.deals import UNKNOWN, Book
from services.metrics.domain.forecast.forecaster import (
    QUANTILES,
    Distribution,
    Forecaster,
    Window,
)
from services.metrics.domain.forecast.learning import Knowledge

SHARES = (0.25, 0.5, 0.75)
DRAWS = 1_000  # errors are averages over many forecasts


@dataclass(frozen=True, slots=True)
class Trial:
    """What would have been said of a past period at a share of it, and what came."""

    window: Window
    share: float
    said: Distribution
    came: int


@dataclass(frozen=True, slots=True)
class Score:
    """The error at a share of the period, over past periods.

    `mape`: mean of |P50 - came| ÷ came, of periods in which something came; `bias`: sum of
    (mean - came) ÷ sum of what came, positive when too much was promised; `coverage`: the share
    that came within P10 to P90, 0.8 when the distribution is right; `pinball`: mean pinball loss
    of P10, P50 and P90 ÷ mean of what came. None where it would divide by nothing.
    """

    share: float
    periods: int
    mape: float | None
    bias: float | None
    coverage: float
    pinball: float | None


def trials(book: Book, subject: str, windows: Iterable[Window], *, counted: bool) -> list[Trial]:
    """Forecasts of these past periods as they would have been; none where nothing could be said."""
    rows, amounts = book.of(subject, counted=counted)
    found = []
    for window in windows:
        inside = (book.closed[rows] >= window.start) & (book.closed[rows] < window.end)
        won = amounts[inside & book.won[rows]]
        came = int(won[won != UNKNOWN].sum())
        for share in SHARES:
            then = window.start + round((window.end - window.start) * share)
            forecaster = Forecaster(book, Knowledge(then, then), ahead=window.end)
            said = forecaster.distribution(subject, window, counted=counted, draws=DRAWS)
            if said is not None:
                found.append(Trial(window, share, said, came))
    return found


def scores(tried: Sequence[Trial]) -> list[Score]:
    """The error by share of the period; empty when nothing could be tried."""
    return [
        _score(share, mine) for share in SHARES if (mine := [t for t in tried if t.share == share])
    ]


def _score(share: float, tried: Sequence[Trial]) -> Score:
    total = sum(trial.came for trial in tried)
    off = [abs(trial.said.p50 - trial.came) / trial.came for trial in tried if trial.came]
    within = sum(trial.said.p10 <= trial.came <= trial.said.p90 for trial in tried)
    return Score(
        share=share,
        periods=len(tried),
        mape=sum(off) / len(off) if off else None,
        bias=sum(trial.said.mean - trial.came for trial in tried) / total if total else None,
        coverage=within / len(tried),
        pinball=sum(map(_pinball, tried)) / total if total else None,
    )


def _pinball(trial: Trial) -> float:
    said = (trial.said.p10, trial.said.p50, trial.said.p90)
    losses = [
        max(q * (trial.came - value), (q - 1) * (trial.came - value))
        for q, value in zip(QUANTILES, said, strict=True)
    ]
    return sum(losses) / len(losses)
