"""Forecasts: what will have been won by a period's end, why, and how wrong it was in the past.

Everybody who may see a subject's numbers may see its forecast; the single deals behind it are for
those who may see the records behind a number.
"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from kit import pages
from kit.auth import Principal
from kit.http import Problem, json_response
from schemas.directory import Directory
from schemas.periods import Range
from services.metrics.api.parts import (
    PROBLEMS,
    Parts,
    Period,
    SubjectText,
    metric_of,
    period_of,
    require_number,
    require_records,
    subject_of,
    unit_of,
)
from services.metrics.domain import numbers
from services.metrics.domain.catalogue import COUNT
from services.metrics.domain.forecast.backtest import Score
from services.metrics.domain.forecast.forecaster import (
    MOST_DAYS,
    RULES,
    Change,
    Distribution,
    Forecast,
    Window,
)
from services.metrics.store.forecasts import PAST_PERIODS, past_windows, window_of

MetricName = Literal["revenue_won", "deals_won"]
PERIODS = "month:, quarter:, half: or year:"

PeriodText = Annotated[
    str, Query(description="A month, quarter, half or year, e.g. `quarter:2026-10-01`.")
]
Metric = Annotated[MetricName, Query(description="What is forecast.")]


class DistributionOut(BaseModel):
    """As decimal text: with a probability of 10, 50 and 90 % no more than these; the mean."""

    p10: str
    p50: str
    p90: str
    mean: str


class CategoryOut(BaseModel):
    """Open deals of a category; the values of all categories are the open value."""

    category: str
    rule: str
    deals: int
    value: str


class DealOut(BaseModel):
    """An open deal; `amount` is null where a size from history stands for it."""

    id: str
    person: str
    stage: str | None
    days_in_stage: int
    amount: str | None
    expected_close: str | None
    category: str
    win_rate: str | None
    probability: str | None
    expected: str | None


class StageOut(BaseModel):
    """A stage's win rate: as counted in history, and as used for the subject's open deals."""

    stage: str | None
    open: int
    won: int
    closed: int
    win_rate: str
    median_days_to_win: str | None


class RunRateOut(BaseModel):
    """Deals that will be created and won in what is left of the period."""

    new_deals_per_week: str
    learnt_from: int
    sellers: int
    expected_won: str
    mean_size: str
    expected: str


class OtherCurrencyOut(BaseModel):
    """Not in the forecast: amounts aren't converted."""

    unit: str
    won: str
    open: str


class ErrorOut(BaseModel):
    """The error at a share of past periods; `coverage` is 0.8 when P10 to P90 is right."""

    share: str
    periods: int
    mape: str | None
    bias: str | None
    coverage: str
    pinball: str | None


class ForecastOut(BaseModel):
    """A forecast; `distribution` is null when nothing can be said, and `reason` says why."""

    subject: str
    metric: str
    period: str
    unit: str
    as_of: str
    won: str
    distribution: DistributionOut | None
    reason: str | None
    open_deals: int
    open_value: str
    without_amount: int
    categories: list[CategoryOut]
    deals: list[DealOut] | None
    stages: list[StageOut]
    run_rate: RunRateOut | None
    learnt_from: int
    other_currencies: list[OtherCurrencyOut]
    backtest: list[ErrorOut] | None = None


class BacktestOut(BaseModel):
    """What forecasts of past periods would have been worth; empty without enough history."""

    subject: str
    metric: str
    grain: str
    errors: list[ErrorOut]


