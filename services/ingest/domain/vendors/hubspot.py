"""HubSpot: webhooks (an array of events, each of one object) and files of the pulled journal.

Events carry no order: `occurredAt` decides, ties fall to the event's id, in the journal to the
place in its file. A deal's status follows from its stage, so both come from one event with one
position: they can't disagree. `hs_timestamp` is when an activity happened, a task's is due.

A journal event is read as the webhook that says the same. What the vendor's documentation leaves
open there (`type`, how `propertyChanges` writes values, the ids of a merge) is read in every form
that has been seen or is likely; what is none of them is put aside.

A push proves itself over the raw bytes and the configured public URL. A v3 signature that is there
and wrong is final: nothing older is tried, or an attacker would only have to spoil it.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from msgspec.structs import replace

from schemas.crm import CALL, EMAIL, MEETING, OPPORTUNITY, Field, Received, StageEntry
from services.ingest.domain import fields, items, signatures, stages, values
from services.ingest.domain.facts import (
    Actor,
    BadEventError,
    Fact,
    Ignored,
    Mark,
    Merge,
    Op,
    Relation,
    Reread,
)
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import (
    Arrival,
    MalformedError,
    RefusedError,
    Vendor,
    check_account,
    json_alone,
)

# Record types by the ids of generic events, and by the names in legacy ones and in association
# types. Users ("0-115") are not ours: owners, to whom records belong, have ids of their own.
_TYPES = {
    "0-1": "contact",
    "0-2": "account",
    "0-3": OPPORTUNITY,
    "0-5": "x_ticket",
    "0-7": "product",
    "0-8": "line_item",
    "0-14": "quote",
    "0-18": "message",  # "communications": what was written in other messengers
    "0-27": "task",
    "0-46": "note",
    "0-47": MEETING,
    "0-48": CALL,
    "0-49": EMAIL,
    "0-136": "lead",
}
_NAMES = {
    "contact": "0-1",
    "company": "0-2",
    "deal": "0-3",
    "ticket": "0-5",
    "product": "0-7",
    "line_item": "0-8",
    "quote": "0-14",
    "communication": "0-18",
    "task": "0-27",
    "note": "0-46",
    "meeting": "0-47",
    "meeting_event": "0-47",
    "call": "0-48",
    "email": "0-49",
    "lead": "0-136",
}
_LEGACY = frozenset({"contact", "company", "deal", "ticket", "product", "line_item"})
_TYPE_ID = re.compile(r"\d{1,4}-\d{1,15}")
_OTHER_NAME = re.compile(r"[a-z][a-z_]{0,29}")
_KIN = re.compile(r"^(parent|child)_")  # PARENT_COMPANY_TO_CHILD_COMPANY
# Names that ignored events are counted under; anything else is "other".
_ACTIONS = frozenset(
    {
        *("creation", "propertyChange", "deletion", "restore", "merge", "associationChange"),
        *("privacyDeletion", "newMessage"),
    }
)
_JOURNAL_ACTIONS = {
    "CREATE": "creation",
    "UPDATE": "propertyChange",
    "DELETE": "deletion",
    "RESTORE": "restore",
    "MERGE": "merge",
    "ASSOCIATION_ADDED": "associationChange",
    "ASSOCIATION_REMOVED": "associationChange",
    "SNAPSHOT": "snapshot",
    "GDPR_DELETE": "privacyDeletion",
}
_JOURNAL_IGNORED = frozenset({"APP_INSTALL", "APP_UNINSTALL", "ADDED_TO_LIST", "REMOVED_FROM_LIST"})
_KINDS: dict[str, Literal["user", "system", "integration", "automation"]] = {
    "CRM_UI": "user",
    "IMPORT": "system",
    "INTEGRATION": "integration",
    "AUTOMATION_PLATFORM": "automation",
}

MAX_MERGED = 1000  # records in one merge; each becomes a message, so that more would be a flood

_Id = int | str


class _Event(msgspec.Struct, frozen=True, rename="camel"):
    """A webhook's event, or one of the journal: what both call the same is the same.

    A key may be null wherever it may be absent, and says as little.
    """

    portal_id: _Id | None = None
    occurred_at: _Id | None = None
    object_type_id: str | None = None
    object_id: _Id | None = None
    change_source: str | None = None
    source_id: _Id | None = None
    is_sensitive: bool | None = None
    # webhooks
    subscription_type: str | None = None
    event_type: str | None = None
    event_id: _Id | None = None
    property_name: str | None = None
    property_value: Any = None
    from_object_id: _Id | None = None
    from_object_type_id: str | None = None
    to_object_id: _Id | None = None
    to_object_type_id: str | None = None
    association_type: str | None = None
    association_type_id: _Id | None = None
    association_category: str | None = None
    association_removed: bool | None = None
    is_primary_association: bool | None = None
    primary_object_id: _Id | None = None
    new_object_id: _Id | None = None
    merged_object_ids: Annotated[list[_Id], msgspec.Meta(max_length=MAX_MERGED)] | None = None
    number_of_properties_moved: int | None = None
    # the journal
    type: str | None = None
    action: str | None = None
    property_changes: Any = None
    properties: Any = None
    associated_object_id: _Id | None = None
    associated_object_type_id: str | None = None


class _File(msgspec.Struct, frozen=True, rename="camel"):
    """A file of the journal with one event, `index` places after the file's first."""

    offset: _Id = ""
    index: int = 0
    journal_events: tuple[msgspec.Raw] = (msgspec.Raw(b""),)


