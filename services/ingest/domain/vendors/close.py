"""Close: one event of the event log, with the object as it now is and the old values.

Edits that follow each other closely are folded by Close into one event, sent again under its id
with a later `date_updated`: that is the position, and the later one is a newer fact. Times have no
zone and are UTC. Amounts are whole cents. A deal says itself whether it is won; `date_won` is an
expectation until then. A date without a time is taken as its noon, the same day in every zone.

Drafts are saved as they are typed, so that "updated" says little about calls and e-mails: they
are done when Close says completed or sent, or when their status says so (a call that was logged by
hand is only ever created).
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

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
    Op,
    Relation,
    stage_of,
)
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import Arrival, RefusedError, Vendor, check_account, whole

_TYPES = {
    "lead": "lead",
    "contact": "contact",
    "opportunity": OPPORTUNITY,
    "activity.call": CALL,
    "activity.email": EMAIL,
    "activity.meeting": MEETING,
    "activity.sms": "message",
    "activity.whatsapp_message": "message",
    "activity.note": "note",
    "status.opportunity": "stage",
}
# What Close says of its own working; anything that isn't named anywhere is "other".
_IGNORED = frozenset(
    {
        *("activity.email_thread", "bulk_action", "comment", "comment_thread", "custom_fields"),
        *("custom_activity_type", "custom_object_type", "email_template", "export", "group"),
        *("import", "lead_merge", "membership", "phone_number", "saved_search", "sequence"),
        *("sequence_subscription", "sms_template", "status.lead", "unsubscribed_email"),
    }
)
STATUS_CHANGE = "activity.opportunity_status_change"
_OPS: dict[str, Op] = {
    "created": "created",
    "deleted": "deleted",
    "completed": "completed",
    "sent": "completed",
}
_STATUSES = {"active": "open", "won": "won", "lost": "lost"}
_RELATED = {"lead_id": "lead", "contact_id": "contact", "opportunity_id": OPPORTUNITY}
CENTS = 100
MAX_CONTACTS = 300  # of one lead; each becomes a field of its record

_State = dict[str, Any]


class _Meta(msgspec.Struct, frozen=True):
    merge_source_lead_id: str | None = None
    merge_destination_lead_id: str | None = None


class _Event(msgspec.Struct, frozen=True):
    id: str = ""
    object_type: str = ""
    action: str = ""
    object_id: str | None = None
    organization_id: str = ""
    user_id: str | None = None
    api_key_id: str | None = None
    request_id: str | None = None
    date_created: str | None = None
    date_updated: str | None = None
    changed_fields: list[str] | None = None
    data: _State | None = None
    previous_data: _State | None = None
    meta: _Meta | None = None


class _Body(msgspec.Struct, frozen=True):
    event: _Event


_decode = msgspec.json.Decoder(_Body, float_hook=Decimal).decode  # money must not become binary


def read(raw: bytes | msgspec.Raw, received: Received, source: Source) -> Sequence[Fact | Ignored]:
    """What one event says."""
    event = _decode(raw).event
    if not event.object_type or not event.action:
        raise BadEventError("event.object_type or event.action is missing")
    kind = _type(event.object_type, source)
    if kind is None:
        return [Ignored(_ignored_name(event.object_type))]
    check_account(event.organization_id, source)
    when = "date_created" if event.date_updated is None else "date_updated"
    stamp = event.date_created if event.date_updated is None else event.date_updated
    if stamp is None:
        raise BadEventError("event.date_updated is missing")
    occurred = values.moment(stamp, when, received.version)
    mark = Mark(occurred.at, event.id)
    frame = Fact(
        kind,
        values.record_id(source.id, event.object_id),
        _OPS.get(event.action, "updated"),
        completeness=_completeness(event),
        occurred=occurred,
        position=mark.position,
        transaction=event.request_id or "",
        actor=_actor(event),
        dedupe=(event.organization_id, event.id, stamp),
        vendor_event=event.id,
        vendor_type=event.object_type,
        said=event.data or {},
        before=event.previous_data or {},
    )
    about = _About(event, frame, event.data or event.previous_data or {}, mark, source)
    if event.action == "deleted":
        return [_deleted(about)]
    if event.data is None:
        raise BadEventError("event.data is null though nothing was deleted")
    if event.object_type == "lead" and event.action == "merged":
        return _merged(about)
    found = [_changed(about)]
    if event.object_type == STATUS_CHANGE and event.action == "created":
        found += _entered(about)
    return found


def _type(named: str, source: Source) -> str | None:
    """The record type; custom objects and activities that have none of ours keep their own."""
    if named in source.types:
        return fields.record_type(source.types[named])
    family, _, name = named.partition(".")
    if family == "task":
        return "task"
    if named in _TYPES:
        return _TYPES[named]
    is_own = named == "custom_object" or (family == "activity" and named not in _IGNORED)
    return fields.own_type(name or named) if is_own else None


def _ignored_name(named: str) -> str:
    """Some families have a type for each object they are about: `export.lead`."""
    return next((n for n in (named, named.partition(".")[0]) if n in _IGNORED), "other")


def _completeness(event: _Event) -> Completeness:
    if event.data is None:
        return "snapshot" if event.previous_data else "id_only"
    return "snapshot_plus_delta" if event.previous_data else "snapshot"


def _actor(event: _Event) -> Actor | None:
    if event.user_id:
        return Actor(values.plain(event.user_id), "integration" if event.api_key_id else "user")
    return Actor(values.plain(event.api_key_id), "integration") if event.api_key_id else None


class _About(msgspec.Struct, frozen=True):
    """One event: the fact that it becomes, and the object's state."""

    event: _Event
    frame: Fact
    state: _State
    mark: Mark
    source: Source

    def is_changed(self, name: str) -> bool:
        """Whether the event says that this has changed; of a new object nothing has."""
        event = self.event
        named = name in (event.changed_fields or ()) or name in (event.previous_data or {})
        return named and event.action not in ("created", "deleted")