class WhatIf(BaseModel):
    """A forecast under other assumptions; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    subject: str
    period: str
    metric: MetricName = "revenue_won"
    win_rate: Decimal = Field(
        default=Decimal(1), ge=0, le=10, description="Multiplies every chance to be won."
    )
    deal_size: Decimal = Field(
        default=Decimal(1), ge=0, le=100, description="Multiplies the size of what isn't won yet."
    )
    new_deals_per_week: Decimal | None = Field(default=None, ge=0, le=1_000_000)
    headcount: Decimal | None = Field(
        default=None, ge=0, le=1_000_000, description="Sellers, instead of those of late."
    )


class WhatIfOut(BaseModel):
    """Both distributions, and what the change makes: changed less as it is."""

    subject: str
    metric: str
    period: str
    unit: str
    as_of: str
    as_it_is: DistributionOut | None
    changed: DistributionOut | None
    difference: DistributionOut | None
    reason: str | None


def add(routes: APIRouter, parts: Parts) -> None:
    """GET /forecasts, GET /forecasts/backtest and POST /forecasts/what-if."""

    async def asked(
        principal: Principal, subject: str, period: str, metric: str
    ) -> "tuple[Directory, Period, Window, str]":
        """What is asked about, once it is clear that it may be: and the metric's unit."""
        who = subject_of(subject)
        async with parts.database.transaction() as transaction:
            directory = await parts.context.directory_of(transaction, principal.tenant)
            catalogue = await parts.context.catalogue_of(transaction, principal.tenant)
        when = period_of(parts, directory, period)
        if isinstance(when.grain, Range) or when.grain not in PAST_PERIODS:
            detail = f"period {period!r}: a forecast is of one that begins with {PERIODS}"
            raise Problem(422, "invalid-period", detail)
        found = metric_of(catalogue, metric)
        require_number(principal, directory, found, who, when.asked_on)
        ahead = (when.end - directory.calendar.local_day(parts.clock())).days
        if ahead >= MOST_DAYS:
            detail = f"period {period!r}: it ends in {ahead} days; forecasts reach {MOST_DAYS}"
            raise Problem(422, "invalid-period", detail)
        unit = unit_of(directory, found, "")
        return directory, when, window_of(directory.calendar, when.start, when.end), unit

    @routes.get("/forecasts", response_model=ForecastOut, responses=PROBLEMS)
    async def forecast(
        request: Request,
        principal: Annotated[Principal, Depends(parts.principal)],
        subject: SubjectText,
        period: PeriodText,
        metric: Metric = "revenue_won",
        *,
        backtest: Annotated[
            bool, Query(description="With the error of past periods; the first time takes longer.")
        ] = True,
    ) -> Response:
        """What will have been won: P10, P50, P90, with its reasons and the error of the past."""
        directory, when, window, unit = await asked(principal, subject, period, metric)
        counted = metric == "deals_won"
        as_of, (found,) = await parts.forecasts.forecast(
            principal.tenant, subject, window, counted=counted, changes=()
        )
        errors = None
        if backtest:
            errors = await parts.forecasts.scores(
                principal.tenant, subject, _past(directory, when), counted=counted
            )
        body = {
            "subject": subject,
            "metric": metric,
            "period": when.text,
            "unit": unit,
            "as_of": as_of.isoformat(),
            **_shown(found, unit, deals=_sees_deals(principal, directory, subject, when)),
            "backtest": None if errors is None else [_error(each) for each in errors],
        }
        return pages.tagged(request, body)

    @routes.get("/forecasts/backtest", response_model=BacktestOut, responses=PROBLEMS)
    async def backtest(
        request: Request,
        principal: Annotated[Principal, Depends(parts.principal)],
        subject: SubjectText,
        period: PeriodText,
        metric: Metric = "revenue_won",
    ) -> Response:
        """How wrong forecasts of the periods before this one would have been."""
        directory, when, _, _ = await asked(principal, subject, period, metric)
        errors = await parts.forecasts.scores(
            principal.tenant, subject, _past(directory, when), counted=metric == "deals_won"
        )
        body = {
            "subject": subject,
            "metric": metric,
            "grain": when.grain,
            "errors": [_error(each) for each in errors],
        }
        return pages.tagged(request, body)

    @routes.post("/forecasts/what-if", response_model=WhatIfOut, responses=PROBLEMS)
    async def what_if(
        principal: Annotated[Principal, Depends(parts.principal)], body: WhatIf
    ) -> Response:
        """The forecast under other assumptions, and the difference; nothing is kept."""
        _, when, window, unit = await asked(principal, body.subject, body.period, body.metric)
        change = Change(
            win_rate=float(body.win_rate),
            deal_size=float(body.deal_size),
            new_deals_per_week=_float(body.new_deals_per_week),
            headcount=_float(body.headcount),
        )
        try:
            as_of, (now, then) = await parts.forecasts.forecast(
                principal.tenant,
                body.subject,
                window,
                counted=body.metric == "deals_won",
                changes=[change],
            )
        except ValueError as error:
            raise Problem(422, "invalid-change", str(error)) from error
        old, new = now.distribution, then.distribution
        difference = None
        if old is not None and new is not None:
            difference = Distribution(
                new.p10 - old.p10, new.p50 - old.p50, new.p90 - old.p90, new.mean - old.mean
            )
        return json_response(
            {
                "subject": body.subject,
                "metric": body.metric,
                "period": when.text,
                "unit": unit,
                "as_of": as_of.isoformat(),
                "as_it_is": _distribution(old, unit),
                "changed": _distribution(new, unit),
                "difference": _distribution(difference, unit),
                "reason": now.missing or None,
            }
        )


