"""Pay is exact, doesn't depend on the order of deals as a sum, and explains itself."""

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.payouts.domain.evaluate import (
    Credit,
    Opening,
    Quota,
    Statement,
    evaluate,
    explain,
    pay,
    tier_at,
)
from services.payouts.domain.plan import Flat, Marginal, Plan, read
from services.payouts.domain.text import document_of
from tests.unit.payouts.plans import PLAN

money = st.decimals(-100_000, 1_000_000, places=2, allow_nan=False)
positive = st.decimals(1, 1_000_000, places=2, allow_nan=False)
QUOTAS = {"revenue_won": Quota(Decimal(1000), "USD")}


def a_plan(**rate: Any) -> Plan:
    document, _ = document_of(PLAN)
    document["components"][0]["rate"].update(rate)
    if rate.get("type") == "flat":
        document["components"][0]["rate"] = rate
    return read(document)


def credits_of(amounts: list[Decimal]) -> list[Credit]:
    return [
        Credit(
            "new-business",
            "opportunity",
            f"crm:{number:04}",
            date(2026, 10, 1) + timedelta(days=number),
            amount,
            amount,
        )
        for number, amount in enumerate(amounts)
    ]


def evaluated(*amounts: str | Decimal, plan: Plan | None = None, quotas: Any = None) -> Statement:
    quotas = QUOTAS if quotas is None else quotas
    return evaluate(plan or a_plan(), credits_of([Decimal(a) for a in amounts]), quotas)


def test_a_deal_over_a_boundary_is_shown_slice_by_slice() -> None:
    [component] = evaluated("900", "800").components

    first, second = component.lines
    slices: list[Any] = [(s.tier, s.start, s.end) for s in second.slices]
    assert slices == [
        (0, 900, 1000),
        (1, 1000, 1500),
        (2, 1500, 1700),
    ]
    assert first.earned_minor == 4500
    assert second.earned_minor == 500 + 4000 + 2000
    assert (component.tier, component.attainment) == (2, Decimal("1.7"))
    tree: Any = explain(a_plan(), a_plan().components[0], "a rule", second, Decimal(1000))
    assert [s["pay"] for s in tree["slices"]] == ["5", "40", "20"]
    assert tree["measure"]["attainment_before"] == "0.9"


def test_a_negative_deal_walks_back_through_the_tiers() -> None:
    _, second = evaluated("1200", "-700").lines
    slices: list[Any] = [(s.tier, s.amount) for s in second.slices]
    assert slices == [(1, -200), (0, -500)]
    assert second.earned_minor == -1600 - 2500


def test_below_zero_tiers_pay_nothing_and_take_nothing() -> None:
    statement = evaluated("100", "-300", "200")
    assert [line.earned_minor for line in statement.lines] == [500, -500, 0]
    assert [s.tier for s in statement.lines[1].slices] == [0, None]


def test_rounding_is_half_up_once_per_line() -> None:
    flat = a_plan(type="flat", rate="0.005")
    statement = evaluated("1", "1", "-1", plan=flat)
    assert statement.lines[0].unrounded == Decimal("0.005")
    assert [line.earned_minor for line in statement.lines] == [1, 1, -1]
    assert statement.earned_minor == 1


def test_rounding_sees_every_digit() -> None:
    rate = a_plan(type="flat", rate="0.004999999999")
    [line] = evaluated("1.000000000001", plan=rate).lines
    assert line.unrounded == Decimal("0.004999999999004999999999")
    assert line.earned_minor == 0


@pytest.mark.parametrize(
    ("quotas", "finding"),
    [
        ({}, "quota_missing"),
        ({"revenue_won": Quota(Decimal(0), "USD")}, "quota_zero"),
        ({"revenue_won": Quota(Decimal(-5), "USD")}, "quota_zero"),
        ({"revenue_won": Quota(Decimal(5), "EUR")}, "quota_unit"),
        ({"revenue_won": Quota(Decimal("1E+400"), "USD")}, "quota_out_of_range"),
        ({"revenue_won": Quota(Decimal("NaN"), "USD")}, "quota_out_of_range"),
    ],
)
def test_without_a_usable_quota_attainment_is_zero_and_said_so(quotas: Any, finding: str) -> None:
    [component] = evaluated("900", "800", quotas=quotas).components
    said: Any = (component.finding, component.attainment, component.quota)
    assert said == (finding, 0, None)
    assert (component.earned_minor, component.tier) == (0, 0)


