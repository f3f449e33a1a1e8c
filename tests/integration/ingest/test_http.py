"""What HTTP answers: who may, what is refused and why, and what can be done about it."""

import asyncio
import base64
import contextlib
import itertools
import json
import re
import time
from typing import Any

import httpx
import pytest
import requests
import schemathesis
import schemathesis.specs.openapi.checks
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from schemas.crm import Record
from schemas.directory import Entry
from tests.integration.ingest.conftest import Ingest, running
from tests.integration.ingest.test_from_webhook_to_record import SECRET, send_hub, send_pipe
from tests.support import bearer
from tests.unit.ingest.bodies import changed, cloud, pipe, sources_yaml

OPS = bearer("ops")
EVENTS = "/v1/sources/app/events"


async def test_what_is_refused_and_why(ingest: Ingest) -> None:
    post, key = ingest.client.post, {"x-api-key": ingest.key}
    batch = {"content-type": "application/cloudevents-batch+json"} | key
    structured = {"content-type": "application/cloudevents+json"} | key
    many = [cloud()] * 1001

    async def problem(answer: httpx.Response, status: int, words: str) -> None:
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert words in answer.text

    # Whose it is.
    await problem(await post("/v1/sources/nobody/events", json=[]), 404, "not-found")
    await problem(await send_hub(ingest, [], **{"x-hubspot-signature-v3": "x"}), 401, "PUBLIC_URL")
    await problem(await post("/v1/sources/hub/events", json=[]), 401, "Signature-v3")
    stale = {"x-hubspot-request-timestamp": str(int(time.time() * 1000) - 400_000)}
    await problem(await send_hub(ingest, [], **stale), 401, "5 minutes")
    wrong = await send_pipe(ingest, pipe("create", "deal", {}), password="guess")
    await problem(wrong, 401, "Basic")
    assert "Basic" in wrong.headers["www-authenticate"]
    no_key = {"content-type": "application/cloudevents+json"}
    await problem(await post(EVENTS, content=b"{}", headers=no_key), 401, "API key")
    rep = no_key | bearer("rep", person="p1")
    await problem(await post(EVENTS, content=b"{}", headers=rep), 403, "ops")
    rival = no_key | bearer("ops", tenant="rival")
    await problem(await post(EVENTS, content=b"{}", headers=rival), 403, "another tenant")
    # What it is.
    await problem(await send_hub(ingest, b"{}"), 400, "array")
    await problem(await send_hub(ingest, b"[1,]"), 400, "array")
    await problem(await send_hub(ingest, b"[" * 90_000), 400, "array")
    await problem(await send_hub(ingest, b""), 400, "array")
    await problem(await send_pipe(ingest, [1]), 400, "a JSON object")
    await problem(await post(EVENTS, content=b"[]", headers=structured), 400, "a JSON object")
    await problem(await post(EVENTS, content=b"{}", headers=batch), 400, "array")
    await problem(await post(EVENTS, json={}, headers=key), 400, "ce-id")
    too_many = await post(EVENTS, content=json.dumps(many), headers=batch)
    await problem(too_many, 413, "at most 1000")
    await problem(await send_hub(ingest, b"[" + b" " * 2**21 + b"]"), 413, "smaller parts")
    text = {"content-type": "text/plain"}
    await problem(await send_hub(ingest, [], **text), 415, "Send application/json")
    await problem(
        await send_hub(ingest, [], **{"content-encoding": "gzip"}), 415, "Content-Encoding"
    )
    await problem(await ingest.client.get(EVENTS), 405, "")


async def test_the_cloudevents_handshake(ingest: Ingest) -> None:
    asked = {"WebHook-Request-Origin": "events.example", "WebHook-Request-Rate": "120"}

    answer = await ingest.client.options(EVENTS, headers=asked)

    assert answer.status_code == 200
    assert answer.headers["webhook-allowed-origin"] == "events.example"
    assert "webhook-allowed-rate" in answer.headers
    assert (await ingest.client.options("/v1/sources/hub/events")).status_code == 405


async def test_a_rotated_secret_and_a_paused_source(ingest: Ingest) -> None:
    both = sources_yaml().replace(f"- {SECRET}\n", f"- brand-new\n  - {SECRET}\n")
    assert both != sources_yaml()
    ingest.configure(both)
    assert (await send_hub(ingest, [])).status_code == 202

    ingest.configure(sources_yaml().replace(SECRET, "brand-new"))
    assert (await send_hub(ingest, [])).status_code == 401

    ingest.configure(sources_yaml().replace("id: pipe", "id: pipe\n  paused: true"))
    paused = await send_pipe(ingest, pipe("create", "deal", {}))
    assert paused.status_code == 503
    assert paused.headers["retry-after"]


