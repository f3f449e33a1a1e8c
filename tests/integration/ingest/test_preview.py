"""What a request would become is what it becomes when it is sent, and nothing is left of asking."""

import base64
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from schemas.crm import Received, Record
from services.__main__ import cli
from services.ingest.domain.vendors import hubspot
from tests.integration.ingest.conftest import Ingest
from tests.integration.ingest.test_from_webhook_to_record import send_hub
from tests.support import bearer
from tests.unit.ingest.bodies import changed, hub, pipe

OPS = bearer("ops")
EVENTS = "http://127.0.0.1:8001/v1/sources/hub/events"
JSON = {"content-type": "application/json"}
HUGE_NUMBER = json.dumps(changed("amount", "", 1) | {"propertyValue": 10**30}).encode()


async def ask(ingest: Ingest, source: str, body: Any, **headers: str) -> httpx.Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await ingest.client.post(
        f"/v1/sources/{source}/preview", content=raw, headers=OPS | JSON | headers
    )


async def stored(ingest: Ingest) -> list[int]:
    tables = ("record", "event", "quarantine", "reread")
    async with ingest.service.database.transaction() as transaction:
        return [await transaction.driver.fetchval(f"SELECT count(*) FROM {t}") for t in tables]


async def test_a_preview_says_what_then_happens_and_leaves_nothing(ingest: Ingest) -> None:
    first = [changed("dealname", "One", 1, object_id=1), changed("amount", "5", 1, object_id=1)]
    await send_hub(ingest, first)
    url = "/v1/records/opportunity/hub:1"
    before = await ingest.eventually(url, lambda found: found.status_code == 200, headers=OPS)
    counts = await stored(ingest)
    body = [
        changed("amount", "12.50", 9, event=7, object_id=1),
        changed("dealstage", "closedwon", 9, event=8, object_id=1),
        changed("amount", "many", 9, object_id=1),
        hub("deal.creation", 9, object_id=2),
    ]

    answer = await ask(ingest, "hub", body)

    assert answer.status_code == 200, answer.text
    shown = answer.json()
    kinds = [event.get("op") or event.get("unreadable") for event in shown["events"]]
    assert kinds[:2] == ["updated", "updated"]
    assert "many" in kinds[2]
    assert kinds[3] == "created"
    one, two = sorted(shown["records"], key=lambda record: str(record["id"]))
    assert (one["known"], two["known"]) == (True, False)
    assert one["changed"]["amount"] == {
        "old": {"state": "value", "value": "5"},
        "new": {"state": "value", "value": "12.50"},
    }
    assert one["changed"]["status"]["new"]["value"] == "won"
    assert "name" not in one["changed"]
    assert await stored(ingest) == counts
    assert (await ingest.client.get(url, headers=OPS)).json() == before.json()

    await send_hub(ingest, body)
    after = await ingest.eventually(
        url, lambda found: found.json()["version"] > before.json()["version"], headers=OPS
    )
    values = {
        name: {"state": field[0]} | ({"value": field[1]} if field[0] == "value" else {})
        for name, field in after.json()["fields"].items()
        if not name.startswith("_")
    }
    assert values == one["fields"]
    topics = await ingest.published(Received, lambda found: len(found) == 2)
    assert len(topics) == 2  # the two that were sent
    records = await ingest.published(Record, lambda found: len(found) == 2)
    assert set(records) == {"acme/opportunity/hub:1", "acme/opportunity/hub:2"}


async def test_a_preview_shows_who_inherits_in_a_merge(ingest: Ingest) -> None:
    await send_hub(ingest, [changed("amount", "5", 1, object_id=2)])
    url = "/v1/records/opportunity/hub:2"
    await ingest.eventually(url, lambda found: found.status_code == 200, headers=OPS)
    merged: dict[str, Any] = {"primaryObjectId": 1, "mergedObjectIds": [2], "newObjectId": 1}
    body = [hub("deal.merge", 9, event=5, **merged)]

    shown = (await ask(ingest, "hub", body)).json()
    records = {record["id"]: record for record in shown["records"]}

    assert records["hub:2"]["merged_into"] == "hub:1"
    assert records["hub:1"]["merged_from"] == ["hub:2"]
    assert records["hub:1"]["changed"]["amount"]["new"]["value"] == "5"

    await send_hub(ingest, body)
    gone = await ingest.eventually(
        url, lambda found: found.json().get("merged_into") == "hub:1", headers=OPS
    )
    assert gone.json()["deleted"]
    survivor = (await ingest.client.get("/v1/records/opportunity/hub:1", headers=OPS)).json()
    assert survivor["merged_from"] == ["hub:2"]


