"""The comparison with SQL over a CRM's files, on files small enough to be counted by hand."""

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from rich.progress import Progress

from deploy.local import Stack
from tests.bench.opportunities import Cell, Comparison, FilesError, compare, read

FILES = {
    "sales_teams": """\
sales_agent,manager,regional_office
Ann Low,Mia Moor,East
Ben Oak,Mia Moor,East
Cal Ray,Ned Nye,West
""",
    "products": "product,series\nRake,garden\n",
    "accounts": "account,sector\nAcme,retail\n",
    "sales_pipeline": """\
opportunity_id,sales_agent,product,account,deal_stage,engage_date,close_date,close_value
O1,Ann Low,Rake,Acme,Won,2017-01-10,2017-03-31,1000
O2,Ann Low,Rake,Acme,Won,2017-03-01,2017-04-01,500
O3,Ann Low,Rake,Acme,Won,2017-01-20,2017-02-01,200
O4,Ann Low,Rake,Acme,Won,2017-03-01,2017-03-11,33.50
O5,Ann Low,Rake,Acme,Lost,2017-02-01,2017-03-01,0
O6,Ben Oak,RakePro,Acme,Lost,2017-01-01,2017-01-02,0
O7,Ben Oak,Rake,Acme,Won,2017-01-01,2017-01-31,about 900
O8,Ben Oak,Rake,Acme,Maybe,2017-01-01,,
O9,Cal Ray,Rake,,Engaging,2017-05-01,,
O10,Cal Ray,Rake,Initech,Prospecting,,,
O11,Cal Ray,Rake,Acme,Won,,2017-06-30,70
O12,Cal Ray,Rake,Acme,Won,2017-01-01,,50
O13,Dee Fox,Rake,Acme,Won,2017-01-01,2017-01-31,999
""",
}
FIRST, SECOND = date(2017, 1, 1), date(2017, 4, 1)
DAY = 86_400


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The four files."""
    made = tmp_path / "files"
    made.mkdir()
    for name, text in FILES.items():
        (made / f"{name}.csv").write_text(text)
    return made


def of(
    values: Mapping[Cell, Decimal | None], level: str, name: str, quarter: date
) -> list[Decimal | None]:
    """Won, lost, revenue, win rate, and the cycle's mean and median in seconds."""
    metrics = ("deals_won", "deals_lost", "revenue_won", "win_rate")
    cycles = ("sales_cycle", "sales_cycle_median")
    return [values[metric, level, name, quarter] for metric in (*metrics, *cycles)]


async def test_metrics_and_sql_count_the_files_as_a_person_does(
    stack: Stack, folder: Path, tmp_path: Path
) -> None:
    made = await compare(folder, stack, tmp_path, name="deals", progress=Progress(disable=True))

    assert made.differences == []
    assert made.equal
    revenue, cycles = Decimal("1233.50"), [34 * DAY, 12 * DAY]
    for values in (made.expected, made.found):
        ann = [3, 1, revenue, Decimal("0.75"), *cycles]
        assert of(values, "person", "Ann Low", FIRST) == ann
        assert of(values, "person", "Ann Low", SECOND) == [1, None, 500, 1, 31 * DAY, 31 * DAY]
        assert of(values, "person", "Ben Oak", FIRST) == [None, 1, None, 0, None, None]
        assert of(values, "person", "Cal Ray", FIRST) == [None] * 6
        assert of(values, "person", "Cal Ray", SECOND) == [1, None, 70, 1, None, None]
        for level, name in (("team", "Mia Moor"), ("office", "East"), ("organisation", "all")):
            both = [3, 2, revenue, Decimal("0.6"), *cycles]
            assert of(values, level, name, FIRST) == both
        assert of(values, "organisation", "all", SECOND)[:3] == [2, None, 570]
    assert made.records == {"won": 7, "lost": 2, "open": 2, "quarantined": 2}
    assert {quirk for quirk, count in made.quirks.items() if not count} == {
        "won without a value: no revenue"
    }


def test_one_number_or_row_that_differs_is_told() -> None:
    cell = ("deals_won", "person", "Ann Low", FIRST)
    one, two = {cell: Decimal(1)}, {cell: Decimal(2)}

    assert Comparison(one, one, {"won": 1}, {"won": 1}, {}).equal
    assert Comparison(one, two, {"won": 1}, {"won": 1}, {}).differences == [cell]
    assert not Comparison(one, two, {"won": 1}, {"won": 1}, {}).equal
    assert not Comparison(one, one, {"won": 2}, {"won": 1, "quarantined": 1}, {}).equal
    assert not Comparison({cell: None}, {cell: None}, {}, {}, {}).equal, "nothing was compared"


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("accounts", None, r"lacks accounts\.csv"),
        (
            "sales_teams",
            "sales_agent,boss\nAnn,Mia\n",
            "lacks the columns manager, regional_office",
        ),
        ("products", "product\n", "has a header and no rows"),
        ("sales_teams", FILES["sales_teams"] + "Ann Low,X,Y\n", "line 5: sales_agent 'Ann Low'"),
        ("sales_teams", FILES["sales_teams"] + "Eve,Ned Nye,East\n", "in West and in East"),
        ("sales_teams", FILES["sales_teams"] + "ann-low,Ned Nye,West\n", "in punctuation only"),
        ("sales_pipeline", FILES["sales_pipeline"] + "O14,Ann Low\n", "line 15: has not 8 values"),
    ],
)
def test_files_that_cannot_be_compared_are_refused_with_the_reason(
    folder: Path, name: str, text: str | None, complaint: str
) -> None:
    if text is None:
        (folder / f"{name}.csv").unlink()
    else:
        (folder / f"{name}.csv").write_text(text)

    with pytest.raises(FilesError, match=complaint):
        read(folder)
