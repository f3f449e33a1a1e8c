"""Zoho CRM notifications: that records have changed, and what of them if the channel was asked to.

One callback names several records; `affected_values` (only with `return_affected_field_values`) has
changed fields of some. A record without any is read again. `module` says which type it is: the
`resource_uri` of real callbacks has named another one. What an operation that we don't know did is
asked of the CRM. The echoed token is all that proves the sender, so that each channel needs one.

Channels end after at most a week (an hour by default), in silence: nothing but a callback that
comes later than its own `channel_expiry` tells of it, and then the whole module is read again.
`notify_on_related_action` is on by default: a contact's change also names its account, with no
values; that costs a read.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from schemas.crm import CALL, MEETING, OPPORTUNITY, Field, Received, StageEntry
from services.ingest.domain import fields, items, shared_secrets, signatures, stages, values
from services.ingest.domain.facts import (
    BadEventError,
    Fact,
    Mark,
    Moment,
    Op,
    Relation,
    Reread,
)
from services.ingest.domain.fields import Table
from services.ingest.domain.sources import Source, Stages
from services.ingest.domain.vendors import Arrival, Raw, RefusedError, Vendor, bare_alone, whole

MAX_IDS = 1000
# As Zoho names the stages of a new organisation; a source that names others means those.
STANDARD = Stages(
    frozenset({"Closed Won"}), frozenset({"Closed Lost", "Closed-Lost to Competition"})
)
_TYPES: Mapping[str, str] = {
    "Deals": OPPORTUNITY,
    "Leads": "lead",
    "Contacts": "contact",
    "Accounts": "account",
    "Calls": CALL,
    "Events": MEETING,
    "Meetings": MEETING,
    "Tasks": "task",
    "Notes": "note",
    "Products": "product",
    "Quotes": "quote",
    "Users": "user",
}
# Of these, only insert is confirmed; the channel's own names for the others are taken too.
_OPS: Mapping[str, Op] = {
    "insert": "created",
    "create": "created",
    "update": "updated",
    "edit": "updated",
    "delete": "deleted",
    "restore": "restored",
}

_Id = str | int


class _Affected(msgspec.Struct, frozen=True):
    record_id: _Id
    values: dict[str, Any] | None = None


class _Callback(msgspec.Struct, frozen=True):
    module: str
    operation: str
    server_time: _Id | None = None
    ids: list[_Id] | None = None
    affected_values: list[_Affected] | None = None
    channel_id: _Id | None = None
    channel_expiry: str | None = None


class _Token(msgspec.Struct, frozen=True):
    token: str = ""


_decode = msgspec.json.Decoder(_Callback, float_hook=Decimal).decode  # money stays decimal
_decode_token = msgspec.json.Decoder(_Token).decode
_decode_id = msgspec.json.Decoder(_Id).decode
_decode_raws = msgspec.json.Decoder(list[msgspec.Raw] | None).decode
_JSON = msgspec.json.Encoder()
_NONE = msgspec.Raw(b"null")


class _Named(msgspec.Struct, frozen=True):
    record_id: msgspec.Raw


_decode_named = msgspec.json.Decoder(_Named).decode


def split(received: Received, source: Source) -> Sequence[Raw]:
    """The callback once for each record that it names, so that a bad one is put aside alone.

    The first says how long the channel lasts. What can't be cut is one item, and `read` says why.
    """
    try:
        callback = items.members(received.body)
        parts = _parts(callback)
    except msgspec.DecodeError:
        return whole(received, source)
    if len(parts) > MAX_IDS:
        raise BadEventError(f"{len(parts)} records in one callback; at most {MAX_IDS} are taken")
    if len(parts) <= 1:
        return whole(received, source)
    later = {name: raw for name, raw in callback.items() if name != "channel_expiry"}
    return [
        msgspec.Raw(_JSON.encode((later if n else callback) | part)) for n, part in enumerate(parts)
    ]


def _parts(callback: Mapping[str, msgspec.Raw]) -> list[dict[str, Any]]:
    """What is different for each record: its id, and the values that are its own."""
    found: dict[str, dict[str, Any]] = {}
    for raw in _decode_raws(callback.get("ids", _NONE)) or ():
        found[str(_decode_id(raw))] = {"ids": [raw], "affected_values": []}
    for raw in _decode_raws(callback.get("affected_values", _NONE)) or ():
        number = _decode_named(raw).record_id
        part = found.setdefault(str(_decode_id(number)), {"ids": [number], "affected_values": []})
        part["affected_values"].append(raw)
    return list(found.values())


def read(raw: Raw, received: Received, source: Source) -> list[Fact]:
    """What a callback says of each record that it names."""
    callback = _decode(raw)
    kind = fields.type_of(callback.module, source, _TYPES)
    at = None
    if callback.server_time is not None:
        at = values.moment(callback.server_time, "server_time", received.version, "ms")
    said: dict[str, dict[str, Any]] = {str(number): {} for number in callback.ids or ()}
    for one in callback.affected_values or ():
        said.setdefault(str(one.record_id), {}).update(one.values or {})
    if not said:
        raise BadEventError("neither ids nor affected_values names a record")
    if source.stages == Stages():
        source = msgspec.structs.replace(source, stages=STANDARD)
    facts = [
        _fact(callback, kind, number, state, at, received, source) for number, state in said.items()
    ]
    return facts + _expired(callback, kind, at, received)


def _fact(
    callback: _Callback,
    kind: str,
    number: str,
    state: Mapping[str, Any],
    at: Moment | None,
    received: Received,
    source: Source,
) -> Fact:
    op = _OPS.get(callback.operation.lower(), "gap")
    told = fields.digest([callback.operation, number, state])
    mark = Mark(received.version if at is None else at.at, told)
    found = _fields(kind, state, mark)
    entries: tuple[StageEntry, ...] = ()
    if kind == OPPORTUNITY and "Stage" in state:
        deal, entries = stages.registers(state["Stage"], mark, source)
        found |= deal
    relations = _relations(state, source)
    existence: dict[str, Field] = {}
    if op != "gap":
        existence = mark.gone() if op == "deleted" else mark.alive()
    is_known = bool(state) or op == "deleted"
    fact = Fact(
        kind,
        values.record_id(source.id, number),
        op,
        found | mark.related(relations) | existence,
        entries,
        completeness="delta" if state else "id_only",
        occurred=at,
        position=mark.position,
        relations=relations,
        reread=Reread("id_only") if op == "gap" or not is_known else None,
        # Without a time, what is said again may have changed in between: only positions tell.
        dedupe=() if at is None else (at.raw, number, told),
        vendor_type=callback.module,
        said=state,
    )
    return fields.signalled(fact, found, stage_decides=kind == OPPORTUNITY)


def _expired(callback: _Callback, kind: str, at: Moment | None, received: Received) -> list[Fact]:
    """That the channel has ended, and all of the type may have changed unseen."""
    if callback.channel_expiry is None:
        return []
    end = values.moment(callback.channel_expiry, "channel_expiry", received.version)
    now = received.version if at is None else at.at
    if now < end.at:
        return []
    fact = Fact(
        kind,
        "",
        "gap",
        completeness="none",
        occurred=end,
        position=(end.at, ""),
        reread=Reread("expired"),
        dedupe=("expired", str(callback.channel_id), callback.channel_expiry),
        vendor_type=callback.module,
    )
    return [fields.signalled(fact)]


def _fields(kind: str, state: Mapping[str, Any], mark: Mark) -> dict[str, Field]:
    found = fields.read(state, _TABLES.get(kind, _COMMON), mark, apart=_APART)
    if kind == "task" and "Closed_Time" in state:
        found["completed_at"] = found["occurred_at"]
    return found


def _relations(state: Mapping[str, Any], source: Source) -> tuple[Relation, ...]:
    return tuple(
        Relation(kind, values.record_id(source.id, state[name]["id"]))
        for name, kind in _LOOKUPS.items()
        if isinstance(state.get(name), dict) and not values.empty(state[name].get("id"))
    )


def _reference(value: Any) -> str:
    """The id of a user, given alone or inside an object."""
    found = value.get("id") if isinstance(value, dict) else value
    if values.empty(found):
        raise BadEventError(f"{value!r:.60} has no id")
    return values.text(found)


def _direction(value: Any) -> str:
    """A call type: Inbound, Outbound or Missed, which was one that came in; others as they are."""
    known = {"Inbound": "inbound", "Missed": "inbound", "Outbound": "outbound"}
    return known.get(str(value)) or values.text(value)


def _is(word: str) -> fields.Convert:
    return lambda value: value == word


_COMMON: Table = {
    "Owner": ("owner_id", _reference),
    "Created_Time": ("created_at", values.instant),
}
_LOOKUPS = {"Account_Name": "account", "Contact_Name": "contact", "Deal_Name": OPPORTUNITY}
_APART = frozenset({"id", "Stage"})
_TABLES: Mapping[str, Table] = {
    OPPORTUNITY: _COMMON
    | {
        "Deal_Name": ("name", values.text),
        "Amount": ("amount", values.amount),
        "Currency": ("currency", values.currency),
        "Pipeline": ("pipeline", _reference),
        "Closing_Date": ("expected_close", values.instant_or_noon),
        "Probability": ("probability", values.percent),
        "Type": ("deal_type", fields.deal_type),
    },
    "lead": _COMMON
    | {
        "Full_Name": ("name", values.text),
        "Email": ("email", values.text),
        "Lead_Status": ("status", values.text),
        "Lead_Source": ("lead_source", values.text),
        "Converted_Date_Time": ("converted_at", values.instant),
    },
    "contact": _COMMON | {"Full_Name": ("name", values.text), "Email": ("email", values.text)},
    "account": _COMMON | {"Account_Name": ("name", values.text)},
    CALL: _COMMON
    | {
        "Subject": ("name", values.text),
        "Call_Start_Time": ("occurred_at", values.instant),
        "Call_Type": ("direction", _direction),
        "Call_Duration_in_seconds": ("duration_seconds", values.seconds),
        "Call_Result": ("outcome", values.text),
        "Outgoing_Call_Status": ("done", _is("Completed")),
    },
    MEETING: _COMMON
    | {
        "Event_Title": ("name", values.text),
        "Start_DateTime": ("occurred_at", values.instant),
    },
    "task": _COMMON
    | {
        "Subject": ("name", values.text),
        "Status": ("done", _is("Completed")),
        "Closed_Time": ("occurred_at", values.instant),
        "Due_Date": ("due_at", values.due),
    },
    "note": _COMMON | {"Note_Title": ("name", values.text)},
    "product": _COMMON | {"Product_Name": ("name", values.text)},
    "quote": _COMMON | {"Subject": ("name", values.text)},
    "user": _COMMON
    | {
        "full_name": ("name", values.text),
        "email": ("email", values.text),
        "status": ("active", _is("active")),
    },
}


def verify(arrival: Arrival, source: Source) -> str:
    """By the token that the channel was made with, which each callback repeats."""
    try:
        given = _decode_token(arrival.body).token
    except (msgspec.DecodeError, RecursionError) as error:
        raise RefusedError(f"The body has no token that can be read: {error}.") from error
    if not signatures.matches(given, source.secrets):
        raise RefusedError(
            "token is not one of this source's secrets: give the channel the token that the "
            "sources file has."
        )
    return "zoho.token"


VENDOR = Vendor(
    name="zoho",
    title="Zoho CRM",
    count=items.count_object,
    split=split,
    alone=bare_alone,
    read=read,
    verify=verify,
    new_secret=shared_secrets.new,
    settings=frozenset({"types"}),
    stages_decide=True,
)