def _changed(about: _About) -> Fact:
    registers, stages, relations = _registers(about)
    table = _TABLES.get(about.frame.type, _COMMON)
    changed = {table[name][0] for name in table if about.is_changed(name)}
    changed |= {"status"} if about.is_changed("status_type") else set()
    changed |= {"amount"} if about.is_changed("value") else set()
    if about.frame.op == "completed":
        registers["done"] = about.mark.value(value=True)
        if about.frame.type == "task":
            registers["completed_at"] = about.mark.value(values.written(about.mark.at))
    fact = replace(
        about.frame,
        fields=registers | about.mark.alive() | about.mark.related(relations),
        stages=stages,
        relations=relations,
    )
    return fields.signalled(fact, changed)


def _deleted(about: _About) -> Fact:
    """A lead that is deleted because it was merged is not gone, but in another."""
    registers, _, _ = _registers(about)
    meta = about.event.meta or _Meta()
    source, into = meta.merge_source_lead_id, meta.merge_destination_lead_id
    if about.event.object_type == "lead" and into and source == about.event.object_id:
        kept = values.record_id(about.source.id, into)
        merge = Merge("merged", kept, (about.frame.id,))
        gone = replace(about.frame, op="merged", merge=merge)
        return fields.signalled(replace(gone, fields=registers | about.mark.gone(kept)))
    return replace(about.frame, fields=registers | about.mark.gone())


def _merged(about: _About) -> list[Fact]:
    """`data` is of the lead that is kept."""
    meta = about.event.meta or _Meta()
    source, into = meta.merge_source_lead_id, meta.merge_destination_lead_id
    if not source or not into:
        raise BadEventError("meta names no merge_source_lead_id and merge_destination_lead_id")
    kept, gone = (values.record_id(about.source.id, number) for number in (into, source))
    merge = Merge("survivor", kept, (gone,))
    survivor = _changed(msgspec.structs.replace(about, frame=replace(about.frame, id=kept)))
    away = replace(
        about.frame,
        id=gone,
        op="merged",
        fields=about.mark.gone(kept),
        completeness="id_only",
        merge=replace(merge, role="merged"),
        said={},
        before={},
    )
    return [fields.signalled(replace(survivor, merge=merge)), fields.signalled(away)]


def _entered(about: _About) -> list[Fact]:
    """A status change is a record of its own, and an entry in its deal's history of stages."""
    number, stage = about.state.get("opportunity_id"), about.state.get("new_status_id")
    if values.empty(number) or values.empty(stage):
        return []
    since = about.state.get("date_created")
    at = about.mark.at if values.empty(since) else values.micros(since)
    return [
        replace(
            about.frame,
            type=OPPORTUNITY,
            id=values.record_id(about.source.id, number),
            op="updated",
            stages=(StageEntry(at, stage_of(values.text(stage))),),
            signals=("stage_changed",),
            completeness="delta",
        )
    ]


_Registers = tuple[dict[str, Field], tuple[StageEntry, ...], tuple[Relation, ...]]


