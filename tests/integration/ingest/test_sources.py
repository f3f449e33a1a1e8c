"""Sources by API: who may send, with which secrets, how often; and in which process."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer
from cryptography.fernet import Fernet
from pydantic import SecretStr

from kit.rebuild import rebuild
from schemas.crm import Record, SourceState
from services.ingest.app import create_app
from services.ingest.settings import Settings
from tests.integration.ingest.conftest import Ingest, running
from tests.support import TENANT, bearer
from tests.unit.ingest.bodies import pipe

OPS, RIVAL = bearer("ops"), bearer("ops", tenant="rival")
CRM = "/v1/sources/crm"
NEW = {"id": "crm", "vendor": "pipedrive", "username": "pace"}
SETTINGS = {"vendor": "pipedrive", "username": "pace"}


@pytest.fixture
async def sealing(ingest_settings: Any, tmp_path: Path) -> tuple[Settings, str]:
    """Settings with a key for secrets, and a folder of them."""
    settings, key = await ingest_settings()
    more = {
        "secrets_key": SecretStr(Fernet.generate_key().decode()),
        "secrets_folder": tmp_path / "secrets",
    }
    return settings.model_copy(update=more), key


@pytest.fixture
async def ingest(sealing: tuple[Settings, str]) -> AsyncIterator[Ingest]:
    """A running service that can seal."""
    async with running(*sealing) as service:
        yield service


async def send(ingest: Ingest, password: str, source: str = "crm", deal: int = 7) -> httpx.Response:
    body = pipe("create", "deal", {"id": deal, "value": 5})
    url = f"/v1/sources/{source}/events"
    return await ingest.client.post(url, json=body, auth=("pace", password))


async def create(ingest: Ingest, **more: Any) -> dict[str, Any]:
    answer = await ingest.client.post("/v1/sources", json=NEW | more, headers=OPS)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_source_from_its_creation_to_its_end(ingest: Ingest) -> None:
    client = ingest.client
    made = await create(ingest)
    assert made["url"] == "http://127.0.0.1:8001/v1/sources/crm/events"
    assert (await send(ingest, made["secret"])).status_code == 202
    assert (await send(ingest, "guess")).status_code == 401

    shown = await client.get(CRM, headers=OPS)
    assert shown.json()["settings"] == SETTINGS
    assert shown.json()["secrets"] == [{"from": "sealed", "until": None}]
    assert (shown.json()["managed"], shown.json()["problem"]) == ("api", "")
    seen = OPS | {"If-None-Match": shown.headers["etag"]}
    assert (await client.get(CRM, headers=seen)).status_code == 304

    stale = OPS | {"If-Match": '"1"'}
    body = SETTINGS | {"currency": "EUR"}
    assert (await client.put(CRM, json=body, headers=stale)).status_code == 412
    current = OPS | {"If-Match": shown.headers["etag"]}
    changed = await client.put(CRM, json=body, headers=current)
    assert changed.json()["settings"] == body
    assert "secret" not in changed.json()
    assert (await send(ingest, made["secret"])).status_code == 202, "its secret stays"

    assert (await client.post(f"{CRM}/pause", headers=OPS)).json()["settings"]["paused"]
    paused = await send(ingest, made["secret"])
    assert (paused.status_code, paused.headers["retry-after"]) == (503, "5")
    await client.post(f"{CRM}/resume", headers=OPS)
    assert (await send(ingest, made["secret"])).status_code == 202

    assert (await client.delete(CRM, headers=OPS)).status_code == 204
    assert (await send(ingest, made["secret"])).status_code == 404
    assert (await client.get(CRM, headers=OPS)).status_code == 404
    assert (await client.delete(CRM, headers=OPS)).status_code == 404
    again = await create(ingest)
    assert again["secret"] != made["secret"]


async def test_repeating_a_request_changes_nothing(ingest: Ingest) -> None:
    client = ingest.client
    made = await create(ingest)

    same = await client.post("/v1/sources", json=NEW, headers=OPS)
    put = await client.put(CRM, json=SETTINGS | {"secrets": [made["secret"]]}, headers=OPS)
    rotated = await client.post(f"{CRM}/rotate", json={"secret": made["secret"]}, headers=OPS)
    other = await client.post("/v1/sources", json=NEW | {"rate": 5}, headers=OPS)

    assert same.status_code == 200
    assert {one.json()["version"] for one in (same, put, rotated)} == {made["version"]}
    assert (other.status_code, other.json()["fields"]) == (409, ["rate"])


async def test_secrets_are_never_told_and_lie_sealed(ingest: Ingest) -> None:
    api = {"token": "tok-in-the-clear", "url": "https://crm.pipedrive.com"}
    paused = SETTINGS | {"paused": True}  # so that nobody is asked
    made = await create(ingest, secrets=["word-in-the-clear"], api=api, paused=True)
    changed = await ingest.client.put(
        CRM, json=paused | {"api": {"url": "https://crm.pipedrive.com"}}, headers=OPS
    )
    listed = await ingest.client.get("/v1/sources", headers=OPS)
    moved = await ingest.client.put(
        CRM, json=paused | {"api": {"url": "https://else.pipedrive.com"}}, headers=OPS
    )

    assert changed.json()["credentials"] == ["token"], "absent credentials stay"
    assert moved.status_code == 422, "but don't go elsewhere"
    assert "secret" not in made, "we have not made it"
    messages = await values(ingest, SourceState.topic)
    async with ingest.service.database.transaction() as transaction:
        stored = await transaction.driver.fetchval(
            "SELECT body FROM replica WHERE topic = $1", SourceState.topic
        )
    for text in (
        str(made),
        changed.text,
        listed.text,
        *map(bytes.decode, messages),
        stored.decode(),
    ):
        assert "crm" in text
        assert "in-the-clear" not in text
    assert (await ingest.client.put(CRM, json=SETTINGS, headers=OPS)).status_code == 200
    assert (await send(ingest, "word-in-the-clear")).status_code == 202


async def test_a_rotated_secret_overlaps_and_ends(ingest: Ingest) -> None:
    first = (await create(ingest))["secret"]

    answer = await ingest.client.post(f"{CRM}/rotate", json={"overlap_seconds": 1}, headers=OPS)
    second = answer.json()["secret"]
    assert [one["until"] is None for one in answer.json()["secrets"]] == [True, False]
    assert (await send(ingest, first)).status_code == 202
    assert (await send(ingest, second)).status_code == 202

    deadline = time.monotonic() + 10
    while (await send(ingest, first)).status_code != 401:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    assert (await send(ingest, second)).status_code == 202

    cut = {"secret": "third", "overlap_seconds": 0}
    await ingest.client.post(f"{CRM}/rotate", json=cut, headers=OPS)
    assert (await send(ingest, second)).status_code == 401
    assert (await send(ingest, "third")).status_code == 202

    for _ in range(4):
        await ingest.client.post(f"{CRM}/rotate", headers=OPS)
    many = await ingest.client.post(f"{CRM}/rotate", headers=OPS)
    assert many.status_code == 409
    assert "overlap_seconds" in many.json()["detail"]


async def test_where_the_vendor_makes_the_secret_it_must_be_sent(ingest: Ingest) -> None:
    client = ingest.client
    lacking = await client.put(CRM, json={"vendor": "hubspot"}, headers=OPS)
    await client.put(CRM, json={"vendor": "hubspot", "secrets": ["s"]}, headers=OPS)
    rotated = await client.post(f"{CRM}/rotate", headers=OPS)
    signed = {"id": "sw", "vendor": "standardwebhooks"}
    ours = await client.post("/v1/sources", json=signed, headers=OPS)

    assert (lacking.status_code, rotated.status_code) == (422, 422)
    assert "needs secrets" in lacking.text
    assert "HubSpot" in rotated.text
    assert ours.json()["secret"].startswith("whsec_")


async def test_everything_that_is_wrong_is_said_at_once(ingest: Ingest) -> None:
    body = {"vendor": "sap", "rate": -1, "typo": 1, "paused": "no", "tenant": "x", "secrets": [1]}

    answer = await ingest.client.put(CRM, json=body, headers=OPS)

    assert answer.status_code == 422
    assert {fault.split(" ")[0].strip(":") for fault in answer.json()["errors"]} == {
        *("vendor", "rate", "unknown", "paused", "tenant", "secrets[0]"),
    }
    mapped = {"vendor": "generic", "mapping": {"rules": [{"type": 1}]}}
    answer = await ingest.client.put(CRM, json=mapped, headers=OPS)
    assert answer.status_code == 422
    assert all(fault.startswith("mapping: ") for fault in answer.json()["errors"])
    other = await ingest.client.put("/v1/sources/a:b", json=SETTINGS, headers=OPS)
    assert "letters" in other.text
    await create(ingest)
    answer = await ingest.client.put(CRM, json={"vendor": "hubspot"}, headers=OPS)
    assert "can't change" in answer.text


async def test_the_files_sources_are_shown_and_changed_there(ingest: Ingest) -> None:
    client = ingest.client
    hub = await client.get("/v1/sources/hub", headers=OPS)
    put = await client.put("/v1/sources/hub", json={"vendor": "hubspot"}, headers=OPS)
    deleted = await client.delete("/v1/sources/hub", headers=OPS)

    assert hub.json()["managed"] == "file"
    assert "hub-secret" not in hub.text
    assert (put.status_code, deleted.status_code) == (409, 409)
    assert "sources.yaml" in put.json()["detail"]


async def test_tenants_share_ids_and_nothing_else(ingest: Ingest) -> None:
    client = ingest.client
    made = await create(ingest)

    for taken in ("hub", "crm"):
        answer = await client.put(f"/v1/sources/{taken}", json=SETTINGS, headers=RIVAL)
        assert answer.json()["title"] == "taken"
        assert "yaml" not in answer.text
        assert (await client.get(f"/v1/sources/{taken}", headers=RIVAL)).status_code == 404
    assert (await client.post(f"{CRM}/rotate", headers=RIVAL)).status_code == 404
    assert (await client.get("/v1/sources", headers=RIVAL)).json()["items"] == []
    assert (await send(ingest, made["secret"])).status_code == 202

    await client.delete(CRM, headers=OPS)
    theirs = await client.put(CRM, json=SETTINGS, headers=RIVAL)
    assert theirs.status_code == 200
    assert (await client.post("/v1/sources", json=NEW, headers=OPS)).status_code == 409


async def test_sources_come_in_pages(ingest: Ingest) -> None:
    for number in ("aa", "zz"):
        await create(ingest, id=number)

    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        url = f"/v1/sources?limit=2&cursor={cursor}"
        page = (await ingest.client.get(url, headers=OPS)).json()
        found += [item["id"] for item in page["items"]]
        cursor = page["next"]

    assert found == ["aa", "app", "hub", "pipe", "zz"]


async def test_a_secret_may_only_be_looked_up_in_the_tenants_own_places(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ingest.settings.secrets_folder
    assert folder is not None
    for tenant in (TENANT, "rival"):
        (folder / tenant).mkdir(parents=True)
        (folder / tenant / "crm").write_text(f"of-{tenant}\n")
        monkeypatch.setenv(f"INGEST_SECRET_{tenant}__CRM", f"named-by-{tenant}")
    for reference, secret in (
        ("file:crm", "of-acme"),
        ("env:INGEST_SECRET_acme__CRM", "named-by-acme"),
    ):
        body = SETTINGS | {"secrets": [reference]}
        answer = await ingest.client.put(CRM, json=body, headers=OPS)
        assert answer.json()["secrets"] == [{"from": reference, "until": None}]
        assert (await send(ingest, secret)).status_code == 202

    for reference in (
        *("file:../rival/crm", f"file:{folder}/rival/crm", "file:", "file:none"),
        *("env:INGEST_SECRET_rival__CRM", "env:PATH", "env:INGEST_SECRET_acme__NONE"),
        "env:INGEST_SECRET_acme__X__CRM",
    ):
        body = SETTINGS | {"secrets": [reference]}
        answer = await ingest.client.put(CRM, json=body, headers=OPS)
        assert answer.status_code == 422, reference
    sealed = await values(ingest, SourceState.topic)
    stolen = SETTINGS | {"secrets": ["sealed:AAAA"]}
    assert sealed
    assert (await ingest.client.put(CRM, json=stolen, headers=OPS)).status_code == 422


async def test_without_a_key_only_references_are_taken(
    ingest_settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_SECRET_acme__CRM", "word")
    async with running(*await ingest_settings()) as ingest:
        plain = await ingest.client.put(CRM, json=SETTINGS | {"secrets": ["word"]}, headers=OPS)
        made = await ingest.client.put(CRM, json=SETTINGS, headers=OPS)
        named = SETTINGS | {"secrets": ["env:INGEST_SECRET_acme__CRM"]}
        taken = await ingest.client.put(CRM, json=named, headers=OPS)

        assert (plain.status_code, made.status_code, taken.status_code) == (422, 422, 200)
        assert "INGEST_SECRETS_KEY" in plain.json()["detail"]
        assert (await send(ingest, "word")).status_code == 202


async def test_another_replica_takes_a_change_over_and_says_when_it_cannot(
    sealing: tuple[Settings, str],
) -> None:
    settings, key = sealing
    other = settings.model_copy(update={"roles": frozenset({"receive"})})
    keyless = other.model_copy(update={"secrets_key": SecretStr("")})
    async with (
        running(settings, key) as ingest,
        running(other, key) as replica,
        running(keyless, key) as poor,
    ):
        secret = (await create(ingest))["secret"]
        await asyncio.sleep(1)

        assert (await send(replica, secret)).status_code == 202
        refused = await send(poor, secret)
        assert refused.status_code == 503
        assert "INGEST_SECRETS_KEY" in refused.text
        assert (await poor.client.get(CRM, headers=OPS)).json()["problem"]

        await ingest.client.delete(CRM, headers=OPS)
        await asyncio.sleep(1)
        assert (await send(replica, secret)).status_code == 404


async def test_a_rebuilt_store_has_the_sources_and_reads_with_them(
    sealing: tuple[Settings, str],
) -> None:
    settings, key = sealing
    async with running(settings, key) as ingest:
        secret = (await create(ingest, currency="EUR"))["secret"]
        await send(ingest, secret)
        await ingest.published(Record, lambda found: len(found) == 1)
        gone = await ingest.client.put("/v1/sources/gone", json=SETTINGS, headers=OPS)
        await send(ingest, gone.json()["secret"], source="gone")
        await ingest.published(Record, lambda found: len(found) == 2)
        await ingest.client.delete("/v1/sources/gone", headers=OPS)
        before = await ingest.service.checksum()

    assert await rebuild(create_app(settings).state.service) == before

    async with running(settings, key) as ingest:
        assert (await send(ingest, secret)).status_code == 202
        assert (await send(ingest, gone.json()["secret"], source="gone")).status_code == 404


async def test_more_than_the_rate_is_told_when_to_come_back(ingest: Ingest) -> None:
    secret = (await create(ingest, rate=0.05))["secret"]
    assert (await send(ingest, "guess")).status_code == 401, "strangers use nothing up"

    assert (await send(ingest, secret)).status_code == 202
    refused = await send(ingest, secret)

    assert refused.status_code == 429
    assert 10 < int(refused.headers["retry-after"]) <= 20
    text = (await ingest.client.get("/metrics")).text
    assert 'requests_total{outcome="rate-limited",vendor="pipedrive"} 1.0' in text
    await ingest.client.put(CRM, json=SETTINGS, headers=OPS)
    for _ in range(5):
        assert (await send(ingest, secret)).status_code == 202


async def test_a_tenants_rate_holds_over_its_sources_and_handshakes_tell_it(
    sealing: tuple[Settings, str],
) -> None:
    settings, key = sealing
    async with running(settings.model_copy(update={"tenant_rate": 0.05}), key) as ingest:
        secrets = [(await create(ingest, id=f"s{n}"))["secret"] for n in range(3)]
        asked = {"WebHook-Request-Origin": "events.example", "WebHook-Request-Rate": "500"}

        codes = [
            (await send(ingest, secret, source=f"s{n}")).status_code
            for n, secret in enumerate(secrets)
        ]
        answer = await ingest.client.options("/v1/sources/app/events", headers=asked)

        assert codes == [202, 429, 429]
        assert answer.headers["webhook-allowed-rate"] == "3"


async def test_roles_split_receiving_from_normalising(sealing: tuple[Settings, str]) -> None:
    settings, key = sealing
    door = settings.model_copy(update={"roles": frozenset({"receive"})})
    worker = settings.model_copy(update={"roles": frozenset({"normalise", "backfill"})})
    async with running(door, key) as receiving:
        secret = (await create(receiving))["secret"]
        assert (await send(receiving, secret)).status_code == 202
        assert receiving.service.consumers == []
        assert (await receiving.client.get("/readyz")).status_code == 200

        async with running(worker, key) as reading:
            assert (await send(reading, secret)).status_code == 503
            records = await reading.published(Record, lambda found: len(found) == 1)
            assert list(records) == ["acme/opportunity/crm:7"]


async def values(ingest: Ingest, topic: str) -> list[bytes]:
    """What a topic holds, as it lies there."""
    reader = AIOKafkaConsumer(
        ingest.settings.kit.topic_prefix + topic,
        bootstrap_servers=ingest.settings.kit.kafka,
        auto_offset_reset="earliest",
    )
    await reader.start()
    try:
        found = await reader.getmany(timeout_ms=5000)
    finally:
        await reader.stop()
    return [one.value for batch in found.values() for one in batch if one.value is not None]