async def test_kafka_away_means_503_and_nothing_claimed(ingest: Ingest) -> None:
    publisher = ingest.service.publisher
    publisher._producer, working = None, publisher._producer
    try:
        answer = await send_hub(ingest, [])
    finally:
        publisher._producer = working

    assert answer.status_code == 503
    assert "Kafka" in answer.json()["detail"]
    assert answer.headers["retry-after"] == "5"


DOOR = "/v1/sources/{source}/events"  # whoever proves to be the CRM
ANYONE = {"/v1/records/{kind}/{number}"}  # by whose records they are
METHODS = ("get", "put", "post", "delete", "options")


async def test_only_operators_may_but_where_said(ingest: Ingest) -> None:
    paths = (await ingest.client.get("/openapi.json")).json()["paths"]
    assert paths.keys() >= {DOOR, *ANYONE}

    for path, found in paths.items():
        url = re.sub(r"\{\w+\}", "person", path)
        for method in METHODS & found.keys() if path != DOOR else ():
            nobody = await ingest.client.request(method, url)
            assert nobody.status_code == 401, (method, path, nobody.text)
            for role in ("rep", "manager", "finance") if path not in ANYONE else ():
                answer = await ingest.client.request(method, url, headers=bearer(role, person="p"))
                assert answer.status_code == 403, (method, path, role, answer.text)
            answer = await ingest.client.request(method, url, headers=OPS)
            assert answer.status_code not in (401, 403), (method, path, answer.text)


CHECKS = [
    schemathesis.checks.not_a_server_error,
    schemathesis.specs.openapi.checks.status_code_conformance,
    schemathesis.specs.openapi.checks.content_type_conformance,
    schemathesis.specs.openapi.checks.response_schema_conformance,
]
ATTACKS = 8  # per operation and mode


# schemathesis draws from `random` inside its strategies.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
async def test_whatever_comes_is_answered_as_the_openapi_document_says(ingest: Ingest) -> None:
    schema = schemathesis.openapi.from_dict((await ingest.client.get("/openapi.json")).json())
    loop, known = asyncio.get_running_loop(), itertools.cycle(["hub", "pipe", "app"])

    async def send(prepared: requests.PreparedRequest) -> httpx.Response:
        assert prepared.method is not None
        assert prepared.url is not None
        body = prepared.body.encode() if isinstance(prepared.body, str) else prepared.body
        assert body is None or isinstance(body, bytes)
        given_headers = {name.encode(): _raw(value) for name, value in prepared.headers.items()}
        headers = {name.encode(): value.encode() for name, value in OPS.items()} | given_headers
        return await ingest.client.request(
            prepared.method, prepared.url, content=body, headers=headers
        )

    def attack(operation: Any, mode: schemathesis.GenerationMode) -> None:
        cases = operation.as_strategy(generation_mode=mode)
        unhurried = settings(
            max_examples=ATTACKS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )

        @unhurried
        @given(case=cases)
        def one(case: Any) -> None:
            if operation.path == DOOR and case.path_parameters:
                case.path_parameters["source"] = next(known)
            kwargs = case.as_transport_kwargs(base_url="http://127.0.0.1:8001")
            kwargs.pop("cookies", None)
            try:
                prepared = requests.Request(**kwargs).prepare()
            except requests.exceptions.RequestException:
                return  # nothing that can be sent
            answer = asyncio.run_coroutine_threadsafe(send(prepared), loop).result(60)
            case.validate_response(answer, checks=CHECKS)

        one()

    operations: list[Any] = [found.ok() for found in schema.get_all_operations()]  # type: ignore[union-attr]  # a wrong document fails here
    for operation in operations:
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            with contextlib.suppress(Unsatisfiable):  # nothing about it can be wrong
                await asyncio.to_thread(attack, operation, mode)


