"""What happened to an event can be asked, on real Kafka, and duplicates are counted and shown."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from typer.testing import CliRunner

from kit.consumer import group_of
from schemas.crm import Record
from services.__main__ import cli
from services.ingest import app, tracing
from services.ingest.store import events
from services.ingest.tracing import messages
from tests.integration.ingest.conftest import Ingest
from tests.integration.ingest.test_from_webhook_to_record import send_hub, send_pipe
from tests.support import TENANT, bearer
from tests.unit.ingest.bodies import SOURCES, changed, hub, pipe

OPS = bearer("ops")


async def get(ingest: Ingest, path: str, **query: str) -> httpx.Response:
    return await ingest.client.get(path, params=query, headers=OPS)


async def traced(ingest: Ingest, **query: str) -> Any:
    """The trace, once ingest has read everything that was sent."""
    deadline = time.monotonic() + 20
    while True:
        answer = await get(ingest, "/v1/events", **query)
        found = answer.json()
        if answer.status_code == 200 and (found["request"] or {}).get("state") != "waiting":
            return found
        assert time.monotonic() < deadline, answer.text
        await asyncio.sleep(0.1)


async def commit(ingest: Ingest, service: str, message: str, *, beyond: int) -> None:
    """As if the service had applied records up to so many beyond this message."""
    _, partition, offset = message.rsplit("/", 2)
    kit = ingest.settings.kit
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kit.kafka, group_id=group_of(kit, service), enable_auto_commit=False
    )
    await consumer.start()
    try:
        tp = TopicPartition(kit.topic_prefix + Record.topic, int(partition))
        consumer.assign([tp])
        await consumer.commit({tp: int(offset) + beyond})
    finally:
        await consumer.stop()


async def test_a_request_with_something_of_everything(ingest: Ingest) -> None:
    body = [
        changed("amount", "5", 1, event=1, object_id=1),
        changed("amount", "many", 1, object_id=1),
        hub("conversation.creation", 1),
        changed("amount", "6", 2, event=2, object_id=2),
    ]
    number = (await send_hub(ingest, body)).json()["id"]

    found = await traced(ingest, request=number)

    about = found["request"]
    assert about["id"] == number
    assert about["state"] == "read"
    assert about["message"].startswith("crm.received.v1/")
    received = datetime.fromisoformat(about["received_at"])
    assert abs(datetime.now(UTC) - received) < timedelta(minutes=1)
    assert [one["id"] for one in about["quarantined"]] == [f"{number}.1"]
    assert "many" in about["quarantined"][0]["reason"]
    assert [one["id"] for one in about["ignored"]] == [f"{number}.2"]
    assert [(one["index"], one["record"], one["op"]) for one in found["items"]] == [
        (0, "hub:1", "updated"),
        (3, "hub:2", "updated"),
    ]
    assert found["items"][0]["vendor_event"] == "1"
    assert found["items"][0]["duplicates"] == []
    first, second = found["records"]
    assert (first["type"], first["id"]) == ("opportunity", "hub:1")
    record = (await get(ingest, "/v1/records/opportunity/hub:1")).json()
    assert first["version"] == record["version"]
    nobody = dict.fromkeys(("metrics", "payouts", "notifications"), "waiting")
    assert first["applied"] == second["applied"] == nobody
    assert first["message"].startswith("crm.records.v1/")


async def test_who_has_applied_a_record_and_who_has_not(ingest: Ingest) -> None:
    number = (await send_hub(ingest, [changed("amount", "5", 1, object_id=1)])).json()["id"]
    message = (await traced(ingest, request=number))["records"][0]["message"]
    await commit(ingest, "metrics", message, beyond=1)
    await commit(ingest, "payouts", message, beyond=0)

    (record,) = (await traced(ingest, record="opportunity/hub:1"))["records"]

    expected = {"metrics": "applied", "payouts": "waiting", "notifications": "waiting"}
    assert record["applied"] == expected
    # A newer version has not been applied by anybody.
    await send_hub(ingest, [changed("amount", "6", 2, object_id=1)])
    await ingest.eventually(
        "/v1/records/opportunity/hub:1",
        lambda found: found.json()["version"] > record["version"],
        headers=OPS,
    )
    (newer,) = (await traced(ingest, record="opportunity/hub:1"))["records"]
    assert newer["message"] != message
    assert set(newer["applied"].values()) == {"waiting"}


async def test_a_message_that_is_not_found_is_unknown(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = (await send_hub(ingest, [changed("amount", "5", 1, object_id=1)])).json()["id"]
    await traced(ingest, request=number)
    monkeypatch.setattr(messages, "MAX_SCANNED", 0)

    found = await traced(ingest, request=number)

    assert found["request"]["state"] == "read"  # the tables say so
    assert found["request"]["message"] is None
    assert found["records"][0]["message"] is None
    assert set(found["records"][0]["applied"].values()) == {"unknown"}


async def test_a_vendors_event_each_time_that_it_came(ingest: Ingest) -> None:
    said = changed("amount", "5", 1, event=7, object_id=1)
    again = said | {"attemptNumber": 1}
    other = said | {"propertyValue": "6"}
    numbers = [(await send_hub(ingest, [one])).json()["id"] for one in (said, again, other)]
    for number in numbers:
        await traced(ingest, request=number)

    found = await traced(ingest, vendor_event="7")

    ids = [f"{number}.0" for number in numbers]
    assert [event["id"] for event in found["items"]] == ids
    assert len({event["event_uid"] for event in found["items"]}) == 1
    assert found["items"][0]["duplicates"] == [
        {"id": ids[1], "kind": "natural"},
        {"id": ids[2], "kind": "synthetic"},
    ]
    assert {one["kind"] for one in found["items"][2]["duplicates"]} == {"synthetic"}

    counted = (await get(ingest, "/v1/duplicates")).json()
    assert counted["sources"] == [
        {"source": "hub", "events": 3, "distinct": 1, "natural": 1, "synthetic": 1}
    ]
    (item,) = counted["items"]
    assert (item["record"], item["events"], item["contents"]) == ("hub:1", 3, 2)
    assert [one["id"] for one in item["came"]] == ids
    assert item["came"][0]["content"] == item["came"][1]["content"] != item["came"][2]["content"]
    nothing: dict[str, list[Any]] = {"sources": [], "items": []}
    rest = (await get(ingest, "/v1/duplicates", source="pipe")).json()
    assert {name: rest[name] for name in nothing} == nothing
    past = (datetime.now(UTC) - timedelta(days=2)).isoformat()
    long_ago = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    rest = (await get(ingest, "/v1/duplicates", since=past, until=long_ago)).json()
    assert {name: rest[name] for name in nothing} == nothing
    rival = await ingest.client.get("/v1/duplicates", headers=bearer("ops", tenant="rival"))
    assert rival.json()["sources"] == []


async def test_synthetic_duplicates_come_in_pages(ingest: Ingest) -> None:
    body = [
        changed("amount", value, 1, event=number, object_id=number)
        for number in range(1, 6)
        for value in ("5", "6")
    ]
    number = (await send_hub(ingest, body)).json()["id"]
    await traced(ingest, request=number)

    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await get(ingest, "/v1/duplicates", limit="2", cursor=cursor)).json()
        found += [item["record"] for item in page["items"]]
        cursor = page["next"]

    assert sorted(found) == [f"hub:{number}" for number in range(1, 6)]


async def test_the_history_of_a_record_has_that_of_those_merged_into_it(ingest: Ingest) -> None:
    merged: dict[str, Any] = {"primaryObjectId": 1, "mergedObjectIds": [2], "newObjectId": 1}
    body = [
        changed("amount", "5", 1, event=1, object_id=1),
        changed("amount", "6", 3, event=2, object_id=2),
        changed("amount", "7", 2, event=3, object_id=1),
        hub("deal.merge", 4, event=4, **merged),
    ]
    number = (await send_hub(ingest, body)).json()["id"]
    await traced(ingest, request=number)

    found: list[tuple[str, str]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await traced(ingest, record="opportunity/hub:1", limit="2", cursor=cursor)
        found += [(event["record"], event["vendor_event"]) for event in page["items"]]
        cursor = page["next"]

    assert sorted(found[:2]) == [("hub:1", "4"), ("hub:2", "4")]
    assert found[2:] == [("hub:2", "2"), ("hub:1", "3"), ("hub:1", "1")]
    (gone,) = (await traced(ingest, record="opportunity/hub:2"))["records"]
    assert gone["merged_into"] == "hub:1"
    assert gone["deleted"]


async def test_what_must_be_read_again_is_said(ingest: Ingest) -> None:
    number = (await send_hub(ingest, [changed("amount", "5", 1, object_id=1)])).json()["id"]
    await traced(ingest, request=number)
    async with ingest.service.database.transaction() as transaction:
        await transaction.driver.execute(
            "INSERT INTO reread (tenant, source, type, id, reason, fields, wanted_at, wanted,"
            " next_at) VALUES ($1, 'hub', 'opportunity', 'hub:1', 'gap', '{}', now(), 1, now())"
            " ON CONFLICT (tenant, source, type, id) DO UPDATE SET reason = 'gap'",
            TENANT,
        )

    (record,) = (await traced(ingest, request=number))["records"]

    assert record["reread"]["reason"] == "gap"


async def test_an_item_is_shown_as_it_came_and_is_read_today(ingest: Ingest) -> None:
    body = [
        changed("amount", "5", 1, event=1, object_id=1),
        changed("amount", "x", 1, object_id=1),
    ]
    sent = await send_hub(ingest, body, **{"user-agent": "crm"})
    number = sent.json()["id"]
    await send_pipe(ingest, pipe("create", "deal", {"id": 1}))

    found = (await get(ingest, f"/v1/events/{number}.0")).json()

    assert json.loads(found["body"]) == body
    assert found["headers"]["user-agent"] == "crm"
    assert found["message"].startswith("crm.received.v1/")
    (event,) = found["events"]
    assert event["fields"]["amount"]["value"] == "5"
    assert event["source"]["id"] == "hub"
    assert event["source"]["raw_ref"] == f"crm.received.v1/acme/hub/{number}"
    (bad,) = (await get(ingest, f"/v1/events/{number}.1")).json()["events"]
    assert "unreadable" in bad
    assert (await get(ingest, f"/v1/events/{number}.2")).status_code == 404
    rival = await ingest.client.get(f"/v1/events/{number}.0", headers=bearer("ops", tenant="rival"))
    assert rival.status_code == 404


async def test_what_is_not_known_is_404_and_what_is_unclear_422(ingest: Ingest) -> None:
    for query in ({"request": "x"}, {"vendor_event": "x"}, {"record": "opportunity/hub:9"}):
        assert (await get(ingest, "/v1/events", **query)).status_code == 404, query
    bad: list[dict[str, str]] = [
        {},
        {"request": "x", "record": "a/b"},
        {"request": "a\0"},
        {"request": "x", "cursor": "!!"},
        {"record": "a/b", "cursor": "WyJhIiwwLDBd"},
    ]
    for query in bad:
        assert (await get(ingest, "/v1/events", **query)).status_code == 422, query
    now = datetime.now(UTC)
    windows = [
        {"since": "yesterday"},
        {"since": (now - timedelta(days=32)).isoformat()},
        {"since": (now + timedelta(days=1)).isoformat()},
        {"since": "0001-01-01T00:00:00Z"},
        {"since": "2026-01-01T00:00:00"},  # of which zone?
        {"cursor": "WyJhIl0"},
        {"source": "a\0"},
    ]
    for query in windows:
        assert (await get(ingest, "/v1/duplicates", **query)).status_code == 422, query
    for number in ("x", "x.0", "a%00.0", "f" * 26 + ".0", "0" * 26 + ".0"):
        assert (await get(ingest, f"/v1/events/{number}")).status_code in (404, 422), number


async def test_without_kafka_it_says_so(ingest: Ingest) -> None:
    number = (await send_hub(ingest, [changed("amount", "5", 1, object_id=1)])).json()["id"]
    kit = ingest.settings.kit.model_copy(update={"kafka": "127.0.0.1:1"})
    tracer = tracing.Tracer(
        kit, ingest.service.database, source_of=lambda found: SOURCES[found.source]
    )

    with pytest.raises(tracing.UnavailableError):
        await tracer.of_request(TENANT, number, events.FIRST, 10)


async def test_the_command_prints_the_same(ingest: Ingest, monkeypatch: pytest.MonkeyPatch) -> None:
    number = (await send_hub(ingest, [changed("amount", "5", 1, object_id=1)])).json()["id"]
    await traced(ingest, request=number)
    settings = ingest.settings
    monkeypatch.setenv("PACESETTER_KAFKA", settings.kit.kafka)
    monkeypatch.setenv("PACESETTER_TOPIC_PREFIX", settings.kit.topic_prefix)
    monkeypatch.setenv("INGEST_DATABASE", settings.database)
    monkeypatch.setenv("INGEST_SOURCES", str(settings.sources))
    monkeypatch.setenv("COLUMNS", "200")
    run = CliRunner().invoke

    # A command has an event loop of its own.
    by_request = await asyncio.to_thread(run, cli, ["trace", TENANT, "--request", number])
    by_record = await asyncio.to_thread(
        run, cli, ["trace", TENANT, "--record", "opportunity/hub:1"]
    )

    assert by_request.exit_code == by_record.exit_code == 0, by_request.output
    found = await app.trace(TENANT, request=number, vendor_event="", record="", limit=10)
    told = tracing.timeline(found)
    assert [one[1] for one in told][:3] == ["request read", "updated opportunity hub:1", "record"]
    assert "metrics: waiting" in told[2][3]
    assert (await asyncio.to_thread(run, cli, ["trace", TENANT])).exit_code == 2


async def test_quarantine_is_filtered_counted_and_given_up(ingest: Ingest) -> None:
    bad = [changed("amount", value, 1, object_id=1) for value in ("many", "many", "few")]
    number = (await send_hub(ingest, bad)).json()["id"]
    await send_pipe(ingest, {"nonsense": True})
    await ingest.eventually(
        "/v1/quarantine", lambda found: len(found.json()["items"]) == 4, headers=OPS
    )

    async def ids(**query: str) -> list[str]:
        found = (await get(ingest, "/v1/quarantine", **query)).json()["items"]
        return [item["id"].removeprefix(number) for item in found]

    assert await ids(source="hub", reason="MANY") == [".0", ".1"]
    assert await ids(vendor="hubspot", reason="'few'") == [".2"]
    assert len(await ids(vendor="pipedrive")) == 1
    assert await ids(reason="%") == []
    reasons = (await get(ingest, "/v1/quarantine/reasons", vendor="hubspot")).json()["items"]
    assert [one["items"] for one in reasons] == [2, 1]
    assert "many" in reasons[0]["reason"]
    assert reasons[0]["source"] == "hub"

    discard = f"/v1/quarantine/{number}.0"
    assert (await ingest.client.delete(discard, headers=OPS)).status_code == 422
    rival = bearer("ops", tenant="rival")
    assert (await ingest.client.delete(f"{discard}?reason=x", headers=rival)).status_code == 404
    assert (await ingest.client.delete(f"{discard}?reason=test", headers=OPS)).status_code == 204
    assert (await ingest.client.delete(f"{discard}?reason=test", headers=OPS)).status_code == 404
    assert await ids(source="hub") == [".1", ".2"]
    about = (await traced(ingest, request=number))["request"]
    assert [one["id"] for one in about["quarantined"]] == [f"{number}.1", f"{number}.2"]
    (given_up,) = about["discarded"]
    assert (given_up["id"], given_up["reason"]) == (f"{number}.0", "test")
    replayed = await ingest.client.post("/v1/quarantine/replay?reason=few", headers=OPS)
    assert replayed.json() == {"replayed": 0, "still": 1, "next": None}
