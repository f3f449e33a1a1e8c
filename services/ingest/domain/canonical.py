"""A fact as people and tests see it: the canonical event, in plain JSON values.

What `POST /v1/sources/{id}/preview` and `python -m services preview` show, and what the examples in
`tests/unit/ingest/examples` expect. Nothing of the event is left out.
"""

import base64
import hashlib
from typing import Any

import msgspec

from schemas.crm import Field, Received
from services.ingest.domain import values
from services.ingest.domain.facts import Fact, Ignored, Outcome

SCHEMA = "pacesetter.event/1"
MONEY = "amount"
ASSUMED = "assumed"  # who says a currency that the source, not the CRM, is configured with
_JSON = msgspec.json.Encoder(decimal_format="string", order="sorted")


def uid(received: Received, fact: Fact) -> bytes:
    """16 bytes that are the same for the same fact, however often it comes."""
    parts = [received.tenant, received.vendor, received.source, fact.type, fact.id, *fact.dedupe]
    if not fact.dedupe:  # nothing of the vendor's tells events apart: its position must
        parts += [fact.op, str(fact.position[0]), fact.position[1]]
    return hashlib.blake2b(_JSON.encode(parts), digest_size=16).digest()


def digest(fact: Fact) -> bytes:
    """8 bytes of what the fact says: the same uid with another digest is a synthetic duplicate."""
    said = {name: (field.state, field.value) for name, field in fact.fields.items()}
    return hashlib.blake2b(_JSON.encode([fact.op, said, fact.stages]), digest_size=8).digest()


def outcome(received: Received, index: int, found: Outcome) -> dict[str, Any]:
    """One outcome of reading: a canonical event, `ignored`, or `unreadable` with the reason."""
    if isinstance(found, Fact):
        return event(received, index, found)
    if isinstance(found, Ignored):
        return {"index": index, "ignored": found.kind}
    return {"index": index, "unreadable": found.reason, "raw": _text(found.raw)}


def event(received: Received, index: int, fact: Fact) -> dict[str, Any]:
    """The canonical event of one fact."""
    return {
        "schema": SCHEMA,
        "event_uid": uid(received, fact).hex(),
        "tenant": received.tenant,
        "source": {
            "id": received.source,
            "vendor": received.vendor,
            "vendor_type": fact.vendor_type,
            "vendor_event_id": fact.vendor_event,
            "dedupe": list(fact.dedupe),
            "raw_ref": f"{received.topic}/{received.key}",
            "index": index,
        },
        "subject": {"type": fact.type, "id": fact.id or None},
        "op": fact.op,
        "signals": list(fact.signals),
        "completeness": fact.completeness,
        "time": _time(received, fact),
        "order": {
            "position": [fact.position[0], fact.position[1]],
            "transaction": fact.transaction or None,
            "sequence": fact.sequence or None,
        },
        "actor": None if fact.actor is None else msgspec.to_builtins(fact.actor),
        "fields": _fields(fact),
        "stages": [[values.written(entry.at), entry.stage] for entry in fact.stages],
        "expected_before": [
            _field(told) | {"at": values.written(told.at)} for told in fact.expected_before
        ],
        "vendor_changes": _changes(fact),
        "relations": [msgspec.to_builtins(relation) for relation in fact.relations],
        "merge": None if fact.merge is None else msgspec.to_builtins(fact.merge),
        "reread": None if fact.reread is None else msgspec.to_builtins(fact.reread),
        "sensitive": list(fact.sensitive),
        "trust": received.auth,
    }


def _time(received: Received, fact: Fact) -> dict[str, Any]:
    moment = fact.occurred
    return {
        "occurred_at": values.written(fact.position[0] if moment is None else moment.at),
        "source_field": None if moment is None else moment.field or None,
        "raw": None if moment is None else moment.raw,
        "precision": "us" if moment is None else moment.precision,
        "quality": "vendor" if moment is not None and moment.field else "received",
        "received_at": received.received_at.isoformat(),
    }


def _fields(fact: Fact) -> dict[str, Any]:
    return {
        name: _money(fact, field) if name == MONEY else _field(field)
        for name, field in sorted(fact.fields.items())
        if not name.startswith("_")
    }


def _field(field: Field) -> dict[str, Any]:
    if field.state != "value":
        return {"state": field.state}
    return {"state": "value", "value": field.value}


def _money(fact: Fact, field: Field) -> dict[str, Any]:
    """An amount never stands alone: `currency_state` says whether its currency is known."""
    found = _field(field)
    if field.state == "value":
        currency = fact.fields.get("currency")
        period = fact.fields.get("amount_period")
        stated = currency is not None and currency.state == "value"
        found["currency"] = currency.value if currency is not None and stated else None
        found["currency_state"] = "unknown"
        if currency is not None and stated:
            found["currency_state"] = ASSUMED if currency.by == ASSUMED else "stated"
        found["period"] = "one_time" if period is None else period.value
    return found


def _changes(fact: Fact) -> dict[str, Any]:
    changes: dict[str, dict[str, Any]] = {}
    for name, value in fact.said.items():
        changes[name] = {"new": value}
    for name, value in fact.before.items():
        changes.setdefault(name, {})["old"] = value
    return changes


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return f"base64:{base64.b64encode(raw).decode()}"
