"""Pipedrive webhooks, versions 2 and 1: one event, with the object's whole state as it now is.

The body tells the version: v2 has `data`, v1 `current`; `previous` holds in v2 only what has
changed, in v1 everything. Keys that are absent say nothing; null means empty. A deletion has no
state, its last one is in `previous`. A merge is a deletion that names where the record went, plus
a change: not a loss. v1 events have no id, nor have v2's of users, where `meta.id` is the user's:
an edit that is told by several webhooks is one fact, by its second and the state that it made.

An activity happened at `due_date` with `due_time` (both UTC) when both are there, else when it was
marked as done, else at noon of `due_date`, which is the same day in every zone that sells. A note
happened when it was added. A deal says itself whether it is won: a stage decides nothing.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from schemas.crm import CALL, EMAIL, MEETING, OPPORTUNITY, Field, Received, StageEntry
from services.ingest.domain import fields, items, signatures, values
from services.ingest.domain.facts import (
    Actor,
    BadEventError,
    Completeness,
    Fact,
    Ignored,
    Mark,
    Merge,
    Moment,
    Op,
    Relation,
    stage_of,
)
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import Arrival, RefusedError, Vendor, check_account, whole

SECOND = 1_000_000  # µs
ACTIVITY = "activity"
_ACTIVITIES = {"call": CALL, "meeting": MEETING, "email": EMAIL, "task": "task"}
_TYPES = {
    "deal": OPPORTUNITY,
    "lead": "lead",
    "note": "note",
    "organization": "account",
    "person": "contact",
    "product": "product",
    "deal_product": "line_item",
    "user": "user",
    "stage": "stage",
    "pipeline": "pipeline",
    # A project's task is no activity, though both have the same name and may have the same id.
    **{name: f"x_{name}" for name in ("deal_installment", "project", "task", "board", "phase")},
}
_RELATED = {
    "person_id": "contact",
    "org_id": "account",
    "organization_id": "account",
    "deal_id": OPPORTUNITY,
    "lead_id": "lead",
    "product_id": "product",
}
_OPS: dict[str, Op] = {
    "create": "created",
    "change": "updated",
    "delete": "deleted",
    "added": "created",
    "updated": "updated",
    "deleted": "deleted",
    "merged": "updated",
}
_KINDS: dict[str, Literal["user", "integration"]] = {"app": "user", "api": "integration"}
_CLOSED_BY = {"won": "won_time", "lost": "lost_time"}

_Id = str | int
_State = dict[str, Any]


class _Meta(msgspec.Struct, frozen=True):
    action: str = ""
    entity: str = ""
    object: str = ""  # v1's name of it
    id: _Id | None = None  # the event's; in v1 the object's
    entity_id: _Id | None = None
    company_id: _Id | None = None
    user_id: _Id | None = None
    change_source: str | None = None
    timestamp: _Id | None = None
    timestamp_micro: _Id | None = None
    correlation_id: _Id | None = None
    merged_to_id: _Id | None = None
    merged_from_id: _Id | None = None


_ABSENT, _NULL = msgspec.Raw(b""), msgspec.Raw(b"null")


class _Event(msgspec.Struct, frozen=True):
    meta: _Meta
    event: str = ""  # v1: "updated.deal"
    data: msgspec.Raw = _NULL
    current: msgspec.Raw = _ABSENT
    previous: msgspec.Raw = _NULL

    @property
    def is_v1(self) -> bool:
        return self.current is not _ABSENT or bool(self.event)


_decode = msgspec.json.Decoder(_Event).decode
_decode_state = msgspec.json.Decoder(float_hook=Decimal).decode  # money must not become binary


def read(raw: bytes | msgspec.Raw, received: Received, source: Source) -> Sequence[Fact | Ignored]:
    """What one event says."""
    event = _decode(raw)
    meta = event.meta
    told_action, _, told_entity = event.event.partition(".")
    action, entity = meta.action or told_action, meta.entity or meta.object or told_entity
    if not entity or not action:
        raise BadEventError("meta has neither action and entity (v2) nor action and object (v1)")
    op = _OPS.get(action)
    if op is None or not (entity in _TYPES or entity == ACTIVITY or entity in source.types):
        return [Ignored(_ignored_name(entity, action))]
    company = "" if meta.company_id is None else str(meta.company_id)
    check_account(company, source)
    now = _state(event.current if event.is_v1 else event.data, "current" if event.is_v1 else "data")
    previous = _state(event.previous, "previous")
    if now is None and op != "deleted" and action != "merged":
        raise BadEventError("the event has no state of the object though nothing was deleted")
    state = (previous if now is None else now) or {}
    if entity == "deal" and op == "updated" and state.get("status") == "deleted":
        op = "deleted"
    number = meta.id if event.is_v1 else meta.entity_id
    record = values.record_id(source.id, state.get("id") if number in (None, "") else number)
    occurred = _occurred(event, received)
    numbered = not event.is_v1 and str(meta.id) not in ("", str(None), str(number))
    by = str(meta.id) if numbered else fields.digest(state)
    # What was read again has no id, and at the same instant gives way to what has.
    mark = Mark(occurred.at, by if event.is_v1 or meta.id is not None else "")
    frame = Fact(
        "",
        record,
        op,
        completeness=_completeness(now, previous),
        occurred=occurred,
        position=mark.position,
        transaction="" if meta.correlation_id is None else str(meta.correlation_id),
        actor=_actor(meta),
        dedupe=(
            *(company, entity, record, action),
            *((by,) if numbered else (str(occurred.at // SECOND), by)),
        ),
        vendor_event=by if numbered else "",
        vendor_type=entity,
        said=now or {},
        before=previous or {},
    )
    frame, existence = _existence(frame, meta, action, source, mark)
    change = _Change(frame, state, previous or {}, mark, existence, source)
    if entity == ACTIVITY and ACTIVITY not in source.types:
        return _activity(change)
    return _facts(change, _type(entity, source))


def _ignored_name(entity: str, action: str) -> str:
    known = entity in _TYPES or entity == ACTIVITY
    return f"{entity if known else 'other'}.{action if action in _OPS else 'other'}"


def _type(named: str, source: Source) -> str:
    return fields.record_type(source.types[named]) if named in source.types else _TYPES[named]


def _state(raw: msgspec.Raw, name: str) -> _State | None:
    state = _decode_state(raw or _NULL)
    if isinstance(state, list) and len(state) == 1:  # as v1 sends users
        state = state[0]
    if state is not None and not isinstance(state, dict):
        raise BadEventError(f"{name} is not an object")
    return state


def _occurred(event: _Event, received: Received) -> Moment:
    meta = event.meta
    if event.is_v1 and meta.timestamp_micro is not None:
        return values.moment(meta.timestamp_micro, "meta.timestamp_micro", received.version, "us")
    if meta.timestamp is None:
        raise BadEventError("meta.timestamp is missing")
    return values.moment(meta.timestamp, "meta.timestamp", received.version)


def _completeness(now: _State | None, previous: _State | None) -> Completeness:
    if now is not None:
        return "snapshot_plus_delta" if previous else "snapshot"
    return "snapshot" if previous else "id_only"


def _actor(meta: _Meta) -> Actor | None:
    if meta.user_id in (None, ""):
        return None
    return Actor(values.plain(str(meta.user_id)), _KINDS.get(meta.change_source or "app", "user"))


def _existence(
    frame: Fact, meta: _Meta, action: str, source: Source, mark: Mark
) -> tuple[Fact, dict[str, Field]]:
    """Whether the record is there after this event, and its part in a merge."""
    into = "" if values.empty(meta.merged_to_id) else values.record_id(source.id, meta.merged_to_id)
    if into not in ("", frame.id):
        merge = Merge("merged", into, (frame.id,))
        return replace(frame, op="merged", merge=merge), mark.gone(into)
    if action == "merged" and not frame.said:  # v1 doesn't say into which
        return replace(frame, op="merged", merge=Merge("merged", "", (frame.id,))), mark.gone()
    other = meta.merged_from_id
    if action == "merged" or not values.empty(other):
        merged = () if values.empty(other) else (values.record_id(source.id, other),)
        frame = replace(frame, merge=Merge("survivor", frame.id, merged))
    return frame, mark.gone() if frame.op == "deleted" else mark.alive()


class _Change(msgspec.Struct, frozen=True):
    """One event: the object's state after it, and what it had been."""

    frame: Fact
    state: _State
    previous: _State
    mark: Mark
    existence: dict[str, Field]
    source: Source

    def is_changed(self, name: str) -> bool:
        """In v1 the previous state is whole, so that having an old value isn't yet a change."""
        return (
            self.frame.op == "updated"
            and name in self.previous
            and name in self.state
            and _bare(self.previous[name]) != _bare(self.state[name])
        )