_decode = msgspec.json.Decoder(_Event, float_hook=Decimal).decode
_decode_file = msgspec.json.Decoder(_File).decode
_encode = msgspec.json.Encoder().encode
_IS_OBJECT = re.compile(rb"[ \t\r\n]*\{")


def split(received: Received, _source: Source) -> Sequence[msgspec.Raw]:
    """The events of a request, unread; those of a journal's file each as a file of its own."""
    if not _IS_OBJECT.match(received.body):
        return items.split(received.body)
    file = _journal(received.body)
    first = msgspec.json.decode(file.get("index", b"0"), type=int)
    offset = file.get("offset", msgspec.Raw(b'""'))
    return [
        msgspec.Raw(_encode({"offset": offset, "index": first + n, "journalEvents": [event]}))
        for n, event in enumerate(items.split(bytes(file["journalEvents"])))
    ]


def count(headers: Mapping[str, str], body: bytes) -> int:
    """How many events there are in an array, or in a file of the journal."""
    if not _IS_OBJECT.match(body):
        return items.count_array(headers, body)
    return items.count_array(headers, bytes(_journal(body)["journalEvents"]))


def alone(received: Received, raw: bytes) -> bytes:
    """The body of a request with this item only."""
    return raw if _IS_OBJECT.match(received.body) else json_alone(received, raw)


def _journal(body: bytes) -> dict[str, msgspec.Raw]:
    file = items.members(body)
    if "journalEvents" not in file:
        raise MalformedError("The body is neither an array of events nor a file of the journal.")
    return file


def read(raw: bytes | msgspec.Raw, received: Received, source: Source) -> Sequence[Fact | Ignored]:
    """What one event says."""
    if _IS_OBJECT.match(received.body):
        file = _decode_file(raw)
        event = _decode(file.journal_events[0])
        if "privacydeletion" in (event.type or "").replace("_", "").lower():
            action: str | None = "privacyDeletion"  # whatever its action is called
        elif not event.action:
            raise BadEventError("action is missing: it says what happened")
        else:
            action = _JOURNAL_ACTIONS.get(event.action)
        if action is None:
            known = event.action in _JOURNAL_IGNORED
            return [Ignored(f"journal.{event.action if known else 'other'}")]
        prefix, by = "object", f"{file.offset}/{file.index:06d}"
    else:
        event = _decode(raw)
        prefix, _, action = (event.subscription_type or event.event_type or "").partition(".")
        if not action:
            raise BadEventError("neither subscriptionType nor eventType says what happened")
        by = "" if event.event_id is None else str(event.event_id)
        if (prefix != "object" and prefix not in _LEGACY) or action not in _READERS:
            return [Ignored(_ignored_name(prefix, action))]
    check_account(event.portal_id, source)
    if event.occurred_at is None:
        raise BadEventError("occurredAt is missing")
    occurred = values.moment(event.occurred_at, "occurredAt", received.version)
    named = (
        event.object_type_id or event.from_object_type_id or "" if prefix == "object" else prefix
    )
    frame = Fact(
        _type(named, source),
        "",
        "updated",
        occurred=occurred,
        actor=_actor(event),
        dedupe=_dedupe(event, by),
        vendor_event=by,
        vendor_type=named,
    )
    return _READERS[action](_About(event, frame, Mark(occurred.at, by), source))