def _registers(about: _About) -> _Registers:
    """The object's fields, the stage that it has entered, and its links."""
    state, mark, kind = about.state, about.mark, about.frame.type
    apart = _APART.get(kind, _DERIVED)
    found = fields.read(state, _TABLES.get(kind, _COMMON), mark, apart=apart)
    stages: tuple[StageEntry, ...] = ()
    if kind == OPPORTUNITY:
        found |= _deal(about)
        stage = state.get("status_id")
        new = about.event.action == "created" or about.is_changed("status_id")
        if new and not values.empty(stage):
            stages = (StageEntry(mark.at, stage_of(values.text(stage))),)
    elif kind in fields.ACTIVITIES:
        found |= _activity(about)
    elif kind == "contact":
        found |= _email(state, mark)
    elif kind == "stage" and "type" in state:
        found["status"] = fields.field(state["type"], _status, mark)
    return found, stages, _relations(about)


def _deal(about: _About) -> dict[str, Field]:
    state, mark = about.state, about.mark
    found = {}
    if "value" in state:
        found["amount"] = fields.field(state["value"], _cents, mark)
    status = None
    if "status_type" in state:
        status = _status(state["status_type"])
        found["status"] = mark.value(status)
    won = state.get("date_won")
    if status == "open":
        found |= mark.cleared(("closed_at",))
        if "date_won" in state:
            found["expected_close"] = fields.field(won, values.instant_or_noon, mark)
    elif status is not None:
        closed = won if status == "won" else state.get("date_lost")
        new = about.event.action == "created" or about.is_changed("status_type")
        if values.empty(closed) and new:
            closed = values.written(mark.at)
        if not values.empty(closed):
            found["closed_at"] = mark.value(values.instant_or_noon(closed))
    return found


def _status(value: Any) -> str:
    if not isinstance(value, str) or value not in _STATUSES:
        raise BadEventError(f"status {value!r:.60} is none of {', '.join(_STATUSES)}")
    return _STATUSES[value]


def _cents(value: Any) -> str:
    """Whole cents as an amount, exactly."""
    return values.amount(Decimal(fields.whole(value)) / CENTS)


def _direction(value: Any) -> str:
    """E-mails are incoming and outgoing, calls in- and outbound."""
    return {"incoming": "inbound", "outgoing": "outbound"}.get(str(value)) or values.text(value)


def _activity(about: _About) -> dict[str, Field]:
    state, mark, kind = about.state, about.mark, about.frame.type
    found: dict[str, Field] = {}
    if kind == "note":
        found["done"] = mark.value(value=True)  # it is there, so it was written
    elif kind == "task":
        if "is_complete" in state:
            found["done"] = fields.field(state["is_complete"], values.flag, mark)
    elif "status" in state:
        done = state["status"] in _DONE[kind]
        is_new = about.event.action != "updated" or about.is_changed("status")
        # A call that nobody answered is completed too: another edit doesn't take that back.
        if done or is_new or kind != CALL or state["status"] in _GOING:
            found["done"] = mark.value(value=done)
        found["x_status"] = fields.field(state["status"], values.text, mark)
    when = next((state[n] for n in _WHEN[kind] if not values.empty(state.get(n))), None)
    if when is not None:
        found["occurred_at"] = mark.value(values.instant_or_noon(when))
        if kind == "task":
            found["due_at"] = mark.value(values.due(when))
    return found


_GOING = ("created", "in-progress")  # of a call
# A received message is as done as one that was sent.
_DONE: Mapping[str, tuple[str, ...]] = {
    CALL: ("completed",),
    MEETING: ("completed",),
    EMAIL: ("sent", "inbox"),
    "message": ("sent", "inbox", "delivered"),
}
_WHEN: Mapping[str, tuple[str, ...]] = {
    CALL: ("activity_at", "date_created"),
    MEETING: ("starts_at", "activity_at", "date_created"),
    EMAIL: ("date_sent", "activity_at", "date_created"),
    "message": ("date_sent", "activity_at", "date_created"),
    "note": ("activity_at", "date_created"),
    "task": ("due_date", "date"),
}


def _email(state: _State, mark: Mark) -> dict[str, Field]:
    """The first of a contact's addresses."""
    if "emails" not in state:
        return {}
    given = state["emails"] if isinstance(state["emails"], list) else []
    addresses = [one.get("email") for one in given if isinstance(one, dict)]
    found = next((address for address in addresses if not values.empty(address)), None)
    return {"email": fields.field(found, values.text, mark)}


