"""A RemoteExecutionContext as it comes, and its columns' values without their envelopes."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from services.ingest.domain import values

_ROW = re.compile(r"\d{1,20}", re.ASCII)
_DATE = re.compile(r"/Date\((-?\d{1,15})(?:([+-])(\d\d)(\d\d))?\)/")

State = dict[str, Any]


class Pair(msgspec.Struct, frozen=True):
    """An entry of what .NET calls a collection."""

    key: str
    value: Any = None


class Context(msgspec.Struct, frozen=True, rename="pascal"):
    """What is read of a RemoteExecutionContext."""

    message_name: str
    primary_entity_name: str = ""
    primary_entity_id: str | None = None
    input_parameters: list[Pair] | None = None
    pre_entity_images: list[Pair] | None = None
    post_entity_images: list[Pair] | None = None
    operation_id: str | None = None
    request_id: str | None = None
    correlation_id: str | None = None
    initiating_user_id: str | None = None
    organization_id: str | None = None
    operation_created_on: str | None = None


class Reference(msgspec.Struct, frozen=True):
    """A record that a value names."""

    kind: str
    id: str


def image(pairs: Sequence[Pair] | None) -> State:
    """The columns of all registered images together; how they are named is the registrant's."""
    found: State = {}
    for pair in pairs or ():
        found |= attributes(pair.value)
    return found


def attributes(entity: object) -> State:
    """The columns of an entity, as they came."""
    given = entity.get("Attributes") if isinstance(entity, dict) else None
    if not isinstance(given, list):
        return {}
    pairs = (one for one in given if isinstance(one, dict) and isinstance(one.get("key"), str))
    return {one["key"]: one.get("value") for one in pairs}


def plains(columns: State) -> State:
    """All columns' values, as `plain` has one."""
    return {name: plain(value) for name, value in columns.items()}


def row_version(entity: object) -> str:
    """The row's version, a number that only grows; empty where there is none."""
    row = entity.get("RowVersion") if isinstance(entity, dict) else None
    return row if isinstance(row, str) and _ROW.fullmatch(row) else ""


def reference(value: object) -> Reference | None:
    """The record that a value refers to, if it does."""
    if isinstance(value, dict):
        kind, number = value.get("LogicalName"), value.get("Id")
        if isinstance(kind, str) and isinstance(number, str) and kind and number:
            return Reference(kind, number)
    return None


def plain(value: Any) -> Any:
    """A column's value: references, options and money without their envelopes, dates as text."""
    if isinstance(value, dict):
        return reference(value) or value.get("Value", value)
    date = _DATE.fullmatch(value) if isinstance(value, str) else None
    return value if date is None else _date(date)


def _date(found: re.Match[str]) -> str:
    at = int(found[1]) * 1000
    if found[2]:
        offset = (int(found[3]) * 60 + int(found[4])) * 60_000_000
        at += offset if found[2] == "+" else -offset
    return values.written(at) if 0 <= at < values.LATEST_US else found[0]
