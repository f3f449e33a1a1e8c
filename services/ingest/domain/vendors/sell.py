"""Zendesk Sell: items of the Firehose, `{data, meta}`, handed on by whoever pulls them.

Sell sends no webhooks, so that a body comes from a program of one's own, with an API key: an item,
an array, or a page `{items: […]}` as Sell gives it. `data` is the record's state, `meta.previous`
what has changed of it. `meta.sequence` only grows per record and orders what happened at one
instant. A deal's stage counts from `last_stage_change_at`; what it means is metadata.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from schemas.crm import CALL, EMAIL, MEETING, OPPORTUNITY, Field, Received, StageEntry
from services.ingest.domain import fields, items, stages, values
from services.ingest.domain.facts import (
    BadEventError,
    Completeness,
    Fact,
    Ignored,
    Mark,
    Moment,
    Op,
    Relation,
)
from services.ingest.domain.fields import Table
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import Raw, Vendor, bare_alone

_TYPES: Mapping[str, str] = {
    "deal": OPPORTUNITY,
    "lead": "lead",
    "contact": "contact",
    "call": CALL,
    "appointment": MEETING,
    "visit": MEETING,
    "email": EMAIL,
    "task": "task",
    "note": "note",
    "text_message": "message",
    "product": "product",
    "line_item": "line_item",
    "user": "user",
    "stage": "stage",
    "pipeline": "pipeline",
}
_OPS: Mapping[str, Op] = {"created": "created", "updated": "updated", "deleted": "deleted"}
_LOST = frozenset({"lost", "unqualified"})
PAGE = "items"

_State = Mapping[str, Any]


class _Meta(msgspec.Struct, frozen=True):
    event_type: str
    type: str
    event_id: str | int = ""
    event_time: str | None = None
    sequence: int | str | None = None
    previous: dict[str, Any] | None = None


class _Item(msgspec.Struct, frozen=True):
    meta: _Meta
    data: dict[str, Any]


_decode = msgspec.json.Decoder(_Item, float_hook=Decimal).decode  # money stays decimal


def count(_headers: Mapping[str, str], body: bytes) -> int:
    """How many items a body has: one, those of an array, or those of a page."""
    return items.count_within(body, PAGE)


def split(received: Received, _source: Source) -> Sequence[Raw]:
    """The items of a body, unread."""
    return items.split_within(received.body, PAGE)


def read(raw: Raw, received: Received, source: Source) -> list[Fact | Ignored]:
    """What one item says."""
    item = _decode(raw)
    meta, op = item.meta, _OPS.get(item.meta.event_type)
    if op is None:
        raise BadEventError(
            f"event_type {meta.event_type!r:.60} is none of created, updated, deleted"
        )
    at = None
    if meta.event_time is not None:
        at = values.moment(meta.event_time, "event_time", received.version)
    event = str(meta.event_id)
    tie = event if meta.sequence is None else fields.sequenced(meta.sequence, event)
    mark = Mark(received.version if at is None else at.at, tie)
    if meta.type == "lead_conversion":
        return [_conversion(item, mark, at, source)] if op == "created" else [Ignored(meta.type)]
    kind = fields.type_of(meta.type, source, _TYPES)
    if kind == "contact" and item.data.get("is_organization") is True:
        kind = "account"
    return [_fact(item, kind, op, mark, at, source)]


def _fact(item: _Item, kind: str, op: Op, mark: Mark, at: Moment | None, source: Source) -> Fact:
    meta, state, before = item.meta, item.data, item.meta.previous or {}
    said, entries = _said(kind, state, mark, source)
    relations = _relations(kind, state, before, source)
    existence = mark.gone() if op == "deleted" else mark.alive()
    fact = Fact(
        kind,
        values.record_id(source.id, state.get("id")),
        op,
        said | mark.related(relations) | existence,
        entries,
        completeness=_completeness(op, before),
        occurred=at,
        position=mark.position,
        sequence="" if meta.sequence is None else str(meta.sequence),
        relations=relations,
        dedupe=_dedupe(meta),
        vendor_event=str(meta.event_id),
        vendor_type=meta.type,
        said=state,
        before=before,
    )
    decides = _decides(kind, state, before, source)
    return fields.signalled(fact, _changed(kind, before), stage_decides=decides)


def _dedupe(meta: _Meta) -> tuple[str, ...]:
    return () if meta.event_id == "" else (str(meta.event_id),)


def _completeness(op: Op, before: _State) -> Completeness:
    if op == "deleted":
        return "id_only"
    return "snapshot_plus_delta" if before else "snapshot"


def _said(
    kind: str, state: _State, mark: Mark, source: Source
) -> tuple[dict[str, Field], tuple[StageEntry, ...]]:
    custom = state.get("custom_fields")
    flat = {**custom, **state} if isinstance(custom, dict) else state
    found = fields.read(flat, _TABLES.get(kind, _COMMON), mark, apart=_APART)
    if kind == OPPORTUNITY and "stage_id" in state:
        since = state.get("last_stage_change_at")
        entered = mark if values.empty(since) else Mark(values.micros(since), mark.by)
        deal, entries = stages.registers(state["stage_id"], entered, source)
        return found | deal, entries
    if kind == "task" and "completed_at" in state:
        found["completed_at"] = found["occurred_at"]
    if kind == CALL and "missed" in state:
        found["done"] = mark.value(not values.flag(state["missed"]))
    if kind == "note":
        found["done"] = mark.value(value=True)  # it is there, so it was written
        if not values.empty(state.get("created_at")):
            found["occurred_at"] = mark.value(values.instant(state["created_at"]))
    if any(not values.empty(state.get(name)) for name in _HAPPENED.get(kind, ())):
        found["done"] = mark.value(value=True)
    if kind == "stage" and not values.empty(state.get("category")):
        found["status"] = mark.value(_status(state["category"]))
    return found, ()


def _status(category: Any) -> str:
    if category == "won":
        return "won"
    return "lost" if category in _LOST else "open"


def _changed(kind: str, before: _State) -> set[str]:
    """Ours of the fields that the event has old values of."""
    changed = {name for theirs, (name, _) in _TABLES.get(kind, _COMMON).items() if theirs in before}
    return changed | ({"stage"} if kind == OPPORTUNITY and "stage_id" in before else set())


def _decides(kind: str, state: _State, before: _State, source: Source) -> bool:
    """Whether the deal's stage changed to one with another meaning."""
    if kind != OPPORTUNITY or "stage_id" not in before:
        return False
    old, new = (_meaning(one.get("stage_id"), source) for one in (before, state))
    return old != new


