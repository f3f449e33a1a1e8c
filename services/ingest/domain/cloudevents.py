"""CloudEvents 1.0, for systems of one's own: `pacesetter.record.updated`, `.deleted`, `.erased`.

`data` is `{"type", "id", …canonical fields…}`: what it has is known, null is emptied, what is
absent is not touched; other names are kept behind `x_`. The position is `time`, else when we
received it; `source` and `id` break ties. Won or lost without `closed_at` means: at this position.
"""

import base64
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from schemas.crm import Received, Scalar, StageEntry
from services.ingest.domain import items, values
from services.ingest.domain.facts import BadEventError, Fact, Ignored, Mark, stage_of
from services.ingest.domain.sources import Source

UPDATED = "pacesetter.record.updated"
DELETED = "pacesetter.record.deleted"
ERASED = "pacesetter.record.erased"
BATCH, STRUCTURED, BINARY = "batch", "structured", "binary"
REQUIRED = ("id", "source", "type", "specversion")
_RECORD_TYPE = re.compile(r"[a-z][a-z_]{0,31}")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)


_ABSENT = msgspec.Raw(b"")


class _Event(msgspec.Struct, frozen=True):
    id: str | None = None
    source: str | None = None
    type: str | None = None
    specversion: str | None = None
    time: str | None = None
    datacontenttype: str | None = None
    data: msgspec.Raw = _ABSENT
    data_base64: str | None = None


_decode = msgspec.json.Decoder(_Event).decode
_decode_data = msgspec.json.Decoder(float_hook=Decimal).decode  # money must not become binary


def mode(content_type: str) -> str:
    """Which of the three content modes a request uses; `batch` shares the other's prefix."""
    media = content_type.partition(";")[0].strip().lower()
    if media.startswith("application/cloudevents-batch"):
        return BATCH
    return STRUCTURED if media.startswith("application/cloudevents") else BINARY


def split(received: Received) -> list[msgspec.Raw]:
    """The events of a request, unread."""
    if mode(received.headers.get("content-type", "")) == BATCH:
        return items.split(received.body)
    return [msgspec.Raw(received.body)]


def read(raw: bytes | msgspec.Raw, received: Received, source: Source) -> list[Fact | Ignored]:
    """What one event says."""
    if mode(received.headers.get("content-type", "")) == BINARY:
        event = _from_headers(received.headers, raw)
    else:
        event = _decode(raw)
    missing = [name for name in REQUIRED if not getattr(event, name)]
    if missing:
        raise BadEventError(f"the event lacks {', '.join(missing)}")
    if event.specversion != "1.0":
        raise BadEventError(f"specversion {event.specversion!r:.20} is not 1.0")
    if event.type not in _READERS:
        return [Ignored("other")]
    at = received.version
    if event.time is not None:
        at = values.position(event.time, received.version)
    data = _data(event)
    kind = data.pop("type", None)
    if not isinstance(kind, str) or not _RECORD_TYPE.fullmatch(kind):
        raise BadEventError("data.type is not a record type such as opportunity")
    record = values.record_id(source.id, data.pop("id", None))
    return [_READERS[event.type](kind, record, data, Mark(at, f"{event.source}|{event.id}"))]


def attribute(value: str) -> str:
    """An attribute from its header: unquoted, then percent-decoded once."""
    quoted = _QUOTED.fullmatch(value.strip())
    if quoted:
        value = re.sub(r"\\(.)", r"\1", quoted.group(1))
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError as error:
        raise BadEventError("a ce- header is not percent-encoded UTF-8") from error


def _from_headers(headers: dict[str, str], raw: bytes | msgspec.Raw) -> _Event:
    names = (*REQUIRED, "time")
    found = {n: attribute(headers[f"ce-{n}"]) for n in names if f"ce-{n}" in headers}
    content_type = headers.get("content-type") or None
    return _Event(**found, datacontenttype=content_type, data=msgspec.Raw(bytes(raw)))


def _data(event: _Event) -> dict[str, Any]:
    media = (event.datacontenttype or "application/json").partition(";")[0].strip().lower()
    if media != "application/json" and not media.endswith("+json"):
        raise BadEventError(f"datacontenttype {media[:60]!r} is not JSON")
    given = bytes(event.data) not in (b"", b"null")
    if given and event.data_base64 is not None:
        raise BadEventError("data and data_base64 exclude each other")
    body = bytes(event.data) if given else b"null"
    if event.data_base64 is not None:
        body = base64.b64decode(event.data_base64, validate=True)
    data = _decode_data(body)
    if not isinstance(data, dict):
        raise BadEventError("data is not an object")
    return data


def _updated(kind: str, record: str, data: dict[str, Any], mark: Mark) -> Fact:
    fields = mark.alive()
    for name, value in data.items():
        convert = _FIELDS.get(name)
        target = name if convert else values.own_name(name)
        empty = values.empty(value)
        fields[target] = (
            mark.field("cleared") if empty else mark.value((convert or values.text)(value))
        )
    if "status" in data and "closed_at" not in data:
        closed = data["status"] in ("won", "lost")
        at = mark.value(values.written(mark.at)) if closed else mark.field("cleared")
        fields["closed_at"] = at
    stages: tuple[StageEntry, ...] = ()
    if not values.empty(data.get("stage")):
        stages = (StageEntry(mark.at, stage_of(values.text(data["stage"]))),)
    return Fact(kind, record, "updated", fields, stages)


def _deleted(kind: str, record: str, _: dict[str, Any], mark: Mark) -> Fact:
    return Fact(kind, record, "deleted", mark.gone())


def _erased(kind: str, record: str, _: dict[str, Any], mark: Mark) -> Fact:
    fields = mark.erased()
    return Fact(kind, record, "erased", fields)


_READERS = {UPDATED: _updated, DELETED: _deleted, ERASED: _erased}


def _status(value: Any) -> str:
    if value not in ("open", "won", "lost"):
        raise BadEventError("status is none of open, won, lost")
    return str(value)


_FIELDS: dict[str, Callable[[Any], Scalar]] = {
    "owner_id": values.text,
    "name": values.text,
    "created_at": values.instant,
    "amount": values.amount,
    "currency": values.currency,
    "stage": values.text,
    "pipeline": values.text,
    "status": _status,
    "closed_at": values.instant,
    "expected_close": values.instant,
    "occurred_at": values.instant,
    "done": values.flag,
    "outcome": values.text,
    "direction": values.text,
    "duration_seconds": values.seconds,
}
