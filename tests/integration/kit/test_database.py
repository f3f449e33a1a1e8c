"""Transactions, and which of the database's errors are worth another try."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from kit.database import Database, columns, is_transient


@pytest.fixture
async def database(
    new_database: Callable[[], Awaitable[str]], tmp_path: Path
) -> AsyncIterator[Database]:
    database = Database(await new_database(), migrations=tmp_path)
    yield database
    await database.close()


@pytest.mark.parametrize(
    ("kind", "value"),
    [("bigint", 2**63), ("text", "\0"), ("text", "\ud800"), ("text", 5), ("int", 2**31)],
)
async def test_a_value_that_a_column_cannot_hold_is_not_tried_again(
    database: Database, kind: str, value: object
) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011  # any: its class is what is asked about
        async with database.transaction() as transaction:
            await transaction.driver.fetchval(f"SELECT $1::{kind}", value)

    assert not is_transient(raised.value)


async def test_a_lost_connection_is_tried_again(database: Database) -> None:
    with pytest.raises(asyncpg.exceptions.PostgresError) as raised:
        async with database.transaction() as transaction:
            await transaction.driver.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    assert is_transient(raised.value)


async def test_connections_that_died_in_the_pool_are_replaced(database: Database) -> None:
    async with AsyncExitStack() as stack:  # so many are in the pool then
        for _ in range(3):
            await stack.enter_async_context(database.transaction())

    async with database.transaction() as transaction:
        others = await transaction.driver.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert others == 2
    await database.ping()  # readiness, too

    async with AsyncExitStack() as stack:
        for _ in range(3):
            transaction = await stack.enter_async_context(database.transaction())
            assert await transaction.driver.fetchval("SELECT 1") == 1


async def test_an_error_takes_everything_back(database: Database) -> None:
    with pytest.raises(asyncpg.exceptions.DivisionByZeroError):
        async with database.transaction() as transaction:
            await transaction.driver.execute("CREATE TABLE t (); SELECT 1 / 0")

    async with database.transaction() as transaction:
        assert await transaction.driver.fetchval("SELECT to_regclass('t')") is None


async def test_a_cancelled_statement_leaves_no_transaction_in_the_pool(database: Database) -> None:
    async def sleep() -> None:
        async with database.transaction() as transaction:
            await transaction.driver.execute("CREATE TABLE t ()")
            await transaction.driver.execute("SELECT pg_sleep(60)")

    for _ in range(5):
        sleeping = asyncio.create_task(sleep())
        await asyncio.sleep(0.05)
        sleeping.cancel()
        await asyncio.wait([sleeping])
        assert sleeping.cancelled()

    async with database.transaction() as transaction:
        assert await transaction.driver.fetchval("SELECT to_regclass('t')") is None
        open_ones = await transaction.driver.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND state <> 'idle' AND pid <> pg_backend_pid()"
        )
    assert open_ones == 0


async def test_a_snapshot_sees_one_instant(database: Database) -> None:
    async with database.transaction() as transaction:
        await transaction.driver.execute("CREATE TABLE t (n int)")

    async with database.transaction(snapshot=True) as reading:
        assert await reading.driver.fetchval("SELECT count(*) FROM t") == 0
        async with database.transaction() as writing:
            await writing.driver.execute("INSERT INTO t VALUES (1)")
        assert await reading.driver.fetchval("SELECT count(*) FROM t") == 0


async def test_a_server_that_has_become_a_standby_is_tried_again(database: Database) -> None:
    with pytest.raises(asyncpg.exceptions.PostgresError) as raised:
        async with database.transaction() as transaction:
            await transaction.driver.execute("SET TRANSACTION READ ONLY; CREATE TABLE t ()")

    assert is_transient(raised.value)


def test_a_pool_without_a_free_connection_is_tried_again() -> None:
    assert is_transient(PoolTimeoutError("QueuePool limit reached"))


def test_no_rows_are_as_many_empty_columns() -> None:
    assert columns([], 2) == [[], []]
    assert columns([(1, "a"), (2, "b")], 2) == [[1, 2], ["a", "b"]]
