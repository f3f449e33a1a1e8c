"""What the entries of a catalogue are, once they have been checked."""

from typing import Any, Literal

import msgspec

Level = Literal["driver", "indicator", "goal"]
Direction = Literal["higher", "lower"]
Visibility = Literal["everyone", "managers", "finance"]
Unit = Literal["count", "money", "quantity", "duration", "ratio"]

COUNT, MONEY, QUANTITY, DURATION, RATIO = "count", "money", "quantity", "duration", "ratio"
SECONDS = "seconds"  # what durations are stored and shown in, as money is in a currency

STAGE = "@"  # between the id of a metric of each stage, and the stage


class CatalogueError(ValueError):
    """The document isn't a catalogue; the message says where and why."""


class Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a record is worth.

    Money is the field `sum` in the currency field, multiplied by the field `times` where there is
    one; a quantity is the field `sum` alone; a duration is the time `between` two instants.
    """

    sum: str = ""
    currency: str = ""
    times: str = ""
    between: tuple[str, str] | None = None


class Base(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A metric that adds up over records."""

    id: str
    title: str
    description: str = ""
    level: Level
    unit: Literal["count", "money", "quantity", "duration"]
    direction: Direction = "higher"
    visibility: Visibility = "everyone"
    part_only: bool = False  # there for formulas, of no interest by itself
    record: str
    where: dict[str, Any] = {}
    value: Literal["count"] | Value = "count"
    placed_by: str
    after: str = ""  # an ISO 8601 duration: placed so much later
    for_each: Literal["stage"] | None = None


class Statistic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What can't be added up: read from the records behind a base metric."""

    median: str


class Derived(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A metric computed on read: by a formula over base metrics, or as a statistic of one."""

    id: str
    title: str
    description: str = ""
    level: Level
    unit: Unit
    direction: Direction = "higher"
    visibility: Visibility = "everyone"
    formula: str | None = None
    statistic: Statistic | None = None
    for_each: Literal["stage"] | None = None


Metric = Base | Derived
