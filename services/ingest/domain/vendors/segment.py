"""Segment: `track` events, one or a batch, that the source's mapping turns into facts.

`timestamp` is the instant, as Segment corrected it for the device's clock; `messageId` tells events
apart. Without a mapping a track event says nothing about records. Segment signs with HMAC-SHA1: one
event's whole body, but of a batch only the first event, so that the others are only as trustworthy
as the connection (the method is then `segment.sha1.first`).
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec

from schemas.crm import Received
from services.ingest.domain import items, mapping, shared_secrets, signatures, values
from services.ingest.domain.facts import BadEventError, Fact, Ignored
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import Arrival, Raw, RefusedError, Vendor, bare_alone

HEADER = "x-signature"
BATCH = "batch"
OTHER_CALLS = frozenset({"identify", "page", "screen", "group", "alias"})
_decode = msgspec.json.Decoder(float_hook=Decimal).decode  # money must not become binary


def count(_headers: Mapping[str, str], body: bytes) -> int:
    """How many events a body has: one, those of an array, or those of an object's `batch`."""
    return items.count_within(body, BATCH)


def split(received: Received, _source: Source) -> Sequence[Raw]:
    """The events of a request, unread."""
    return items.split_within(received.body, BATCH)


def read(raw: Raw, received: Received, source: Source) -> list[Fact | Ignored]:
    """What one event says."""
    event = _decode(raw)
    if not isinstance(event, dict):
        raise BadEventError("the event is not an object")
    kind = event.get("type")
    if not isinstance(kind, str):
        raise BadEventError("type is missing: track, identify, …")
    if kind != "track":
        return [Ignored(kind if kind in OTHER_CALLS else "other")]
    if not source.mapping:
        return [Ignored("track")]
    stamp = event.get("timestamp")
    return mapping.read(
        source.mapping,
        event,
        received,
        source,
        at=None if stamp is None else values.moment(stamp, "timestamp", received.version),
        event=_text(event.get("messageId"), "messageId"),
        op="tracked",
    )


def _text(value: object, name: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise BadEventError(f"{name} {value!r:.60} is not a text")
    return "" if value is None else str(value)


def signature(secret: str, signed: bytes) -> str:
    """The signature of a body, or of a batch's first event."""
    return hmac.digest(secret.encode(), signed, hashlib.sha1).hex()


def verify(arrival: Arrival, source: Source) -> str:
    """By the shared secret over the body, or over a batch's first event."""
    given = arrival.headers.get(HEADER, "").lower()
    if signatures.matches(given, [signature(one, arrival.body) for one in source.secrets]):
        return "segment.sha1"
    first = _first(arrival.body)
    expected = [] if first is None else [signature(one, first) for one in source.secrets]
    if signatures.matches(given, expected):
        return "segment.sha1.first"
    raise RefusedError(
        "X-Signature is not the HMAC-SHA1 of the body (of a batch: of its first event). Check the "
        "shared secret of the webhook destination in the sources file."
    )


def _first(body: bytes) -> bytes | None:
    try:
        found = items.split_within(body, BATCH)
    except (msgspec.DecodeError, RecursionError):
        return None
    return bytes(found[0]) if found else None


VENDOR = Vendor(
    name="segment",
    title="Segment",
    count=count,
    split=split,
    read=read,
    alone=bare_alone,
    verify=verify,
    new_secret=shared_secrets.new,
    settings=frozenset({"mapping"}),
    stages_decide=True,
)
