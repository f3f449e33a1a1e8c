"""A replica keeps the newest state of every key, and those who rely on it can't miss a change."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from pathlib import Path

import pytest
from sqlmodel import SQLModel

from kit.database import Database
from kit.replica import Replica, ReplicaEpochRow, ReplicaRow
from schemas.spm import Goal


class _Row(ReplicaRow, table=True):
    __tablename__ = "replica"
    metadata = SQLModel.metadata.__class__()


class _Epoch(ReplicaEpochRow, table=True):
    __tablename__ = "replica_epoch"
    metadata = _Row.metadata


def a_goal(version: int, target: int, tenant: str = "acme") -> Goal:
    return Goal(
        tenant=tenant,
        version=version,
        subject="person:ada",
        metric="calls_made",
        period="day:2026-11-02",
        target=Decimal(target),
    )


@pytest.fixture
async def database(new_database: Callable[[], Awaitable[str]]) -> AsyncIterator[Database]:
    database = Database(await new_database(), migrations=Path())
    async with database.engine.begin() as connection:
        await connection.run_sync(_Row.metadata.create_all)
    yield database
    await database.close()


async def targets(
    database: Database, replica: Replica[Goal], tenant: str = "acme"
) -> list[Decimal]:
    async with database.transaction() as transaction:
        return [goal.target for goal in await replica.load(transaction, tenant)]


async def test_only_a_newer_version_changes_anything(database: Database) -> None:
    replica = Replica(Goal)
    async with database.transaction() as transaction:
        assert await replica.store(transaction, [a_goal(2, 20)]) == [a_goal(2, 20)]
    async with database.transaction() as transaction:
        assert await replica.store(transaction, [a_goal(1, 10)]) == []
        assert await replica.store(transaction, [a_goal(2, 30)]) == []

    assert await targets(database, replica) == [20]
    assert await targets(database, replica, "another") == []


async def test_what_was_rolled_back_is_not_remembered(database: Database) -> None:
    replica = Replica(Goal)

    class Crash(Exception):  # noqa: N818
        pass

    async def crash() -> None:
        async with database.transaction() as transaction:
            await replica.store(transaction, [a_goal(1, 10)])
            assert [g.target for g in await replica.load(transaction, "acme")] == [10]
            raise Crash

    with pytest.raises(Crash):
        await crash()
    assert await targets(database, replica) == []

    async with database.transaction() as transaction:
        await replica.store(transaction, [a_goal(1, 99)])
    assert await targets(database, replica) == [99]


async def test_another_process_sees_the_change(database: Database) -> None:
    here, there = Replica(Goal), Replica(Goal)
    assert await targets(database, there) == []

    async with database.transaction() as transaction:
        await here.store(transaction, [a_goal(1, 10)])

    assert await targets(database, there) == [10]


async def test_a_change_waits_for_those_who_rely_on_the_old_state(database: Database) -> None:
    replica = Replica(Goal)
    order: list[str] = []

    async def change() -> None:
        async with database.transaction() as transaction:
            await replica.store(transaction, [a_goal(1, 10)])
            order.append("changed")

    async with database.transaction() as reader, database.transaction() as other_reader:
        await replica.share(reader, ["acme"])
        await replica.share(other_reader, ["acme"])
        changing = asyncio.create_task(change())
        await asyncio.sleep(0.2)
        order.append("relied")
    await changing

    assert order == ["relied", "changed"]


async def test_a_transaction_looks_again_after_a_lock_and_after_its_own_change(
    database: Database,
) -> None:
    """What has changed is asked once, for all topics, while nothing can have been waited for."""
    here, there = Replica(Goal), Replica(Goal)
    async with database.transaction() as reader:
        assert await here.load(reader, "acme") == []
        async with database.transaction() as transaction:
            await there.store(transaction, [a_goal(1, 10)])
        assert await here.load(reader, "acme") == []

        await here.share(reader, ["acme"])
        assert [goal.target for goal in await here.load(reader, "acme")] == [10]
        for lock in (reader.lock, reader.try_lock):
            reader.epochs["acme"] = {}
            await lock("anything")
            assert [goal.target for goal in await here.load(reader, "acme")] == [10]
        await here.store(reader, [a_goal(2, 20)])
        assert [goal.target for goal in await here.load(reader, "acme")] == [20]


async def test_who_remembers_less_takes_what_others_have_read(database: Database) -> None:
    """Not read again under the older name, which the next one would have to undo."""
    replica = Replica(Goal)
    async with database.transaction() as early:
        assert await replica.load(early, "acme") == []
        async with database.transaction() as transaction:
            await Replica(Goal).store(transaction, [a_goal(1, 10)])
        async with database.transaction() as late:
            newer = await replica.load(late, "acme")
        assert await replica.load(early, "acme") is newer