def _ignored_name(prefix: str, action: str) -> str:
    known = prefix in _LEGACY or prefix in ("object", "conversation")
    return f"{prefix if known else 'other'}.{action if action in _ACTIONS else 'other'}"


def _type(named: str, source: Source) -> str:
    """The record type of a type id or name; types without one of ours are the vendor's own."""
    if named in source.types:
        return fields.record_type(source.types[named])
    found = _TYPES.get(_NAMES.get(named, named))
    if found is None:
        if not _TYPE_ID.fullmatch(named) and not _OTHER_NAME.fullmatch(named):
            raise BadEventError(f"objectTypeId {named!r:.60} is not one such as 0-3")
        found = fields.own_type(named)
    return found


def _actor(event: _Event) -> Actor | None:
    by = "" if event.source_id is None else values.plain(str(event.source_id))
    kind, _, user = by.partition(":")
    if kind == "userId" and user:
        return Actor(user)
    if not by and not event.change_source:
        return None
    return Actor(by, _KINDS.get(event.change_source or "", "unknown"))


def _dedupe(event: _Event, by: str) -> tuple[str, ...]:
    """Not the event's id alone, which the vendor doesn't promise to be unique."""
    parts = (
        *(event.portal_id, by, event.subscription_type or event.event_type or event.action),
        *(event.occurred_at, event.object_id, event.from_object_id, event.to_object_id),
        event.property_name,
    )
    return tuple("" if part is None else str(part) for part in parts)


class _About(msgspec.Struct, frozen=True):
    """One event, and the fact that it becomes as far as every event says it."""

    event: _Event
    frame: Fact
    mark: Mark
    source: Source

    def fact(self, number: object, op: Op, registers: Mapping[str, Field], **more: Any) -> Fact:
        return replace(
            self.frame,
            id=values.record_id(self.source.id, number),
            op=op,
            fields=registers,
            position=self.mark.position,
            **more,
        )


def _property_change(about: _About) -> list[Fact]:
    said, before = _changes(about.event)
    if not said:
        raise BadEventError("propertyName is missing")
    registers, entries = _registers(about, said)
    fact = about.fact(
        about.event.object_id,
        "updated",
        registers,
        stages=entries,
        reread=_missing(about.frame.type, registers),
        said=said,
        before=before,
        sensitive=tuple(said) if about.event.is_sensitive else (),
    )
    return [_signalled(fact, registers.keys())]


def _signalled(fact: Fact, changed: Collection[str] = ()) -> Fact:
    """What a stage means is not in the event: only HubSpot's own property says that it is won."""
    fact = fields.signalled(fact, [name for name in changed if name != "status"])
    if fact.said.get("hs_is_closed_won") in ("true", True) and "won" not in fact.signals:
        fact = replace(fact, signals=(*fact.signals, "won"))
    return fact


def _missing(kind: str, registers: Mapping[str, Field]) -> Reread | None:
    """An amount comes without its currency, which is another property."""
    amount = registers.get("amount")
    if kind != OPPORTUNITY or amount is None or amount.state != "value" or "currency" in registers:
        return None
    return Reread("missing_fields", ("currency",))


