"""Metrics as data: what counts, what doesn't, and what a wrong catalogue is told."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.crm import Record
from services.metrics.domain import leaderboard
from services.metrics.domain.catalogue import Catalogue, CatalogueError, parse
from services.metrics.settings import Settings
from tests.support import a_record

AT = "2026-11-02T10:00:00Z"


def _document(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.fixture(scope="module")
def shipped() -> Catalogue:
    return parse(_document(Settings.model_fields["catalogue"].default))


def counted(catalogue: Catalogue, record: Record) -> dict[str, tuple[str, int]]:
    found, _ = catalogue.contributions(record)
    return {metric: (unit, value) for metric, unit, _, value in found}


def deal(**fields: Any) -> Record:
    known = {"status": "won", "amount": "10", "currency": "EUR", "closed_at": AT}
    return a_record("opportunity", **(known | fields))


@pytest.mark.parametrize(
    ("record", "metrics"),
    [
        (a_record("call", done=True, occurred_at=AT), {"calls_made": ("count", 1)}),
        (a_record("call", done=1, occurred_at=AT), {}),
        (a_record("call", done=False, occurred_at=AT), {}),
        (a_record("call", occurred_at=AT), {}),
        (a_record("call", done=True, occurred_at=AT, deleted=True), {}),
        (a_record("meeting", done=True, occurred_at=AT), {"meetings_held": ("count", 1)}),
        (a_record("email", done=True, occurred_at=AT), {"emails_sent": ("count", 1)}),
        (a_record("email", done=True, occurred_at=AT, direction="inbound"), {}),
        (a_record("opportunity", created_at=AT), {"opportunities_created": ("count", 1)}),
        (deal(), {"deals_won": ("count", 1), "revenue_won": ("EUR", 1000)}),
        (deal(status="lost"), {"deals_lost": ("count", 1)}),
        (deal(amount="1.005"), {"deals_won": ("count", 1), "revenue_won": ("EUR", 101)}),
        (deal(currency="JPY"), {"deals_won": ("count", 1), "revenue_won": ("JPY", 10)}),
        (deal(currency="XYZ"), {"deals_won": ("count", 1)}),
        (deal(amount=None), {"deals_won": ("count", 1)}),
        (a_record("ticket", created_at=AT), {}),
    ],
)
def test_each_record_counts_for_what_it_is(
    shipped: Catalogue, record: Record, metrics: dict[str, tuple[str, int]]
) -> None:
    assert counted(shipped, record) == metrics


@pytest.mark.parametrize(
    ("record", "finding"),
    [
        (deal(amount=None), "no_amount"),
        (deal(amount="much"), "no_amount"),
        (deal(amount="1e30"), "absurd_amount"),
        (deal(amount="1e999999"), "absurd_amount"),
        (deal(currency="usd"), "unknown_currency"),
        (deal(closed_at=None), "no_date"),
        (deal(closed_at="2026-11-02T10:00:00"), "no_date"),
        (deal(closed_at="2926-11-02T10:00:00Z"), "implausible_date"),
    ],
)
def test_what_is_missing_is_found(shipped: Catalogue, record: Record, finding: str) -> None:
    assert finding in shipped.contributions(record)[1]


def test_the_shipped_boards_fit_the_shipped_catalogue(shipped: Catalogue) -> None:
    boards = leaderboard.parse(_document(Settings.model_fields["boards"].default), shipped)

    assert {
        "revenue-month", "revenue-quarter", "revenue-year", "calls-day", "calls-week",
        "meetings-week", "teams-revenue-month", "deals-won-month", "win-rate-quarter",
    } <= set(boards.definitions)  # fmt: skip
    assert ("calls_made", "day") in boards.published


def a_metric(**changes: Any) -> dict[str, Any]:
    fields = {"id": "m", "title": "M", "level": "driver", "unit": "count", "record": "call"}
    return fields | {"placed_by": "occurred_at"} | changes


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({}, "metrics"),
        ({"metrics": [a_metric(level="top")]}, "level"),
        ({"metrics": [a_metric(colour="red")]}, "colour"),
        ({"metrics": [a_metric(), a_metric()]}, "used twice"),
        ({"metrics": [a_metric(id="a/b")]}, "letters"),
        ({"metrics": [a_metric(unit="money")]}, "value"),
        ({"metrics": [a_metric(where={"done": {"over": 1}})]}, "where.done"),
        (
            {
                "metrics": [a_metric()],
                "derived": [
                    {
                        "id": "d", "title": "D", "level": "goal", "unit": "ratio",
                        "numerator": ["m"], "denominator": ["x"],
                    }
                ],
            },
            "'x' is not a base metric",
        ),
    ],
)  # fmt: skip
def test_a_wrong_catalogue_is_told_what_is_wrong(document: Any, reason: str) -> None:
    with pytest.raises(CatalogueError, match=reason):
        parse(document)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"metric": "x"}, "not in the catalogue"),
        ({"columns": ["x"]}, "not in the catalogue"),
        ({"limit": 0}, "limit"),
        ({"unit": "???"}, "ISO 4217"),
        ({"grain": "fortnight"}, "grain"),
    ],
)
def test_a_wrong_board_is_told_what_is_wrong(
    shipped: Catalogue, change: dict[str, Any], reason: str
) -> None:
    board = {"id": "b", "title": "B", "metric": "calls_made", "grain": "day"} | change
    with pytest.raises(CatalogueError, match=reason):
        leaderboard.parse({"boards": [board]}, shipped)


def test_conditions_may_list_exclude_and_ask_for_presence() -> None:
    where = {"stage": {"in": ["a", "b"]}, "outcome": {"known": True}, "x_kind": {"not": "c"}}
    catalogue = parse({"metrics": [a_metric(where=where)]})

    def counts(**fields: Any) -> bool:
        return bool(counted(catalogue, a_record("call", occurred_at=AT, **fields)))

    assert counts(stage="a", outcome="x")
    assert counts(stage="b", outcome="x", x_kind="d")
    assert not counts(stage="c", outcome="x")
    assert not counts(stage="a")
    assert not counts(stage="a", outcome="x", x_kind="c")
