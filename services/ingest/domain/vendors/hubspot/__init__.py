"""HubSpot: webhooks (an array of events, each of one object) and files of the pulled journal.

Events carry no order: `occurredAt` decides, ties fall to the event's id, in the journal to the
place in its file. A deal's status follows from its stage, so both come from one event with one
position: they can't disagree. `hs_timestamp` is when an activity happened, a task's is due.

A journal event is read as the webhook that says the same. What the vendor's documentation leaves
open there (`type`, how `propertyChanges` writes values, the ids of a merge) is read in every form
that has been seen or is likely; what is none of them is put aside.

names    what HubSpot's object types and properties are called in ours
events   what one event says of its object, by what happened to it
signing  how a push proves itself
"""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Literal

import msgspec

from schemas.crm import Received
from services.ingest.domain import items, values
from services.ingest.domain.facts import Actor, BadEventError, Fact, Ignored, Mark
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import MalformedError, Vendor, check_account, json_alone
from services.ingest.domain.vendors.hubspot.events import READERS, About, Event
from services.ingest.domain.vendors.hubspot.names import properties, record_type, type_ids
from services.ingest.domain.vendors.hubspot.signing import (
    signature_v1,
    signature_v2,
    signature_v3,
    verify,
)

__all__ = [
    "VENDOR",
    "properties",
    "signature_v1",
    "signature_v2",
    "signature_v3",
    "type_ids",
    "verify",
]

_LEGACY = frozenset({"contact", "company", "deal", "ticket", "product", "line_item"})
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


class _File(msgspec.Struct, frozen=True, rename="camel"):
    """A file of the journal with one event, `index` places after the file's first."""

    offset: int | str = ""
    index: int = 0
    journal_events: tuple[msgspec.Raw] = (msgspec.Raw(b""),)


_decode = msgspec.json.Decoder(Event, float_hook=Decimal).decode
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
        if (prefix != "object" and prefix not in _LEGACY) or action not in READERS:
            return [Ignored(_ignored_name(prefix, action))]
    check_account(event.portal_id, source)
    if event.occurred_at is None:
        raise BadEventError("occurredAt is missing")
    occurred = values.moment(event.occurred_at, "occurredAt", received.version)
    named = (
        event.object_type_id or event.from_object_type_id or "" if prefix == "object" else prefix
    )
    frame = Fact(
        record_type(named, source),
        "",
        "updated",
        occurred=occurred,
        actor=_actor(event),
        dedupe=_dedupe(event, by),
        vendor_event=by,
        vendor_type=named,
    )
    return READERS[action](About(event, frame, Mark(occurred.at, by), source))


def _ignored_name(prefix: str, action: str) -> str:
    known = prefix in _LEGACY or prefix in ("object", "conversation")
    return f"{prefix if known else 'other'}.{action if action in _ACTIONS else 'other'}"


def _actor(event: Event) -> Actor | None:
    by = "" if event.source_id is None else values.plain(str(event.source_id))
    kind, _, user = by.partition(":")
    if kind == "userId" and user:
        return Actor(user)
    if not by and not event.change_source:
        return None
    return Actor(by, _KINDS.get(event.change_source or "", "unknown"))


def _dedupe(event: Event, by: str) -> tuple[str, ...]:
    """Not the event's id alone, which the vendor doesn't promise to be unique."""
    parts = (
        *(event.portal_id, by, event.subscription_type or event.event_type or event.action),
        *(event.occurred_at, event.object_id, event.from_object_id, event.to_object_id),
        event.property_name,
    )
    return tuple("" if part is None else str(part) for part in parts)


VENDOR = Vendor(
    name="hubspot",
    title="HubSpot",
    count=count,
    split=split,
    read=read,
    verify=verify,
    alone=alone,
    settings=frozenset({"account", "types", "legacy_signatures", "api"}),
    stages_decide=True,
)
