"""The business clock follows its time map."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.clock import interpolate, load, real_time

POINTS = [(100.0, 1000.0), (110.0, 2000.0), (110.0, 5000.0), (120.0, 5000.0)]


@pytest.mark.parametrize(
    ("real", "business"),
    [(90, 990), (100, 1000), (105, 1500), (115, 5000), (120, 5000), (130, 5010)],
)
def test_business_time_is_interpolated_and_moves_at_real_speed_outside(
    real: float, business: float
) -> None:
    assert interpolate(POINTS, real) == business


@given(st.lists(st.floats(0, 300), min_size=2))
def test_business_time_never_runs_backwards(reals: list[float]) -> None:
    times = [interpolate(POINTS, real) for real in sorted(reals)]

    assert times == sorted(times)


def test_without_a_map_it_is_real_time() -> None:
    assert load(None) is real_time


def test_a_map_out_of_order_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text(json.dumps([[2, 1], [1, 2]]))

    with pytest.raises(ValueError, match="ascending"):
        load(path)


def test_a_changed_map_counts_at_once(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text(json.dumps([[0, 0], [9e9, 0]]))
    clock = load(path)
    assert clock().timestamp() == 0

    path.write_text(json.dumps([[0, 3600], [9e9, 3600]]))
    os.utime(path, ns=(1, 1))

    assert clock().timestamp() == 3600
