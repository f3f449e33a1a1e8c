"""`apply` on real PostgreSQL, without Kafka: order, repetition, concurrency, what it gives out."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from kit.consumer import Batch
from kit.database import Database
from kit.replica import Replica
from schemas.base import State
from schemas.crm import Discard, Received, Record
from schemas.directory import Entry, Person
from services.ingest import tables
from services.ingest.app import MIGRATIONS
from services.ingest.domain import merge
from services.ingest.gateway import Sources
from services.ingest.handlers import Handlers
from services.ingest.store import digest, events, quarantine
from services.ingest.store import records as store
from tests.support import TENANT
from tests.unit.ingest.bodies import (
    APP,
    HUB,
    PIPE,
    changed,
    cloud,
    hub,
    pipe,
    received,
    sources_yaml,
)

STRUCTURED = {"content-type": "application/cloudevents+json"}


class Store:
    """One database and what ingest does with it."""

    def __init__(self, database: Database, sources: Sources) -> None:
        self.database = database
        self.handlers = Handlers(sources, Replica(Entry))

    async def apply(self, *states: State) -> list[State]:
        async with self.database.transaction() as transaction:
            return list(await self.handlers.apply(transaction, Batch(states)))

    async def checksum(self) -> str:
        async with self.database.transaction() as transaction:
            return await digest.checksum(transaction)

    async def empty(self) -> None:
        async with self.database.transaction() as transaction:
            await transaction.driver.execute(
                "TRUNCATE record, event, reread, quarantine, replica, replica_epoch"
            )


@asynccontextmanager
async def a_store(url: str, folder: Path) -> AsyncIterator[Store]:
    path = folder / "sources.yaml"
    path.write_text(sources_yaml())
    sources = Sources(path)
    sources.load()
    database = Database(url, migrations=MIGRATIONS)
    await database.migrate()
    try:
        yield Store(database, sources)
    finally:
        await database.close()


@pytest.fixture
async def ingest_store(new_database: Any, tmp_path: Path) -> AsyncIterator[Store]:
    async with a_store(await new_database(), tmp_path) as found:
        yield found


def given_up(request: str, index: int) -> Discard:
    return Discard(
        tenant=TENANT, version=1, received=request, index=index, source="hub", reason="test"
    )


def history() -> list[State]:
    """A little of everything, of few records, with ties and contradictions."""
    numbers = itertools.count(1)

    def request(source: Any, body: Any, headers: dict[str, str] | None = None) -> Received:
        return received(source, body, number=f"r{next(numbers):03}", headers=headers)

    def of_hub(*events: Any) -> Received:
        return request(HUB, list(events))

    def of_pipe(*args: Any, **more: Any) -> Received:
        return request(PIPE, pipe(*args, **more))

    one: dict[str, Any] = {"object_id": 1}
    ask = {"id": 7, "title": "A", "value": 10, "status": "open", "stage_id": 1}
    won = ask | {"status": "won", "won_time": "2026-01-14T10:00:00Z"}
    merged: dict[str, Any] = {"primaryObjectId": 1, "mergedObjectIds": [2], "newObjectId": 1}
    return [
        of_hub(hub("deal.creation", 0, event=1, **one), changed("amount", "5", 1, **one)),
        of_hub(changed("amount", "6", 2, event=5, **one), changed("amount", "", 2, event=5, **one)),
        of_hub(changed("dealstage", "closedwon", 3, event=6, **one)),
        of_hub(changed("dealstage", "sent", 3, event=7, **one), changed("amount", "x", 4, **one)),
        of_hub(changed("closedate", "1772323200000", 1, event=10, **one)),
        of_hub(changed("closedate", "1774915200000", 3, event=11, **one)),
        of_hub(changed("closedate", "1772323200000", 4, event=12, **one)),
        of_hub(changed("closedate", "1777507200000", 4, event=13, **one)),
        of_hub(hub("deal.deletion", 5, event=8, **one), hub("deal.restore", 6, event=9, **one)),
        of_hub(hub("deal.merge", 7, **merged)),
        of_hub(changed("dealname", "Two", 9, event=3, object_id=2)),
        of_hub(
            hub("deal.privacyDeletion", 8, object_id=3), changed("dealname", "Z", 1, object_id=3)
        ),
        of_pipe("create", "deal", ask, timestamp=1768414610),
        of_pipe("change", "deal", won),
        of_pipe("delete", "deal", None, previous=ask, timestamp=1768414700),
        of_pipe("change", "activity", {"id": 9, "type": "call", "done": True}),
        of_pipe("change", "activity", {"id": 9, "type": "meeting"}, previous={"type": "call"}),
        request(PIPE, {"nonsense": True}),
        request(APP, cloud(status="won", amount="7", currency="EUR"), STRUCTURED),
        request(APP, cloud(number="e-2", status="lost"), STRUCTURED),
        given_up("r004", 1),
        Person(tenant=TENANT, version=1, id="p", name="Old"),
        Person(tenant=TENANT, version=2, id="p", name="New"),
    ]


async def test_any_order_repetition_and_cut_gives_the_same_tables(ingest_store: Store) -> None:
    chance = random.Random(7)
    sums = set()
    for round_number in range(12):
        await ingest_store.empty()
        states = history()
        if round_number:
            states += chance.sample(states, len(states) // 2)
            chance.shuffle(states)
        while states:
            size = chance.randint(1, len(states))
            await ingest_store.apply(*_newest(states[:size]))
            states = states[size:]
        sums.add(await ingest_store.checksum())

    assert len(sums) == 1


def _newest(states: Sequence[State]) -> list[State]:
    """As the consumer cuts batches: at most one state per key, the newest."""
    kept: dict[str, State] = {}
    for state in states:
        if state.key not in kept or kept[state.key].version < state.version:
            kept[state.key] = state
    return list(kept.values())


async def test_workers_at_once_lose_nothing_and_do_not_deadlock(ingest_store: Store) -> None:
    chance = random.Random(3)

    def event(number: int) -> Any:
        name, at, deal = f"p{chance.randint(0, 4)}", chance.randint(0, 50), chance.randint(1, 30)
        return changed(name, str(number), at, event=number, object_id=deal)

    requests = [
        received(HUB, [event(n * 20 + k) for k in range(15)], number=f"r{n:03}") for n in range(60)
    ]
    await ingest_store.apply(*requests)
    expected = await ingest_store.checksum()
    await ingest_store.empty()

    async def worker(share: list[Received]) -> None:
        for at in range(0, len(share), 4):
            await ingest_store.apply(*share[at : at + 4])

    await asyncio.gather(worker(requests[::2]), worker(requests[1::2]), worker(requests[::3]))

    assert await ingest_store.checksum() == expected


async def test_it_gives_out_every_key_touched_whether_changed_or_not(ingest_store: Store) -> None:
    request = received(HUB, [changed("amount", "5", 1, object_id=1)])

    (first,) = await ingest_store.apply(request)
    (again,) = await ingest_store.apply(request)
    (late,) = await ingest_store.apply(received(HUB, [changed("amount", "4", 0, object_id=1)]))
    (newer,) = await ingest_store.apply(
        received(HUB, [changed("amount", "6", 2, object_id=1)], number="r2")
    )

    assert first == again == late
    assert isinstance(newer, Record)
    assert newer.version > first.version
    assert (newer.changed, newer.received) == (["amount"], "r2")


async def test_requests_without_facts_and_entries_give_out_nothing(ingest_store: Store) -> None:
    person = Person(tenant=TENANT, version=1, id="p", name="Jo")

    assert await ingest_store.apply(received(HUB, []), person) == []
    assert await ingest_store.apply(received(HUB, [hub("conversation.creation", 0)])) == []


async def test_a_request_read_again_is_quarantined_once(ingest_store: Store) -> None:
    bad = received(HUB, [changed("amount", "x", 1), changed("amount", "y", 1)])

    await ingest_store.apply(bad)
    await ingest_store.apply(bad)

    async with ingest_store.database.transaction() as transaction:
        items = await quarantine.quarantined(transaction, TENANT, limit=10)
    assert [item.index for item in items] == [0, 1]


async def put_aside(ingest_store: Store) -> list[int]:
    async with ingest_store.database.transaction() as transaction:
        items = await quarantine.quarantined(transaction, TENANT, limit=100)
    return [item.index for item in items]


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 1, 0), (1, 0, 1, 0)])
async def test_an_item_that_is_given_up_stays_away(
    ingest_store: Store, order: tuple[int, ...]
) -> None:
    bad = received(HUB, [changed("amount", "x", 1), changed("amount", "y", 1)], number="r1")
    states = bad, given_up("r1", 1)

    for one in order:
        await ingest_store.apply(states[one])

    assert await put_aside(ingest_store) == [0]


async def test_an_item_that_is_given_up_while_it_comes_in_stays_away(ingest_store: Store) -> None:
    for n in range(30):
        bad = received(HUB, [changed("amount", "x", 1)], number=f"r{n}")
        decision = given_up(bad.id, 0)
        await asyncio.gather(*map(ingest_store.apply, (bad, decision, bad)))

    assert await put_aside(ingest_store) == []


async def test_tenants_do_not_meet(ingest_store: Store) -> None:
    other = received(HUB, [changed("amount", "9", 9, object_id=1)])
    other = type(other)(**{**_fields(other), "tenant": "rival"})

    await ingest_store.apply(received(HUB, [changed("amount", "5", 1, object_id=1)]), other)

    async with ingest_store.database.transaction() as transaction:
        mine = await store.find_record(transaction, TENANT, "opportunity", "hub:1")
        theirs = await store.find_record(transaction, "rival", "opportunity", "hub:1")
    assert mine is not None
    assert theirs is not None
    assert (mine.get("amount"), theirs.get("amount")) == ("5", "9")


async def test_every_fact_leaves_one_event_however_often_it_is_read(ingest_store: Store) -> None:
    one = received(HUB, [changed("amount", "5", 1), changed("amount", "x", 2)], number="r1")
    twin = received(HUB, [changed("amount", "5", 1)], number="r2")
    other = received(HUB, [changed("amount", "6", 1)], number="r3")

    for request in (one, twin, other, one, twin):
        await ingest_store.apply(request)

    async with ingest_store.database.transaction() as transaction:
        found = await events.of_record(
            transaction, TENANT, "opportunity", ["hub:21678228008"], limit=10
        )
    assert sorted((event.received, event.index) for event in found) == [
        ("r1", 0),
        ("r2", 0),
        ("r3", 0),
    ]
    by_request = {event.received: event for event in found}
    assert by_request["r1"].uid == by_request["r2"].uid == by_request["r3"].uid
    assert by_request["r1"].digest == by_request["r2"].digest
    assert by_request["r1"].digest != by_request["r3"].digest  # same event id, another content


async def test_the_survivor_of_a_merge_inherits_what_it_does_not_know(ingest_store: Store) -> None:
    """Whatever comes first: what is known of the merged record, the merge, or the survivor."""
    merged: dict[str, Any] = {"primaryObjectId": 1, "mergedObjectIds": [2], "newObjectId": 1}
    said = [
        [changed("dealname", "One", 1, event=1, object_id=1)],
        [changed("dealname", "Two", 5, event=2, object_id=2)],
        [changed("amount", "7", 5, event=3, object_id=2)],
        [changed("amount", "8", 6, event=4, object_id=2)],
        [hub("deal.merge", 9, event=5, **merged)],
    ]
    for order in itertools.permutations(range(len(said))):
        await ingest_store.empty()
        for number in order:
            await ingest_store.apply(received(HUB, said[number], number=f"r{number}"))
        async with ingest_store.database.transaction() as transaction:
            one = await store.find_record(transaction, TENANT, "opportunity", "hub:1")
            two = await store.find_record(transaction, TENANT, "opportunity", "hub:2")
        assert one is not None
        assert two is not None
        assert (one.get("name"), one.get("amount"), one.deleted) == ("One", "8", False), order
        assert two.deleted
        assert merge.merged_from(one.fields) == ["hub:2"]


async def in_any_order(ingest_store: Store, said: list[Any]) -> AsyncIterator[None]:
    """Once per permutation: these requests of HubSpot, applied to an empty store."""
    for order in itertools.permutations(range(len(said))):
        await ingest_store.empty()
        for number in order:
            await ingest_store.apply(received(HUB, said[number], number=f"r{number}"))
        yield


async def deal(ingest_store: Store, number: str) -> Record:
    async with ingest_store.database.transaction() as transaction:
        found = await store.find_record(transaction, TENANT, "opportunity", number)
    assert found is not None
    return found


async def test_a_merge_of_a_merge_is_inherited_through(ingest_store: Store) -> None:
    def merged(kept: int, gone: int, at: int) -> Any:
        ids = {"primaryObjectId": kept, "mergedObjectIds": [gone], "newObjectId": kept}
        return hub("deal.merge", at, event=at, object_id=kept, **ids)

    said = [
        [changed("amount", "7", 1, event=1, object_id=1)],
        [merged(2, 1, 5)],
        [merged(3, 2, 6)],
        [changed("dealname", "Three", 2, event=2, object_id=3)],
    ]
    async for _ in in_any_order(ingest_store, said):
        three = await deal(ingest_store, "hub:3")
        assert (three.get("name"), three.get("amount")) == ("Three", "7")
        assert (await deal(ingest_store, "hub:1")).deleted
        assert (await deal(ingest_store, "hub:2")).deleted


async def test_what_is_erased_is_erased_in_the_survivor_too(ingest_store: Store) -> None:
    merged: dict[str, Any] = {"primaryObjectId": 2, "mergedObjectIds": [1], "newObjectId": 2}
    said = [
        [changed("dealname", "Secret", 1, event=1, object_id=1)],
        [hub("deal.merge", 5, event=2, **merged)],
        [hub("deal.privacyDeletion", 9, event=3, object_id=1)],
    ]
    async for _ in in_any_order(ingest_store, said):
        for number in ("hub:1", "hub:2"):
            assert b"Secret" not in (await deal(ingest_store, number)).encode()


def _fields(received: Received) -> dict[str, Any]:
    return {name: getattr(received, name) for name in received.__struct_fields__}


async def test_tables_and_migrations_agree(ingest_store: Store) -> None:
    def differences(connection: Connection) -> list[Any]:
        options = {
            "include_schemas": True,
            "include_name": lambda name, *_: name != "alembic_version",
        }
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, tables.METADATA))

    async with ingest_store.database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []
