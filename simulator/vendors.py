"""The CRMs' own webhook requests, made from changes: HubSpot v3, Pipedrive v2, CloudEvents 1.0.

A `Translator` keeps what a CRM would know of each record (Pipedrive sends whole records with the
previous values of what changed; HubSpot one event per property, as text, without old values). What
it makes is unsigned: `signed` adds the credentials at the moment of sending, because signatures
cover the real time and the public address.
"""

import base64
import hashlib
import hmac
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from simulator.days import Change, Value
from simulator.organisation import HUBSPOT, PIPEDRIVE

Json = dict[str, Any]

HUBSPOT_BATCH = 100  # events per request, as documented
STAGE_IDS = {  # ours → HubSpot's stage id, Pipedrive's stage number
    "appointment": ("appointmentscheduled", 1),
    "qualified": ("qualifiedtobuy", 2),
    "presentation": ("presentationscheduled", 3),
    "proposal": ("decisionmakerboughtin", 4),
    "negotiation": ("contractsent", 5),
    "won": ("closedwon", 0),
    "lost": ("closedlost", 0),
}
OBJECT_TYPES = {"call": "0-48", "email": "0-49", "meeting": "0-47"}
PORTAL, APP, COMPANY = 891_472, 1_160_452, 7_405_231


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the sources are configured with, so that requests can be signed."""

    hubspot_client_secret: str
    pipedrive_user: str
    pipedrive_password: str
    partners_key: str  # an API key with the role ops


@dataclass(frozen=True, slots=True)
class Request:
    """One webhook request without its credentials."""

    source: str
    body: bytes
    content_type: str
    events: int  # how many vendor events it carries


class Translator:
    """Turns changes into vendor events; keeps what each CRM knows of its records."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], dict[str, Value]] = {}
        self._number = 3_000_000_000

    def events(self, change: Change) -> list[Json]:
        """The vendor's events for one change, in the vendor's own form."""
        known = self._known.setdefault(change.record, {})
        before = dict(known)
        known.update(change.fields)
        if change.source == HUBSPOT:
            return self._hubspot(change)
        if change.source == PIPEDRIVE:
            return [_pipedrive(change, before, known)]
        return [_cloud_event(change)]

    def _hubspot(self, change: Change) -> list[Json]:
        kind = "deal" if change.type == "opportunity" else "object"
        common: Json = {
            "subscriptionId": 686_627,
            "portalId": PORTAL,
            "appId": APP,
            "occurredAt": _ms(change.at),
            "attemptNumber": 0,
            "objectId": int(change.id),
            "changeSource": "CRM_UI",
            "sourceId": f"userId:{change.actor}",
        }
        if kind == "object":
            common["objectTypeId"] = OBJECT_TYPES[change.type]
        events: list[Json] = []
        if change.op != "update":
            verb = "creation" if change.op == "create" else "deletion"
            flag = "NEW" if change.op == "create" else "DELETED"
            events.append({"subscriptionType": f"{kind}.{verb}", "changeFlag": flag, **common})
        for name, value in _hubspot_properties(change).items():
            events.append(
                {
                    "subscriptionType": f"{kind}.propertyChange",
                    "propertyName": name,
                    "propertyValue": value,
                    **common,
                }
            )
        for event in events:
            self._number += 1
            event["eventId"] = self._number
        return events


def requests_of(source: str, events: Sequence[Json], attempt: int = 0) -> list[Request]:
    """Requests that carry these events; `attempt` counts earlier tries of the same."""
    if source == HUBSPOT:
        parts = [events[i : i + HUBSPOT_BATCH] for i in range(0, len(events), HUBSPOT_BATCH)]
        return [
            _request(source, [{**event, "attemptNumber": attempt} for event in part], len(part))
            for part in parts
        ]
    if source == PIPEDRIVE:
        return [
            _request(source, {**event, "meta": {**event["meta"], "attempt": attempt + 1}}, 1)
            for event in events
        ]
    if len(events) == 1:
        return [_request(source, events[0], 1, "application/cloudevents+json")]
    return [_request(source, list(events), len(events), "application/cloudevents-batch+json")]


