"""Forecasts: their laws, what they learn, and that they'd have been right about a known company."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.metrics.domain.forecast.backtest import Trial, scores, trials
from services.metrics.domain.forecast.deals import DAY, Book, Deal, Share
from services.metrics.domain.forecast.forecaster import (
    MOST_DAYS,
    Change,
    Distribution,
    Forecast,
    Forecaster,
    Window,
)
from services.metrics.domain.forecast.learning import FASTEST, Knowledge
from services.metrics.domain.forecast.simulation import Prospects, draw

QUARTER = Window(360 * DAY, 450 * DAY)
HALFWAY = 405 * DAY
EVERYONE = "org:all"


def deal(
    number: str,
    *,
    created: float,
    closed_at: float | None = None,
    won: bool | None = None,
    amount: int | None = 10_000,
    unit: str = "EUR",
    person: str = "p1",
    stages: Sequence[tuple[float, str]] = (),
    expected_close: float | None = None,
) -> Deal:
    """A deal of the team north; days instead of instants."""
    return Deal(
        id=number,
        created=round(created * DAY),
        stages=tuple((round(day * DAY), stage) for day, stage in stages),
        closed_at=None if closed_at is None else round(closed_at * DAY),
        won=won,
        shares=(Share(person, ("team:north",), amount),),
        unit=unit,
        expected_close=None if expected_close is None else round(expected_close * DAY),
    )


def history(wins: int = 30, losses: int = 30, *, until: float = 300, **known: Any) -> list[Deal]:
    """Closed deals, one a week, each ten days in the stage `offer`."""
    found = []
    for number in range(wins + losses):
        created = until - 20 - number * 3
        found.append(
            deal(
                f"h{number:03}",
                created=created,
                stages=[(created + 1, "offer")],
                closed_at=created + 11,
                won=number % (wins + losses) < wins,
                **known,
            )
        )
    return found


def forecast(deals: Sequence[Deal], subject: str = EVERYONE, **asked: Any) -> Forecast:
    window, now = asked.pop("window", QUARTER), asked.pop("now", HALFWAY)
    forecaster = Forecaster(Book(deals, "EUR"), Knowledge(now), ahead=window.end)
    return forecaster.forecast(subject, window, **({"counted": False} | asked))


def said(found: Forecast) -> Distribution:
    assert found.distribution is not None, found.missing
    return found.distribution


def an_open(number: str, day: float = 400, **known: Any) -> Deal:
    return deal(number, created=day - 1, stages=[(day, "offer")], **known)


@st.composite
def a_company(dice: st.DrawFn) -> list[Deal]:
    """Any deals at all, whatever makes no sense about them included."""
    day = st.integers(-10, 470)
    found = []
    for number in range(dice(st.integers(0, 40))):
        won = dice(st.sampled_from([None, None, True, True, False]))
        found.append(
            deal(
                f"d{number}",
                created=dice(day),
                closed_at=dice(st.none() | day),
                won=won,
                amount=dice(st.none() | st.integers(0, 10**14)),
                unit=dice(st.sampled_from(["EUR", "EUR", "EUR", "USD"])),
                expected_close=dice(st.none() | day),
                stages=dice(st.lists(st.tuples(day, st.sampled_from("abc")), max_size=4)),
                person=dice(st.sampled_from(["p1", "p2"])),
            )
        )
    return found


METRICS = st.sampled_from(["revenue_won", "deals_won"])
SUBJECTS = st.sampled_from([EVERYONE, "person:p1", "team:north", "person:nobody"])


@settings(max_examples=40, deadline=None)
@given(a_company(), SUBJECTS, METRICS, st.integers(300, 460))
def test_any_deals_give_ordered_quantiles_and_categories_that_sum_to_the_open_value(
    deals: list[Deal], subject: str, metric: str, day: int
) -> None:
    counted = metric == "deals_won"
    found = forecast([*history(), *deals], subject, counted=counted, now=day * DAY)
    mine = [d for d in deals if subject in (EVERYONE, "team:north", f"person:{d.shares[0].person}")]
    still = [d for d in mine if d.won is None or d.closed_at is None]
    value = sum(1 if counted else (d.shares[0].amount or 0) * (d.unit == "EUR") for d in still)

    assert sum(c.value for c in found.categories) == value
    assert sum(c.deals for c in found.categories) == len(still)
    if found.distribution is None:
        assert subject == "person:nobody" or found.missing
    else:
        assert found.won <= said(found).p10 <= said(found).p50 <= said(found).p90
        assert np.isfinite(said(found).mean)


@settings(max_examples=20, deadline=None)
@given(a_company(), SUBJECTS, st.lists(st.floats(0, 3), min_size=2, max_size=4))
def test_a_higher_win_rate_never_lowers_a_forecast(
    deals: list[Deal], subject: str, rates: list[float]
) -> None:
    company = [*history(), *deals]
    changed = [forecast(company, subject, change=Change(win_rate=r)) for r in sorted(rates)]
    for lower, higher in pairwise(changed):
        if lower.distribution and higher.distribution:
            assert lower.distribution.p10 <= higher.distribution.p10
            assert lower.distribution.p50 <= higher.distribution.p50
            assert lower.distribution.p90 <= higher.distribution.p90
            assert lower.distribution.mean <= higher.distribution.mean * (1 + 1e-12)


@settings(max_examples=20, deadline=None)
@given(a_company(), st.randoms(use_true_random=False))
def test_the_same_deals_in_any_order_give_the_same_forecast(deals: list[Deal], dice: Any) -> None:
    company = [*history(), *deals]
    first = forecast(company)
    dice.shuffle(company)

    assert forecast(company) == first


def as_known(it: Deal, now: int) -> Deal | None:
    """The deal as facts had it then; what it was worth, while it was open, was something else."""
    if it.created > now:
        return None
    closed = it.won is not None and it.closed_at is not None and it.closed_at <= now
    shares = tuple(Share(s.person, s.subjects, s.amount if closed else 77) for s in it.shares)
    return Deal(
        id=it.id,
        created=it.created,
        stages=tuple((at, stage) for at, stage in it.stages if at <= now),
        closed_at=it.closed_at if closed else None,
        won=it.won if closed else None,
        shares=shares,
        unit=it.unit,
    )


@settings(max_examples=20, deadline=None)
@given(a_company(), st.integers(300, 440), SUBJECTS, METRICS)
def test_nothing_that_happened_later_changes_what_would_have_been_said(
    deals: list[Deal], day: int, subject: str, metric: str
) -> None:
    now, company = day * DAY, [*history(), *deals]
    of_then = [known for it in company if (known := as_known(it, now)) is not None]
    looking_back, back_then = (
        Forecaster(Book(those, "EUR"), Knowledge(now, now), ahead=QUARTER.end).distribution(
            subject, QUARTER, counted=metric == "deals_won"
        )
        for those in (company, of_then)
    )

    assert looking_back == back_then


def test_without_open_deals_and_new_ones_what_is_won_is_the_forecast() -> None:
    won = deal("w", created=100, closed_at=365, won=True, amount=12_345)
    found = forecast([*history(until=200), won])

    assert said(found) == Distribution(12_345, 12_345, 12_345, 12_345)


def test_a_period_that_is_over_is_what_was_won() -> None:
    inside = [deal(f"w{n}", created=300, closed_at=n, won=True) for n in (359.9, 360, 449.9, 450)]
    found = forecast([*history(), *inside, an_open("o", 440)], now=460 * DAY)

    assert said(found) == Distribution(20_000, 20_000, 20_000, 20_000)


@pytest.mark.parametrize(
    ("deals", "reason"),
    [
        ([], "0 deals of the last 730 days are closed"),
        (history(5, 4), "9 deals of the last 730 days are closed"),
        (history(0, 12), "no deal of the last 730 days was won"),
        (history(until=-900), "0 deals of the last 730 days are closed"),
    ],
)
def test_without_history_there_is_no_forecast_but_a_reason(deals: list[Deal], reason: str) -> None:
    found = forecast([*deals, an_open("o")])

    assert found.distribution is None
    assert reason in found.missing
    assert [d.chance for d in found.open_deals] == [None]


def test_who_has_no_deals_has_no_forecast() -> None:
    assert "person:nobody has no deals" in forecast(history(), "person:nobody").missing


def test_a_deal_is_won_as_often_and_as_soon_as_those_before_it() -> None:
    company = [*history(60, 20, until=330), an_open("fresh", 404.9), an_open("old", 300)]
    early = {d.id: d for d in forecast(company, now=405 * DAY).open_deals}
    late = {d.id: d for d in forecast(company, now=448 * DAY).open_deals}

    # Deals take ten days in the stage and three of four are won.
    assert early["fresh"].win_rate == pytest.approx(0.75, abs=0.02)
    assert early["fresh"].chance == pytest.approx(0.75, abs=0.1)
    assert (late["fresh"].chance or 0) < (early["fresh"].chance or 0)


def test_who_wins_more_is_believed_to_but_not_after_a_few_deals() -> None:
    usual = [
        deal(f"{who}{n}", created=n, closed_at=n + 10, won=n % 10 < rate, person=who)
        for who, rate in (("often", 8), ("seldom", 2), ("middle", 5), ("half", 5))
        for n in range(200, 300)
    ]
    lucky = [deal(f"l{n}", created=n, closed_at=n + 10, won=True, person="new") for n in (290, 291)]
    ours = [deal(f"o-{who}", created=399, person=who) for who in ("often", "seldom", "new")]
    found = {d.person: d.win_rate or 0 for d in forecast([*usual, *lucky, *ours]).open_deals}

    assert found["often"] == pytest.approx(0.8, abs=0.05)
    assert found["seldom"] == pytest.approx(0.2, abs=0.05)
    assert 0.5 < found["new"] < 0.75


def test_short_business_is_expected_without_an_open_deal() -> None:
    weekly = [deal(f"s{n:03}", created=n, closed_at=n + 2, won=n % 2 == 0) for n in range(150, 404)]
    found = forecast(weekly, "person:p1")
    came = sum(1 for d in weekly if d.won and (d.closed_at or 0) >= QUARTER.start)

    assert found.new is not None
    assert found.new.per_week == pytest.approx(7, rel=0.05)
    assert found.new.won == pytest.approx(22, abs=2)  # half of 45 a day, but for the last ones
    assert said(found).mean == pytest.approx((came + 22) * 10_000, rel=0.06)


def test_a_forecast_of_a_coming_period_leaves_out_what_closes_before_it() -> None:
    company = [*history(60, 10), *(an_open(f"o{n}", 404) for n in range(20))]
    now, coming = (
        sum(d.chance or 0 for d in forecast(company, window=w).open_deals)
        for w in (QUARTER, Window(450 * DAY, 540 * DAY))
    )

    assert coming < now / 4


def test_a_deal_without_an_amount_takes_one_from_history() -> None:
    company = [*history(), an_open("o", amount=None)]
    found = forecast(company)
    [shown] = found.open_deals

    assert (found.without_amount, shown.amount) == (1, None)
    assert shown.expected == pytest.approx((shown.chance or 0) * 10_000)
    assert sum(c.value for c in found.categories) == 0


def test_another_currency_is_listed_apart() -> None:
    dollars: dict[str, Any] = {"unit": "USD", "amount": 700}
    company = [
        *history(),
        an_open("o", **dollars),
        deal("w", created=300, closed_at=361, won=True, **dollars),
    ]
    found = forecast(company)

    assert (found.won, sum(c.value for c in found.categories)) == (0, 0)
    assert [(o.unit, o.won, o.open) for o in found.other_currencies] == [("USD", 700, 700)]


def test_a_shared_deal_is_forecast_by_parts_and_counted_once() -> None:
    shares = (Share("p1", ("team:north",), 6_000), Share("p2", ("team:south",), 4_000))
    shared = Deal(id="o", created=399 * DAY, shares=shares, unit="EUR")
    amounts = {
        subject: sum(c.value for c in forecast([*history(), shared], subject).categories)
        for subject in (EVERYONE, "team:north", "person:p2")
    }
    counts = {
        subject: sum(
            c.deals for c in forecast([*history(), shared], subject, counted=True).categories
        )
        for subject in (EVERYONE, "team:north", "team:south")
    }

    assert amounts == {EVERYONE: 10_000, "team:north": 6_000, "person:p2": 4_000}
    assert counts == {EVERYONE: 1, "team:north": 1, "team:south": 0}


def test_categories_ask_for_a_date_inside_the_period_and_a_win_rate() -> None:
    company = [
        *history(60, 10),
        an_open("sure", expected_close=440),
        an_open("later", expected_close=460),
        an_open("passed", expected_close=404),
        an_open("undated"),
    ]
    found = {d.id: d.category for d in forecast(company).open_deals}
    half = [*history(30, 30), an_open("maybe", expected_close=440)]

    assert found == {"sure": "commit"} | dict.fromkeys(("later", "passed", "undated"), "pipeline")
    assert [d.category for d in forecast(half).open_deals] == ["best_case"]


def test_what_if_changes_what_it_names() -> None:
    company = [*history(until=390), *(an_open(f"o{n}") for n in range(5))]

    def mean(**change: float) -> float:
        found = forecast(company, change=Change(**change))
        return said(found).mean - found.won

    assert mean(deal_size=2) == pytest.approx(2 * mean())
    assert mean(win_rate=0) == 0
    assert mean(headcount=2) > mean()  # of one person
    assert mean(headcount=1) == pytest.approx(mean())
    assert mean(new_deals_per_week=0) < mean() < mean(new_deals_per_week=10)


def test_headcount_needs_somebody_to_multiply() -> None:
    with pytest.raises(ValueError, match="headcount: nobody has created deals lately"):
        forecast([*history(until=150), an_open("o", 200)], change=Change(headcount=3))


def test_a_forecast_reaches_two_years() -> None:
    with pytest.raises(ValueError, match=f"reaches {MOST_DAYS} days ahead"):
        Forecaster(Book(history(), "EUR"), Knowledge(0), ahead=(MOST_DAYS + 1) * DAY)


def test_sums_of_many_new_deals_come_out_as_those_of_few() -> None:
    sizes = np.array([1.0, 3.0])
    none: dict[str, Any] = {
        "chance": np.zeros(0),
        "size": np.zeros(0),
        "unknown": np.zeros(0, bool),
    }
    for new in (50, 50_000):
        ends = draw(
            Prospects(
                **none,
                group=np.zeros(0, np.int64),
                doubt=np.zeros(1),
                new=new,
                new_doubt=0.0,
                size_doubt=0.0,
                sizes=sizes,
                weights=np.array([0.5, 0.5]),
            ),
            b"seed",
        )
        assert ends.mean() == pytest.approx(2 * new, rel=0.02)
        assert ends.std() == pytest.approx((5 * new) ** 0.5, rel=0.05)


def test_scores_are_computed_as_they_are_defined() -> None:
    tried = [
        Trial(QUARTER, 0.5, Distribution(50, 90, 120, 95), 100),
        Trial(QUARTER, 0.5, Distribution(10, 20, 30, 20), 50),
        Trial(QUARTER, 0.5, Distribution(0, 5, 9, 5), 0),
    ]
    [score] = scores(tried)

    assert (score.share, score.periods) == (0.5, 3)
    assert score.mape == pytest.approx((0.1 + 0.6) / 2)
    assert score.bias == pytest.approx((-5 - 30 + 5) / 150)
    assert score.coverage == pytest.approx(2 / 3)
    # 0.1 of what lies above P10, half of what P50 is off, 0.1 of what lies below P90; thirds.
    first, second, third = 5 + 5 + 2, 4 + 15 + 18, 0 + 2.5 + 0.9
    assert score.pinball == pytest.approx((first + second + third) / 3 / 150)
    assert scores([]) == []


def a_known_company(seed: int) -> list[Deal]:
    """Ten sellers of different skill; three stages with their own times and losses."""
    dice = np.random.default_rng(seed)
    found: list[Deal] = []
    for person in range(10):
        skill, at = dice.normal(0, 0.3), 0.0
        while (at := at + dice.exponential(7)) < 810:
            now, stages, won = at, [], True
            for stage, (mean, losses) in enumerate([(8, 0.35), (15, 0.3), (20, 0.45)]):
                stages.append((now, f"stage{stage}"))
                now += dice.gamma(2, mean / 2)
                if dice.random() < 1 / (1 + (1 - losses) / losses * np.exp(skill)):
                    won = False
                    break
            amount = int(np.exp(dice.normal(12, 0.8)))
            found.append(
                deal(
                    f"d{len(found)}",
                    created=at,
                    stages=stages,
                    closed_at=now,
                    won=won,
                    amount=amount,
                    person=f"p{person}",
                )
            )
    return found


@pytest.mark.parametrize("kind", ["organisation", "person"])
def test_of_known_companies_four_of_five_ends_come_within_p10_and_p90(kind: str) -> None:
    """Each kind on its own: together, one that is too wide would hide one that is too narrow."""
    windows = [Window(quarter * 90 * DAY, (quarter + 1) * 90 * DAY) for quarter in (5, 6, 7, 8)]
    tried: list[Trial] = []
    for seed in range(24):
        book = Book(a_known_company(seed), "EUR")
        subject = EVERYONE if kind == "organisation" else f"person:p{seed % 10}"
        tried += trials(book, subject, windows, counted=False)
    within = np.mean([t.said.p10 <= t.came <= t.said.p90 for t in tried])
    bias = sum(t.said.mean - t.came for t in tried) / sum(t.came for t in tried)

    assert len(tried) == 24 * 4 * 3
    # The three forecasts of a period share its end: some 96 independent ones, 4 % standard error.
    assert 0.7 <= within <= 0.9
    assert abs(bias) < 0.1


def test_pace_is_bounded_by_what_the_chain_was_computed_for() -> None:
    slow = [deal(f"s{n}", created=n, closed_at=n + 60, won=n % 2 == 0) for n in range(100, 300)]
    quick = [
        deal(f"q{n}", created=n, closed_at=n + 1, won=n % 2 == 0, person="quick")
        for n in range(100, 300)
    ]
    ours = [deal(f"o{who}", created=404, person=who) for who in ("p1", "quick")]
    found = {d.person: d.chance or 0 for d in forecast([*slow, *quick, *ours]).open_deals}

    assert FASTEST == 2
    assert found["quick"] > found["p1"]
