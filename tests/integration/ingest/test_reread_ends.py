"""Every wish ends: with an answer, or parked with its reason where people see it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from starlette.responses import JSONResponse, Response

from schemas.crm import Record
from services.ingest.domain.facts import RELATION
from services.ingest.rereading import LAST_RETRY_SECONDS, PARKED_SECONDS
from services.ingest.store.rereads import PARKED_AFTER
from tests.integration.ingest.asking import World, a_world, hub_deal, main
from tests.support import crms
from tests.unit.ingest.bodies import changed, hub

HOUR = 3600.0
CONTACT, COMPANY, DEAL = "0-1", "0-2", "0-3"


@pytest.fixture
def hubspot() -> crms.HubSpot:
    deals = {str(n): hub_deal(str(n), deal_currency_code="EUR") for n in range(1, 20)}
    return crms.HubSpot(objects={DEAL: deals})


@pytest.fixture
async def world(new_database: Any, tmp_path: Path, hubspot: crms.HubSpot) -> AsyncIterator[World]:
    async with a_world(await new_database(), tmp_path, hubspot, "hubspot") as world:
        yield world


@pytest.fixture
def close() -> crms.Close:
    deal = {"id": "oppo_1", "date_updated": "2026-01-02T00:00:00+00:00", "value": 100}
    return crms.Close(objects={"opportunity": {"oppo_1": deal}})


@pytest.fixture
async def close_world(new_database: Any, tmp_path: Path, close: crms.Close) -> AsyncIterator[World]:
    async with a_world(await new_database(), tmp_path, close, "close") as world:
        yield world


async def deal(world: World, number: str) -> Record:
    record = await world.record("opportunity", f"hubs:{number}")
    assert record is not None
    return record


async def test_a_merged_record_is_known_as_such_and_its_survivor_read(
    world: World, hubspot: crms.HubSpot
) -> None:
    await world.receive([changed("amount", "50", 1, object_id=700)])  # nothing said of the merge
    hubspot.merged["700"] = "7"
    await world.want(("opportunity", "hubs:1"))
    world.wait(6)

    await world.ask()

    assert await world.waiting() == []
    merged = await deal(world, "700")
    assert (merged.deleted, merged.op) == (True, "merged")
    survivor = await deal(world, "7")
    assert not survivor.deleted
    # It inherits what it doesn't know itself.
    assert [survivor.text(name) for name in ("name", "amount")] == ["Deal 7", "50"]
    assert not (await deal(world, "1")).deleted


async def test_several_merged_records_and_their_survivors_in_one_batch(
    world: World, hubspot: crms.HubSpot
) -> None:
    hubspot.merged = {"700": "7", "701": "7", "800": "8"}
    numbers = ("700", "701", "7", "800", "1", "999")
    await world.want(*(("opportunity", f"hubs:{number}") for number in numbers))

    await world.ask()

    assert await world.waiting() == []
    gone = {number: (await deal(world, number)).deleted for number in (*numbers, "8")}
    assert [number for number in gone if gone[number]] == ["700", "701", "800", "999"]
    assert (await deal(world, "999")).op == "deleted"


async def test_a_merged_record_is_asked_for_once(world: World, hubspot: crms.HubSpot) -> None:
    hubspot.merged["700"] = "7"
    before = world.now_us()
    await world.want(("opportunity", "hubs:700"))
    await world.ask()
    asked = len(hubspot.asked)

    # As when a rebuild reads the request again that had wanted it, and the answer.
    await world.want(("opportunity", "hubs:700"), wanted=before)
    await world.ask()

    assert len(hubspot.asked) == asked
    assert await world.waiting() == []


async def test_what_the_crm_does_not_have_is_parked_in_the_end(
    close_world: World, close: crms.Close
) -> None:
    world = close_world
    await world.want(("opportunity", "clos:oppo_99"))
    for number in range(PARKED_AFTER):
        (wish,) = await world.waiting()
        assert wish.state == ("failing" if number else "waiting")
        await world.ask()
        world.wait(LAST_RETRY_SECONDS)

    (wish,) = await world.waiting()
    assert (wish.state, wish.attempts) == ("parked", PARKED_AFTER)
    assert "404" in wish.problem
    await world.rereading.measure()  # nobody has to be woken for it
    assert REGISTRY.get_sample_value("pacesetter_ingest_rereads_oldest_seconds") == 0
    assert REGISTRY.get_sample_value("pacesetter_ingest_rereads_waiting", {"reason": "gap"}) == 1
    world.wait(24 * HOUR)
    assert not await world.ask()
    assert (await world.waiting())[0].attempts == PARKED_AFTER

    # After a week it is looked for once more: it may have been shared with us.
    world.wait(PARKED_SECONDS)
    await world.ask()
    (wish,) = await world.waiting()
    assert (wish.state, wish.attempts) == ("parked", PARKED_AFTER + 1)
    deals = close.objects["opportunity"]
    deals["oppo_99"] = deals["oppo_1"] | {"id": "oppo_99"}
    world.wait(PARKED_SECONDS)
    await world.ask()
    assert await world.waiting() == []


async def test_an_event_that_speaks_of_it_wakes_what_is_parked(
    close_world: World, close: crms.Close
) -> None:
    world = close_world
    await world.want(("opportunity", "clos:oppo_99"))
    for _ in range(PARKED_AFTER):
        await world.ask()
        world.wait(LAST_RETRY_SECONDS)
    assert (await world.waiting())[0].state == "parked"

    await world.want(("opportunity", "clos:oppo_99"))
    (wish,) = await world.waiting()
    assert wish.state != "parked"
    asked = len(close.asked)
    await world.ask()

    assert len(close.asked) == asked + 1


async def test_a_crm_that_is_away_parks_nothing(world: World, hubspot: crms.HubSpot) -> None:
    await world.want(("opportunity", "hubs:1"))
    for _ in range(PARKED_AFTER + 3):
        hubspot.faults.append(Response("oh no", 500))
        await world.ask()
        world.wait(LAST_RETRY_SECONDS)
    refused = JSONResponse({"message": "missing scopes"}, 403)
    hubspot.faults += [refused, refused]  # of the properties, and of the deals
    await world.ask()

    (wish,) = await world.waiting()
    assert wish.state == "failing"
    world.wait(LAST_RETRY_SECONDS)
    await world.ask()
    assert await world.waiting() == []


async def test_what_cannot_be_read_is_not_put_aside_for_ever(
    world: World, hubspot: crms.HubSpot
) -> None:
    hubspot.objects[DEAL]["1"] = hub_deal("1", createdate="soon")
    await world.want(("opportunity", "hubs:1"))
    for _ in range(PARKED_AFTER + 5):
        await world.ask()
        world.wait(LAST_RETRY_SECONDS)

    (wish,) = await world.waiting()
    assert (wish.state, "quarantine" in wish.problem) == ("parked", True)
    assert len(world.topic.states) == PARKED_AFTER


def links(record: Record) -> dict[str, Any]:
    """Linked records by type and id, and whether they are the primary ones."""
    return {
        name.removeprefix(RELATION): field.value
        for name, field in record.fields.items()
        if name.startswith(RELATION) and field.state == "value"
    }


async def test_the_links_of_deals_are_read_with_them(world: World, hubspot: crms.HubSpot) -> None:
    hubspot.links = {
        (DEAL, "1", CONTACT): ["51", "52"],
        (DEAL, "1", COMPANY): ["60"],
        (DEAL, "2", CONTACT): ["53"],
    }
    await world.want(*(("opportunity", f"hubs:{number}") for number in (1, 2, 3)))

    await world.ask()

    assert await world.waiting() == []
    assert links(await deal(world, "1")) == {
        "contact.hubs:51": True,
        "contact.hubs:52": False,
        "account.hubs:60": True,
    }
    assert links(await deal(world, "2")) == {"contact.hubs:53": True}
    # That a deal has none is said as of an object that is gone, and isn't one.
    third = await deal(world, "3")
    assert (links(third), third.deleted) == ({}, False)
    assert third.text("name") == "Deal 3"


async def test_a_link_that_was_undone_since_stays_undone(
    world: World, hubspot: crms.HubSpot
) -> None:
    hubspot.links = {(DEAL, "1", CONTACT): ["51", "52"]}
    await world.want(("opportunity", "hubs:1"))
    await world.ask()
    world.wait(60)
    undone = hub(
        "deal.associationChange",
        0,
        occurredAt=world.now_us() // 1000,
        fromObjectId=1,
        toObjectId=51,
        associationType="DEAL_TO_CONTACT",
        associationRemoved=True,
    )

    await world.receive([undone])
    for state in world.topic.states:
        await world.apply([state])

    assert links(await deal(world, "1")) == {"contact.hubs:52": False}


async def test_without_the_scope_deals_are_read_without_links(
    world: World, hubspot: crms.HubSpot
) -> None:
    for number in (1, 2, 3):
        await world.want(("opportunity", f"hubs:{number}"))
        await world.ask()

    assert await world.waiting() == []
    assert len(hubspot.asked) - len(main(hubspot)) == 2  # once for each type that is linked


async def test_a_deal_whose_record_cannot_be_read_is_not_answered_by_its_links(
    world: World, hubspot: crms.HubSpot
) -> None:
    hubspot.links = {(DEAL, "1", CONTACT): ["51"]}
    hubspot.objects[DEAL]["1"] = hub_deal("1", createdate="soon")
    await world.want(("opportunity", "hubs:1"))

    await world.ask()

    (wish,) = await world.waiting()
    assert "quarantine" in wish.problem


async def test_links_that_a_limit_cuts_off_are_asked_for_again(
    world: World, hubspot: crms.HubSpot
) -> None:
    hubspot.links = {(DEAL, "1", CONTACT): ["51"]}
    hubspot.link_faults.append(Response(status_code=429, headers={"Retry-After": "30"}))
    await world.want(("opportunity", "hubs:1"))
    await world.ask()
    assert await world.record("opportunity", "hubs:1") is None

    world.restart()
    world.wait(40)
    await world.ask()

    assert await world.waiting() == []
    assert links(await deal(world, "1")) == {"contact.hubs:51": True}