def _changes(event: _Event) -> tuple[dict[str, Any], dict[str, Any]]:
    """New and, where the event has them, old values of properties by name."""
    if event.property_name:
        return {event.property_name: event.property_value}, {}
    given = event.property_changes if event.property_changes is not None else event.properties
    if isinstance(given, list) and all(isinstance(one, dict) for one in given):
        given = {one.get("propertyName", one.get("name")): one for one in given}
    if given is None:
        return {}, {}
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        raise BadEventError("propertyChanges are not properties by name")
    said: dict[str, Any] = {}
    before: dict[str, Any] = {}
    for name, change in given.items():
        if not isinstance(change, dict):
            said[name] = change
            continue
        new = [change[key] for key in ("value", "newValue", "propertyValue") if key in change]
        old = [change[key] for key in ("oldValue", "previousValue") if key in change]
        if not new:
            raise BadEventError(f"the change of property {name!r:.60} has no value")
        said[name] = new[0]
        if old:
            before[name] = old[0]
    return said, before


def _registers(
    about: _About, said: Mapping[str, object]
) -> tuple[dict[str, Field], tuple[StageEntry, ...]]:
    """The canonical fields of properties, and every other property under its own name."""
    registers: dict[str, Field] = {}
    entries: tuple[StageEntry, ...] = ()
    kind, mark = about.frame.type, about.mark
    known = _PROPERTIES.get(kind, _COMMON)
    for name, value in said.items():
        if kind == OPPORTUNITY and name == "dealstage":
            found, entries = stages.registers(value, mark, about.source)
            registers |= found
            continue
        for field, convert in known.get(name) or ((values.own_name(name), values.text),):
            redacted = value == stages.REDACTED_VALUE
            registers[field] = (
                mark.field("redacted") if redacted else fields.field(value, convert, mark)
            )
    return registers, entries


def _creation(about: _About) -> list[Fact]:
    said, before = _changes(about.event)
    registers, entries = _registers(about, said)
    # Position 0: any `createdate` knows better than the instant of the event.
    created = Field("value", values.written(about.mark.at), 0, about.mark.by)
    fact = about.fact(
        about.event.object_id,
        "created",
        {"created_at": created} | registers | about.mark.alive(),
        stages=entries,
        completeness="delta" if said else "id_only",
        reread=_missing(about.frame.type, registers) if said else Reread("id_only"),
        said=said,
        before=before,
    )
    return [_signalled(fact)]


def _snapshot(about: _About) -> list[Fact]:
    """The journal's answer to a request for an object as it is."""
    said, _ = _changes(about.event)
    registers, entries = _registers(about, said)
    return [
        about.fact(
            about.event.object_id,
            "snapshot",
            registers | about.mark.alive(),
            stages=entries,
            completeness="snapshot",
            said=said,
        )
    ]


def _deletion(about: _About) -> list[Fact]:
    gone = about.mark.gone()
    return [about.fact(about.event.object_id, "deleted", gone, completeness="id_only")]


def _restore(about: _About) -> list[Fact]:
    fact = about.fact(
        about.event.object_id,
        "restored",
        about.mark.alive(),
        completeness="id_only",
        reread=Reread("id_only"),
    )
    return [fields.signalled(fact)]


def _merge(about: _About) -> list[Fact]:
    """Merged records are gone, not lost; sometimes the survivor is a record of its own."""
    event, mark = about.event, about.mark
    named = (event.new_object_id, event.primary_object_id, event.object_id)
    survivor = next((number for number in named if number is not None), None)
    if survivor is None or not event.merged_object_ids:
        raise BadEventError("the merge names no survivor or no merged records")
    ended = {str(number) for number in (event.primary_object_id, *event.merged_object_ids)}
    ended -= {str(survivor), str(None)}
    kept, *gone = (
        values.record_id(about.source.id, number) for number in (survivor, *sorted(ended))
    )
    merge = Merge("survivor", kept, tuple(gone))
    moved = event.number_of_properties_moved
    survived = about.fact(
        survivor,
        "updated",
        mark.alive(),
        completeness="id_only",
        merge=merge,
        reread=Reread("id_only"),
        said={} if moved is None else {"numberOfPropertiesMoved": moved},
    )
    away = about.fact(
        survivor,
        "merged",
        mark.gone(kept),
        completeness="id_only",
        merge=replace(merge, role="merged"),
    )
    return [fields.signalled(one) for one in (survived, *(replace(away, id=n) for n in gone))]


