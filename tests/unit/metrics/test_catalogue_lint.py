"""What is said of a catalogue that is wrong, or can't be meant so."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from schemas import crm
from services.__main__ import cli
from services.metrics.domain.catalogue import CatalogueError, lint, parse
from services.metrics.domain.catalogue.fields import FIELDS
from services.metrics.settings import Settings

SHIPPED = yaml.safe_load(Settings.model_fields["catalogue"].default.read_text())
SLIPPED = {"moved_from": {"before": "moved_to"}}


def a_metric(**changes: Any) -> dict[str, Any]:
    fields = {"id": "m", "title": "M", "level": "driver", "unit": "count", "record": "call"}
    return fields | {"placed_by": "occurred_at"} | changes


def a_formula(formula: Any, **changes: Any) -> dict[str, Any]:
    return {"id": "f", "title": "F", "level": "goal", "unit": "ratio", "formula": formula} | changes


def money(**changes: Any) -> dict[str, Any]:
    value = {"sum": "amount", "currency": "currency"}
    metric = a_metric(unit="money", record="opportunity", placed_by="closed_at", value=value)
    return metric | changes


def said(document: Any, onto: Any = None) -> list[tuple[str, str]]:
    return [(each.severity, f"{each.where}: {each.what}") for each in lint(document, onto)]


def test_nothing_is_wrong_with_what_is_shipped() -> None:
    assert lint(SHIPPED) == []


@pytest.mark.parametrize(
    ("metric", "where", "what"),
    [
        (a_metric(level="top"), "level", "one of driver, indicator, goal, not 'top'"),
        (a_metric(colour="red"), "colour", "there is no 'colour'"),
        (a_metric(titel="x"), "titel", "did you mean 'title'?"),
        (a_metric(id="a/b"), "id", "letters"),
        (a_metric(id="a@b"), "id", "before a stage"),
        (a_metric(title=""), "title", "text"),
        (a_metric(unit="ratio"), "unit", "one of count, money, quantity, duration, not 'ratio'"),
        (a_metric(unit="money"), "value", "{sum: amount field, currency: currency field}"),
        (a_metric(value={"sum": "amount"}), "value", "`count`"),
        (money(value={"sum": "amount", "currency": 5}), "value.currency", "name of a field"),
        (a_metric(unit="duration", value={"between": ["a"]}), "value.between", "[from field"),
        (a_metric(for_each="pipeline"), "for_each", "one of stage"),
        (a_metric(after="P1M"), "after", "P14D"),
        (a_metric(after="P9999D"), "after", "longer"),
        (a_metric(part_only="yes"), "part_only", "true or false"),
        (a_metric(where=["done"]), "where", "mapping"),
        (a_metric(where={"done": {"over": 1}}), "where.done.over", "{not: value}"),
        (a_metric(where={"done": {}}), "where.done", "empty"),
        (a_metric(where={"stage": {"in": "a"}}), "where.stage.in", "list"),
        (a_metric(where={"stage": {"known": "yes"}}), "where.stage.known", "true or false"),
        (a_metric(where={"duration_seconds": {"gt": "x"}}), "where.duration_seconds.gt", "number"),
        (a_metric(where={"stage": 0.5}), "where.stage", "in quotes"),
        (a_metric(where={"any": {"stage": "a"}}), "where.any", "list of alternatives"),
        (a_metric(where={"any": [{}]}), "where.any[0]", "mapping"),
        (a_metric(where={f"x_{n}": 1 for n in range(60)}), "where", "over 50"),
        (
            a_metric(record="opportunity", where=SLIPPED, placed_by="stage_since"),
            "where.moved_from",
            "moved_from is of a move, which has no stage_since",
        ),
        (
            a_metric(
                record="opportunity",
                where={"any": [SLIPPED, {"stage_since": {"before": "closed_at"}}]},
                placed_by="created_at",
            ),
            "where.any[0].moved_from",
            "make two metrics",
        ),
        (a_formula("deals_won", statistic={"median": "x"}), "", "either `formula` or `statistic`"),
        (a_formula(5), "formula", "text such as"),
        (a_formula("1 + 1"), "formula", "reads no metric"),
        (a_formula("deals_won /"), "formula", "character 12"),
        (a_formula("dealswon / 2"), "formula", "did you mean 'deals_won'?"),
        (a_formula("win_rate / 2"), "formula", "computed itself"),
        (a_formula("deals_won / target(quota)"), "formula", "not a metric"),
        (a_formula("stages_entered / 2"), "formula", "stages_entered@proposal"),
        (a_formula("deals_won@proposal / 2"), "formula", "not measured for each stage"),
        (a_formula("a" * 1_001), "formula", "longer than"),
        (a_formula(None, statistic={"mean": "a"}), "statistic", "{median: metric}"),
        (a_formula(None, statistic={"median": "x"}), "statistic.median", "not a base metric"),
        (a_formula(None, statistic={"median": "sales_cycle_total"}), "unit", "is duration"),
    ],
)
def test_a_mistake_is_explained_where_it_is(metric: Any, where: str, what: str) -> None:
    metric = {name: value for name, value in metric.items() if value is not None}
    found = lint(metric, SHIPPED)
    assert any(
        each.severity == "error" and each.where == where and what in each.what for each in found
    ), found


@pytest.mark.parametrize(
    ("metric", "where", "what"),
    [
        (a_metric(record="cal"), "record", "did you mean 'call'?"),
        (a_metric(placed_by="ocurred_at"), "placed_by", "did you mean 'occurred_at'?"),
        (a_metric(placed_by="outcome"), "placed_by", "an instant is needed"),
        (a_metric(placed_by="left_at"), "placed_by", "outside of `for_each: stage`"),
        (
            a_metric(placed_by="moved_at"),
            "placed_by",
            "no CRM says 'moved_at' of records of type call (only of opportunities",
        ),
        (
            a_metric(record="opportunity", placed_by="moved_at", for_each="stage"),
            "placed_by",
            "without `for_each`)",
        ),
        (a_metric(where={"done": "true"}), "where.done", "true or false"),
        (a_metric(where={"direction": "outbond"}), "where.direction", "did you mean 'outbound'?"),
        (a_metric(where={"outcome": True}), "where.outcome", "a text"),
        (a_metric(where={"done": {"gt": 1}}), "where.done.gt", "compares numbers"),
        (a_metric(where={"done": {"before": "created_at"}}), "where.done.before", "instants"),
        (a_metric(where={"any": [{"donne": True}]}), "where.any[0].donne", "did you mean 'done'?"),
        (money(value={"sum": "stage", "currency": "currency"}), "value.sum", "a number is needed"),
        (a_metric(part_only=True), "part_only", "no formula uses it"),
        (a_formula("revenue_won + deals_won"), "formula", "adds money and a plain number"),
        (a_formula("revenue_won - sales_cycle_total"), "formula", "subtracts money and duration"),
        (a_formula("revenue_won / 2"), "unit", "the formula gives money"),
        (a_formula("revenue_won * revenue_won"), "unit", "money^2"),
        (a_formula("deals_won / 2", unit="quantity"), "unit", "the formula gives a plain number"),
        (a_formula("deals_won / (deals_lost - deals_lost)"), "formula", "always zero"),
        (a_formula("deals_won / 0"), "formula", "always zero"),
        (a_formula("cost_of_deals / revenue_won"), "visibility", "cost_of_deals, for finance only"),
        (
            a_formula("target(revenue_won) / deals_won", unit="money"),
            "formula",
            "currency isn't known",
        ),
        (
            a_formula(None, unit="count", statistic={"median": "deals_won"}),
            "statistic.median",
            "counts as one",
        ),
    ],
)
def test_what_cannot_be_meant_is_warned_of(metric: Any, where: str, what: str) -> None:
    metric = {name: value for name, value in metric.items() if value is not None}
    found = lint(metric, SHIPPED)
    assert all(each.severity == "warning" for each in found), found
    assert any(each.where == where and what in each.what for each in found), found


@pytest.mark.parametrize(
    "metric",
    [
        a_metric(record="x_visit", where={"anything": "goes"}, placed_by="some_day"),
        a_metric(where={"x_own": {"gt": 5}, "done": True}),
        a_metric(record="opportunity", where=SLIPPED, placed_by="moved_at"),
        a_formula("-revenue_won + revenue_lost", unit="money"),
        a_formula("revenue_won / units_sold", unit="money"),
        a_formula('"stages_entered@Closed Won" / stages_entered@new'),
        a_formula("count(stage_time) / stages_entered", for_each="stage"),
    ],
)
def test_what_is_fine_is_not_complained_of(metric: dict[str, Any]) -> None:
    assert lint(metric, SHIPPED) == []


def test_all_mistakes_are_said_at_once() -> None:
    metrics = [a_metric(level="top", unit="money"), a_metric(id="m"), a_metric(id="n", color=1)]
    document = {"metrics": metrics, "derived": [a_formula("m / o")]}
    with pytest.raises(CatalogueError) as caught:
        parse(document)
    for part in ("metrics[0].level", "metrics[0].value", "metrics[1].id", "used twice",
                 "metrics[2].color", "derived[0].formula", "'o' is not a base metric"):  # fmt: skip
        assert part in str(caught.value)


@pytest.mark.parametrize("document", [None, [], "x", {}, {"metrics": 5}, {"metrics": ["x"]}])
def test_what_is_no_catalogue_at_all_is_told_so(document: Any) -> None:
    assert [severity for severity, _ in said(document)].count("error") >= 1
    with pytest.raises(CatalogueError, match="metric"):
        parse(document)


def test_one_may_not_take_away_what_others_are_computed_from() -> None:
    own = a_formula("calls_made / meetings_held", id="deals_won")
    assert any("win_rate, which is computed from this" in what for _, what in said(own, SHIPPED))


def test_every_canonical_field_is_documented() -> None:
    documented = crm.__doc__ or ""
    for names in FIELDS.values():
        for name in names:
            assert f"`{name}`" in documented


_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["count", "money", "opportunity", "deals_won", "P1D", "stage", "any"]),
)  # fmt: skip
_KEYS = st.sampled_from(
    ["id", "title", "level", "unit", "record", "where", "value", "placed_by", "formula", "any",
     "statistic", "median", "sum", "between", "not", "in", "gt", "known", "metrics", "derived"]
) | st.text(max_size=3)  # fmt: skip
_ANYTHING = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=6),
    max_leaves=20,
)


@given(_ANYTHING)
def test_any_document_is_a_catalogue_or_is_explained(document: Any) -> None:
    wrong = any(each.severity == "error" for each in lint(document))
    with pytest.raises(CatalogueError) if wrong else nullcontext():
        parse(document)


@given(st.dictionaries(st.sampled_from(sorted(a_metric(where={}, value={}, after=""))), _ANYTHING))
def test_any_change_of_a_metric_is_right_or_is_explained(changes: dict[str, Any]) -> None:
    metric = a_metric(**changes)
    wrong = any(each.severity == "error" for each in lint(metric))
    with pytest.raises(CatalogueError) if wrong else nullcontext():
        parse({"metrics": [metric]})


def run(file: Path, text: str, *options: str) -> tuple[int, str]:
    file.write_text(text)
    found = CliRunner().invoke(cli, ["metrics", "lint", str(file), *options])
    return found.exit_code, found.output


METRIC = """\
id: demo_calls
title: Demo calls
level: driver
unit: count
record: call
where: {done: true,
        outcom: demo}