def _facts(change: _Change, kind: str) -> list[Fact | Ignored]:
    """The fact about the object, as a record of this type."""
    state, mark = _flat(change.state), change.mark
    table = _TABLES.get(kind, _COMMON)
    registers = fields.read(state, table, mark, apart=_APART.get(kind, _DERIVED))
    owner = "owner_id" if "owner_id" in state else "user_id"
    if owner in state and kind != "user":
        registers["owner_id"] = fields.field(state[owner], _reference, mark)
    stages: tuple[StageEntry, ...] = ()
    if kind == OPPORTUNITY:
        registers |= _status(change)
        stages = _stages(change)
    elif kind == "lead":
        registers |= _lead_value(state, mark)
    elif kind == "contact":
        registers |= _email(state, mark)
    elif kind in fields.ACTIVITIES:
        registers |= _happened(kind, state, mark)
    relations = _relations(change)
    changed = {table[name][0] for name in table if change.is_changed(name)}
    changed |= {"owner_id"} if change.is_changed(owner) else set()
    changed |= {"status"} if change.is_changed("status") else set()
    changed |= {"amount"} if kind == "lead" and change.is_changed("value") else set()
    fact = replace(
        change.frame,
        type=kind,
        fields=change.existence | registers | mark.related(relations),
        stages=stages,
        relations=relations,
    )
    return [fields.signalled(fact, changed)]