def _meaning(stage: object, source: Source) -> str:
    return "open" if values.empty(stage) else source.stages.status_of(values.text(stage))


def _relations(kind: str, state: _State, before: _State, source: Source) -> tuple[Relation, ...]:
    found = _links(kind, state, source)
    resource = _RESOURCES.get(str(state.get("resource_type")))
    if resource is not None and not values.empty(state.get("resource_id")):
        found.append(Relation(resource, values.record_id(source.id, state["resource_id"])))
    deals = state.get("associated_deal_ids")
    found += [
        Relation(OPPORTUNITY, values.record_id(source.id, number))
        for number in (deals[:MAX_DEALS] if isinstance(deals, list) else ())
    ]
    former = _links(kind, {**state, **before}, source)
    removed = [msgspec.structs.replace(one, change="removed") for one in former if one not in found]
    return tuple(dict.fromkeys((*found, *removed)))


def _links(kind: str, state: _State, source: Source) -> list[Relation]:
    """A person's `contact_id` is their organisation; a deal's may be its organisation."""
    lookups = {**_LOOKUPS, "contact_id": "account"} if kind in _PEOPLE else _LOOKUPS
    named = {name: state.get(name) for name in lookups}
    if named["contact_id"] == named["organization_id"]:
        named["contact_id"] = None
    return [
        Relation(lookups[name], values.record_id(source.id, number))
        for name, number in named.items()
        if not values.empty(number)
    ]


