"""Pipedrive webhooks v2: one event, with the object's state in `data`.

Keys that are absent from `data` say nothing; null means empty. A deletion has no data, its last
state is in `previous`. A merge is a deletion that names where the record went, plus a change: not a
loss.

An activity happened at `due_date` with `due_time` (both UTC) when both are there, else when it was
marked as done, else at noon of `due_date`, which is the same day in every zone that sells.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from schemas.crm import CALL, EMAIL, MEETING, OPPORTUNITY, Field, Received, Scalar, StageEntry
from services.ingest.domain import values
from services.ingest.domain.facts import (
    MERGED_INTO,
    BadEventError,
    Fact,
    Ignored,
    Mark,
    stage_of,
)
from services.ingest.domain.sources import Source

_ACTIVITIES = {"call": CALL, "meeting": MEETING, "email": EMAIL}
# Names that ignored events are counted under; anything else is "other".
_OTHER_ENTITIES = frozenset(
    {
        *("lead", "note", "organization", "person", "pipeline", "product", "stage", "user", "task"),
        *("deal_product", "deal_installment", "project", "board", "phase"),
    }
)
_OPS = {"create": "created", "change": "updated", "delete": "deleted"}
_CLOSED_BY = {"won": "won_time", "lost": "lost_time"}

_State = dict[str, Any]


class _Meta(msgspec.Struct, frozen=True):
    action: str = ""
    entity: str = ""
    id: str | int = ""
    entity_id: str | int | None = None
    timestamp: str | int | None = None
    merged_to_id: str | int | None = None


class _Event(msgspec.Struct, frozen=True):
    meta: _Meta
    data: msgspec.Raw = msgspec.Raw(b"null")
    previous: msgspec.Raw = msgspec.Raw(b"null")


_decode = msgspec.json.Decoder(_Event).decode
_decode_state = msgspec.json.Decoder(float_hook=Decimal).decode  # money must not become binary


def split(received: Received) -> list[msgspec.Raw]:
    """The one event of a request, unread."""
    return [msgspec.Raw(received.body)]


def read(raw: bytes | msgspec.Raw, received: Received, source: Source) -> list[Fact | Ignored]:
    """What one event says."""
    event = _decode(raw)
    meta = event.meta
    op = _OPS.get(meta.action)
    if not meta.entity or not meta.action:
        raise BadEventError(
            "meta.entity or meta.action is missing: create the webhook as version 2.0"
        )
    if op is None or meta.entity not in ("deal", "activity"):
        return [Ignored(_ignored_name(meta))]
    if meta.timestamp is None:
        raise BadEventError("meta.timestamp is missing")
    mark = Mark(values.position(meta.timestamp, received.version), str(meta.id))
    data, previous = _state(event.data, "data"), _state(event.previous, "previous")
    if data is None and op != "deleted":
        raise BadEventError("data is null though nothing was deleted")
    state = (previous if data is None else data) or {}
    number = meta.entity_id if meta.entity_id is not None else state.get("id")
    record = values.record_id(source.id, number)
    change = _Change(op, record, state, previous or {}, mark, _existence(meta, op, source, mark))
    return _deal(change) if meta.entity == "deal" else _activity(change)


def _ignored_name(meta: _Meta) -> str:
    known = meta.entity in _OTHER_ENTITIES or meta.entity in ("deal", "activity")
    entity = meta.entity if known else "other"
    return f"{entity}.{meta.action if meta.action in _OPS else 'other'}"


def _state(raw: msgspec.Raw, name: str) -> _State | None:
    state = _decode_state(raw)
    if state is not None and not isinstance(state, dict):
        raise BadEventError(f"{name} is not an object")
    return state


def _existence(meta: _Meta, op: str, source: Source, mark: Mark) -> dict[str, Field]:
    """Whether the record is there after this event."""
    if meta.merged_to_id not in (None, "", meta.entity_id):
        return mark.gone(into=values.record_id(source.id, meta.merged_to_id))
    return mark.gone() if op == "deleted" else mark.alive()


class _Change(msgspec.Struct, frozen=True):
    op: str
    record: str
    state: _State
    previous: _State
    mark: Mark
    existence: dict[str, Field]

    def fact(
        self, kind: str, fields: dict[str, Field], stages: tuple[StageEntry, ...] = ()
    ) -> Fact:
        op = "merged" if MERGED_INTO in self.existence else self.op
        return Fact(kind, self.record, op, fields | self.existence, stages)


def _deal(change: _Change) -> list[Fact | Ignored]:
    state, mark = change.state, change.mark
    fields = _mapped(state, _DEAL, _DEAL_DERIVED, mark)
    fields |= _status(change)
    stages: tuple[StageEntry, ...] = ()
    stage = state.get("stage_id")
    if not values.empty(stage):
        since = _first(state, "stage_change_time", "add_time")
        at = mark.at if since is None else values.micros(since)
        stages = (StageEntry(at, stage_of(values.text(stage))),)
    return [change.fact(OPPORTUNITY, fields, stages)]


def _status(change: _Change) -> dict[str, Field]:
    """Status and closing, from one event; without an instant of closing it stays as it was."""
    state, mark = change.state, change.mark
    status = state.get("status")
    if status is None:
        return {}
    if status == "deleted":
        return mark.gone()
    if status == "open":
        return {"status": mark.value(status), **mark.cleared(("closed_at",))}
    if not isinstance(status, str) or status not in _CLOSED_BY:
        raise BadEventError("status is none of open, won, lost")
    fields = {"status": mark.value(status)}
    closed = _first(state, _CLOSED_BY[status], "close_time")
    if closed is not None:
        fields["closed_at"] = mark.value(values.instant(closed))
    elif change.op == "created" or (change.op == "updated" and "status" in change.previous):
        fields["closed_at"] = mark.value(values.written(mark.at))
    return fields


def _activity(change: _Change) -> list[Fact | Ignored]:
    state, mark = change.state, change.mark
    found, before = state.get("type"), change.previous.get("type")
    if not isinstance(found, str):
        raise BadEventError("the activity has no type")
    outcomes: list[Fact | Ignored] = []
    if isinstance(before, str) and before != found and before in _ACTIVITIES:
        moved = mark.gone()
        outcomes.append(Fact(_ACTIVITIES[before], change.record, "deleted", moved))
    if found not in _ACTIVITIES:
        return [*outcomes, Ignored("activity.other_type")]
    fields = _mapped(state, _ACTIVITY, _ACTIVITY_DERIVED, mark)
    if not _TIMES.isdisjoint(state):
        at = _occurred_at(state)
        fields["occurred_at"] = mark.field("cleared") if at is None else mark.value(at)
    owner = "owner_id" if "owner_id" in state else "user_id"
    if owner in state:
        fields["owner_id"] = _field(state[owner], _reference, mark)
    return [*outcomes, change.fact(_ACTIVITIES[found], fields)]


_TIMES = frozenset({"due_date", "due_time", "marked_as_done_time"})


def _occurred_at(state: _State) -> str | None:
    day, time = state.get("due_date"), state.get("due_time")
    if not values.empty(day) and not values.empty(time):
        return values.instant(f"{day}T{time}")
    done = state.get("marked_as_done_time")
    if not values.empty(done):
        return values.instant(done)
    return None if values.empty(day) else values.instant(f"{day}T12:00")


def _first(state: _State, *names: str) -> object:
    return next((state[name] for name in names if not values.empty(state.get(name))), None)


_Convert = Callable[[Any], Scalar]


def _mapped(
    state: _State, known: Mapping[str, tuple[str, _Convert]], derived: frozenset[str], mark: Mark
) -> dict[str, Field]:
    """The canonical fields, and every other property under its own name."""
    fields: dict[str, Field] = {}
    for name, value in state.items():
        target = known.get(name)
        if target is not None:
            fields[target[0]] = _field(value, target[1], mark)
        elif name == "custom_fields" and isinstance(value, dict):
            for key, custom in value.items():
                fields |= _custom(values.own_name(key), custom, mark)
        elif name not in derived:
            fields[values.own_name(name)] = _field(value, values.text, mark)
    return fields


def _field(value: object, convert: _Convert, mark: Mark) -> Field:
    return mark.field("cleared") if values.empty(value) else mark.value(convert(value))


def _custom(name: str, value: object, mark: Mark) -> dict[str, Field]:
    """A custom field: `{type, value, …}`, or `{type, id}` of a chosen option."""
    if not isinstance(value, dict):
        return {name: _field(value, values.text, mark)}
    inner = value.get("value", value.get("id"))
    if inner is None and "values" in value:
        inner = value["values"]
    fields = {name: _field(inner, values.text, mark)}
    if "currency" in value:
        fields[f"{name}_currency"] = _field(value["currency"], values.text, mark)
    return fields


def _reference(value: Any) -> str:
    """The id of a user, given alone or inside an object."""
    return values.text(value["id"] if isinstance(value, dict) and "id" in value else value)


_DEAL: dict[str, tuple[str, _Convert]] = {
    "title": ("name", values.text),
    "value": ("amount", values.amount),
    "currency": ("currency", values.currency),
    "stage_id": ("stage", values.text),
    "pipeline_id": ("pipeline", values.text),
    "owner_id": ("owner_id", _reference),
    "add_time": ("created_at", values.instant),
    "expected_close_date": ("expected_close", values.instant),
}
_DEAL_DERIVED = frozenset(
    {"id", "status", "won_time", "lost_time", "close_time", "stage_change_time", "update_time"}
)
_ACTIVITY: dict[str, tuple[str, _Convert]] = {
    "subject": ("name", values.text),
    "done": ("done", values.flag),
    "duration": ("duration_seconds", values.seconds),
    "add_time": ("created_at", values.instant),
}
_ACTIVITY_DERIVED = frozenset({"id", "type", "owner_id", "user_id", "update_time"}) | _TIMES