def signed(request: Request, *, url: str, secrets: Secrets, now: float) -> dict[str, str]:
    """The request's headers, with the credentials of its source, as sent at `now`."""
    headers = {"content-type": request.content_type}
    if request.source == HUBSPOT:
        stamp = str(int(now * 1000))
        message = b"POST" + url.encode() + request.body + stamp.encode()
        key = secrets.hubspot_client_secret.encode()
        digest = hmac.new(key, message, hashlib.sha256).digest()
        headers["x-hubspot-request-timestamp"] = stamp
        headers["x-hubspot-signature-v3"] = base64.b64encode(digest).decode()
    elif request.source == PIPEDRIVE:
        login = f"{secrets.pipedrive_user}:{secrets.pipedrive_password}".encode()
        headers["authorization"] = "Basic " + base64.b64encode(login).decode()
    else:
        headers["x-api-key"] = secrets.partners_key
    return headers


def _request(
    source: str, body: Any, events: int, content_type: str = "application/json"
) -> Request:
    return Request(source, json.dumps(body, separators=(",", ":")).encode(), content_type, events)


# --- HubSpot: every value is text --------------------------------------------------------


def _hubspot_properties(change: Change) -> dict[str, str]:
    fields = change.fields
    if change.type == "opportunity":
        return _hubspot_deal(fields)
    names = {"owner_id": "hubspot_owner_id", "created_at": "hs_createdate"}
    found = {names[name]: _hubspot_text(fields[name]) for name in names if name in fields}
    found |= {
        "call": _hubspot_call,
        "email": _hubspot_email,
        "meeting": _hubspot_meeting,
    }[change.type](fields)
    return found


def _hubspot_deal(fields: dict[str, Value]) -> dict[str, str]:
    names = {
        "owner_id": "hubspot_owner_id",
        "name": "dealname",
        "created_at": "createdate",
        "amount": "amount",
        "currency": "deal_currency_code",
        "expected_close": "closedate",
    }
    found = {names[name]: _hubspot_text(fields[name]) for name in names if name in fields}
    if "stage" in fields:
        found["dealstage"] = STAGE_IDS[str(fields["stage"])][0]
    if fields.get("status") == "open":
        found["pipeline"] = "default"
    if isinstance(fields.get("closed_at"), datetime):
        found["closedate"] = _hubspot_text(fields["closed_at"])
    return found


def _hubspot_call(fields: dict[str, Value]) -> dict[str, str]:
    found: dict[str, str] = {}
    if "occurred_at" in fields:
        found["hs_timestamp"] = _hubspot_text(fields["occurred_at"])
    if "done" in fields:
        found["hs_call_status"] = "COMPLETED" if fields["done"] else "CANCELED"
    if "outcome" in fields:
        found["hs_call_disposition"] = str(fields["outcome"])
    if "direction" in fields:
        found["hs_call_direction"] = str(fields["direction"]).upper()
    if "duration_seconds" in fields:
        found["hs_call_duration"] = str(int(str(fields["duration_seconds"])) * 1000)
    return found


def _hubspot_email(fields: dict[str, Value]) -> dict[str, str]:
    found: dict[str, str] = {}
    if "occurred_at" in fields:
        found["hs_timestamp"] = _hubspot_text(fields["occurred_at"])
    if "direction" in fields:
        inbound = fields["direction"] == "inbound"
        found["hs_email_direction"] = "INCOMING_EMAIL" if inbound else "EMAIL"
    if "done" in fields:
        found["hs_email_status"] = "SENT"
    return found


def _hubspot_meeting(fields: dict[str, Value]) -> dict[str, str]:
    found: dict[str, str] = {}
    if "occurred_at" in fields:
        found["hs_timestamp"] = found["hs_meeting_start_time"] = _hubspot_text(
            fields["occurred_at"]
        )
    if "outcome" in fields:
        found["hs_meeting_outcome"] = str(fields["outcome"]).upper()
    return found