def _flat(state: _State) -> _State:
    """The state with v2's custom fields beside the others, as v1 has them."""
    custom = state.get("custom_fields")
    if not isinstance(custom, dict):
        return state
    flat: _State = {}
    for name, value in custom.items():
        flat |= _custom(name, value)
    return flat | state


def _custom(name: str, value: object) -> _State:
    """A custom field: `{type, value, …}`, `{type, id}` of a chosen option, or a range."""
    if not isinstance(value, dict):
        return {name: value}
    found = {name: next((value[key] for key in ("value", "id", "values") if key in value), value)}
    if "currency" in value:
        found[f"{name}_currency"] = value["currency"]
    return found


def _stages(change: _Change) -> tuple[StageEntry, ...]:
    """The stage that it is in, and since when: null is never changed, no key says nothing."""
    state = change.state
    stage = state.get("stage_id")
    if values.empty(stage):
        return ()
    since = state.get("stage_change_time")
    is_first = "stage_change_time" in state or change.frame.op == "created"
    if values.empty(since) and is_first and not change.is_changed("stage_id"):
        since = state.get("add_time")
    at = change.mark.at if values.empty(since) else values.micros(since)
    return (StageEntry(at, stage_of(values.text(stage))),)


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
    found = {"status": mark.value(status)}
    closed = _first(state, _CLOSED_BY[status], "close_time")
    if closed is not None:
        found["closed_at"] = mark.value(values.instant(closed))
    elif change.frame.op == "created" or change.is_changed("status"):
        found["closed_at"] = mark.value(values.written(mark.at))
    return found


