"""CloudEvents 1.0, for systems of one's own: `pacesetter.record.updated`, `.deleted`, `.erased`.

`data` is `{"type", "id", …canonical fields…}`: what it has is known, null is emptied, what is
absent is not touched; other names are kept behind `x_`; `relations` is a list of `{"type", "id",
"change", "primary"}`. The position is `time`, else when we received it; the extension `sequence`,
which compares as text, then `source` and `id` break ties. Won or lost without `closed_at` means: at
this position. Events of other types are read by the source's mapping, if it has one.

Senders prove themselves by an API key; where the source has secrets, by one of them as the bearer
or as the query parameter `access_token`.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal
from urllib.parse import unquote_to_bytes

import msgspec

from schemas.crm import OPPORTUNITY, Field, Received, StageEntry
from services.ingest.domain import fields, items, mapping, signatures, values
from services.ingest.domain.facts import (
    BadEventError,
    Fact,
    Ignored,
    Mark,
    Moment,
    Op,
    Relation,
    stage_of,
)
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import (
    Answer,
    Arrival,
    MalformedError,
    Raw,
    RefusedError,
    Vendor,
    bare_alone,
    json_alone,
    whole,
)

TYPES: Mapping[str, Op] = {
    "pacesetter.record.updated": "updated",
    "pacesetter.record.deleted": "deleted",
    "pacesetter.record.erased": "erased",
}
BATCH, STRUCTURED, BINARY = "batch", "structured", "binary"
REQUIRED = ("id", "source", "type", "specversion")
_OPTIONAL = ("time", "sequence", "subject")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_APART = frozenset({"type", "id", "relations"})
MAX_RELATIONS = 100
_ABSENT = msgspec.Raw(b"")


class _Event(msgspec.Struct, frozen=True):
    id: str | None = None
    source: str | None = None
    type: str | None = None
    specversion: str | None = None
    time: str | None = None
    sequence: str | None = None
    subject: str | None = None
    datacontenttype: str | None = None
    data: msgspec.Raw = _ABSENT
    data_base64: str | None = None


class Stamp(msgspec.Struct, frozen=True):
    """When and as which event something was said."""

    at: Moment | None  # None: when we received it
    event: str
    dedupe: tuple[str, ...]
    tie: str = ""  # what breaks ties; the event, when empty
    sequence: str = ""


class _Relation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    id: str | int
    change: Literal["added", "removed"] = "added"
    primary: bool = False


_decode = msgspec.json.Decoder(_Event).decode
_decode_data = msgspec.json.Decoder(float_hook=Decimal).decode  # money must not become binary


def mode(content_type: str) -> str:
    """Which of the three content modes a request uses; `batch` shares the other's prefix."""
    media = content_type.partition(";")[0].strip().lower()
    if media.startswith("application/cloudevents-batch"):
        return BATCH
    return STRUCTURED if media.startswith("application/cloudevents") else BINARY


def split(received: Received, source: Source) -> Sequence[Raw]:
    """The events of a request, unread."""
    is_batch = mode(received.headers.get("content-type", "")) == BATCH
    return items.split(received.body) if is_batch else whole(received, source)


def alone(received: Received, raw: bytes) -> bytes:
    """The body with this event only: in an array, where it came in one."""
    is_batch = mode(received.headers.get("content-type", "")) == BATCH
    return (json_alone if is_batch else bare_alone)(received, raw)


def read(raw: Raw, received: Received, source: Source) -> list[Fact | Ignored]:
    """What one event says."""
    binary = mode(received.headers.get("content-type", "")) == BINARY
    event = _from_headers(received.headers, raw) if binary else _decode(raw)
    missing = [name for name in REQUIRED if not getattr(event, name)]
    if missing:
        raise BadEventError(f"the event lacks {', '.join(missing)}")
    if event.specversion != "1.0":
        raise BadEventError(f"specversion {event.specversion!r:.20} is not 1.0")
    if event.type not in TYPES and not source.mapping:
        return [Ignored("other")]
    at = None if event.time is None else values.moment(event.time, "time", received.version)
    tie = f"{event.source}|{event.id}"
    if event.type not in TYPES:
        item = _item(event, raw, received.headers if binary else None)
        return mapping.read(source.mapping, item, received, source, at=at, event=tie)
    data = _data(event)
    if not isinstance(data, dict):
        raise BadEventError("data is not an object")
    stamp = Stamp(
        at,
        event.id or "",
        (event.source or "", event.id or ""),
        f"{event.sequence}|{tie}" if event.sequence else tie,
        event.sequence or "",
    )
    return [record(event.type or "", data, stamp, received, source)]


def attribute(value: str) -> str:
    """An attribute from its header: unquoted, then percent-decoded once."""
    quoted = _QUOTED.fullmatch(value.strip())
    if quoted:
        value = re.sub(r"\\(.)", r"\1", quoted.group(1))
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError as error:
        raise BadEventError("a ce- header is not percent-encoded UTF-8") from error


def _from_headers(headers: Mapping[str, str], raw: Raw) -> _Event:
    names = (*REQUIRED, *_OPTIONAL)
    found = {n: attribute(headers[f"ce-{n}"]) for n in names if f"ce-{n}" in headers}
    content_type = headers.get("content-type") or None
    return _Event(**found, datacontenttype=content_type, data=msgspec.Raw(bytes(raw)))