def _association(about: _About) -> list[Fact]:
    """A link made or undone; HubSpot sends one event for each of its sides."""
    event, source = about.event, about.source
    near, _, far = (event.association_type or "").lower().partition("_to_")
    to_type = event.to_object_type_id or event.associated_object_type_id or _KIN.sub("", far)
    removed = bool(event.association_removed) or event.action == "ASSOCIATION_REMOVED"
    to = event.associated_object_id if event.to_object_id is None else event.to_object_id
    relation = Relation(
        _type(to_type, source),
        values.record_id(source.id, to),
        "removed" if removed else "added",
        primary=bool(event.is_primary_association),
    )
    fact = about.fact(
        event.object_id if event.from_object_id is None else event.from_object_id,
        "unlinked" if removed else "linked",
        about.mark.related([relation]),
        relations=(relation,),
        said=_association_said(event),
    )
    if far and not event.object_type_id and not event.from_object_type_id:
        fact = replace(fact, type=_type(_KIN.sub("", near), source))
    return [fact]


def _association_said(event: _Event) -> dict[str, Any]:
    said = {
        "associationType": event.association_type,
        "associationTypeId": event.association_type_id,
        "associationCategory": event.association_category,
        "associationRemoved": event.association_removed,
        "isPrimaryAssociation": event.is_primary_association,
    }
    return {name: value for name, value in said.items() if value is not None}


def _privacy_deletion(about: _About) -> list[Fact]:
    erased = about.mark.erased()
    return [about.fact(about.event.object_id, "erased", erased, completeness="id_only")]


_READERS: dict[str, Callable[[_About], list[Fact]]] = {
    "propertyChange": _property_change,
    "creation": _creation,
    "snapshot": _snapshot,
    "deletion": _deletion,
    "restore": _restore,
    "merge": _merge,
    "associationChange": _association,
    "privacyDeletion": _privacy_deletion,
}


def _said(word: str) -> fields.Convert:
    return lambda value: str(value).upper() == word


def _direction(value: Any) -> str:
    return "inbound" if str(value).upper().startswith(("INBOUND", "INCOMING")) else "outbound"


_Targets = tuple[tuple[str, fields.Convert], ...]

_COMMON: dict[str, _Targets] = {
    "hubspot_owner_id": (("owner_id", values.text),),
    "createdate": (("created_at", values.instant),),
    "hs_createdate": (("created_at", values.instant),),
}
_DEAL: dict[str, _Targets] = {
    "hubspot_owner_id": (("owner_id", values.text),),
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
    "hs_task_subject": (("name", values.text),),
    "hs_timestamp": (("occurred_at", values.instant),),
    "hs_call_status": (("done", _said("COMPLETED")),),
    "hs_meeting_outcome": (("done", _said("COMPLETED")), ("outcome", values.text)),
    "hs_email_status": (("done", _said("SENT")),),
    "hs_task_status": (("done", _said("COMPLETED")),),
    "hs_call_duration": (("duration_seconds", values.seconds_from_ms),),
    "hs_call_direction": (("direction", _direction),),
    "hs_email_direction": (("direction", _direction),),
    "hs_call_disposition": (("outcome", values.text),),
}


def _named(name: str) -> dict[str, _Targets]:
    return _COMMON | {name: (("name", values.text),)}


