"""What a board shows: scores, gaps, movement, bands, who sees what, and what changes."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from schemas.directory import (
    Assignment,
    Directory,
    Membership,
    Organisation,
    Person,
    Role,
    Team,
    Territory,
)
from services.metrics.domain import leaderboard, scores
from services.metrics.domain.boards import Definition
from services.metrics.domain.catalogue import Catalogue, parse
from services.metrics.domain.leaderboard import Board, Material, Standings
from services.metrics.domain.numbers import Part
from services.metrics.domain.ranking import Moment
from services.metrics.domain.scopes import Roster, Scope
from services.metrics.settings import Settings

TODAY = date(2026, 11, 3)
PEOPLE = ("ada", "bob", "cid", "dot")
CATALOGUE = parse(yaml.safe_load(Settings.model_fields["catalogue"].default.read_text()))


def an_entry(kind: Any, number: str, **fields: Any) -> Any:
    return kind(tenant="acme", version=1, id=number, **fields)


def a_directory() -> Directory:
    """Ada and Bob in the north, Cid in the south, Dot above both; one has left."""
    return Directory(
        "acme",
        [
            an_entry(Organisation, "all", name="Acme", currency="EUR", zone="Europe/Berlin"),
            *(
                an_entry(Person, name, name=name.title(), joined=TODAY - timedelta(days=age))
                for name, age in zip(PEOPLE, (10, 100, 400, 400), strict=True)
            ),
            an_entry(Person, "gone", name="Gone", left=TODAY),
            an_entry(Team, "all", name="All"),
            an_entry(Team, "north", name="North", parent="all"),
            an_entry(Team, "south", name="South", parent="all"),
            an_entry(Membership, "1", person="ada", team="north"),
            an_entry(Membership, "2", person="bob", team="north"),
            an_entry(Membership, "3", person="cid", team="south"),
            an_entry(Membership, "4", person="dot", team="all", manages=True),
            an_entry(Membership, "5", person="gone", team="south"),
            an_entry(Territory, "eu", name="Europe"),
            an_entry(Territory, "de", name="Germany", parent="eu"),
            an_entry(Assignment, "1", person="bob", territory="de"),
            an_entry(Role, "1", person="dot", role="manager"),
        ],
    )


def sums(metric: str = "deals_won", kind: str = "person", **values: Any) -> Any:
    unit = "EUR" if metric == "revenue_won" else "count"
    return {metric: {f"{kind}:{name}": Part(n, abs(n) or 1, unit) for name, n in values.items()}}


def standings(found: Any, catalogue: Catalogue = CATALOGUE, **changes: Any) -> Standings:
    about = {
        name: changes.pop(name)
        for name in ("since", "snapshot", "targets", "past", "past_before", "last")
        if name in changes
    }
    definition = {"id": "b", "title": "B", "metric": "deals_won", "grain": "month"} | changes
    return Standings(
        Definition(**definition),
        Material(
            catalogue=catalogue,
            roster=Roster(a_directory(), TODAY),
            period="month:2026-11-01",
            currency="EUR",
            sums=found,
            version="v",
            as_of="now",
            **about,
        ),
    )


def a_board(found: Any, **changes: Any) -> Board:
    return standings(found, **changes).shown("finance")


def places(board: Board) -> list[tuple[int | None, str, str | None]]:
    return [(row.rank, row.name, row.gap_to_next) for row in board.rows]


def ranked(board: Board) -> list[tuple[int | None, str]]:
    return [(row.rank, row.name) for row in board.rows if row.rank is not None]


def test_the_active_are_ranked_and_who_has_no_data_comes_last() -> None:
    board = a_board(sums(bob=2, ada=2, cid=5, gone=9))

    assert places(board) == [
        (1, "Cid", None),
        (2, "Ada", "3"),
        (2, "Bob", "3"),
        (None, "Dot", None),
    ]
    assert board.total == 4


def test_movement_is_since_the_snapshot() -> None:
    board = a_board(sums(ada=4, bob=3, cid=2), since=sums(ada=3, cid=2), snapshot=TODAY)

    assert [(row.name, row.movement) for row in board.rows[:3]] == [
        ("Ada", 1),  # was second with 1
        ("Bob", -1),  # was first
        ("Cid", None),  # had nothing before
    ]
    assert board.since == "2026-11-03"


TARGETS = {"deals_won": {"person:ada": Fraction(10), "person:bob": Fraction(1)}}


def test_a_board_may_rank_by_attainment() -> None:
    board = a_board(sums(ada=4, bob=3, cid=9), rank_by="attainment", targets=TARGETS)

    assert [(row.rank, row.name, row.attainment, row.gap_to_next) for row in board.rows] == [
        (1, "Bob", "3.0000", None),
        (2, "Ada", "0.4000", "26"),  # deals to 300 % of 10
        (None, "Cid", None, None),
        (None, "Dot", None, None),
    ]


def test_attainments_tie_exactly() -> None:
    targets = {"deals_won": {"person:ada": Fraction(10), "person:bob": Fraction(20)}}
    board = a_board(sums(ada=9, bob=18), rank_by="attainment", targets=targets)

    assert ranked(board) == [(1, "Ada"), (1, "Bob")]


def test_money_attains_a_target_in_whole_units() -> None:
    targets = {"revenue_won": {"person:ada": Fraction(30)}}
    found = sums("revenue_won", ada=1000)
    row = a_board(found, metric="revenue_won", rank_by="attainment", targets=targets).rows[0]

    assert (row.value, row.target, row.attainment) == ("10.00", "30.00", "0.3333")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("share", [(1, "Bob", "1.0000"), (2, "Ada", "0.5000"), (None, "Cid", None)]),
        ("difference", [(1, "Ada", "3"), (2, "Bob", "1"), (2, "Cid", "1")]),
    ],
)
def test_improvement_is_over_ones_own_past(kind: str, expected: Any) -> None:
    board = a_board(
        sums(ada=9, bob=2, cid=1, dot=5),
        rank_by="improvement",
        improvement=kind,
        past=sums(ada=6, bob=1, cid=0),  # nothing is known of Dot's
    )

    assert [(row.rank, row.name, row.score) for row in board.rows[:3]] == expected
    assert [row.rank for row in board.rows if row.name == "Dot"] == [None]


def test_movement_of_improvements_compares_with_the_past_as_of_then() -> None:
    board = a_board(
        sums(ada=4, bob=3),
        rank_by="improvement",
        improvement="difference",
        past=sums(ada=2, bob=2),
        since=sums(ada=2),
        snapshot=TODAY,
        past_before=sums(ada=2, bob=2),
    )

    assert [(row.name, row.movement) for row in board.rows[:2]] == [("Ada", 1), ("Bob", -1)]


def test_points_weigh_metrics_in_the_units_that_people_speak_of() -> None:
    found = sums("calls_made", ada=10, bob=4) | sums("revenue_won", bob=1_000_00)
    board = a_board(
        found, metric="", rank_by="points", points={"calls_made": 1, "revenue_won": "0.0105"}
    )

    assert board.unit == "points"
    assert [(row.rank, row.name, row.value, row.gap_to_next) for row in board.rows[:3]] == [
        (1, "Bob", "14.5", None),
        (2, "Ada", "10", "4.5"),
        (None, "Cid", None, None),
    ]
    assert board.rows[0].count == 4 + 1_000_00


@given(st.integers(-50, 50), st.integers(-50, 50), st.fractions(-2, 2, max_denominator=9))
def test_points_are_linear(one: int, other: int, weight: Fraction) -> None:
    def of(value: int) -> Fraction:
        found = scores.points([(value, weight, "EUR"), (2 * value, 3, "count")])  # type: ignore[list-item]
        assert found is not None
        return found

    assert of(one + other) == of(one) + of(other)
    assert of(3 * one) == 3 * of(one)


def test_teams_may_rank_per_head() -> None:
    found = sums(kind="team", north=5, south=3, all=9)
    board = a_board(found, subjects="team", rank_by="per_head")

    assert [(row.rank, row.name, row.value, row.score, row.gap_to_next) for row in board.rows] == [
        (1, "South", "3", "3", None),  # who has left is not a head any more
        (2, "North", "5", "3", "1"),  # 2.5, which reads as 3; one deal makes it 3 exactly
        (3, "All", "9", "2", "1"),
    ]


@pytest.mark.parametrize(
    ("scope", "names"),
    [
        ({}, "Ada Bob Cid Dot"),
        ({"teams": ["north"]}, "Ada Bob"),
        ({"teams": ["all"]}, "Ada Bob Cid Dot"),
        ({"territories": ["eu"]}, "Bob"),
        ({"roles": ["manager"]}, "Dot"),
        ({"people": ["cid", "ada"]}, "Ada Cid"),
        ({"tenure": {"below": 90}}, "Ada"),
        ({"tenure": {"at_least": 100, "below": 400}}, "Bob"),
        ({"teams": ["north"], "tenure": {"at_least": 90}}, "Bob"),
    ],
)
def test_a_scope_says_who_takes_part(scope: Mapping[str, Any], names: str) -> None:

    board = a_board({}, scope=msgspec.convert(scope, Scope))

    assert " ".join(row.name for row in board.rows) == names


def test_a_team_scope_is_its_subtree() -> None:
    board = a_board({}, subjects="team", scope=Scope(teams=["north"]))

    assert [row.subject for row in board.rows] == ["team:north"]


def test_equals_may_be_told_apart_by_who_was_first() -> None:
    found = standings(sums(ada=2, bob=2, cid=2), ties="first")
    assert found.tied() == ["person:ada", "person:bob", "person:cid"]
    found.settle(
        {
            "person:ada": [Moment(10, "deals_won", 1), Moment(90, "deals_won", 1)],
            "person:bob": [Moment(50, "deals_won", 1), Moment(60, "deals_won", 1)],
            "person:cid": [Moment(5, "deals_won", 1), Moment(90, "deals_won", 1)],
        }
    )
    board = found.shown("finance")

    assert ranked(board) == [(1, "Bob"), (2, "Ada"), (2, "Cid")]
    assert board.rows[0].reached_at == "1970-01-01T00:01:00+00:00"
    assert board.rows[1].gap_to_next == "0"


def test_who_was_first_before_the_snapshot_moves_too() -> None:
    midnight = int(datetime(2026, 11, 3, tzinfo=ZoneInfo("Europe/Berlin")).timestamp())
    found = standings(sums(ada=2, bob=2), since=sums(ada=1, bob=1), snapshot=TODAY, ties="first")
    found.settle(
        {
            "person:ada": [Moment(10, "deals_won", 1), Moment(midnight + 9, "deals_won", 1)],
            "person:bob": [Moment(50, "deals_won", 1), Moment(midnight, "deals_won", 1)],
        }
    )

    assert [(r.name, r.movement) for r in found.shown("finance").rows[:2]] == [
        ("Bob", 1),
        ("Ada", -1),
    ]


KINDS: dict[str, dict[str, Any]] = {
    "value": {"columns": ["win_rate", "calls_made"], "limit": 2},
    "derived": {"metric": "win_rate"},
    "attainment": {"rank_by": "attainment"},
    "points": {"metric": "", "rank_by": "points", "points": {"deals_won": 1, "calls_made": 2}},
    "improvement": {"rank_by": "improvement"},
    "first": {"ties": "first"},
    "bands": {"bands": "quarter"},
}
few_numbers = st.dictionaries(st.sampled_from(PEOPLE), st.integers(0, 3))
some_sums = st.tuples(few_numbers, few_numbers, few_numbers).map(
    lambda drawn: {
        name: {f"person:{who}": Part(n, n or 1) for who, n in of.items()}
        for name, of in zip(("deals_won", "deals_lost", "calls_made"), drawn, strict=True)
    }
)


@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(st.tuples(some_sums, some_sums, some_sums), min_size=2, max_size=4))
def test_standings_made_from_former_ones_are_the_same(kind: str, drawn: list[Any]) -> None:
    definition = {"id": "b", "title": "B", "metric": "deals_won", "grain": "month"} | KINDS[kind]
    board = msgspec.convert(definition, Definition)
    roster, former = Roster(a_directory(), TODAY), None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leaderboard, "FEW", 1)  # however many have changed
        for found, since, past in drawn:
            material = Material(
                catalogue=CATALOGUE,
                roster=roster,
                period="month:2026-11-01",
                currency="EUR",
                sums=found,
                version="v",
                as_of="now",
                targets=TARGETS,
                snapshot=TODAY,
                since=since,
                past=past,
                past_before=past,
                last=past,
            )
            former, fresh = Standings(board, material, former), Standings(board, material)
            moments = {who: [Moment(len(who), "deals_won", 1)] for who in fresh.tied()}
            assert former.tied() == fresh.tied()
            former.settle(moments)
            fresh.settle(moments)
            assert former.shown("finance") == fresh.shown("finance")
            assert [former.row(who, "everyone") for who in former.names] == [
                fresh.row(who, "everyone") for who in fresh.names
            ]


def test_who_shares_a_place_asks_for_no_records() -> None:
    assert standings(sums(ada=2, bob=2)).tied() == []


@pytest.mark.parametrize(
    ("bands", "expected"),
    [
        ("role", {"Ada": ("rep", 2), "Bob": ("rep", 3), "Cid": ("rep", 1), "Dot": ("manager", 1)}),
        (
            "tenure",
            {"Ada": ("0-89", 1), "Bob": ("90-364", 1), "Cid": ("365+", 1), "Dot": ("365+", 2)},
        ),
        ("quarter", {"Ada": ("Q1", 1), "Bob": ("Q2", 2), "Cid": ("Q2", 1), "Dot": (None, None)}),
    ],
)
def test_bands_put_people_with_their_peers(bands: str, expected: Any) -> None:
    board = a_board(
        sums(ada=4, bob=3, cid=5, dot=1),
        bands=bands,
        last=sums(ada=7, bob=6, cid=6) if bands == "quarter" else {},
    )

    assert {row.name: (row.band, row.band_rank) for row in board.rows} == expected


def test_one_band_alone_can_be_shown() -> None:
    found = standings(sums(ada=4, bob=3, cid=5), bands="role")

    assert ranked(found.shown("finance", band="rep")) == [(1, "Cid"), (2, "Ada"), (3, "Bob")]


def test_the_rows_around_someone() -> None:
    found = standings(sums(ada=4, bob=3, cid=2), limit=1)

    assert ranked(found.shown("finance")) == [(1, "Ada")]
    around = found.shown("finance", around="person:cid", rows=1)
    assert [(row.rank, row.name) for row in around.rows] == [(2, "Bob"), (3, "Cid"), (None, "Dot")]
    assert found.shown("finance", around="person:gone", rows=1).rows == []


def a_catalogue(**visibility: str) -> Catalogue:
    document = yaml.safe_load(Settings.model_fields["catalogue"].default.read_text())
    for metric in (*document["metrics"], *document["derived"]):
        metric["visibility"] = visibility.get(metric["id"], "everyone")
    return parse(document)


SECRET = a_catalogue(revenue_won="managers", cost_of_deals="finance")
REVENUE = sums("revenue_won", ada=400, bob=300) | sums(ada=4, bob=3)


def test_there_are_no_more_audiences_than_a_board_needs() -> None:
    board = Definition(id="b", title="B", metric="revenue_won", grain="month")

    def audiences(columns: list[str], metric: str = "revenue_won") -> list[str]:
        of = Definition(id="b", title="B", metric=metric, grain="month", columns=columns)
        return [leaderboard.audience_of(of, SECRET, level) for level in leaderboard.AUDIENCES]

    assert board.ranked == ["revenue_won"]
    assert audiences([], "deals_won") == ["everyone"] * 3
    assert audiences([]) == ["everyone", "managers", "managers"]
    assert audiences(["cost_of_deals"]) == ["everyone", "managers", "finance"]


def test_peers_see_places_but_not_the_numbers_behind_them() -> None:
    found = standings(REVENUE, SECRET, metric="revenue_won", columns=["deals_won", "revenue_won"])
    ada, bob = found.shown("everyone", own="person:bob").rows[:2]

    assert (ada.rank, ada.value, ada.count, ada.hidden) == (1, None, None, True)
    assert ada.columns == {"deals_won": "4", "revenue_won": None}
    assert (bob.rank, bob.value, bob.count, bob.hidden) == (2, "3.00", 300, False)
    assert bob.columns == {"deals_won": "3", "revenue_won": "3.00"}
    assert bob.gap_to_next is None  # with it one could tell Ada's
    assert [row.value for row in found.shown("managers").rows[:2]] == ["4.00", "3.00"]
    assert found.shown("managers").rows[1].gap_to_next == "1.00"


def test_places_can_be_hidden_with_the_numbers() -> None:
    found = standings(REVENUE, SECRET, metric="revenue_won", show_rank=False, limit=3)
    board = found.shown("everyone", own="person:bob")

    assert [(row.rank, row.name, row.value) for row in board.rows] == [
        (None, "Ada", None),
        (2, "Bob", "3.00"),
        (None, "Cid", None),
    ]
    near = found.shown("everyone", own="person:bob", around="person:bob", rows=1)
    assert [row.name for row in near.rows] == ["Bob"]  # neighbours would be the places
    assert ranked(found.shown("managers")) == [(1, "Ada"), (2, "Bob")]


@pytest.mark.parametrize(
    ("show_rank", "band", "expected"),
    [
        (True, "", {"Ada": "Q1", "Bob": "Q3", "Cid": None, "Dot": None}),
        (False, "", {"Ada": None, "Bob": "Q3", "Cid": None, "Dot": None}),
        (False, "Q1", {}),
        (False, "Q3", {"Bob": "Q3"}),
    ],
)
def test_a_quarter_of_the_ranking_is_hidden_like_a_place(
    show_rank: bool,  # noqa: FBT001  # a parameter of the test
    band: str,
    expected: dict[str, str | None],
) -> None:
    found = standings(
        REVENUE,
        SECRET,
        metric="revenue_won",
        bands="quarter",
        last=REVENUE,
        show_rank=show_rank,
    )
    rows = found.shown("everyone", own="person:bob", band=band).rows

    assert {row.name: row.band for row in rows} == expected


@given(
    st.dictionaries(st.sampled_from(PEOPLE), st.integers(-5, 5)),
    st.sampled_from(["everyone", "managers"]),
    st.booleans(),
)
def test_what_peers_see_does_not_depend_on_hidden_numbers(
    values: dict[str, int],
    audience: Any,
    show_rank: bool,  # noqa: FBT001  # drawn
) -> None:
    """With the same places, nothing that is shown to peers may differ."""

    def shown(factor: int) -> Board:
        more: dict[str, Any] = {name: value * factor for name, value in values.items()}
        found = sums("revenue_won", **more)
        return standings(found, SECRET, metric="revenue_won", show_rank=show_rank).shown(audience)

    assert (shown(1) == shown(7)) or audience == "managers"


def test_the_difference_of_two_boards_is_what_changed() -> None:
    old = a_board(sums(ada=4, bob=3, cid=1), limit=3)
    new = a_board(sums(ada=4, bob=3, dot=2), limit=3)
    rows, removed = leaderboard.difference(old, new)

    assert [row.subject for row in rows] == ["person:dot"]
    assert removed == ["person:cid"]
    assert leaderboard.difference(new, new) == ([], [])


def test_what_divides_by_nothing_has_no_value() -> None:
    found = sums("deals_lost", ada=1) | sums("deals_won", bob=1)
    board = a_board(found, metric="win_rate", columns=["deals_won"])

    assert [(row.rank, row.name, row.value) for row in board.rows[:3]] == [
        (1, "Bob", "1.0000"),
        (2, "Ada", "0.0000"),
        (None, "Cid", None),
    ]