def test_boundary_decides_which_tier_a_start_belongs_to() -> None:
    for boundary, tier in (("upper", 1), ("lower", 0)):
        rate = a_plan(boundary=boundary).components[0].rate
        assert tier_at(rate, Decimal(1000), Decimal(1000)) == tier
        assert tier_at(rate, Decimal(1000), Decimal("1000.01")) == 1
        assert tier_at(rate, Decimal(1000), Decimal(0)) == 0


rates = st.builds(
    lambda starts, values, measure, boundary: a_plan(
        measure=measure,
        boundary=boundary,
        tiers=[
            {"from": str(start), "rate": str(value)}
            for start, value in zip([Decimal(0), *sorted(set(starts))], values, strict=False)
        ],
    ),
    st.lists(st.decimals("0.001", 1000, places=3), max_size=4),
    st.lists(st.decimals(0, 1, places=4), min_size=5, max_size=5),
    st.sampled_from(["amount", "attainment"]),
    st.sampled_from(["upper", "lower"]),
)


@given(rates, st.lists(money, max_size=8), positive, st.randoms())
def test_the_sum_is_the_whole_measures_pay_in_any_order(
    plan: Plan, amounts: list[Decimal], quota: Decimal, chance: Any
) -> None:
    quotas = {"revenue_won": Quota(quota, "USD")}
    first = evaluated(*amounts, plan=plan, quotas=quotas)
    chance.shuffle(amounts)
    second = evaluated(*amounts, plan=plan, quotas=quotas)

    def unrounded(statement: Statement) -> Decimal:
        return sum((line.unrounded for line in statement.lines), Decimal(0))

    assert unrounded(first) == unrounded(second)
    assert unrounded(first) == pay(plan.components[0].rate, quota, sum(amounts, Decimal(0)))
    for line in first.lines:
        assert sum((s.amount for s in line.slices), Decimal(0)) == line.credit.amount
        assert abs(line.unrounded * 100 - line.earned_minor) <= Decimal("0.5")


@given(rates, money, money, positive)
def test_more_never_pays_less(plan: Plan, one: Decimal, two: Decimal, quota: Decimal) -> None:
    rate = plan.components[0].rate
    low, high = sorted((one, two))
    assert pay(rate, quota, low) <= pay(rate, quota, high)


@given(rates, money, money, positive)
def test_splitting_a_deal_changes_nothing(
    plan: Plan, before: Decimal, amount: Decimal, quota: Decimal
) -> None:
    rate = plan.components[0].rate
    assert isinstance(rate, Marginal)
    quotas = {"revenue_won": Quota(quota, "USD")}
    whole = evaluated(before, amount, plan=plan, quotas=quotas).lines[1:]
    scale = quota if rate.measure == "attainment" else Decimal(1)
    for tier in rate.tiers:
        cut = tier.start * scale - before
        parts = evaluated(before, cut, amount - cut, plan=plan, quotas=quotas).lines[1:]
        assert sum(p.unrounded for p in parts) == sum(w.unrounded for w in whole)


@given(rates, money, positive)
def test_the_formula_holds(plan: Plan, x: Decimal, quota: Decimal) -> None:
    rate = plan.components[0].rate
    assert isinstance(rate, Marginal)
    scale = quota if rate.measure == "attainment" else Decimal(1)
    starts = [tier.start * scale for tier in rate.tiers]
    ends = [*starts[1:], Decimal("Infinity")]
    total = sum(
        tier.rate * max(Decimal(0), min(x, end) - start)
        for tier, start, end in zip(rate.tiers, starts, ends, strict=True)
    )
    assert pay(rate, quota, x) == total


def test_flat_pays_the_rate_below_zero_too() -> None:
    assert pay(Flat(Decimal("0.1")), None, Decimal(-50)) == -5


@given(rates, st.lists(money, max_size=6), st.integers(0, 6), positive)
def test_a_statement_goes_on_from_where_it_stands(
    plan: Plan, amounts: list[Decimal], at: int, quota: Decimal
) -> None:
    quotas = {"revenue_won": Quota(quota, "USD")}
    whole = evaluated(*amounts, plan=plan, quotas=quotas).components[0]
    early = evaluated(*amounts[:at], plan=plan, quotas=quotas).components[0]
    opening = Opening(early.credited, early.earned_minor, early.count)
    late = evaluate(plan, credits_of(amounts)[at:], quotas, {"new-business": opening}).components[0]
    assert (late.lines, late.earned_minor) == (whole.lines[at:], whole.earned_minor)
    assert (late.credited, late.count, late.tier) == (whole.credited, whole.count, whole.tier)