placed_by: occurred_at
"""


def test_the_command_says_the_line_of_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "metric.yaml"
    code, shown = run(file, METRIC.replace("driver", "drivers"))
    assert code == 1
    assert f"{file}:3: error: level (demo_calls)" in shown
    assert f"{file}:7: warning: where.outcom (demo_calls)" in shown
    assert "1 error, 1 warning" in shown
    code, shown = run(file, METRIC.replace("outcom:", "outcome:"))
    assert (code, shown) == (0, "no errors, no warnings\n")


def test_the_command_adds_to_what_is_shipped_unless_told_otherwise(tmp_path: Path) -> None:
    text = "derived: [{id: f, title: F, level: goal, unit: ratio, formula: deals_won / calls_made}]"
    assert run(tmp_path / "f.yaml", text)[0] == 0
    code, shown = run(tmp_path / "f.yaml", text, "--alone")
    assert code == 1
    assert "`metrics` is missing" in shown


@pytest.mark.parametrize("text", ["a: [", "id: a\nid: b", "[" * 5_000, "\x00", "a: &a [*a]"])
def test_the_command_says_what_it_cannot_read(tmp_path: Path, text: str) -> None:
    code, shown = run(tmp_path / "f.yaml", text)
    assert code == 1
    assert "not readable as YAML" in shown