def _hubspot_text(value: Value) -> str:
    if isinstance(value, datetime):
        return str(_ms(value))
    if isinstance(value, date):
        return str(_ms(datetime(value.year, value.month, value.day, tzinfo=UTC)))
    return "" if value is None else str(value)


# --- Pipedrive: the whole record, and what changed ---------------------------------------


def _pipedrive(change: Change, before: dict[str, Value], after: dict[str, Value]) -> Json:
    entity = "deal" if change.type == "opportunity" else "activity"
    old, new = _pipedrive_data(change, before), _pipedrive_data(change, after)
    action = {"create": "create", "update": "change", "delete": "delete"}[change.op]
    changed = {name: old.get(name) for name, value in new.items() if old.get(name) != value}
    seed = f"{change.record}:{change.at.isoformat()}"
    return {
        "meta": {
            "action": action,
            "entity": entity,
            "entity_id": change.id,
            "company_id": str(COMPANY),
            "user_id": change.actor,
            "webhook_id": "4410",
            "webhook_owner_id": "1000",
            "id": str(uuid.uuid5(uuid.NAMESPACE_OID, seed)),
            "correlation_id": str(uuid.uuid5(uuid.NAMESPACE_URL, seed)),
            "timestamp": _iso_ms(change.at),
            "version": "2.0",
            "type": "general",
            "change_source": "app",
            "host": "acme.pipedrive.example",
            "permitted_user_ids": [change.actor],
            "is_bulk_edit": False,
            "attempt": 1,
        },
        "data": None if change.op == "delete" else {**new, "update_time": _iso_s(change.at)},
        "previous": {"create": None, "update": changed, "delete": old}[change.op],
    }


def _pipedrive_data(change: Change, fields: dict[str, Value]) -> Json:
    if not fields:
        return {}
    if change.type == "opportunity":
        return _pipedrive_deal(change, fields)
    occurred = fields["occurred_at"]
    assert isinstance(occurred, datetime)
    return {
        "id": int(change.id),
        "type": change.type,
        "subject": change.type.capitalize(),
        "owner_id": int(str(fields["owner_id"])),
        "add_time": _iso_s(fields["created_at"]),
        "due_date": occurred.astimezone(UTC).strftime("%Y-%m-%d"),
        "due_time": occurred.astimezone(UTC).strftime("%H:%M:%S"),
        "done": fields["done"],
    }


def _pipedrive_deal(change: Change, fields: dict[str, Value]) -> Json:
    status = fields["status"]
    closed = _iso_s(fields.get("closed_at"))
    stage = STAGE_IDS[str(fields["stage"])][1]
    return {
        "id": int(change.id),
        "title": fields["name"],
        "owner_id": int(str(fields["owner_id"])),
        "value": _number(fields["amount"]),
        "currency": fields["currency"],
        "pipeline_id": 1,
        "stage_id": stage or len(STAGE_IDS) - 2,
        "status": status,
        "add_time": _iso_s(fields["created_at"]),
        "won_time": closed if status == "won" else None,
        "lost_time": closed if status == "lost" else None,
        "close_time": closed,
        "expected_close_date": str(fields["expected_close"]),
    }


def _number(value: Value) -> int | float:
    assert isinstance(value, Decimal)
    return int(value) if value == int(value) else float(value)


# --- CloudEvents: our own canonical fields -----------------------------------------------


def _cloud_event(change: Change) -> Json:
    seed = f"{change.record}:{change.at.isoformat()}"
    return {
        "specversion": "1.0",
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, seed)),
        "source": "/partners/portal",
        "type": f"pacesetter.record.{'deleted' if change.op == 'delete' else 'updated'}",
        "time": _iso_ms(change.at),
        "datacontenttype": "application/json",
        "data": {
            "type": change.type,
            "id": change.id,
            **{name: _canonical(value) for name, value in change.fields.items()},
        },
    }


def _canonical(value: Value) -> Any:
    if isinstance(value, datetime):
        return _iso_ms(value)
    return str(value) if isinstance(value, Decimal | date) else value


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _iso_ms(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _iso_s(at: Value) -> str | None:
    if not isinstance(at, datetime):
        return None
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