def _item(event: _Event, raw: Raw, headers: Mapping[str, str] | None) -> dict[str, Any]:
    """The event as a mapping sees it: its attributes, extensions too, and its data decoded."""
    if headers is not None:  # in binary mode they are there
        item: dict[str, Any] = {
            name.removeprefix("ce-"): attribute(value)
            for name, value in headers.items()
            if name.startswith("ce-")
        }
        if event.datacontenttype is not None:
            item["datacontenttype"] = event.datacontenttype
    else:
        item = {
            name: value
            for name, value in _decode_data(raw).items()
            if name not in ("data", "data_base64")
        }
    return {name: value for name, value in item.items() if value is not None} | {
        "data": _data(event)
    }


def _data(event: _Event) -> Any:
    media = (event.datacontenttype or "application/json").partition(";")[0].strip().lower()
    if media != "application/json" and not media.endswith("+json"):
        raise BadEventError(f"datacontenttype {media[:60]!r} is not JSON")
    given = bytes(event.data) not in (b"", b"null")
    if given and event.data_base64 is not None:
        raise BadEventError("data and data_base64 exclude each other")
    body = bytes(event.data) if given else b"null"
    if event.data_base64 is not None:
        body = base64.b64decode(event.data_base64, validate=True)
    return _decode_data(body)


def record(
    event: str, data: Mapping[str, Any], stamp: Stamp, received: Received, source: Source
) -> Fact:
    """What an event of one of `TYPES` says about its record."""
    kind = fields.record_type(data.get("type"))
    number = values.record_id(source.id, data.get("id"))
    op = TYPES[event]
    mark = Mark(received.version if stamp.at is None else stamp.at.at, stamp.tie or stamp.event)
    said: dict[str, Field] = {}
    entries: tuple[StageEntry, ...] = ()
    relations: tuple[Relation, ...] = ()
    if op == "updated":
        said = _fields(kind, data, mark)
        relations = _relations(data.get("relations"), source)
        if not values.empty(data.get("stage")):
            entries = (StageEntry(mark.at, stage_of(values.text(data["stage"]))),)
    existence = {"updated": mark.alive, "deleted": mark.gone, "erased": mark.erased}[op]()
    fact = Fact(
        kind,
        number,
        op,
        said | mark.related(relations) | existence,
        entries,
        completeness="delta" if op == "updated" else "id_only",
        occurred=stamp.at,
        position=mark.position,
        sequence=stamp.sequence,
        relations=relations,
        dedupe=stamp.dedupe,
        vendor_event=stamp.event,
        vendor_type=kind,
        said={} if op == "erased" else data,
    )
    return fields.signalled(fact, said.keys())


def _fields(kind: str, data: Mapping[str, Any], mark: Mark) -> dict[str, Field]:
    found: dict[str, Field] = {}
    for name, value in data.items():
        if name not in _APART:
            convert = fields.converter(kind, name)
            if convert is values.instant:
                convert = values.instant_or_noon
            target = values.own_name(name) if convert is None else name
            found[target] = fields.field(value, convert or values.text, mark)
    status = found.get("status")
    if kind == OPPORTUNITY and status is not None and "closed_at" not in data:
        closed = status.value in ("won", "lost")
        at = mark.value(values.written(mark.at)) if closed else mark.field("cleared")
        found["closed_at"] = at
    return found


def _relations(value: object, source: Source) -> tuple[Relation, ...]:
    try:
        found = msgspec.convert(value or [], list[_Relation])
    except msgspec.ValidationError as error:
        raise BadEventError(f"data.relations: {error}") from error
    if len(found) > MAX_RELATIONS:
        raise BadEventError(f"data.relations: {len(found)}; at most {MAX_RELATIONS} are taken")
    return tuple(
        Relation(
            fields.record_type(one.type),
            values.record_id(source.id, one.id),
            one.change,
            one.primary,
        )
        for one in found
    )


def verify(arrival: Arrival, source: Source) -> str | None:
    """By one of the source's secrets; where it has none, an API key must do."""
    if not source.secrets:
        return None
    authorization = arrival.headers.get("authorization")
    if authorization is None:
        given = arrival.query.get("access_token", "")
    else:
        scheme, _, token = authorization.partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else ""
    if not signatures.matches(given, source.secrets):
        raise RefusedError(
            "Send one of the source's secrets as Authorization: Bearer, or as access_token in the "
            "query.",
            challenge="Bearer",
        )
    return "cloudevents.token"


def count(headers: Mapping[str, str], body: bytes) -> int:
    """How many events a body has, in each of the three modes."""
    found = mode(headers.get("content-type", ""))
    if found == BATCH:
        return items.count_array(headers, body)
    if found == STRUCTURED:
        return items.count_object(headers, body)
    missing = [f"ce-{name}" for name in REQUIRED if not headers.get(f"ce-{name}")]
    if missing:
        raise MalformedError(
            f"Headers {', '.join(missing)} are missing; or send application/cloudevents+json."
        )
    if body:  # an event needs no data
        items.check_json(body)
    return 1


def handshake(arrival: Arrival, source: Source) -> Answer | None:
    """The CloudEvents delivery handshake: whoever has a key may send."""
    origin = arrival.headers.get("webhook-request-origin")
    if arrival.method != "OPTIONS" or not origin:
        return None
    headers = {"Allow": "POST", "WebHook-Allowed-Origin": origin}
    if "webhook-request-rate" in arrival.headers:
        per_minute = str(max(1, int(source.rate * 60)))
        headers["WebHook-Allowed-Rate"] = per_minute if source.rate else "*"
    return Answer(200, headers=headers)


VENDOR = Vendor(
    name="cloudevents",
    title="CloudEvents",
    count=count,
    split=split,
    read=read,
    alone=alone,
    verify=verify,
    needs_secrets=False,
    handshake=handshake,
    media=("application/json", "application/cloudevents", "application/cloudevents-batch"),
    settings=frozenset({"mapping"}),
)