def _raw(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1", "replace")


async def test_the_directory(ingest: Ingest) -> None:
    client = ingest.client
    put = await client.put("/v1/directory/person/jo", json={"name": "Jo"}, headers=OPS)
    assert put.status_code == 200, put.text
    same = await client.put("/v1/directory/person/jo", json={"name": "Jo"}, headers=OPS)
    assert same.headers["etag"] == put.headers["etag"]
    stale = OPS | {"If-Match": '"1"'}
    refused = await client.put("/v1/directory/person/jo", json={"name": "Al"}, headers=stale)
    assert refused.status_code == 412
    fresh = OPS | {"If-Match": put.headers["etag"]}
    newer = await client.put("/v1/directory/person/jo", json={"name": "Al"}, headers=fresh)
    assert newer.json()["version"] > put.json()["version"]
    known = OPS | {"If-None-Match": newer.headers["etag"]}
    assert (await client.get("/v1/directory/person/jo", headers=known)).status_code == 304

    people = [{"kind": "person", "id": f"p{n}", "name": f"P {n}"} for n in range(5)]
    team = {"kind": "team", "id": "t", "name": "T"}
    many = await client.put("/v1/directory", json=[*people, team], headers=OPS)
    assert many.json() == {"stored": 6}
    csv = "\ufeffid,person,team,manages,valid_from\nm1,jo,t,true,2026-01-01\nm2,p1,t,,\n"
    rows = await client.post("/v1/directory/import?kind=membership", content=csv, headers=OPS)
    assert rows.json() == {"stored": 2}, rows.text
    bad = csv + "m3,jo,t,perhaps,\nm3,jo,t,,x\nm1,jo,t,,\n"
    rows = await client.post("/v1/directory/import?kind=membership", content=bad, headers=OPS)
    assert rows.status_code == 422
    assert [fault["line"] for fault in rows.json()["errors"]] == [4, 5, 6]

    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await client.get(f"/v1/directory/person?limit=2&cursor={cursor}", headers=OPS)
        found += [item["id"] for item in page.json()["items"]]
        cursor = page.json()["next"]
    assert found == ["jo", "p0", "p1", "p2", "p3", "p4"]
    rival = await client.get("/v1/directory/person", headers=bearer("ops", tenant="rival"))
    assert rival.json() == {"items": [], "next": None}

    assert (await client.delete("/v1/directory/person/p0", headers=OPS)).status_code == 204
    assert (await client.get("/v1/directory/person/p0", headers=OPS)).status_code == 404
    entries = await ingest.published(
        Entry, lambda found: getattr(found.get("acme/person/p0"), "deleted", False)
    )
    assert entries["acme/person/jo"].name == "Al"
    assert entries["acme/membership/m1"].manages


HOSTILE = [
    ("PUT", "/v1/directory/planet/x", b"{}"),
    ("PUT", "/v1/directory/person/x", b"[]"),
    ("PUT", "/v1/directory/person/x", b"{"),
    ("PUT", "/v1/directory/person/x", b"{}"),
    ("PUT", "/v1/directory/person/a%00b", b'{"name":"x"}'),
    ("PUT", "/v1/directory", b"{}"),
    ("PUT", "/v1/directory", b'[{"kind":1,"id":2}]'),
    ("PUT", "/v1/directory", b"[" * 50_000),
    ("POST", "/v1/directory/import?kind=planet", b"id\n1\n"),
    ("POST", "/v1/directory/import?kind=person", b"\xff\xfe"),
    ("POST", "/v1/directory/import?kind=person", b"id,name\n1\n"),
    ("POST", "/v1/directory/import?kind=person", b'id,name\n1,"x\n'),
    ("GET", "/v1/directory/person/a%00b", b""),
    ("GET", "/v1/directory/person?cursor=!!", b""),
    ("GET", "/v1/directory/person?cursor=WyJhXHUwMDAwIl0", b""),
    ("DELETE", "/v1/directory/person/a%00b", b""),
    ("GET", "/v1/quarantine/a%00.0", b""),
    ("GET", "/v1/quarantine/zzz", b""),
    ("GET", "/v1/quarantine?cursor=WyJhXHUwMDAwIiwwXQ", b""),
    ("GET", "/v1/quarantine?cursor=WyJhIiw5OTk5OTk5OTk5OTk5OTk5OTk5OV0", b""),
    ("GET", "/v1/quarantine?source=a%00", b""),
    ("GET", "/v1/records/a%00/b", b""),
]


async def test_hostile_requests_get_clear_4xx(ingest: Ingest) -> None:
    for method, path, body in HOSTILE:
        answer = await ingest.client.request(method, path, content=body, headers=OPS)

        assert 400 <= answer.status_code < 500, (method, path, answer.text)
        assert answer.json()["detail"]


async def test_quarantined_items_are_read_again_after_a_fix(ingest: Ingest) -> None:
    good = {"specversion": "1.0", "id": "1", "source": "/", "type": "pacesetter.record.updated"}
    structured = {"content-type": "application/cloudevents+json", "x-api-key": ingest.key}
    bad = [changed("amount", "x", 1, object_id=1)]
    assert (await send_hub(ingest, bad)).status_code == 202
    still = json.dumps(good | {"data": {"type": "call"}})
    await ingest.client.post(EVENTS, content=still, headers=structured)
    await ingest.eventually(
        "/v1/quarantine", lambda answer: len(answer.json()["items"]) == 2, headers=OPS
    )
    # The fix, as far as a test can be one: the bytes become readable.
    async with ingest.service.database.transaction() as transaction:
        rows = await transaction.driver.fetch(
            "SELECT request FROM quarantine WHERE vendor = 'hubspot'"
        )
        request = json.loads(rows[0]["request"])
        body = base64.b64decode(request["body"]).replace(b'"x"', b'"7"')
        request["body"] = base64.b64encode(body).decode()
        await transaction.driver.execute(
            "UPDATE quarantine SET request = $1 WHERE vendor = 'hubspot'",
            json.dumps(request).encode(),
        )

    answer = await ingest.client.post("/v1/quarantine/replay", headers=OPS)

    assert answer.json() == {"replayed": 1, "still": 1, "next": None}
    records = await ingest.published(Record, lambda found: len(found) == 1)
    assert records["acme/opportunity/hub:1"].get("amount") == "7"
    left = (await ingest.client.get("/v1/quarantine", headers=OPS)).json()["items"]
    assert [item["vendor"] for item in left] == ["cloudevents"]


async def test_records_are_seen_by_their_owners_and_operators(ingest: Ingest) -> None:
    client = ingest.client
    owned = [
        changed("hubspot_owner_id", "5", 1, object_id=1),
        changed("amount", "1", 1, object_id=1),
    ]
    await send_hub(ingest, [*owned, changed("hubspot_owner_id", "6", 1, object_id=2)])
    url = "/v1/records/opportunity/hub:1"
    await ingest.eventually(url, lambda answer: answer.status_code == 200, headers=OPS)
    unmapped = (await client.get("/v1/owners/unmapped", headers=OPS)).json()["items"]
    waiting = [(one["source"], one["owner_id"], one["records"]) for one in unmapped]
    assert waiting == [("hub", "5", 1), ("hub", "6", 1)]
    owner = {"source": "hub", "owner_id": "5", "person": "jo"}
    entries = [{"kind": "person", "id": "jo", "name": "Jo"}, {"kind": "owner", "id": "o", **owner}]
    await client.put("/v1/directory", json=entries, headers=OPS)

    mine = await client.get(url, headers=bearer("rep", person="jo"))
    others = await client.get(url, headers=bearer("rep", person="al"))
    rival = await client.get(url, headers=bearer("admin", tenant="rival"))

    assert mine.json()["fields"]["amount"][1] == "1"
    assert (others.status_code, rival.status_code) == (404, 404)
    again = bearer("ops") | {"If-None-Match": mine.headers["etag"]}
    assert (await client.get(url, headers=again)).status_code == 304
    assert (await client.get(url)).status_code == 401
    unmapped = (await client.get("/v1/owners/unmapped", headers=OPS)).json()["items"]
    assert [item["owner_id"] for item in unmapped] == ["6"]


async def test_telemetry_and_health(ingest: Ingest) -> None:
    await send_hub(ingest, [])
    text = (await ingest.client.get("/metrics")).text

    assert 'pacesetter_ingest_requests_total{outcome="accepted",vendor="hubspot"}' in text
    assert (await ingest.client.get("/readyz")).status_code == 200


async def test_a_rebuilt_store_is_the_same(ingest_settings: Any) -> None:
    from kit.rebuild import rebuild  # noqa: PLC0415  # only here
    from services.ingest.app import create_app  # noqa: PLC0415  # only here

    settings, key = await ingest_settings()
    async with running(settings, key) as ingest:
        events = [changed("amount", str(n), n, event=n, object_id=n % 5) for n in range(40)]
        await send_hub(ingest, events)
        await send_hub(ingest, [changed("amount", "x", 1), changed("amount", "y", 1)])
        await ingest.client.put("/v1/directory/person/jo", json={"name": "Jo"}, headers=OPS)
        found = await ingest.eventually(
            "/v1/quarantine", lambda answer: len(answer.json()["items"]) == 2, headers=OPS
        )
        discard = f"/v1/quarantine/{found.json()['items'][0]['id']}?reason=test"
        assert (await ingest.client.delete(discard, headers=OPS)).status_code == 204
        await ingest.eventually(
            "/v1/records/opportunity/hub:4", lambda answer: answer.status_code == 200, headers=OPS
        )
        before = await ingest.service.checksum()
    await asyncio.sleep(0)

    assert await rebuild(create_app(settings).state.service) == before
    async with running(settings, key) as ingest:
        (left,) = (await ingest.client.get("/v1/quarantine", headers=OPS)).json()["items"]
        assert "'y'" in left["reason"]  # what was given up has not come back


async def test_what_can_not_be_published_is_not_given_up(ingest: Ingest) -> None:
    await send_hub(ingest, [changed("amount", "x", 1)])
    found = await ingest.eventually(
        "/v1/quarantine", lambda answer: len(answer.json()["items"]) == 1, headers=OPS
    )
    discard = f"/v1/quarantine/{found.json()['items'][0]['id']}?reason=test"
    publisher = ingest.service.publisher
    publisher._producer, working = None, publisher._producer
    try:
        assert (await ingest.client.delete(discard, headers=OPS)).status_code == 503
    finally:
        publisher._producer = working

    assert (await ingest.client.get("/v1/quarantine", headers=OPS)).json() == found.json()
    assert (await ingest.client.delete(discard, headers=OPS)).status_code == 204
