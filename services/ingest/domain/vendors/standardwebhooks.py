"""Standard Webhooks 1.0.0: `{type, timestamp, data}`, signed, for systems of one's own.

The types `pacesetter.record.*` have the data of the CloudEvents of the same names; others are read
by the source's mapping, of which an item is the whole body. `webhook-id` tells events apart and is
the same over all attempts.
"""

import base64
import hashlib
import hmac
import secrets
from contextlib import suppress
from decimal import Decimal
from typing import Any

import msgspec

from schemas.crm import Received
from services.ingest.domain import items, mapping, signatures, values
from services.ingest.domain.facts import BadEventError, Fact, Ignored
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import Arrival, Raw, RefusedError, Vendor, cloudevents, whole

PREFIX = "whsec_"
MAX_SIGNATURES = 20  # of one request: one for each secret while they are rotated


class _Event(msgspec.Struct, frozen=True):
    type: str
    timestamp: str | int | None = None
    data: Any = None


_decode = msgspec.json.Decoder(_Event, float_hook=Decimal).decode  # money stays decimal


def read(raw: Raw, received: Received, source: Source) -> list[Fact | Ignored]:
    """What the event says."""
    event = _decode(raw)
    if event.type not in cloudevents.TYPES and not source.mapping:
        return [Ignored("other")]
    number = received.headers.get("webhook-id", "")
    at = None
    if event.timestamp is not None:
        at = values.moment(event.timestamp, "timestamp", received.version)
    if event.type in cloudevents.TYPES:
        if not isinstance(event.data, dict):
            raise BadEventError("data is not an object")
        stamp = cloudevents.Stamp(at, number, (number,) if number else ())
        return [cloudevents.record(event.type, event.data, stamp, received, source)]
    item = {"type": event.type, "timestamp": event.timestamp, "data": event.data}
    return mapping.read(source.mapping, item, received, source, at=at, event=number)


def signature(secret: str, number: str, stamp: str, body: bytes) -> str:
    """The signature of a request; raises ValueError when the secret is no key."""
    text = secret.removeprefix(PREFIX)
    key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    if not key:  # whoever knows that it is empty could sign
        raise ValueError("the key is empty")
    signed = f"{number}.{stamp}.".encode() + body
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


def verify(arrival: Arrival, source: Source) -> str:
    """By the shared key over webhook-id, webhook-timestamp and body."""
    number, stamp, given = (
        arrival.headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")
    )
    if not number or not signatures.in_time(stamp, arrival.now_ms, unit_ms=1000):
        raise RefusedError(
            "webhook-id is missing, or webhook-timestamp is over 5 minutes off: check the clocks."
        )
    expected: list[str] = []
    for secret in source.secrets:
        # One that is no key must not make the others useless.
        with suppress(ValueError):
            expected.append(signature(secret, number, stamp, arrival.body))
    if source.secrets and not expected:
        raise RefusedError("A secret in the sources file is not whsec_ and base64.")
    found = [signatures.matches(one, expected) for one in given.split(" ")[:MAX_SIGNATURES]]
    if not any(found):
        raise RefusedError(
            "webhook-signature has no v1 signature that matches: check the secret in the sources "
            "file, and that nothing between changes the body."
        )
    return "standardwebhooks.v1"


VENDOR = Vendor(
    name="standardwebhooks",
    title="Standard Webhooks",
    count=items.count_object,
    split=whole,
    read=read,
    verify=verify,
    new_secret=lambda: PREFIX + base64.b64encode(secrets.token_bytes(32)).decode(),
    settings=frozenset({"mapping"}),
)
