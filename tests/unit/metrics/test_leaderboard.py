"""Ranks, numbers and their text, and what changes between two boards."""

from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from schemas.directory import Directory, Organisation, Person
from services.metrics.domain import leaderboard, numbers
from services.metrics.domain.catalogue import Catalogue, parse
from services.metrics.domain.leaderboard import Definition, Material
from services.metrics.domain.numbers import Part
from services.metrics.domain.ranking import rank
from services.metrics.settings import Settings

TODAY = date(2026, 11, 3)


def test_equals_share_a_place_and_the_next_place_counts_them() -> None:
    assert rank({"a": 5, "b": 9, "c": 5, "d": 1, "e": None}) == {"b": 1, "a": 2, "c": 2, "d": 4}
    assert rank({"a": 5, "b": 9}, higher_is_better=False) == {"a": 1, "b": 2}
    assert rank({"a": Fraction(9, 10), "b": Fraction(18, 20)}) == {"a": 1, "b": 1}


@given(st.dictionaries(st.text(max_size=3), st.none() | st.integers(-3, 3)))
def test_a_place_is_one_more_than_how_many_are_better(values: dict[str, int | None]) -> None:
    known = {s: v for s, v in values.items() if v is not None}

    assert rank(values) == {s: 1 + sum(o > v for o in known.values()) for s, v in known.items()}


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (12345, "EUR", "123.45"),
        (-5, "EUR", "-0.05"),
        (12345, "JPY", "12345"),
        (7, "count", "7"),
        (Fraction(2, 3), "ratio", "0.6667"),
        (Fraction(1), "ratio", "1.0000"),
    ],
)
def test_numbers_read_as_their_unit_wants(value: Any, unit: str, text: str) -> None:
    assert numbers.text(value, unit) == text


def test_attainment_is_an_exact_share_of_the_target() -> None:
    assert numbers.attainment(1000, Decimal(30), "EUR") == Fraction(1, 3)
    assert numbers.attainment(9, Decimal(10), "count") == Fraction(9, 10)
    assert numbers.attainment(None, Decimal(10), "count") is None
    assert numbers.attainment(9, Decimal(0), "count") is None
    assert numbers.target_text(Decimal(50000), "EUR") == "50000.00"
    assert numbers.target_text(Decimal("0.001"), "EUR") == "0.001"


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return parse(yaml.safe_load(Settings.model_fields["catalogue"].default.read_text()))


def a_board(catalogue: Catalogue, sums: Any, today: Any = None, **changes: Any) -> Any:
    directory = Directory(
        "acme",
        [
            Organisation(tenant="acme", version=1, id="all", name="Acme", currency="EUR"),
            *(
                Person(tenant="acme", version=1, id=name, name=name.title())
                for name in ("ada", "bob", "cid", "dot")
            ),
            Person(tenant="acme", version=1, id="gone", name="Gone", left=TODAY),
        ],
    )
    definition = {"id": "b", "title": "B", "metric": "deals_won", "grain": "month"} | changes
    targets = {"person:ada": Decimal(10), "person:bob": Decimal(1)}
    return leaderboard.compute(
        Definition(**definition),
        Material(
            catalogue=catalogue,
            directory=directory,
            day=TODAY,
            sums=sums,
            today=today or {},
            targets=targets,
            version="v",
            as_of="now",
        ),
    )


def deals(**counts: int) -> dict[str, dict[str, Part]]:
    return {f"person:{name}": {"deals_won": Part(n, n)} for name, n in counts.items()}


def places(board: Any) -> list[tuple[int | None, str, str | None]]:
    return [(row.rank, row.name, row.gap_to_next) for row in board.rows]


def test_the_active_are_ranked_and_who_has_no_data_comes_last(catalogue: Catalogue) -> None:
    board = a_board(catalogue, deals(bob=2, ada=2, cid=5, gone=9))

    assert places(board) == [
        (1, "Cid", None),
        (2, "Ada", "3"),
        (2, "Bob", "3"),
        (None, "Dot", None),
    ]


def test_movement_is_since_the_start_of_the_day(catalogue: Catalogue) -> None:
    board = a_board(catalogue, deals(ada=4, bob=3, cid=2), deals(ada=3, cid=2))

    assert [(row.name, row.movement) for row in board.rows[:3]] == [
        ("Ada", 1),  # was second with 1
        ("Bob", -1),  # was first
        ("Cid", None),  # had nothing before today
    ]


def test_a_board_may_rank_by_attainment(catalogue: Catalogue) -> None:
    board = a_board(catalogue, deals(ada=4, bob=3, cid=9), rank_by="attainment")

    assert [(row.rank, row.name, row.attainment) for row in board.rows] == [
        (1, "Bob", "3.0000"),
        (2, "Ada", "0.4000"),
        (None, "Cid", None),
        (None, "Dot", None),
    ]


def test_the_difference_of_two_boards_is_what_changed(catalogue: Catalogue) -> None:
    old = a_board(catalogue, deals(ada=4, bob=3, cid=1), limit=3)
    new = a_board(catalogue, deals(ada=4, bob=3, dot=2), limit=3)
    rows, removed = leaderboard.difference(old, new)

    assert [row.subject for row in rows] == ["person:dot"]
    assert removed == ["person:cid"]
    assert leaderboard.difference(new, new) == ([], [])