async def test_it_says_whether_the_signature_is_right(ingest: Ingest) -> None:
    raw = json.dumps([changed("amount", "5", 1)]).encode()
    stamp = str(time.time_ns() // 1_000_000)
    signed = {
        "x-hubspot-request-timestamp": stamp,
        "x-hubspot-signature-v3": hubspot.signature_v3("hub-secret", "POST", EVENTS, raw, stamp),
    }
    right = (await ask(ingest, "hub", raw, **signed)).json()["signature"]
    assert right == {"valid": True, "method": "hubspot.v3", "why": None}
    wrong = (await ask(ingest, "hub", raw + b" ", **signed)).json()
    assert wrong["signature"]["valid"] is False
    assert wrong["signature"]["why"]
    assert wrong["events"]
    basic = base64.b64encode(b"pace:pipe-secret").decode()
    # Our own key in its own header leaves `Authorization` to what the CRM sends.
    answer = await ingest.client.post(
        "/v1/sources/pipe/preview",
        json=pipe("create", "deal", {"id": 1, "title": "A"}),
        headers={"x-api-key": ingest.key, "authorization": f"Basic {basic}"},
    )
    assert answer.json()["signature"]["valid"] is True, answer.text
    by_key = await ask(
        ingest,
        "app",
        {},
        **{"ce-id": "1", "ce-source": "/", "ce-type": "t", "ce-specversion": "1.0"},
    )
    assert by_key.json()["signature"]["valid"] is None


async def test_limits_and_rights_are_those_of_receiving(ingest: Ingest) -> None:
    async def status(source: str, body: Any, **headers: str) -> int:
        return (await ask(ingest, source, body, **headers)).status_code

    assert await status("nobody", []) == 404
    rival = bearer("ops", tenant="rival")
    assert await status("hub", [], **rival) == 404
    assert await status("hub", [], **bearer("manager", person="p")) == 403
    assert await status("hub", b"{") == 400
    assert await status("hub", [{}] * 1001) == 413
    assert await status("hub", [], **{"content-type": "text/plain"}) == 415
    anonymous = await ingest.client.post("/v1/sources/hub/preview", content=b"[]", headers=JSON)
    assert anonymous.status_code == 401


@pytest.mark.parametrize(
    "item",
    [
        b"1" * 400,
        b"[" * 3000,
        b'{"objectId": 1e999}',
        b'{"eventId": 99999999999999999999999999, "subscriptionType": "deal.creation"}',
        b'{"subscriptionType": "deal.propertyChange", "propertyName": "\\ud83d"}',
        HUGE_NUMBER,
    ],
)
async def test_anything_at_all_gets_an_answer(ingest: Ingest, item: bytes) -> None:
    answer = await ask(ingest, "hub", b"[" + item + b"]")

    assert answer.status_code in (200, 400), answer.text


def test_a_file_is_previewed_without_any_server(tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text(json.dumps([changed("amount", "5", 1), changed("amount", "x", 1)]))
    run = CliRunner().invoke

    good = run(cli, ["preview", str(body), "--vendor", "hubspot"])

    assert good.exit_code == 0, good.output
    fact, bad = json.loads(good.stdout)
    assert fact["fields"]["amount"]["value"] == "5"
    assert "unreadable" in bad
    cloud = tmp_path / "cloud.json"
    cloud.write_text('{"type": "call", "id": "7"}')
    names = {"ce-id": "1", "CE-Source": "/a", "ce-type": "pacesetter.record.updated"}
    headers = [f"--header={k}: {v}" for k, v in (names | {"ce-specversion": "1.0"}).items()]
    good = run(cli, ["preview", str(cloud), "--vendor", "cloudevents", *headers])
    assert json.loads(good.stdout)[0]["subject"] == {"type": "call", "id": "cloudevents:7"}
    unknown = run(cli, ["preview", str(body), "--vendor", "nobody"])
    assert unknown.exit_code == 2
    assert "hubspot" in unknown.output
    assert run(cli, ["preview", str(body)]).exit_code == 2
    body.write_text("{}")
    assert run(cli, ["preview", str(body), "--vendor", "hubspot"]).exit_code == 2