def _past(directory: Directory, when: Period) -> list[Window]:
    assert not isinstance(when.grain, Range)  # refused before
    return past_windows(directory, when.grain, when.start)


def _sees_deals(principal: Principal, directory: Directory, subject: str, when: Period) -> bool:
    try:
        require_records(principal, directory, subject, when.asked_on)
    except Problem:
        return False
    return True


def _shown(found: Forecast, unit: str, *, deals: bool) -> dict[str, Any]:
    new = found.new
    return {
        "won": _text(found.won, unit),
        "distribution": _distribution(found.distribution, unit),
        "reason": found.missing or None,
        "open_deals": sum(category.deals for category in found.categories),
        "open_value": _text(sum(category.value for category in found.categories), unit),
        "without_amount": found.without_amount,
        "categories": [
            {
                "category": each.name,
                "rule": RULES[each.name],
                "deals": each.deals,
                "value": _text(each.value, unit),
            }
            for each in found.categories
        ],
        "deals": [
            {
                "id": each.id,
                "person": each.person,
                "stage": each.stage or None,
                "days_in_stage": each.days_in_stage,
                "amount": None if each.amount is None else _text(each.amount, unit),
                "expected_close": _instant(each.expected_close),
                "category": each.category,
                "win_rate": _share(each.win_rate),
                "probability": _share(each.chance),
                "expected": None if each.expected is None else _mean(each.expected, unit),
            }
            for each in found.open_deals
        ]
        if deals
        else None,
        "stages": [
            {
                "stage": each.stage or None,
                "open": each.open,
                "won": each.won,
                "closed": each.closed,
                "win_rate": _share(each.used),
                "median_days_to_win": None
                if each.median_days_to_win is None
                else f"{each.median_days_to_win:.1f}",
            }
            for each in found.stages
        ],
        "run_rate": None
        if new is None
        else {
            "new_deals_per_week": f"{new.per_week:.2f}",
            "learnt_from": new.seen,
            "sellers": new.sellers,
            "expected_won": f"{new.won:.2f}",
            "mean_size": _mean(new.mean_size, unit),
            "expected": _mean(new.expected, unit),
        },
        "learnt_from": found.closed,
        "other_currencies": [
            {
                "unit": each.unit,
                "won": _text(each.won, each.unit),
                "open": _text(each.open, each.unit),
            }
            for each in found.other_currencies
        ],
    }


def _error(score: Score) -> dict[str, Any]:
    return {
        "share": f"{score.share:.2f}",
        "periods": score.periods,
        "mape": _share(score.mape),
        "bias": _share(score.bias),
        "coverage": _share(score.coverage),
        "pinball": _share(score.pinball),
    }


def _distribution(found: Distribution | None, unit: str) -> dict[str, str] | None:
    if found is None:
        return None
    return {
        "p10": _text(found.p10, unit),
        "p50": _text(found.p50, unit),
        "p90": _text(found.p90, unit),
        "mean": _mean(found.mean, unit),
    }


def _text(value: int, unit: str) -> str:
    """Exact: a count, or minor units as decimal text of the currency."""
    return numbers.text(value, unit)


def _mean(value: float, unit: str) -> str:
    """An estimate: money to the minor unit, a mean number of deals with two places."""
    return f"{value:.2f}" if unit == COUNT else numbers.text(round(value), unit)


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _instant(second: int | None) -> str | None:
    return None if second is None else datetime.fromtimestamp(second, UTC).isoformat()


def _float(value: Decimal | None) -> float | None:
    return None if value is None else float(value)
