"""Numbers from parts: exact, in every unit, and no data is not zero."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.domain import numbers
from services.metrics.domain.catalogue import Catalogue, Derived, parse
from services.metrics.domain.numbers import Part, Parts
from services.metrics.settings import Settings


@pytest.fixture(scope="module")
def shipped() -> Catalogue:
    return parse(yaml.safe_load(Settings.model_fields["catalogue"].default.read_text()))


def euros(value: int, count: int = 1) -> Part:
    return Part(value, count, "EUR")


@pytest.mark.parametrize(
    ("metric", "parts", "value"),
    [
        ("deals_won", {}, None),
        ("deals_won", {"deals_won": Part(0, 0)}, None),
        ("deals_won", {"deals_won": Part(3, 3)}, "3"),
        ("revenue_won", {"revenue_won": euros(12_345)}, "123.45"),
        ("units_sold", {"units_sold": Part(2_500, 1, "quantity")}, "2.5"),
        ("units_sold", {"units_sold": Part(3_000, 1, "quantity")}, "3"),
        ("win_rate", {}, None),
        ("win_rate", {"deals_won": Part(0, 0), "deals_lost": Part(0, 0)}, None),
        ("win_rate", {"deals_won": Part(2, 2)}, "1.0000"),
        ("win_rate", {"deals_lost": Part(2, 2)}, "0.0000"),
        ("win_rate", {"deals_won": Part(2, 2), "deals_lost": Part(1, 1)}, "0.6667"),
        ("win_rate_by_value", {"revenue_won": euros(100), "revenue_lost": euros(300)}, "0.2500"),
        ("average_deal_size", {"revenue_won": euros(10_000, 3)}, "33.33"),
        ("average_deal_size", {"revenue_won": Part(1_000, 3, "JPY")}, "333"),
        ("average_deal_size", {"revenue_won": Part(1_000, 8, "JPY")}, "125"),
        ("margin", {"revenue_costed": euros(10_000), "cost_of_deals": euros(12_550)}, "-25.50"),
        ("sales_cycle", {"sales_cycle_total": Part(7, 2, "seconds")}, "4"),
        ("lead_response_median", {"lead_response_total": Part(9, 2, "seconds")}, None),
        ("lead_response_median", {"lead_response_total": Part(9, 2, "seconds", 4)}, "4"),
        ("quota_attainment", {"revenue_won": euros(10_000)}, None),
    ],
)
def test_a_number_from_its_parts(
    shipped: Catalogue, metric: str, parts: Parts, value: str | None
) -> None:
    entry = shipped.metrics[metric]
    currency = next((p.unit for p in parts.values() if p is not None and len(p.unit) == 3), "EUR")
    found = numbers.number(entry, parts)
    shown = None if found is None else numbers.text(found, numbers.unit_of(entry, currency))
    assert shown == value


def test_goals_are_in_whole_units(shipped: Catalogue) -> None:
    targets = {"revenue_won": Decimal(500)}
    won, pipeline = Part(10_000, 1, "EUR"), Part(120_000, 1, "EUR")
    found = numbers.number(shipped.metrics["quota_attainment"], {"revenue_won": won}, targets)
    assert found == Fraction(1, 5)
    coverage = shipped.metrics["pipeline_coverage"]
    parts = {"revenue_won": won, "pipeline_value": pipeline}
    assert numbers.number(coverage, parts, targets) == 3
    assert numbers.number(coverage, {"pipeline_value": pipeline}, targets) == Fraction(12, 5)
    assert numbers.number(coverage, {}, targets) is None
    assert numbers.number(coverage, parts, {"revenue_won": Decimal(100)}) is None


def test_money_and_counts_may_make_a_score_in_whole_units() -> None:
    base = {"level": "goal", "record": "opportunity", "placed_by": "closed_at"}
    score = {"id": "s", "title": "S", "level": "goal", "unit": "ratio", "formula": "m / 100 + n"}
    catalogue = parse(
        {
            "metrics": [
                base | {"id": "n", "title": "N", "unit": "count"},
                base | {"id": "m", "title": "M", "unit": "money",
                        "value": {"sum": "amount", "currency": "currency"}},
            ],
            "derived": [score],
        }
    )  # fmt: skip
    parts = {"m": euros(50_000), "n": Part(2, 2)}
    assert numbers.number(catalogue.metrics["s"], parts) == 7


def test_the_records_behind_a_number(shipped: Catalogue) -> None:
    def count(metric: str, **parts: Any) -> int:
        return numbers.count(shipped.metrics[metric], parts)

    assert count("deals_won", deals_won=Part(3, 3)) == 3
    assert count("win_rate", deals_won=Part(3, 3), deals_lost=Part(1, 1)) == 4
    assert count("average_deal_size", revenue_won=euros(100, 7)) == 7
    assert count("sales_cycle_median", sales_cycle_total=Part(9, 2, "seconds")) == 2
    assert count("win_rate") == 0


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (12, "count", "12"),
        (Fraction(5, 2), "count", "3"),
        (Fraction(-5, 2), "EUR", "-0.03"),
        (1, "BHD", "0.001"),
        (1_000_000, "quantity", "1000"),
        (1, "quantity", "0.001"),
        (-1_500, "quantity", "-1.5"),
        (90_061, "seconds", "90061"),
        (Fraction(1, 3), "ratio", "0.3333"),
        (2, "ratio", "2.0000"),
    ],
)
def test_numbers_as_text(value: int | Fraction, unit: str, shown: str) -> None:
    assert numbers.text(value, unit) == shown


@pytest.mark.parametrize(
    ("value", "target", "unit", "share"),
    [
        (None, Decimal(1), "count", None),
        (1, None, "count", None),
        (1, Decimal(0), "count", None),
        (9, Decimal(10), "count", Fraction(9, 10)),
        (150, Decimal("1.5"), "EUR", 1),
        (2_500, Decimal(5), "quantity", Fraction(1, 2)),
        (1_800, Decimal(3_600), "seconds", Fraction(1, 2)),
        (Fraction(1, 3), Decimal("0.5"), "ratio", Fraction(2, 3)),
    ],
)
def test_attainment_is_exact(
    value: int | Fraction | None, target: Decimal | None, unit: str, share: Fraction | int | None
) -> None:
    assert numbers.attainment(value, target, unit) == share


def test_units_are_those_that_parts_are_stored_in(shipped: Catalogue) -> None:
    metrics = [shipped.metrics[name] for name in ("revenue_won", "sales_cycle", "units_sold")]
    found = [numbers.unit_of(metric, "EUR") for metric in metrics]
    assert found == ["EUR", "seconds", "quantity"]
    assert set(found) < set(numbers.units("EUR"))


@given(st.lists(st.integers(0, 10**12)))
def test_half_of_the_values_are_on_each_side_of_the_median(values: list[int]) -> None:
    middle = numbers.median(values)
    if middle is None:
        assert not values
    else:
        below = sum(value < middle for value in values)
        above = sum(value > middle for value in values)
        assert max(below, above) * 2 <= len(values)


@given(st.integers(), st.integers(1, 9), st.integers(), st.integers(1, 9))
def test_what_is_taken_away_can_be_put_back(a: int, n: int, b: int, m: int) -> None:
    left = Part(a + b, n + m, "EUR").minus(Part(b, m, "EUR"))
    assert left == Part(a, n, "EUR")
    assert Part(a, n).minus(Part(a, n)) is None
    assert Part(a, n).minus(None) == Part(a, n)


@given(
    st.dictionaries(
        st.sampled_from(["deals_won", "deals_lost", "revenue_won", "revenue_lost"]),
        st.tuples(st.integers(-(10**14), 10**14), st.integers(0, 5)),
    )
)
def test_no_records_no_number(shipped: Catalogue, given_parts: dict[str, tuple[int, int]]) -> None:
    parts = {
        name: Part(value if name.startswith("rev") else n, n, "EUR" if name[0] == "r" else "count")
        for name, (value, n) in given_parts.items()
    }
    for metric in shipped.derived.values():
        assert isinstance(metric, Derived)
        found = numbers.number(metric, parts)
        if not any(parts[name].count for name in shipped_parts(shipped, metric) if name in parts):
            assert found is None


def shipped_parts(catalogue: Catalogue, metric: Derived) -> list[str]:
    return [] if metric.for_each else catalogue.parts(metric.id)
