"""Requests as the vendors send them, for tests of readers, handlers and HTTP."""

import json
from typing import Any

import msgspec

from schemas.crm import Received
from services.ingest.domain.sources import Source
from tests.support import TENANT, instant

RECEIVED_US = 1_768_500_000_000_000  # 2026-01-15T18:00:00Z
HUB = Source(id="hub", tenant=TENANT, vendor="hubspot", secrets=("hub-secret",))
PIPE = Source(
    id="pipe", tenant=TENANT, vendor="pipedrive", secrets=("pipe-secret",), username="pace"
)
APP = Source(id="app", tenant=TENANT, vendor="cloudevents")
SOURCES = {source.id: source for source in (HUB, PIPE, APP)}


def received(
    source: Source, body: Any, *, number: str = "r1", headers: dict[str, str] | None = None
) -> Received:
    """One request; `body` is JSON unless it is bytes."""
    return Received(
        tenant=source.tenant,
        version=RECEIVED_US,
        source=source.id,
        vendor=source.vendor,
        id=number,
        received_at=instant("2026-01-15T18:00"),
        method="POST",
        url=f"http://127.0.0.1:8001/v1/sources/{source.id}/events",
        headers={"content-type": "application/json"} | (headers or {}),
        body=body if isinstance(body, bytes) else json.dumps(body).encode(),
        auth="test",
    )


def hub(kind: str, at: int, *, event: int = 1, object_id: int = 21678228008, **more: Any) -> Any:
    """One HubSpot event at `at` ms after the beginning of 2026."""
    return {
        "eventId": event,
        "subscriptionId": 686627,
        "portalId": 62515,
        "appId": 54321,
        "occurredAt": 1_767_225_600_000 + at,
        "subscriptionType": kind,
        "attemptNumber": 0,
        "objectId": object_id,
        "changeSource": "CRM_UI",
    } | more


def changed(name: str, value: str, at: int, **more: Any) -> Any:
    """A deal's property changed."""
    return hub("deal.propertyChange", at, propertyName=name, propertyValue=value, **more)


def pipe(action: str, entity: str, data: Any, *, previous: Any = None, **meta: Any) -> Any:
    """One Pipedrive v2 event."""
    number = str((data if isinstance(data, dict) else previous or {}).get("id", 77))
    return {
        "meta": {
            "action": action,
            "entity": entity,
            "entity_id": number,
            "company_id": "1",
            "user_id": "12",
            "webhook_id": "3",
            "webhook_owner_id": "12",
            "id": "7d8e3a52-0000-4000-8000-000000000001",
            "correlation_id": "c",
            "timestamp": "2026-01-14T18:16:56.057Z",
            "version": "2.0",
            "type": "general",
            "change_source": "app",
            "permitted_user_ids": ["12"],
            "is_bulk_edit": False,
            "attempt": 1,
        }
        | meta,
        "data": data,
        "previous": previous,
    }


def cloud(kind: str = "pacesetter.record.updated", number: str = "e-1", **data: Any) -> Any:
    """One structured CloudEvent."""
    return {
        "specversion": "1.0",
        "id": number,
        "source": "/app",
        "type": kind,
        "time": "2026-01-14T18:16:56.057Z",
        "data": {"type": "opportunity", "id": "1001"} | data,
    }


def sources_yaml() -> str:
    """The sources as the file has them."""
    entries = [
        {
            "id": source.id,
            "tenant": source.tenant,
            "vendor": source.vendor,
            "secrets": list(source.secrets),
            "username": source.username,
        }
        for source in SOURCES.values()
    ]
    return msgspec.yaml.encode(entries).decode()
