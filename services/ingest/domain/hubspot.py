"""HubSpot webhooks (v3): an array of events, each saying one thing about one object.

Events carry no old value and no order: `occurredAt` decides, ties fall to the event's id. A deal's
status follows from its stage, so both come from one event with one position: they can't disagree.
Calls, meetings and e-mails only come as generic `object.*` events; their type ids (0-48, 0-47,
0-49) are not confirmed by the vendor's documentation and are assumed here.
"""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from schemas.crm import CALL, EMAIL, MEETING, OPPORTUNITY, Field, Received, Scalar, StageEntry
from services.ingest.domain import items, values
from services.ingest.domain.facts import (
    BadEventError,
    Fact,
    Ignored,
    Mark,
    stage_of,
)
from services.ingest.domain.sources import Source

_OBJECT_TYPES = {"0-3": OPPORTUNITY, "0-48": CALL, "0-47": MEETING, "0-49": EMAIL}
_LEGACY_TYPES = {"deal": OPPORTUNITY}
# Names that ignored events are counted under; anything else is "other".
_OTHER_TYPES = frozenset({"contact", "company", "ticket", "product", "line_item", "conversation"})
_ACTIONS = frozenset(
    {
        *("creation", "propertyChange", "deletion", "restore", "merge", "associationChange"),
        *("privacyDeletion", "newMessage"),
    }
)
_REDACTED_VALUE = "REDACTED"

MAX_MERGED = 1000  # records in one merge; each becomes a message, so that more would be a flood

_Id = int | str


class _Event(msgspec.Struct, frozen=True, rename="camel"):
    subscription_type: str = ""
    event_type: str = ""
    event_id: _Id = ""
    object_id: _Id | None = None
    occurred_at: _Id | None = None
    object_type_id: str = ""
    property_name: str = ""
    property_value: str | int | float | bool | None = None
    primary_object_id: _Id | None = None
    new_object_id: _Id | None = None
    merged_object_ids: Annotated[list[_Id], msgspec.Meta(max_length=MAX_MERGED)] = []


_decode = msgspec.json.Decoder(_Event).decode


def split(received: Received) -> list[msgspec.Raw]:
    """The events of a request, unread."""
    return items.split(received.body)


def read(raw: bytes | msgspec.Raw, received: Received, source: Source) -> list[Fact | Ignored]:
    """What one event says."""
    event = _decode(raw)
    prefix, _, action = (event.subscription_type or event.event_type).partition(".")
    if not action:
        raise BadEventError("neither subscriptionType nor eventType says what happened")
    kind = _OBJECT_TYPES.get(event.object_type_id) if prefix == "object" else None
    kind = kind or _LEGACY_TYPES.get(prefix)
    reader = _READERS.get(action)
    if kind is None or reader is None:
        return [Ignored(_ignored_name(prefix, action))]
    if event.occurred_at is None:
        raise BadEventError("occurredAt is missing")
    at = values.position(event.occurred_at, received.version, "ms")
    return reader(event, kind, Mark(at, str(event.event_id)), source)


def _ignored_name(prefix: str, action: str) -> str:
    thing = prefix if prefix in _LEGACY_TYPES or prefix in _OTHER_TYPES else "other"
    return (
        f"{'object' if prefix == 'object' else thing}.{action if action in _ACTIONS else 'other'}"
    )


def _property_change(event: _Event, kind: str, mark: Mark, source: Source) -> list[Fact | Ignored]:
    name, value = event.property_name, event.property_value
    if not name:
        raise BadEventError("propertyName is missing")
    stages: tuple[StageEntry, ...] = ()
    if kind == OPPORTUNITY and name == "dealstage":
        fields, stages = _stage(value, mark, source)
    else:
        targets = (_DEAL if kind == OPPORTUNITY else _ACTIVITY).get(name)
        targets = targets or ((values.own_name(name), values.text),)
        fields = {field: _field(value, convert, mark) for field, convert in targets}
    return [Fact(kind, values.record_id(source.id, event.object_id), "updated", fields, stages)]


def _field(value: object, convert: "_Convert", mark: Mark) -> Field:
    if values.empty(value):
        return mark.field("cleared")
    if value == _REDACTED_VALUE:
        return mark.field("redacted")
    return mark.value(convert(value))