def _conversion(item: _Item, mark: Mark, at: Moment | None, source: Source) -> Fact:
    """A lead became a contact and perhaps a deal; the lead's own items don't say so."""
    state = item.data
    relations = tuple(
        Relation(kind, values.record_id(source.id, state[name]))
        for name, kind in _CONVERTED.items()
        if not values.empty(state.get(name))
    )
    since = state.get("created_at")
    when = values.written(mark.at) if values.empty(since) else values.instant(since)
    fact = Fact(
        "lead",
        values.record_id(source.id, state.get("lead_id")),
        "converted",
        {"converted_at": mark.value(when)} | mark.related(relations),
        occurred=at,
        position=mark.position,
        relations=relations,
        dedupe=_dedupe(item.meta),
        vendor_event=str(item.meta.event_id),
        vendor_type=item.meta.type,
        said=state,
    )
    return fields.signalled(fact)


def _direction(incoming: Any) -> str:
    return "inbound" if values.flag(incoming) else "outbound"


MAX_DEALS = 100
_LOOKUPS = {"contact_id": "contact", "organization_id": "account", "deal_id": OPPORTUNITY}
_PEOPLE = ("contact", "account")
_HAPPENED = {MEETING: ("visited_at",), "message": ("sent_at",)}  # they have these once they did
_CONVERTED = {"individual_id": "contact", "organization_id": "account", "deal_id": OPPORTUNITY}
_RESOURCES = {"lead": "lead", "contact": "contact", "deal": OPPORTUNITY}
_APART = frozenset({"id", "stage_id", "custom_fields"})
_COMMON: Table = {
    "owner_id": ("owner_id", values.text),
    "name": ("name", values.text),
    "created_at": ("created_at", values.instant),
}
_BY_USER: Table = _COMMON | {"user_id": ("owner_id", values.text)}
_TABLES: Mapping[str, Table] = {
    OPPORTUNITY: _COMMON
    | {
        "value": ("amount", values.amount),
        "currency": ("currency", values.currency),
        "estimated_close_date": ("expected_close", values.instant_or_noon),
    },
    "lead": _COMMON | {"status": ("status", values.text), "email": ("email", values.text)},
    "contact": _COMMON | {"email": ("email", values.text)},
    "account": _COMMON | {"email": ("email", values.text)},
    CALL: _BY_USER
    | {
        "made_at": ("occurred_at", values.instant),
        "duration": ("duration_seconds", values.seconds),
        "incoming": ("direction", _direction),
        "outcome_id": ("outcome", values.text),
    },
    MEETING: _BY_USER
    | {
        "start_at": ("occurred_at", values.instant),
        "visited_at": ("occurred_at", values.instant),
        "outcome_id": ("outcome", values.text),
    },
    "task": _COMMON
    | {
        "content": ("name", values.text),
        "completed": ("done", values.flag),
        "completed_at": ("occurred_at", values.instant),
        "due_date": ("due_at", values.due),
    },
    "message": _BY_USER
    | {"sent_at": ("occurred_at", values.instant), "incoming": ("direction", _direction)},
    "user": _COMMON
    | {
        "email": ("email", values.text),
        "status": ("active", lambda value: value == "active"),
    },
    "stage": _COMMON
    | {
        "pipeline_id": ("pipeline", values.text),
        "position": ("rank", fields.whole),
        "likelihood": ("probability", values.amount),
    },
}

VENDOR = Vendor(
    name="sell",
    title="Zendesk Sell",
    count=count,
    split=split,
    read=read,
    alone=bare_alone,
    settings=frozenset({"types"}),
    stages_decide=True,
)