def _lead_value(state: _State, mark: Mark) -> dict[str, Field]:
    """A lead's `{amount, currency}`, null when it has none."""
    if "value" not in state:
        return {}
    value = state["value"]
    if value is None:
        return mark.cleared(("amount", "currency"))
    if not isinstance(value, dict):
        raise BadEventError("the lead's value is not an object with amount and currency")
    return fields.read(value, _LEAD_VALUE, mark, apart=value.keys())


def _email(state: _State, mark: Mark) -> dict[str, Field]:
    """The primary address, else the first."""
    name = "emails" if "emails" in state else "email"
    if name not in state:
        return {}
    found = state[name]
    if isinstance(found, list):
        one = sorted(
            (one for one in found if isinstance(one, dict) and not values.empty(one.get("value"))),
            key=lambda one: one.get("primary") is not True,
        )
        found = one[0]["value"] if one else None
    return {"email": fields.field(found, values.text, mark)}


def _activity(change: _Change) -> list[Fact | Ignored]:
    """A record of the type that the activity's own type means; it may have been of another."""
    found, before = change.state.get("type"), change.previous.get("type")
    if change.frame.op == "deleted" and values.empty(found):  # of which type isn't said: of none
        return [
            replace(change.frame, type=kind, fields=change.existence)
            for kind in _activity_types(change.source)
        ]
    if not isinstance(found, str):
        raise BadEventError("the activity has no type")
    change = replace(change, state=_timed(change.state), previous=_timed(change.previous))
    outcomes: list[Fact | Ignored] = []
    left = _activity_type(before, change.source) if before != found else None
    kind = _activity_type(found, change.source)
    if left is not None and left != kind:
        gone = change.mark.gone()
        outcomes.append(replace(change.frame, type=left, op="deleted", fields=gone))
    if kind is None:
        return [*outcomes, Ignored("activity.other_type")]
    return [*outcomes, *_facts(change, kind)]


def _activity_type(name: object, source: Source) -> str | None:
    """Types of a company's own are configured, as in `types: {activity.lunch: meeting}`."""
    configured = source.types.get(f"{ACTIVITY}.{name}")
    if configured is not None:
        return fields.record_type(configured)
    return _ACTIVITIES.get(name) if isinstance(name, str) else None


def _activity_types(source: Source) -> list[str]:
    """All the record types that an activity may be."""
    own = (name for name in source.types if name.startswith(f"{ACTIVITY}."))
    configured = {fields.record_type(source.types[name]) for name in own}
    return sorted({*_ACTIVITIES.values(), *configured})


def _timed(state: _State) -> _State:
    """The state with times as text, which v2 may give as `{value, timezone_id}`."""
    return state | {name: _bare(state[name]) for name in ("due_time", "duration") if name in state}


def _happened(kind: str, state: _State, mark: Mark) -> dict[str, Field]:
    if kind == "note" and "due_date" not in state:  # it is there, so it was written
        added = state.get("add_time")
        found = {"done": mark.value(value=True)}
        return (
            found if added is None else found | {"occurred_at": mark.value(values.instant(added))}
        )
    if _TIMES.isdisjoint(state):
        return {}
    at = _occurred_at(state)
    found = {"occurred_at": mark.field("cleared") if at is None else mark.value(at)}
    return found | _kept(state, mark) if kind == "task" else found


def _kept(state: _State, mark: Mark) -> dict[str, Field]:
    """When a task is due, and when it was done."""
    found: dict[str, Field] = {}
    if "due_date" in state:
        day, time = state["due_date"], state.get("due_time")
        due = day if values.empty(day) or values.empty(time) else f"{day}T{time}"
        found["due_at"] = fields.field(due, values.due, mark)
    if "marked_as_done_time" in state:
        done = state["marked_as_done_time"]
        found["completed_at"] = fields.field(done, values.instant, mark)
    return found


_TIMES = frozenset({"due_date", "due_time", "marked_as_done_time"})


def _occurred_at(state: _State) -> str | None:
    day, time = state.get("due_date"), state.get("due_time")
    if not values.empty(day) and not values.empty(time):
        return values.instant(f"{day}T{time}")
    done = state.get("marked_as_done_time")
    if not values.empty(done):
        return values.instant(done)
    return None if values.empty(day) else values.instant_or_noon(day)


