"""Documents of boards and contests, and what is wrong with them."""

from typing import Any

import pytest
import yaml

from services.metrics.domain import boards
from services.metrics.domain.catalogue import CatalogueError, parse
from services.metrics.settings import Settings

CATALOGUE = parse(yaml.safe_load(Settings.model_fields["catalogue"].default.read_text()))
BOARD = {"id": "b", "title": "B", "metric": "deals_won", "grain": "month"}
CONTEST = {
    "id": "c",
    "title": "C",
    "starts": "2026-11-20T09:00",
    "ends": "2026-11-20T17:00",
    "metrics": [{"metric": "calls_made", "points": 1}],
}


def said(**document: Any) -> list[str]:
    return [str(mistake) for mistake in boards.lint(document, CATALOGUE)]


def test_the_shipped_boards_are_right() -> None:
    document = yaml.safe_load(Settings.model_fields["boards"].default.read_text())

    assert boards.lint(document, CATALOGUE) == []
    assert boards.parse_file(document, CATALOGUE).definitions


def test_dates_of_yaml_may_be_written_plainly() -> None:
    text = "{id: c, title: C, starts: 2026-11-20T09:00:00, ends: 2026-11-21 09:00:00, "
    text += "metrics: [{metric: calls_made, points: 1.5}]}"

    assert said(contests=[yaml.safe_load(text)]) == []


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        ({"metric": "deals_one"}, "boards[0].metric: 'deals_one' is not in the catalogue"),
        ({"metrik": "x"}, "boards[0].metrik: there is no such field; did you mean metric?"),
        ({"grain": "fortnight"}, "boards[0].grain: invalid enum value 'fortnight'"),
        ({"rolling_days": 30}, "this has grain and rolling_days"),
        ({"grain": None}, "this has none"),
        ({"grain": None, "rolling_days": 0}, "boards[0].rolling_days: 0 is not from 1 to 366"),
        ({"grain": None, "dates": "2026-11-15..2026-11-01"}, "swap the two days"),
        ({"grain": None, "contest": "x"}, "boards[0].contest: there is no contest 'x'"),
        ({"rank_by": "per_head"}, "boards[0].rank_by: per_head is for `subjects: team`"),
        ({"rank_by": "points"}, "boards[0].points: name 1 to 10 metrics"),
        ({"points": {"calls_made": 1}}, "boards[0].points: are counted with"),
        (
            {"metric": "", "rank_by": "points", "points": {"calls_made": "1e1000000"}},
            "boards[0].points.calls_made: 1E+1000000: expected a number below 10^12",
        ),
        ({"columns": ["win_rat"]}, "boards[0].columns: 'win_rat' is not in the catalogue; did you"),
        ({"columns": ["sales_cycle_median"]}, "is a statistic of single records"),
        ({"subjects": "team", "bands": "role"}, "boards[0].bands: are bands of people"),
        (
            {"subjects": "team", "scope": {"roles": ["ae"]}},
            "boards[0].scope.roles: says nothing about `subjects: team`",
        ),
        ({"scope": {"tenure": {"at_least": 9, "below": 9}}}, "boards[0].scope.tenure: expected"),
        ({"scope": {"teams": ["a b"]}}, "boards[0].scope.teams: 'a b': use letters"),
        ({"tenure_bands": [90, 30]}, "boards[0].tenure_bands: expected ascending"),
        ({"unit": "EURO"}, "boards[0].unit: 'EURO' is not an ISO 4217"),
        ({"limit": 0}, "boards[0].limit: 0 is not from 1 to 1000"),
        ({"id": "a b"}, "boards[0].id: 'a b': use letters"),
    ],
)
def test_a_board_that_makes_no_sense_is_explained(change: dict[str, Any], mistake: str) -> None:
    found = said(boards=[BOARD | change])

    assert any(mistake in each for each in found), found


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        ({"ends": "2026-11-20T09:29"}, "contests[0].ends: a contest takes from 30 minutes"),
        ({"ends": "2028-11-20T09:00"}, "contests[0].ends: a contest takes from 30 minutes"),
        ({"starts": "tomorrow"}, "contests[0].starts: 'tomorrow': expected a local time"),
        ({"starts": "2026-11-20T09:00Z"}, "contests[0].starts: '2026-11-20T09:00Z': expected"),
        (
            {"starts": "2026-03-29T02:30", "ends": "2026-03-30T09:00", "zone": "Europe/Berlin"},
            "contests[0].starts: '2026-03-29T02:30': clocks are set forward",
        ),
        ({"zone": "Mars/Base"}, "contests[0].zone: 'Mars/Base' is no time zone"),
        ({"zone": "../etc/passwd"}, "contests[0].zone: '../etc/passwd' is no time zone"),
        ({"grace": "1 day"}, "contests[0].grace: '1 day' is no ISO 8601 duration"),
        ({"grace": "P60D"}, "contests[0].grace: P60D is not from none to 31 days"),
        ({"metrics": []}, "contests[0].metrics: a contest is about 1 to 10 metrics"),
        ({"metrics": [{"metric": "calls"}]}, "contests[0].metrics[0]: has either `points`"),
        (
            {"metrics": [{"metric": "calls_made", "points": "1e-99999"}]},
            "contests[0].metrics[0].points: 1E-99999: expected a number",
        ),
        ({"mode": "race", "goal": "NaN"}, "contests[0].goal: NaN: expected a number"),
        ({"prizes": ["Infinity"]}, "contests[0].prizes[0]: Infinity: expected a number"),
        (
            {"metrics": [{"metric": "calls_made", "weight": 50, "target": 9}]},
            "contests[0].metrics: the weights add up to 100",
        ),
        (
            {"metrics": [{"metric": "calls_made", "weight": 100}]},
            "contests[0].metrics[0]: a `weight` is for reaching a `target`",
        ),
        (
            {
                "metrics": [
                    {"metric": "calls_made", "weight": 100, "target": 1},
                    {"metric": "emails_sent", "points": 1},
                ]
            },
            "contests[0].metrics: are counted all by points or all by weights",
        ),
        (
            {"metrics": [{"metric": "pipeline_coverage", "points": 1}]},
            "contests[0].metrics: 'pipeline_coverage' needs a goal",
        ),
        ({"mode": "race"}, "contests[0].goal: a race is to a score above zero"),
        ({"goal": 5}, "contests[0].goal: only a race has one"),
        ({"mode": "elimination"}, "contests[0].rounds: an elimination has 1 to 50 rounds"),
        (
            {"mode": "elimination", "rounds": [{"ends": "2026-11-20T12:00", "eliminate": 1}]},
            "contests[0].rounds: the last one ends with the contest",
        ),
        (
            {"mode": "elimination", "rounds": [{"ends": "2026-11-20T17:00", "eliminate": 0}]},
            "contests[0].rounds: in each round at least one leaves",
        ),
        ({"prizes": [-1]}, "contests[0].prizes: expected up to 100 amounts"),
        ({"currency": "XXL"}, "contests[0].currency: 'XXL' is not an ISO 4217"),
    ],
)
def test_a_contest_that_makes_no_sense_is_explained(change: dict[str, Any], mistake: str) -> None:
    found = said(contests=[CONTEST | change])

    assert any(mistake in each for each in found), found


def test_all_mistakes_are_found_at_once() -> None:
    found = said(
        boards=[BOARD | {"metric": "x", "limit": 0}, {"id": "?"}, BOARD],
        contests=[CONTEST | {"goal": 5}, 7],
        publish=[{"metric": "win_rate", "grain": "month"}],
        board=[],
    )

    assert len(found) == 8
    wrong = {"boards": [BOARD | {"limit": 0}], "contests": [CONTEST | {"goal": 5}]}
    with pytest.raises(CatalogueError, match=r"limit.*goal"):
        boards.parse_file(wrong, CATALOGUE)


@pytest.mark.parametrize("document", [None, [], "x", {"boards": {}}, {"boards": [None]}])
def test_what_is_no_document_is_said(document: object) -> None:
    assert boards.lint(document, CATALOGUE)
