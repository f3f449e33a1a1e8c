"""Plans are read exactly, and what is wrong with one is said with its place."""

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.payouts.domain.plan import Marginal, PlanError, read
from services.payouts.domain.text import document_of, lint, plan_of
from tests.unit.payouts.plans import PLAN


def test_a_plan_is_read_as_written() -> None:
    plan, document = plan_of(PLAN)

    [component] = plan.components
    assert isinstance(component.rate, Marginal)
    assert [tier.rate for tier in component.rate.tiers] == [
        Decimal("0.05"),
        Decimal("0.08"),
        Decimal("0.1"),
    ]
    assert component.quota == "revenue_won"
    assert read(document) == plan  # what is stored says the same
    assert str(component.credit) == (
        "100 % of amount of each opportunity where status is won, by closed_at"
    )


@pytest.mark.parametrize(
    ("old", "new", "where", "what", "line"),
    [
        (
            "type: tiers_marginal",
            "type: tiers_cumulative",
            "components[0].rate.type",
            "refused",
            13,
        ),
        ("      boundary: upper\n", "", "components[0].rate.boundary", "missing", 13),
        ("      measure: attainment\n", "", "components[0].rate.measure", "missing", 13),
        ("boundary: upper", "boundary: middle", "components[0].rate.boundary", "upper, lower", 15),
        ("rounding: half_up_per_line\n", "", "rounding", "missing", 1),
        ("currency: USD", "currency: USX", "currency", "ISO 4217", 3),
        ("    quota: {goal: revenue_won}\n", "", "components[0]", "needs a quota", 9),
        ("{from: 1,", "{from: 2,", "components[0].rate.tiers[2].from", "above the tier before", 16),
        ("{from: 0,", "{from: 0.1,", "components[0].rate.tiers[0].from", "starts at 0", 16),
        ('"0.08"', "8%", "components[0].rate.tiers[1].rate", "not a number", 16),
        ('"0.08"', '"800"', "components[0].rate.tiers[1].rate", "from 0 to 100", 16),
        ("share: 100", "share: 101", "components[0].credit.share", "from 0 to 100", 11),
        ("share: 100", "share: [100]", "components[0].credit.share", "not a number", 11),
        ("{role: rep}", "{role: rep, people: [a]}", "payees", "exactly one", 6),
        ("{role: rep}", "{}", "payees", "exactly one", 6),
        ("to: 2027", "to: 2025", "effective", "later", 5),
        ("period: quarter", "period: week", "period", "month, quarter, year", 4),
        ("name: Acc", "nmae: x\nname: Acc", "nmae", "not known here", 2),
        ("name: Acc", "name: x\nname: Acc", "name", "twice", 3),
        ("record: opportunity", "record: call", "components[0].credit.record", "opportunity", 11),
        ("{status: won}", "{status: {a: b}}", "components[0].credit.when.status", "expected", 11),
        ("name: Acc", "name: *x\n#", "text", "aliases", 2),
        ("plan: ae-2026", "plan: a/b", "plan", "expected an id", 1),
    ],
)
def test_lint_says_where_and_what(old: str, new: str, where: str, what: str, line: int) -> None:
    assert old in PLAN

    troubles = lint(PLAN.replace(old, new, 1))

    assert [t for t in troubles if t.where == where and what in t.what and t.line == line], troubles


def test_lint_says_everything_at_once() -> None:
    troubles = lint(PLAN.replace("USD", "X").replace("boundary: upper", "boundary: x"))
    assert {t.where for t in troubles} == {"currency", "components[0].rate.boundary"}


def test_binary_fractions_are_refused_in_documents() -> None:
    _, document = plan_of(PLAN)
    document["components"][0]["rate"]["tiers"][0]["rate"] = 0.05
    with pytest.raises(PlanError, match="write it as text"):
        read(document)


def test_the_guides_examples_are_plans() -> None:
    guide = Path(__file__).parents[3] / "docs" / "guides" / "plans.md"
    examples = [part.split("```")[0] for part in guide.read_text().split("```yaml\n")[1:]]
    assert examples
    for example in examples:
        assert lint(example) == []


@given(st.text(max_size=200))
def test_any_text_is_a_plan_or_has_troubles(text: str) -> None:
    assert lint(text)


@pytest.mark.parametrize(
    "text",
    ["", "[" * 5000, "{" * 100, "a: !!python/object:os.system x", '"\\UFFFFFFFF"', "? [a]\n: b",
     '{"plan": "\\ud83d"}', "- 1", "plan: &a [*a]", "--- a\n--- b", "a: 1e999999999"],
)  # fmt: skip
def test_hostile_texts_have_troubles(text: str) -> None:
    assert lint(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=10,
    ),
    st.sampled_from(
        ["plan", "payees", "effective", "components", "credit", "rate", "tiers", "when", "share"]
    ),
)
def test_any_value_anywhere_is_read_or_refused(value: object, where: str) -> None:
    document, _ = document_of(PLAN)
    component = document["components"][0]
    targets = {
        "credit": component,
        "rate": component,
        "tiers": component["rate"],
        "when": component["credit"],
        "share": component["credit"],
    }
    targets.get(where, document)[where] = value
    try:
        read(document)
    except PlanError as error:
        assert error.troubles  # noqa: PT017  # either way is right
