"""Rows as `unnest` takes them."""

from collections.abc import Sequence
from typing import Any


def columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Rows as the columns that `unnest` takes; empty columns when there are no rows."""
    return [[row[i] for row in rows] for i in range(width)]
