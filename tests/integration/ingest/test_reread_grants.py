"""What a CRM gives for a refresh token is used by every process, and by those that come after."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import text
from starlette.responses import Response
from structlog.testing import capture_logs

from kit.consumer import Batch
from schemas.crm import SourceState
from services.ingest.domain.sealing import Seal
from services.ingest.store import grants
from tests.integration.ingest.asking import OAUTH, World, a_world, hub_deal, source
from tests.support import TENANT, crms


@pytest.fixture
def crm() -> crms.HubSpot:
    """A CRM that replaces its refresh tokens: each is good once."""
    deals = {str(n): hub_deal(str(n), deal_currency_code="EUR") for n in range(1, 200)}
    return crms.HubSpot(objects={"0-3": deals}, refresh_token="first")


@pytest.fixture
async def world(new_database: Any, tmp_path: Path, crm: crms.HubSpot) -> AsyncIterator[World]:
    seal = Seal([Fernet.generate_key().decode()])
    async with a_world(await new_database(), tmp_path, crm, "hubspot", seal) as world:
        configure(world, crm, "first")
        yield world


def configure(world: World, crm: crms.HubSpot, refresh_token: str) -> None:
    world.configure(source("hubspot", crm.url, **OAUTH, refresh_token=refresh_token))


async def ask(world: World, number: int) -> None:
    await world.want(("opportunity", f"hubs:{number}"))
    await world.ask()


async def stored(world: World) -> list[Any]:
    async with world.database.engine.connect() as connection:
        found = await connection.execute(text("SELECT * FROM credentials.crm_grant"))
        return [tuple(row) for row in found]


async def test_a_replaced_refresh_token_outlives_the_process(
    world: World, crm: crms.HubSpot
) -> None:
    await ask(world, 1)
    for number in (2, 3):
        world.restart()
        crm.revoke()
        await ask(world, number)

    assert await world.waiting() == []
    assert crm.tokens_given == 3
    world.restart()  # and while the access token is good, there is nothing to be asked for
    await ask(world, 4)
    assert await world.waiting() == []
    assert crm.tokens_given == 3


async def test_it_outlives_a_rebuild_of_the_store(world: World, crm: crms.HubSpot) -> None:
    await ask(world, 1)

    await world.database.drop()
    await world.database.migrate()
    world.restart()
    crm.revoke()
    await ask(world, 2)

    assert await world.waiting() == []


async def test_it_goes_with_its_source(world: World) -> None:
    await ask(world, 1)
    of_file = await stored(world)
    async with world.database.transaction() as transaction:
        await grants.keep(transaction, TENANT, "by-api", "configured", "sealed:x")
    assert len(await stored(world)) == len(of_file) + 1 == 2

    removed = [
        SourceState(tenant=TENANT, version=9, id=name, settings={"vendor": "hubspot"}, deleted=True)
        for name in ("by-api", world.source.id)  # the file goes on having this one
    ]
    async with world.database.transaction() as transaction:
        await world.handlers.apply(transaction, Batch(removed))
    assert await stored(world) == of_file


async def test_a_token_that_is_configured_anew_wins(world: World, crm: crms.HubSpot) -> None:
    await ask(world, 1)
    crm.refresh_token = "given-by-hand"  # and what it gave before is void
    crm.revoke()
    configure(world, crm, "given-by-hand")

    for number in (2, 3):
        world.restart()
        await ask(world, number)
        crm.revoke()

    assert await world.waiting() == []
    assert crm.tokens_given == 3


async def test_another_secret_of_the_client_goes_on_with_it(
    world: World, crm: crms.HubSpot, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask(world, 1)
    crm.revoke()
    monkeypatch.setattr(crms, "CLIENT_SECRET", "client-secret-1")
    changed = OAUTH | {"client_secret": "client-secret-1"}
    world.configure(source("hubspot", crm.url, **changed, refresh_token="first"))

    await ask(world, 2)

    assert await world.waiting() == []


async def test_of_several_processes_one_asks_and_the_others_use_what_it_got(
    world: World, crm: crms.HubSpot
) -> None:
    workers = [world.worker() for _ in range(4)]
    for turn in range(3):
        crm.revoke()
        first = 1 + turn * 60
        await world.want(*(("opportunity", f"hubs:{n}") for n in range(first, first + 60)))
        await asyncio.gather(*(worker.run() for worker in workers))
        assert await world.waiting() == []
        assert crm.tokens_given == turn + 1


async def test_a_process_that_was_idle_passes_over_what_another_got_and_has_ended(
    world: World, crm: crms.HubSpot
) -> None:
    idle, busy = world.worker(), world.worker()
    for number, worker in ((1, idle), (2, busy), (3, idle)):
        await world.want(("opportunity", f"hubs:{number}"))
        await worker.run()
        crm.revoke()

    assert await world.waiting() == []
    assert crm.tokens_given == 3


async def test_a_new_token_that_is_refused_is_final(world: World, crm: crms.HubSpot) -> None:
    crm.takes_tokens = False
    await ask(world, 1)

    (wish,) = await world.waiting()
    assert "401" in wish.problem
    assert crm.tokens_given == 2  # the first, and once more


async def test_nothing_of_it_can_be_read_in_the_store(world: World, crm: crms.HubSpot) -> None:
    await ask(world, 1)

    (row,) = await stored(world)
    assert row[-1].startswith("sealed:")
    for secret in ("first", crm.refresh_token, crm.token):
        assert secret not in repr(row)


async def test_without_the_key_it_was_sealed_with_only_a_new_token_helps(
    world: World, crm: crms.HubSpot
) -> None:
    await ask(world, 1)
    crm.revoke()
    world.sources.seal = Seal([Fernet.generate_key().decode()])
    world.restart()

    await ask(world, 2)

    (wish,) = await world.waiting()
    assert "INGEST_SECRETS_KEY" in wish.problem
    assert crm.tokens_given == 1  # nothing was tried that could have spoiled it
    crm.refresh_token = "given-by-hand"
    configure(world, crm, "given-by-hand")
    world.wait(60)
    await world.ask()
    assert await world.waiting() == []


async def test_without_keys_it_is_in_memory_and_that_is_said_once(
    world: World, crm: crms.HubSpot
) -> None:
    world.sources.seal = Seal()
    world.restart()
    with capture_logs() as logs:
        for number in (1, 2, 3):
            crm.revoke()
            await ask(world, number)

    assert await world.waiting() == []
    (said,) = [one for one in logs if one["event"] == "refresh_token_not_kept"]
    assert "INGEST_SECRETS_KEY" in said["reason"]
    assert await stored(world) == []
    world.restart()
    await ask(world, 4)
    (wish,) = await world.waiting()
    assert "Check client_id" in wish.problem


async def test_a_store_that_fails_after_the_answer_loses_nothing_of_it(
    world: World, crm: crms.HubSpot, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        raise OSError("the database is away")

    await ask(world, 1)
    crm.revoke()
    with monkeypatch.context() as patched:
        patched.setattr(grants, "keep", fail)
        with pytest.raises(OSError, match="away"):
            await ask(world, 2)
    crm.revoke()
    world.wait(600)

    await ask(world, 3)  # with what it has in memory, which is newer than what is stored

    assert await world.waiting() == []
    world.restart()
    crm.revoke()
    await ask(world, 4)
    assert await world.waiting() == []


async def test_a_token_that_the_crm_refuses_is_told_without_it(
    world: World, crm: crms.HubSpot
) -> None:
    await ask(world, 1)
    lost = crm.refresh_token
    crm.refresh_token = "another"
    crm.revoke()
    world.restart()

    await ask(world, 2)

    (wish,) = await world.waiting()
    assert "invalid_grant" in wish.problem
    assert lost not in wish.problem


async def test_a_limit_on_tokens_is_kept_to(world: World, crm: crms.HubSpot) -> None:
    crm.token_faults.append(Response(status_code=429, headers={"Retry-After": "30"}))

    await ask(world, 1)

    (wish,) = await world.waiting()
    assert wish.attempts == 0
    world.restart()
    world.wait(40)
    await world.ask()
    assert await world.waiting() == []