def _relations(change: _Change) -> tuple[Relation, ...]:
    """The one person, organisation, … of an object; a former one is unlinked."""
    if change.frame.op not in ("created", "updated"):
        return ()
    found: list[Relation] = []
    for name, kind in _RELATED.items():
        if name not in change.state:
            continue
        old, new = _bare(change.previous.get(name)), _bare(change.state[name])
        if change.is_changed(name) and not values.empty(old):
            found.append(Relation(kind, values.record_id(change.source.id, old), "removed"))
        if not values.empty(new):
            found.append(Relation(kind, values.record_id(change.source.id, new), primary=True))
    return tuple(found)


def _first(state: _State, *names: str) -> object:
    return next((state[name] for name in names if not values.empty(state.get(name))), None)


def _bare(value: Any) -> Any:
    """The id of a user, person or organisation that v1 may give inside an object."""
    if isinstance(value, dict):
        return value.get("id", value.get("value", value))
    return value


def _reference(value: Any) -> str:
    return values.text(_bare(value))


_COMMON: dict[str, tuple[str, fields.Convert]] = {
    "name": ("name", values.text),
    "add_time": ("created_at", values.instant),
}
_ACTIVITY: fields.Table = {
    "subject": ("name", values.text),
    "done": ("done", values.flag),
    "duration": ("duration_seconds", values.seconds),
    "add_time": ("created_at", values.instant),
}
_TABLES: Mapping[str, fields.Table] = {
    OPPORTUNITY: {
        "title": ("name", values.text),
        "value": ("amount", values.amount),
        "currency": ("currency", values.currency),
        "stage_id": ("stage", values.text),
        "pipeline_id": ("pipeline", values.text),
        "add_time": ("created_at", values.instant),
        "expected_close_date": ("expected_close", values.instant_or_noon),
        "probability": ("probability", values.percent),
    },
    "lead": {
        "title": ("name", values.text),
        "add_time": ("created_at", values.instant),
        "expected_close_date": ("expected_close", values.instant_or_noon),
    },
    **dict.fromkeys(fields.ACTIVITIES, _ACTIVITY),
    "user": _COMMON
    | {
        "created": ("created_at", values.instant),
        "email": ("email", values.text),
        "active_flag": ("active", values.flag),
        "is_active": ("active", values.flag),
    },
    "stage": _COMMON
    | {
        "pipeline_id": ("pipeline", values.text),
        "order_nr": ("rank", fields.whole),
        "deal_probability": ("probability", values.amount),
    },
}
_LEAD_VALUE: fields.Table = {
    "amount": ("amount", values.amount),
    "currency": ("currency", values.currency),
}
# What is read apart from the tables, or is said better elsewhere in the event.
_DERIVED = frozenset({"id", "update_time", "owner_id", "user_id", "custom_fields"})
_APART: Mapping[str, frozenset[str]] = {
    OPPORTUNITY: _DERIVED | {"status", "won_time", "lost_time", "close_time", "stage_change_time"},
    "lead": _DERIVED | {"value"},
    "contact": _DERIVED | {"email", "emails"},
    **dict.fromkeys(fields.ACTIVITIES, _DERIVED | _TIMES | {"type"}),
}


def verify(arrival: Arrival, source: Source) -> str:
    """By HTTP Basic: Pipedrive doesn't sign."""
    given = arrival.headers.get("authorization", "")
    if not signatures.is_basic(source.secrets, source.username, given):
        raise RefusedError(
            "Send the HTTP Basic user and password that the sources file has for this source.",
            challenge='Basic realm="pacesetter"',
        )
    return "pipedrive.basic"


VENDOR = Vendor(
    name="pipedrive",
    title="Pipedrive",
    count=items.count_object,
    split=whole,
    read=read,
    verify=verify,
    settings=frozenset({"username", "account", "types", "api"}),
    problems=lambda source: () if source.username else ("pipedrive needs a username",),
)
