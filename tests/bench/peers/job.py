"""What one record contributes; all peers in Python share it, and only the standard library does.

A peer that keeps the last contribution of each record can take it back when a newer version comes.
"""

import os
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

ZONE = ZoneInfo("America/New_York")  # of the organisation; the oracle and the Java peer say it too
SESSION_SECONDS = 10  # a killed member's partitions are given away after so long; the same for all

KAFKA = os.environ.get("PEER_KAFKA", "")
DATABASE = os.environ.get("PEER_DATABASE", "")  # an address of PostgreSQL with the table `result`
TOPIC = os.environ.get("PEER_TOPIC", "")
GROUP = os.environ.get("PEER_GROUP", "")
STATE = os.environ.get("PEER_STATE", "")  # a folder that stays when the process is killed

NOTHING = (0, 0, 0)
Totals = tuple[int, int, int]  # deals won, revenue in minor units, calls made


def contribution(record: dict[str, Any]) -> tuple[str, Totals]:
    """The cell (`person/day`) that a record counts in, empty for none, and what it adds there."""
    fields = {name: field[1] for name, field in record["fields"].items() if field[0] == "value"}
    if record.get("deleted"):
        return "", NOTHING
    if record["type"] == "opportunity" and fields["status"] == "won":
        totals = (1, int(Decimal(fields["amount"]).scaleb(2)), 0)
        return _cell(fields["owner_id"], fields["closed_at"]), totals
    if record["type"] == "call" and fields["done"]:
        return _cell(fields["owner_id"], fields["occurred_at"]), (0, 0, 1)
    return "", NOTHING


def changes(before: tuple[str, Totals], after: tuple[str, Totals]) -> list[tuple[str, Totals]]:
    """What to add to which cells when a record's contribution becomes another."""
    if before == after:
        return []
    taken = (before[0], _minus(NOTHING, before[1]))
    if before[0] == after[0]:
        return [(after[0], _minus(after[1], before[1]))]
    return [change for change in (taken, after) if change[0]]


def _cell(owner_id: str, at: str) -> str:
    return f"p{owner_id}/{datetime.fromisoformat(at).astimezone(ZONE).date()}"


def _minus(one: Totals, other: Totals) -> Totals:
    return (one[0] - other[0], one[1] - other[1], one[2] - other[2])
