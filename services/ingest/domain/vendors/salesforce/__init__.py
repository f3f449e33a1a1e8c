"""Salesforce: change events, platform events and outbound messages, by whoever forwards them.

Outbound messages come from Salesforce itself, as SOAP. Change Data Capture and platform events must
be fetched from it, so that a forwarder of one's own posts them here as JSON, in any of these forms:

* an event as CometD has it, `{"schema", "payload": {…, "ChangeEventHeader"}, "event"}`, alone or as
  `{"data": {…}, "channel"}`;
* an event that a Pub/Sub client has decoded, `{"replayId", "payload": {…}}`, or the payload alone;
  where its header has bitmaps, with the Avro schema as `schema`, an object or its text;
* a record as the REST API has it, `{"attributes": {"type"}, "Id", …}`, which is a snapshot;
* an array of these;
* `{"schema": the Avro schema, "events": […]}` with events of one schema as the Pub/Sub API has
  them, `{"event": {"id", "schema_id", "payload": Avro in base64}, "replay_id"}`, or decoded.

None is signed. Every source has a secret in a header, in the query or in HTTP Basic; only outbound
messages name the organization, which must be the source's `account` where one is configured.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

import msgspec

from schemas.crm import Received
from services.ingest.domain import items, shared_secrets
from services.ingest.domain.facts import BadEventError, Fact
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import (
    Answer,
    Arrival,
    MalformedError,
    Raw,
    RefusedError,
    Vendor,
    json_alone,
    whole,
)
from services.ingest.domain.vendors.salesforce import avro, events, soap
from services.ingest.domain.vendors.salesforce.records import eighteen

_decode = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode
_ABSENT = msgspec.Raw(b"")


class _Envelope(msgspec.Struct, frozen=True):
    events: list[msgspec.Raw] | None = None
    schema: msgspec.Raw = _ABSENT


_decode_envelope = msgspec.json.Decoder(_Envelope).decode


@lru_cache(maxsize=4)
def _envelope(body: bytes) -> _Envelope:
    """The envelope around several events; without events where the body is something else."""
    if soap.is_soap(body) or body.lstrip()[:1] == b"[":
        return _Envelope()
    try:
        return _decode_envelope(body)
    except msgspec.DecodeError:
        return _Envelope()


def count(headers: Mapping[str, str], body: bytes) -> int:
    """How many events, records or notifications a body has."""
    if soap.is_soap(body):
        return len(soap.split(body))
    if body.lstrip()[:1] == b"[":
        return items.count_array(headers, body)
    items.count_object(headers, body)
    inside = _envelope(body).events
    return 1 if inside is None else len(inside)


def split(received: Received, source: Source) -> Sequence[Raw]:
    """The same, unread; a notification within a message of its own."""
    body = received.body
    if soap.is_soap(body):
        return soap.split(body)
    if body.lstrip()[:1] == b"[":
        return items.split(body)
    inside = _envelope(body).events
    return whole(received, source) if inside is None else inside


def alone(received: Received, raw: bytes) -> bytes:
    """A body with this item only."""
    if soap.is_soap(raw):
        return raw
    envelope = _envelope(received.body)
    if envelope.events is None:
        return json_alone(received, raw)
    schema = bytes(envelope.schema) or b"null"
    return b'{"schema":' + schema + b',"events":[' + raw + b"]}"


def read(raw: Raw, received: Received, source: Source) -> list[Fact]:
    """What one event, record or notification says."""
    content = bytes(raw)
    if soap.is_soap(content):
        told = soap.read(content)
        return events.snapshot(told.entity, told.fields, told.id, received, source)
    item = _decode(content)
    attributes = item.get("attributes")
    if isinstance(attributes, dict) and isinstance(attributes.get("type"), str):
        stated = events.flattened({n: v for n, v in item.items() if n != "attributes"})
        return events.snapshot(attributes["type"], stated, "", received, source)
    return _message(item, _envelope(received.body)).read(received, source)


def _message(item: dict[str, Any], envelope: _Envelope) -> events.Message:
    """The event, out of what it came in."""
    data = item.get("data")
    wrapped = isinstance(data, dict) and "payload" in data
    inner: dict[str, Any] = data if isinstance(data, dict) and wrapped else item
    event = inner.get("event")
    about: dict[str, Any] = event if isinstance(event, dict) else {}
    schema, named = _schema(inner.get("schema"), envelope)
    payload = inner if events.HEADER in inner else inner.get("payload", about.get("payload"))
    if isinstance(payload, str):
        if schema is None:
            raise BadEventError("the payload is Avro: send the event's Avro schema as `schema`")
        payload = schema.decode(payload)
    if not isinstance(payload, dict):
        raise BadEventError("there is no payload with an event's fields")
    channel = item.get("channel")
    name = (
        about.get("EventApiName") or _event_of(channel) or ("" if schema is None else schema.name)
    )
    replay = next(
        (
            found
            for key in ("replayId", "replay_id")
            for found in (inner.get(key), about.get(key))
            if found is not None
        ),
        "",
    )
    return events.Message(
        payload=payload,
        cometd=schema is None and (wrapped or named or "replayId" in about),
        name=str(name),
        number=str(about.get("EventUuid") or about.get("id") or payload.get("EventUuid") or ""),
        replay=str(replay),
        schema=schema,
    )


def _schema(own: object, envelope: _Envelope) -> tuple[avro.Schema | None, bool]:
    """The Avro schema of an event, its own or the envelope's; or whether it only names one."""
    if isinstance(own, str) and not own.lstrip().startswith("{"):
        return None, True
    if isinstance(own, dict):
        return avro.parse(msgspec.json.encode(own)), False
    if isinstance(own, str):
        return avro.parse(own.encode()), False
    definition = bytes(envelope.schema)
    if envelope.events is None or definition in (b"", b"null"):
        return None, False
    if definition.startswith(b'"'):
        definition = msgspec.json.decode(definition, type=str).encode()
    return avro.parse(definition), False


def _event_of(channel: object) -> str:
    """The platform event that a channel is for."""
    if not isinstance(channel, str) or channel.endswith("__chn"):  # a channel of several
        return ""
    return channel.removeprefix("/event/") if channel.startswith("/event/") else ""


def answer(received: Received) -> Answer | None:
    """The acknowledgement without which an outbound message is sent for 24 hours."""
    if not soap.is_soap(received.body):
        return None
    return Answer(200, soap.ACKNOWLEDGEMENT, "text/xml; charset=utf-8")


def verify(arrival: Arrival, source: Source) -> str:
    """By the source's secret, and an outbound message by its organization too."""
    method = shared_secrets.verify(arrival, source)
    if not source.account or not soap.is_soap(arrival.body):
        return method
    try:
        sender = soap.organization(arrival.body)
    except MalformedError:
        return method  # and then it is refused for what it is
    if eighteen(sender) != eighteen(source.account):
        raise RefusedError(
            f"OrganizationId {sender!r:.40} is not the source's account {source.account!r}: send "
            "the messages of each organization to a source of its own."
        )
    return method


VENDOR = Vendor(
    name="salesforce",
    title="Salesforce",
    count=count,
    split=split,
    read=read,
    verify=verify,
    answer=answer,
    alone=alone,
    media=("application/json", "text/xml"),
    settings=frozenset({"header", "query", "username", "account", "types", "api"}),
    problems=shared_secrets.problems,
    stages_decide=True,
)
