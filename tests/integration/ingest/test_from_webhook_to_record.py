"""HTTP → Kafka → records, with the real service."""

import base64
import json
import time
from typing import Any

import httpx

from schemas.crm import Received, Record
from services.ingest.domain.vendors import hubspot
from tests.integration.ingest.conftest import Ingest
from tests.support import bearer
from tests.unit.ingest.bodies import changed, cloud, hub, pipe

SECRET = "hub-secret"
URL = "http://127.0.0.1:8001/v1/sources/hub/events"


async def send_hub(ingest: Ingest, body: Any, **headers: str) -> httpx.Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    stamp = str(time.time_ns() // 1_000_000)
    signed = {
        "content-type": "application/json",
        "x-hubspot-request-timestamp": stamp,
        "x-hubspot-signature-v3": hubspot.signature_v3(SECRET, "POST", URL, raw, stamp),
    }
    return await ingest.client.post("/v1/sources/hub/events", content=raw, headers=signed | headers)


async def send_pipe(ingest: Ingest, body: Any, password: str = "pipe-secret") -> httpx.Response:
    token = base64.b64encode(f"pace:{password}".encode()).decode()
    return await ingest.client.post(
        "/v1/sources/pipe/events", json=body, headers={"authorization": f"Basic {token}"}
    )


async def test_all_vendors_reach_the_records_topic(ingest: Ingest) -> None:
    deal = [
        hub("deal.creation", 0, event=1),
        changed("amount", "12500.50", 5, event=2),
        changed("dealstage", "closedwon", 9, event=3, hubspot_owner_id="5"),
    ]
    answer = await send_hub(ingest, deal)
    assert answer.status_code == 202, answer.text
    assert (await send_pipe(ingest, pipe("create", "deal", {"id": 77, "value": 5}))).is_success
    structured = await ingest.client.post(
        "/v1/sources/app/events",
        content=json.dumps(cloud(name="One")),
        headers={"content-type": "application/cloudevents+json", "x-api-key": ingest.key},
    )
    assert structured.status_code == 202, structured.text

    records = await ingest.published(Record, lambda found: len(found) == 3)

    won = records["acme/opportunity/hub:21678228008"]
    assert (won.get("status"), won.get("amount")) == ("won", "12500.50")
    assert won.received == answer.json()["id"]
    assert won.trace.startswith("00-")
    assert records["acme/opportunity/pipe:77"].get("amount") == "5"
    assert records["acme/opportunity/app:1001"].get("name") == "One"
    raw = await ingest.published(Received, lambda found: len(found) == 3)
    assert all("authorization" not in one.headers for one in raw.values())
    assert all("x-api-key" not in one.headers for one in raw.values())
    kept = raw[f"acme/hub/{answer.json()['id']}"]
    assert json.loads(kept.body) == deal
    assert (kept.url, kept.auth) == (URL, "hubspot.v3")


async def test_one_bad_of_a_hundred_is_put_aside_alone(ingest: Ingest) -> None:
    batch = [changed("amount", "10", n, event=n, object_id=1000 + n) for n in range(100)]
    batch[41]["propertyValue"] = "a lot"

    assert (await send_hub(ingest, batch)).status_code == 202

    records = await ingest.published(Record, lambda found: len(found) == 99)
    assert "acme/opportunity/hub:1041" not in records
    ops = bearer("ops")
    page = (await ingest.client.get("/v1/quarantine", headers=ops)).json()
    (item,) = page["items"]
    assert (item["index"], item["vendor"]) == (41, "hubspot")
    assert "'a lot' is not a number" in item["reason"]
    whole = (await ingest.client.get(f"/v1/quarantine/{item['id']}", headers=ops)).json()
    assert json.loads(whole["raw"]) == batch[41]