def _relations(about: _About) -> tuple[Relation, ...]:
    """What the object belongs to, and a lead's contacts; former ones are unlinked."""
    if about.event.data is None:
        return ()
    own = (about.frame.type, about.frame.id)
    now = [one for one in _links(about.state, about.source) if (one.type, one.id) != own]
    before = _links(about.event.previous_data or {}, about.source)
    removed = [replace(one, change="removed") for one in before if one not in now]
    return (*removed, *now)


def _links(state: _State, source: Source) -> list[Relation]:
    found = [
        Relation(kind, values.record_id(source.id, state[name]))
        for name, kind in _RELATED.items()
        if not values.empty(state.get(name))
    ]
    numbers = state.get("contact_ids")
    if numbers is None:
        contacts = state.get("contacts")
        given = contacts if isinstance(contacts, list) else []
        numbers = [one.get("id") for one in given if isinstance(one, dict)]
    if not isinstance(numbers, list) or len(numbers) > MAX_CONTACTS:
        raise BadEventError(f"contact_ids are not a list of at most {MAX_CONTACTS} ids")
    return found + [Relation("contact", values.record_id(source.id, number)) for number in numbers]


_COMMON: dict[str, tuple[str, fields.Convert]] = {
    "name": ("name", values.text),
    "user_id": ("owner_id", values.text),
    "date_created": ("created_at", values.instant),
}
_TABLES: Mapping[str, fields.Table] = {
    OPPORTUNITY: _COMMON
    | {
        "value_currency": ("currency", values.currency),
        "value_period": (
            "amount_period",
            fields.one_of("value_period", "one_time", "monthly", "annual"),
        ),
        "status_id": ("stage", values.text),
        "pipeline_id": ("pipeline", values.text),
        "confidence": ("probability", values.percent),
    },
    "lead": {
        "display_name": ("name", values.text),
        "status_label": ("status", values.text),
        "date_created": ("created_at", values.instant),
    },
    "stage": {
        "label": ("name", values.text),
        "pipeline_id": ("pipeline", values.text),
        "date_created": ("created_at", values.instant),
    },
    "task": {
        "text": ("name", values.text),
        "assigned_to": ("owner_id", values.text),
        "date_created": ("created_at", values.instant),
    },
    CALL: _COMMON
    | {
        "duration": ("duration_seconds", values.seconds),
        "direction": ("direction", _direction),
        "disposition": ("outcome", values.text),
    },
    EMAIL: _COMMON
    | {
        "subject": ("name", values.text),
        "direction": ("direction", _direction),
    },
    MEETING: _COMMON
    | {
        "title": ("name", values.text),
        "duration": ("duration_seconds", values.seconds),
    },
    "message": _COMMON | {"direction": ("direction", _direction)},
}
# What is read apart from the tables, or is said better elsewhere in the event.
_DERIVED = frozenset({"id", "date_updated", "organization_id"})
_APART: Mapping[str, frozenset[str]] = {
    OPPORTUNITY: _DERIVED | {"value", "status_type", "date_won", "date_lost"},
    "contact": _DERIVED | {"emails"},
    "stage": _DERIVED | {"type"},
    "task": _DERIVED | {"is_complete"},
    **dict.fromkeys((CALL, EMAIL, MEETING, "message"), _DERIVED | {"status"}),
}


def signature(key: str, timestamp: str, body: bytes) -> str:
    """The signature of a request; the key is hexadecimal."""
    signed = timestamp.encode() + body
    return hmac.digest(bytes.fromhex(key), signed, hashlib.sha256).hex()


def verify(arrival: Arrival, source: Source) -> str:
    """By the subscription's signature key over timestamp and body."""
    given = arrival.headers.get("close-sig-hash", "")
    stamp = arrival.headers.get("close-sig-timestamp", "")
    keys = [key for key in source.secrets if _is_hex(key)]
    if signatures.in_time(stamp, arrival.now_ms, unit_ms=1000) and signatures.matches(
        given, [signature(key, stamp, arrival.body) for key in keys]
    ):
        return "close.hmac"
    raise RefusedError(
        "close-sig-hash does not match, or close-sig-timestamp is over 5 minutes off. Check that "
        "the source's secret is the signature_key that Close gave when the webhook was created, "
        "and this machine's clock."
    )


def _is_hex(key: str) -> bool:
    try:
        return bool(bytes.fromhex(key))
    except ValueError:
        return False


VENDOR = Vendor(
    name="close",
    title="Close",
    count=items.count_object,
    split=whole,
    read=read,
    verify=verify,
    settings=frozenset({"account", "types", "api"}),
)