def _stage(
    value: object, mark: Mark, source: Source
) -> tuple[dict[str, Field], tuple[StageEntry, ...]]:
    """The stage, and the status and closing that follow from it."""
    if values.empty(value):
        cleared = mark.cleared(("stage", "closed_at"))
        return cleared | {"status": mark.value("open")}, ()
    if value == _REDACTED_VALUE:  # whether it was won is no longer known
        names = ("status", "closed_at")
        fields = {name: mark.field("unknown") for name in names}
        return fields | {"stage": mark.field("redacted")}, ()
    stage = stage_of(values.text(value))
    # Two stages with one instant and one event id must not mix their status and closing.
    mark = Mark(mark.at, f"{mark.by}={stage}")
    status = source.stages.status_of(stage)
    closed = mark.field("cleared") if status == "open" else mark.value(values.written(mark.at))
    fields = {"stage": mark.value(stage), "status": mark.value(status), "closed_at": closed}
    return fields, (StageEntry(mark.at, stage),)


def _creation(event: _Event, kind: str, mark: Mark, source: Source) -> list[Fact | Ignored]:
    # Position 0: any `createdate` knows better than the instant of the event.
    created = Field("value", values.written(mark.at), 0, mark.by)
    fields = {"created_at": created, **mark.alive()}
    return [Fact(kind, values.record_id(source.id, event.object_id), "created", fields)]


def _deletion(event: _Event, kind: str, mark: Mark, source: Source) -> list[Fact | Ignored]:
    number = values.record_id(source.id, event.object_id)
    return [Fact(kind, number, "deleted", mark.gone())]


def _restore(event: _Event, kind: str, mark: Mark, source: Source) -> list[Fact | Ignored]:
    number = values.record_id(source.id, event.object_id)
    return [Fact(kind, number, "restored", mark.alive())]


def _merge(event: _Event, kind: str, mark: Mark, source: Source) -> list[Fact | Ignored]:
    """Merged records are gone, not lost; sometimes the survivor is a record of its own."""
    named = [event.primary_object_id, event.new_object_id, *event.merged_object_ids]
    ids = {values.record_id(source.id, number) for number in named if number is not None}
    survivor = event.new_object_id
    if survivor is None:
        survivor = (
            event.primary_object_id if event.primary_object_id is not None else event.object_id
        )
    if survivor is None or not event.merged_object_ids:
        raise BadEventError("the merge names no survivor or no merged records")
    kept = values.record_id(source.id, survivor)
    gone = [Fact(kind, number, "merged", mark.gone(kept)) for number in sorted(ids - {kept})]
    return [Fact(kind, kept, "updated", mark.alive()), *gone]


def _privacy_deletion(event: _Event, kind: str, mark: Mark, source: Source) -> list[Fact | Ignored]:
    number = values.record_id(source.id, event.object_id)
    return [Fact(kind, number, "erased", mark.erased())]


_READERS = {
    "propertyChange": _property_change,
    "creation": _creation,
    "deletion": _deletion,
    "restore": _restore,
    "merge": _merge,
    "privacyDeletion": _privacy_deletion,
}


def _said(word: str) -> "_Convert":
    return lambda value: str(value).upper() == word


def _direction(value: Any) -> str:
    return "inbound" if str(value).upper().startswith(("INBOUND", "INCOMING")) else "outbound"


_Convert = Callable[[Any], Scalar]
_Targets = tuple[tuple[str, _Convert], ...]

_COMMON: dict[str, _Targets] = {"hubspot_owner_id": (("owner_id", values.text),)}
_DEAL: dict[str, _Targets] = _COMMON | {
    "dealname": (("name", values.text),),
    "amount": (("amount", values.amount),),
    "deal_currency_code": (("currency", values.currency),),
    "pipeline": (("pipeline", values.text),),
    "closedate": (("expected_close", values.instant),),
    "createdate": (("created_at", values.instant),),
}
_ACTIVITY: dict[str, _Targets] = _COMMON | {
    "hs_call_title": (("name", values.text),),
    "hs_meeting_title": (("name", values.text),),
    "hs_email_subject": (("name", values.text),),
    "createdate": (("created_at", values.instant),),
    "hs_createdate": (("created_at", values.instant),),
    "hs_timestamp": (("occurred_at", values.instant),),
    "hs_call_status": (("done", _said("COMPLETED")),),
    "hs_meeting_outcome": (("done", _said("COMPLETED")), ("outcome", values.text)),
    "hs_email_status": (("done", _said("SENT")),),
    "hs_call_duration": (("duration_seconds", values.seconds_from_ms),),
    "hs_call_direction": (("direction", _direction),),
    "hs_email_direction": (("direction", _direction),),
    "hs_call_disposition": (("outcome", values.text),),
}