_PROPERTIES: dict[str, dict[str, _Targets]] = {
    OPPORTUNITY: _DEAL,
    **dict.fromkeys((CALL, EMAIL, MEETING, "task", "note", "message"), _ACTIVITY),
    "contact": _COMMON | {"email": (("email", values.text),)},
    "account": _named("name"),
    "product": _named("name"),
    "line_item": _named("name"),
    "quote": _named("hs_title"),
    "lead": _named("hs_lead_name"),
    "x_ticket": _named("subject"),
}


def properties(kind: str) -> frozenset[str]:
    """The properties that are fields of a record type."""
    own = {"dealstage"} if kind == OPPORTUNITY else set()
    return frozenset(_PROPERTIES.get(kind, _COMMON).keys() | own)


def type_ids() -> dict[str, str]:
    """The type ids by which HubSpot knows the record types that have one."""
    return {kind: number for number, kind in _TYPES.items()}


# The percent escapes that HubSpot decodes in the URL before it signs; no others.
_DECODED = {
    "3A": ":",
    "2F": "/",
    "3F": "?",
    "40": "@",
    "21": "!",
    "24": "$",
    "27": "'",
    "28": "(",
    "29": ")",
    "2A": "*",
    "2C": ",",
    "3B": ";",
}
_ESCAPE = re.compile("%(" + "|".join(_DECODED) + ")", re.IGNORECASE)


def signature_v3(secret: str, method: str, url: str, body: bytes, timestamp: str) -> str:
    """The v3 signature of a request."""
    url = _ESCAPE.sub(lambda found: _DECODED[found.group(1).upper()], url)
    signed = f"{method}{url}".encode() + body + timestamp.encode()
    return base64.b64encode(hmac.digest(secret.encode(), signed, hashlib.sha256)).decode()


def signature_v2(secret: str, method: str, url: str, body: bytes) -> str:
    """The v2 signature of a request."""
    return hashlib.sha256(f"{secret}{method}{url}".encode() + body).hexdigest()


def signature_v1(secret: str, body: bytes) -> str:
    """The v1 signature of a request."""
    return hashlib.sha256(secret.encode() + body).hexdigest()


def verify(arrival: Arrival, source: Source) -> str:
    """By the app's secret over method, URL, body and timestamp; older schemes where configured."""
    method, url, body = arrival.method, arrival.url, arrival.body
    v3 = arrival.headers.get("x-hubspot-signature-v3")
    if v3 is not None:
        stamp = arrival.headers.get("x-hubspot-request-timestamp", "")
        # The time first: nothing of a timestamp that is none is signed.
        if signatures.in_time(stamp, arrival.now_ms) and signatures.matches(
            v3, [signature_v3(secret, method, url, body, stamp) for secret in source.secrets]
        ):
            return "hubspot.v3"
        raise RefusedError(
            "X-HubSpot-Signature-v3 does not match, or its timestamp is over 5 minutes off. Check "
            "the app's secret in the sources file, this machine's clock, and that "
            "INGEST_PUBLIC_URL is the URL that HubSpot calls."
        )
    given = arrival.headers.get("x-hubspot-signature")
    if given is None or not source.legacy_signatures:
        raise RefusedError(
            "X-HubSpot-Signature-v3 is missing. Where HubSpot sends only its older signatures, set "
            "legacy_signatures: true for this source."
        )
    version = arrival.headers.get("x-hubspot-signature-version", "v1").lower()
    if version == "v1":
        expected = [signature_v1(secret, body) for secret in source.secrets]
    elif version == "v2":
        expected = [signature_v2(secret, method, url, body) for secret in source.secrets]
    else:
        raise RefusedError("X-HubSpot-Signature-Version is neither v1 nor v2.")
    if not signatures.matches(given, expected):
        raise RefusedError(
            "X-HubSpot-Signature does not match. Check the app's secret in the sources file, and "
            "that INGEST_PUBLIC_URL is the URL that HubSpot calls."
        )
    return f"hubspot.{version}"


VENDOR = Vendor(
    name="hubspot",
    title="HubSpot",
    count=count,
    split=split,
    read=read,
    verify=verify,
    alone=alone,
    stages_decide=True,
)
