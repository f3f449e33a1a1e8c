"""What events don't say is asked of the CRM, once, patiently, and never in place of newer facts."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.responses import JSONResponse, Response

from kit.publisher import PublishError
from schemas.crm import Record
from services.ingest.crms.transport import MAX_ANSWER_BYTES
from services.ingest.domain.vendors.hubspot import signature_v3
from services.ingest.rereading import LEASE, MAX_BODY_BYTES
from tests.integration.ingest.asking import (
    OAUTH,
    SECOND,
    Killed,
    World,
    a_world,
    at,
    hub_deal,
    main,
    source,
)
from tests.integration.ingest.conftest import running
from tests.support import TENANT, bearer, crms
from tests.unit.ingest.bodies import changed, hub

OPS = bearer("ops")
DEAL = "006xx000003DGb1AAG"


@pytest.fixture
def hubspot() -> crms.HubSpot:
    deals = {str(n): hub_deal(str(n), deal_currency_code="EUR") for n in range(1, 200)}
    return crms.HubSpot(objects={"0-3": deals}, own_properties=["tier"])


@pytest.fixture
async def hub_world(
    new_database: Any, tmp_path: Path, hubspot: crms.HubSpot
) -> AsyncIterator[World]:
    async with a_world(await new_database(), tmp_path, hubspot, "hubspot") as world:
        yield world


def sf_deal(number: str, **more: Any) -> Any:
    return {
        "attributes": {"type": "Opportunity", "url": "/x"},
        "Id": number,
        "Name": f"Deal {number}",
        "StageName": "Prospecting",
        "IsDeleted": False,
        "LastModifiedDate": "2026-01-02T09:00:00.000+0000",
        "SystemModstamp": "2026-01-02T09:00:00.000+0000",
    } | more


def sf_event(kind: str, *ids: str, **payload: Any) -> Any:
    header = {
        "entityName": "Opportunity",
        "recordIds": list(ids),
        "changeType": kind,
        "changeOrigin": "",
        "transactionKey": "0001-2",
        "sequenceNumber": 1,
        "commitTimestamp": 1_767_400_000_000,
        "commitNumber": 10,
        "commitUser": "005xx000001Sv6eAAC",
    }
    return {
        "schema": "x",
        "payload": payload | {"ChangeEventHeader": header},
        "event": {"replayId": 1},
    }


@pytest.fixture
def salesforce() -> crms.Salesforce:
    deals = {f"006xx0000000{n:03}AAA": sf_deal(f"006xx0000000{n:03}AAA") for n in range(25)}
    return crms.Salesforce(objects={"Opportunity": deals | {DEAL: sf_deal(DEAL)}}, page_size=10)


@pytest.fixture
async def sf_world(
    new_database: Any, tmp_path: Path, salesforce: crms.Salesforce
) -> AsyncIterator[World]:
    async with a_world(await new_database(), tmp_path, salesforce, "salesforce") as world:
        yield world


async def test_a_gap_is_asked_for_and_filled(sf_world: World, salesforce: crms.Salesforce) -> None:
    await sf_world.receive(sf_event("GAP_UPDATE", DEAL))
    (wish,) = await sf_world.waiting()
    assert (wish.type, wish.id, wish.reason, wish.state) == (
        "opportunity",
        f"sale:{DEAL}",
        "gap",
        "waiting",
    )
    assert not await sf_world.ask()
    assert salesforce.asked == []  # the events around it have not come in yet

    sf_world.wait(6)
    await sf_world.ask()

    record = await sf_world.record("opportunity", f"sale:{DEAL}")
    assert record is not None
    assert (record.text("name"), record.text("stage"), record.op) == (
        f"Deal {DEAL}",
        "Prospecting",
        "snapshot",
    )
    assert await sf_world.waiting() == []
    (answer,) = sf_world.topic.states
    assert (answer.method, answer.auth) == ("POST", "salesforce.api")
    assert answer.url.endswith("/services/data/v62.0/composite/sobjects/Opportunity")
    assert json.loads(answer.body)[0]["Id"] == DEAL
    fields = salesforce.asked[-1].json["fields"]
    assert "Name" in fields
    assert not {"Formula__c", "BillingAddress", "attributes"} & set(fields)


async def test_what_an_event_leaves_out_is_filled_and_nothing_newer_overwritten(
    hub_world: World, hubspot: crms.HubSpot
) -> None:
    dates = [("2026-02-28", "2026-01-02T08:00:00Z"), ("2026-01-31", "2026-01-01T09:00:00Z")]
    hubspot.objects["0-3"]["7"] = hub_deal(
        "7", deal_currency_code="EUR", dealname="Old", tier="gold"
    ) | {
        "propertiesWithHistory": {
            "amount": [{"value": "9", "timestamp": "2026-01-02T08:00:00Z"}],
            "closedate": [{"value": f"{day}T00:00:00Z", "timestamp": at} for day, at in dates],
        }
    }
    day = 86_400_000
    await hub_world.receive([changed("amount", "50", 3 * day, object_id=7)])
    hub_world.wait(6)

    await hub_world.ask()
    await hub_world.receive([changed("dealname", "New", 2 * day, object_id=7, event=2)])

    record = await hub_world.record("opportunity", "hubs:7")
    assert record is not None
    assert [record.text(n) for n in ("amount", "currency", "name", "x_tier")] == [
        "50",
        "EUR",
        "New",
        "gold",
    ]
    assert record.text("expected_close") == "2026-02-28T00:00:00Z"
    assert [field.value for field in record.expected_before] == ["2026-01-31T00:00:00Z"]
    assert await hub_world.waiting() == []  # and the answer has asked for nothing again


async def test_an_expired_token_is_got_again_once(
    hub_world: World, hubspot: crms.HubSpot, caplog: pytest.LogCaptureFixture
) -> None:
    hub_world.configure(source("hubspot", hubspot.url, **OAUTH))
    await hub_world.want(("opportunity", "hubs:1"))
    await hub_world.ask()
    assert hubspot.tokens_given == 1

    hubspot.revoke()
    await hub_world.want(("opportunity", "hubs:2"))
    await hub_world.ask()

    assert hubspot.tokens_given == 2
    assert await hub_world.waiting() == []
    # And with credentials that aren't right it says so, without repeating them.
    caplog.set_level(logging.DEBUG)
    wrong = OAUTH | {"client_secret": "guessed-secret-77"}
    hub_world.configure(source("hubspot", hubspot.url, **wrong))
    await hub_world.want(("opportunity", "hubs:3"))
    await hub_world.ask()
    (wish,) = await hub_world.waiting()
    assert wish.state == "failing"
    assert "Check client_id" in wish.problem
    shown = wish.problem + caplog.text + repr(hub_world.rereading.__dict__)
    assert "guessed-secret-77" not in shown
    assert crms.CLIENT_SECRET not in shown


async def test_a_replaced_refresh_token_is_followed(
    hub_world: World, hubspot: crms.HubSpot
) -> None:
    hubspot.refresh_token = "refresh-0"
    hub_world.configure(source("hubspot", hubspot.url, **OAUTH, refresh_token="refresh-0"))

    for number in ("1", "2", "3"):
        hubspot.revoke()
        await hub_world.want(("opportunity", f"hubs:{number}"))
        await hub_world.ask()

    assert await hub_world.waiting() == []
    assert hubspot.tokens_given == 3


LIMITS = [
    (429, {"Retry-After": "30"}),
    (429, {"RateLimit": "limit=100, remaining=0, reset=30"}),
    (429, {"x-ratelimit-reset": "30"}),
    (503, {"Retry-After": "30"}),
]


@pytest.mark.parametrize(("status", "headers"), LIMITS)
async def test_a_crm_that_wants_to_be_left_alone_is(
    hub_world: World, hubspot: crms.HubSpot, status: int, headers: dict[str, str]
) -> None:
    hubspot.faults.append(Response(status_code=status, headers=headers))
    await hub_world.want(("opportunity", "hubs:1"), ("opportunity", "hubs:2"))

    await hub_world.ask()
    await hub_world.want(("opportunity", "hubs:3"))
    await hub_world.ask()

    assert len(main(hubspot)) == 1
    wishes = await hub_world.waiting()
    assert [wish.attempts for wish in wishes] == [0, 0, 0]
    seconds = (wishes[0].next_at - at(hub_world.now_us())).total_seconds()
    assert 25 < seconds < 35
    hub_world.restart()  # a process that doesn't know of it, after a while
    hub_world.wait(40)
    await hub_world.ask()
    assert await hub_world.waiting() == []


async def test_the_last_free_request_is_followed_by_a_pause(
    hub_world: World, hubspot: crms.HubSpot
) -> None:
    results = {"results": [hub_deal("1")]}
    used_up = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "60"}
    hubspot.faults.append(JSONResponse({"results": []}))
    hubspot.faults.append(JSONResponse(results, headers=used_up))
    await hub_world.want(("opportunity", "hubs:1"))
    await hub_world.ask()

    await hub_world.want(("opportunity", "hubs:2"))
    await hub_world.ask()

    assert len(main(hubspot)) == 2
    (wish,) = await hub_world.waiting()
    assert wish.id == "hubs:2"


async def test_errors_of_the_crm_are_waited_out(hub_world: World, hubspot: crms.HubSpot) -> None:
    await hub_world.want(("opportunity", "hubs:1"))
    waits = []
    for attempt in range(4):
        hubspot.faults.append(Response("oh no", 500))
        await hub_world.ask()
        (wish,) = await hub_world.waiting()
        assert wish.attempts == attempt + 1
        assert "500: oh no" in wish.problem
        waits.append((wish.next_at - at(hub_world.now_us())).total_seconds())
        assert not await hub_world.ask()  # not before its time
        hub_world.wait(waits[-1] + 1)

    assert waits[3] > 2 * waits[0]
    await hub_world.ask()
    assert await hub_world.waiting() == []
    assert await hub_world.record("opportunity", "hubs:1") is not None


async def test_nobody_there_is_waited_out(hub_world: World) -> None:
    hub_world.configure(source("hubspot", "http://127.0.0.1:1"))
    await hub_world.want(("opportunity", "hubs:1"))

    await hub_world.ask()

    (wish,) = await hub_world.waiting()
    assert "no answer" in wish.problem


async def test_kafka_away_keeps_the_wish(hub_world: World) -> None:
    def away(_: int) -> None:
        raise PublishError("Kafka did not acknowledge")

    hub_world.topic.after = away
    await hub_world.want(("opportunity", "hubs:1"))
    await hub_world.rereading.run()

    (wish,) = await hub_world.waiting()
    assert "Kafka" in wish.problem


async def test_a_kill_between_publishing_and_removing_only_asks_again(hub_world: World) -> None:
    def kill(_: int) -> None:
        raise Killed

    hub_world.topic.after = kill
    await hub_world.want(("opportunity", "hubs:1"))
    with pytest.raises(Killed):
        await hub_world.rereading.run()
    (wish,) = await hub_world.waiting()
    assert wish.state == "asking"
    hub_world.topic.after = lambda _: None
    hub_world.restart()
    await hub_world.ask()
    assert len(hub_world.topic.states) == 1  # it is another's until the lease ends

    hub_world.wait(LEASE.total_seconds() + 1)
    await hub_world.ask()

    assert await hub_world.waiting() == []
    first, second = hub_world.topic.states
    assert first.body == second.body
    once = await hub_world.record("opportunity", "hubs:1")
    await hub_world.apply([first])
    again = await hub_world.record("opportunity", "hubs:1")
    assert once is not None
    assert again is not None
    assert (once.fields, once.version) == (again.fields, again.version)


async def test_workers_share_the_wishes(hub_world: World, hubspot: crms.HubSpot) -> None:
    await hub_world.want(*(("opportunity", f"hubs:{n}") for n in range(1, 180)))

    await asyncio.gather(*(hub_world.worker().run() for _ in range(3)))

    batches = [one.json for one in main(hubspot) if one.path.endswith("/batch/read")]
    asked = [each["id"] for batch in batches for each in batch["inputs"]]
    assert sorted(asked) == sorted(str(n) for n in range(1, 180))
    assert all(len(batch["inputs"]) <= 50 for batch in batches)
    assert await hub_world.waiting() == []


async def test_without_credentials_wishes_wait_visible_and_cost_nothing(
    hub_world: World, hubspot: crms.HubSpot
) -> None:
    hub_world.configure(msgspec.structs.replace(hub_world.source, api=None))
    await hub_world.want(("opportunity", "hubs:1"))

    assert not await hub_world.ask()
    await hub_world.rereading.want_metadata()

    assert hubspot.asked == []
    (wish,) = await hub_world.waiting()
    assert (wish.state, wish.attempts) == ("no-credentials", 0)
    hub_world.configure(source("hubspot", hubspot.url))
    await hub_world.ask()
    assert await hub_world.waiting() == []


async def test_an_overflow_is_read_in_pages_and_goes_on_after_a_kill(
    sf_world: World, salesforce: crms.Salesforce
) -> None:
    await sf_world.receive(sf_event("GAP_OVERFLOW", "000000000000000AAA"))
    sf_world.wait(6)

    def kill(published: int) -> None:
        if published == 2:
            raise Killed

    sf_world.topic.after = kill
    with pytest.raises(Killed):
        await sf_world.rereading.run()
    sf_world.topic.after = lambda _: None
    sf_world.restart()
    sf_world.wait(LEASE.total_seconds() + 1)
    await sf_world.ask()

    base = "/services/data/v62.0/"
    asked = [path.removeprefix(base) for path in salesforce.paths() if "sobjects" not in path]
    assert asked == ["queryAll", *["query/Opportunity-10"] * 2, "query/Opportunity-20"]
    assert await sf_world.waiting() == []
    for state in sf_world.topic.states:
        await sf_world.apply([state])
    for number in salesforce.objects["Opportunity"]:
        assert await sf_world.record("opportunity", f"sale:{number}") is not None


async def test_a_place_that_has_expired_is_begun_again(
    sf_world: World, salesforce: crms.Salesforce
) -> None:
    expired = JSONResponse([{"errorCode": "INVALID_QUERY_LOCATOR", "message": "x"}], 400)
    await sf_world.want(("opportunity", ""))
    fields, first = ("describe", "queryAll")

    def then_expired(published: int) -> None:
        if published == 1:
            salesforce.faults.append(expired)

    sf_world.topic.after = then_expired
    await sf_world.ask()
    (wish,) = await sf_world.waiting()
    assert "INVALID_QUERY_LOCATOR" in wish.problem
    sf_world.wait(60)
    await sf_world.ask()

    assert await sf_world.waiting() == []
    assert [path.rpartition("/")[2] for path in salesforce.paths()] == [
        *(fields, first, "Opportunity-10"),
        *(first, "Opportunity-10", "Opportunity-20"),
    ]


async def test_a_wish_that_is_renewed_while_it_is_asked_for_stays(
    hub_world: World, hubspot: crms.HubSpot
) -> None:
    await hub_world.want(("opportunity", "hubs:1"))
    later = hub_world.now_us() + 3600 * SECOND
    task = asyncio.create_task(hub_world.rereading.run())
    while not hubspot.asked:  # noqa: ASYNC110  # the stand-in has no event for it
        await asyncio.sleep(0.001)
    # By a request that came in after the question: what the answer has may be older.
    await hub_world.want(("opportunity", "hubs:1"), wanted=later)
    await task

    assert len(hub_world.topic.states) == 1
    (wish,) = await hub_world.waiting()
    assert (wish.id, wish.state, wish.problem) == ("hubs:1", "waiting", "")


async def test_what_the_log_of_events_has_is_not_asked_for_again(
    hub_world: World, hubspot: crms.HubSpot
) -> None:
    before = hub_world.now_us()
    await hub_world.want(("opportunity", "hubs:1"), ("opportunity", ""))
    await hub_world.ask()
    asked = len(hubspot.asked)

    # A rebuild reads the requests again that had wanted it, and the answers.
    await hub_world.want(("opportunity", "hubs:1"), ("opportunity", ""), wanted=before)
    await hub_world.ask()

    assert len(hubspot.asked) == asked
    assert await hub_world.waiting() == []


async def test_what_the_crm_says_is_gone_becomes_a_tombstone(
    hub_world: World, sf_world_of: Any
) -> None:
    await hub_world.receive([hub("deal.creation", 1, object_id=999)])
    hub_world.wait(6)
    await hub_world.ask()
    record = await hub_world.record("opportunity", "hubs:999")
    assert record is not None
    assert record.deleted
    assert await hub_world.waiting() == []

    gone, secret, never = (f"006xx000000099{n}AAA" for n in range(3))
    crm = crms.Salesforce(objects={"Opportunity": {gone: sf_deal(gone), secret: sf_deal(secret)}})
    crm.objects["Opportunity"][gone] |= {"IsDeleted": True}
    crm.hidden.add(secret)
    async with sf_world_of(crm) as world:
        await world.want(*(("opportunity", f"sale:{number}") for number in (gone, secret, never)))
        await world.ask()

        record = await world.record("opportunity", f"sale:{gone}")
        assert record is not None
        assert record.deleted
        # What only isn't shown to us may well be there: nothing is taken for deleted.
        assert await world.record("opportunity", f"sale:{secret}") is None
        wishes = await world.waiting()
        assert [wish.id for wish in wishes] == [f"sale:{secret}", f"sale:{never}"]
        assert "not shared" in wishes[0].problem


@pytest.fixture
def sf_world_of(new_database: Any, tmp_path: Path) -> Any:
    @asynccontextmanager
    async def make(crm: crms.Crm) -> AsyncIterator[World]:
        folder = tmp_path / "other"
        folder.mkdir()
        async with a_world(await new_database(), folder, crm, "salesforce") as world:
            yield world

    return make


async def test_a_record_that_spoils_its_batch_fails_alone(
    hub_world: World, hubspot: crms.HubSpot
) -> None:
    hubspot.poison = "13"
    await hub_world.want(*(("opportunity", f"hubs:{n}") for n in range(1, 41)))

    await hub_world.ask()

    (wish,) = await hub_world.waiting()
    assert wish.id == "hubs:13"
    assert "Invalid input JSON" in wish.problem
    for number in range(1, 41):
        if number != 13:
            assert await hub_world.record("opportunity", f"hubs:{number}") is not None


async def test_a_permission_that_is_missing_is_told_once(
    hub_world: World, hubspot: crms.HubSpot
) -> None:
    await hub_world.want(("opportunity", "hubs:1"), ("opportunity", "hubs:2"))
    hubspot.faults += [Response("missing scopes", 403)] * 2  # of the properties, and of the deals

    await hub_world.ask()

    assert len(main(hubspot)) == 2
    assert {wish.problem for wish in await hub_world.waiting()} == {"answered 403: missing scopes"}


async def test_types_that_cannot_be_asked_for_wait_with_the_reason(
    hub_world: World, hubspot: crms.HubSpot
) -> None:
    await hub_world.want(("x_boat", "hubs:1"), ("opportunity", "hubs:1"))

    await hub_world.ask()

    (wish,) = await hub_world.waiting()
    assert wish.type == "x_boat"
    assert "`types`" in wish.problem
    hubspot.objects["2-55"] = {"1": hub_deal("1")}
    hub_world.configure(msgspec.structs.replace(hub_world.source, types={"2-55": "x_boat"}))
    hub_world.wait(60)
    await hub_world.ask()
    assert await hub_world.waiting() == []
    assert await hub_world.record("x_boat", "hubs:1") is not None


async def test_what_cannot_be_read_waits_and_is_in_the_quarantine(
    hub_world: World, hubspot: crms.HubSpot
) -> None:
    hubspot.objects["0-3"]["1"] = hub_deal("1", createdate="soon")
    await hub_world.want(("opportunity", "hubs:1"), ("opportunity", "hubs:2"))

    await hub_world.ask()

    (wish,) = await hub_world.waiting()
    assert (wish.id, "quarantine" in wish.problem) == ("hubs:1", True)
    assert await hub_world.record("opportunity", "hubs:2") is not None


async def test_large_answers_are_cut_and_endless_ones_refused(
    hub_world: World, hubspot: crms.HubSpot
) -> None:
    for number in ("1", "2", "3", "4"):
        hubspot.objects["0-3"][number] = hub_deal(number, tier="x" * 900_000)
    await hub_world.want(*(("opportunity", f"hubs:{n}") for n in range(1, 5)))

    await hub_world.ask()

    assert len(hub_world.topic.states) == 4
    assert all(len(state.body) <= MAX_BODY_BYTES for state in hub_world.topic.states)
    assert await hub_world.waiting() == []

    hubspot.faults.append(Response(b"x" * (MAX_ANSWER_BYTES + 1)))
    await hub_world.want(("opportunity", "hubs:5"))
    await hub_world.ask()
    (wish,) = await hub_world.waiting()
    assert "bytes" in wish.problem


async def test_the_crms_own_stages_and_users_are_read_every_hour(
    hub_world: World, hubspot: crms.HubSpot
) -> None:
    stage = {
        "id": "done",
        "label": "Done",
        "displayOrder": 1,
        "metadata": {"isClosed": "true", "probability": "1.0"},
        "updatedAt": "2025-06-01T00:00:00Z",
    }
    hubspot.pipelines = [{"id": "p", "label": "P", "displayOrder": 0, "stages": [stage]}]
    hubspot.owners = [{"id": "5", "email": "jo@x.example", "updatedAt": "2025-06-01T00:00:00Z"}]
    await hub_world.receive([changed("dealstage", "done", 1, object_id=1)])

    for _ in range(3):
        await hub_world.rereading.want_metadata()
        await hub_world.ask()

    assert hubspot.paths().count("/crm/v3/pipelines/deals") == 1
    assert hubspot.paths().count("/crm/v3/owners") == 1
    assert await hub_world.record("user", "hubs:5") is not None
    deal = await hub_world.record("opportunity", "hubs:1")
    assert deal is not None
    assert deal.text("status") == "won"  # which only the CRM's own metadata says
    hub_world.wait(3700)
    await hub_world.rereading.want_metadata()
    await hub_world.ask()
    assert hubspot.paths().count("/crm/v3/owners") == 2


async def test_a_stage_by_its_id_is_found_among_all(
    hub_world: World, hubspot: crms.HubSpot
) -> None:
    hubspot.pipelines = [{"id": "p", "stages": [{"id": "done"}]}]
    await hub_world.want(("stage", "hubs:done"), ("stage", "hubs:gone"))

    await hub_world.ask()

    assert [wish.id for wish in await hub_world.waiting()] == ["hubs:gone"]


async def test_pipedrive_by_id_and_whole(new_database: Any, tmp_path: Path) -> None:
    def deal(number: int) -> Any:
        times = {"add_time": "2026-01-01T00:00:00Z", "update_time": "2026-01-02T00:00:00Z"}
        return {"id": number, "title": f"D{number}", "status": "open", **times}

    crm = crms.Pipedrive(
        objects={
            "v2/deals": {str(n): deal(n) for n in range(1, 8)},
            "v1/notes": {"5": {"id": 5, "content": "x", "update_time": "2026-01-02 00:00:00"}},
        },
        page_size=3,
    )
    async with a_world(await new_database(), tmp_path, crm, "pipedrive") as world:
        wanted = [("opportunity", "pipe:1"), ("opportunity", "pipe:99"), ("note", "pipe:5")]
        await world.want(*wanted, ("note", "pipe:6"))
        await world.ask()
        assert [wish.id for wish in await world.waiting()] == ["pipe:6", "pipe:99"]
        assert {one.query.get("ids") for one in crm.asked} >= {"1,99"}

        world.configure(source("pipedrive", crm.url, **OAUTH))
        await world.want(("opportunity", ""))
        await world.ask()
        for number in range(1, 8):
            assert await world.record("opportunity", f"pipe:{number}") is not None
        assert crm.tokens_given == 1


async def test_close_by_id_and_whole(new_database: Any, tmp_path: Path) -> None:
    def deal(number: str) -> Any:
        common = {"status_type": "active", "value": 100, "value_currency": "EUR"}
        return {"id": number, "date_updated": "2026-01-02T00:00:00+00:00", **common}

    crm = crms.Close(
        objects={"opportunity": {f"oppo_{n}": deal(f"oppo_{n}") for n in range(7)}}, page_size=4
    )
    async with a_world(await new_database(), tmp_path, crm, "close") as world:
        await world.want(("opportunity", "clos:oppo_1"), ("opportunity", "clos:oppo_99"))
        await world.ask()
        (wish,) = await world.waiting()
        assert (wish.id, "404" in wish.problem) == ("clos:oppo_99", True)

        await world.want(("opportunity", ""))
        await world.ask()
        for number in range(7):
            assert await world.record("opportunity", f"clos:oppo_{number}") is not None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://crm.example", "must be https"),
        ("ftp://127.0.0.1", "must be https"),
        ("https://jo@crm.example", "may not carry a user name"),
        ("https://", "needs a host"),
        ("http://[::1", "not a URL"),
    ],
)
async def test_only_https_is_spoken_but_to_this_machine(
    hub_world: World, url: str, words: str
) -> None:
    hub_world.configure(source("hubspot", url))
    await hub_world.want(("opportunity", "hubs:1"))

    await hub_world.ask()

    (wish,) = await hub_world.waiting()
    assert words in wish.problem


async def test_from_webhook_to_filled_record_and_what_can_be_seen_of_it(
    ingest_settings: Any, hubspot: crms.HubSpot
) -> None:
    settings, key = await ingest_settings()
    hubspot.pipelines, hubspot.owners = [], []
    async with crms.serving(hubspot) as url:
        entry = msgspec.to_builtins(source("hubspot", url)) | {"secrets": ["s"]}
        other = {"id": "other", "tenant": TENANT, "vendor": "hubspot", "secrets": ["s"]}
        settings.sources.write_text(json.dumps([entry, other]))
        async with running(settings, key) as ingest:
            client = ingest.client
            body = json.dumps([changed("amount", "50", 1, object_id=7)]).encode()
            stamp = str(int(time.time() * 1000))
            target = f"{settings.public_url}/v1/sources/hubs/events"
            headers = {
                "content-type": "application/json",
                "x-hubspot-request-timestamp": stamp,
                "x-hubspot-signature-v3": signature_v3("s", "POST", target, body, stamp),
            }
            sent = await client.post("/v1/sources/hubs/events", content=body, headers=headers)
            assert sent.status_code == 202, sent.text
            for number in ("1", "2"):
                ask = {"source": "other", "type": "opportunity", "id": f"other:{number}"}
                posted = await client.post("/v1/rereads", json=ask, headers=OPS)
                assert posted.json() == {"state": "no-credentials"}, posted.text

            def filled(found: dict[str, Any]) -> bool:
                deal = found.get("acme/opportunity/hubs:7")
                return deal is not None and deal.get("currency") == "EUR"

            await ingest.published(Record, filled, seconds=40)
            await ingest.eventually(
                "/v1/rereads",
                lambda answer: {one["source"] for one in answer.json()["counts"]} == {"other"},
                headers=OPS,
            )
            page = (await client.get("/v1/rereads?limit=1", headers=OPS)).json()
            assert [one["id"] for one in page["items"]] == ["other:1"]
            (count,) = page["counts"]
            assert (count["count"], count["state"], count["reason"]) == (
                2,
                "no-credentials",
                "manual",
            )
            further = f"/v1/rereads?limit=1&cursor={page['next']}"
            page = (await client.get(further, headers=OPS)).json()
            assert [one["id"] for one in page["items"]] == ["other:2"]
            gone = await client.delete("/v1/rereads/other/opportunity/other:2", headers=OPS)
            assert gone.status_code == 204
            again = await client.delete("/v1/rereads/other/opportunity/other:2", headers=OPS)
            assert again.status_code == 404
            rival = bearer("ops", tenant="rival")
            rep = bearer("rep", person="p")
            assert (await client.get("/v1/rereads", headers=rep)).status_code == 403
            theirs = (await client.get("/v1/rereads", headers=rival)).json()
            assert theirs == {"counts": [], "items": [], "next": None}
            metrics = (await client.get("/metrics")).text
            assert 'rereads_total{outcome="answered",vendor="hubspot"}' in metrics
            for bad in (
                {"source": "nobody", "type": "call"},
                {"source": "other", "type": "planet"},
                {"source": "other", "type": "call", "id": "elsewhere:1"},
                {"source": "other", "type": "call", "id": "other:\u0000"},
                {"source": "other"},
            ):
                refused = await client.post("/v1/rereads", json=bad, headers=OPS)
                assert 400 <= refused.status_code < 500, refused.text
                assert refused.json()["detail"]
