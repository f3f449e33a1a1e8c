"""Which of the database's errors are worth another try."""

from collections.abc import AsyncIterator, Awaitable, Callable
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
    with pytest.raises(Exception) as raised:  # noqa: PT011  # SQLAlchemy's, of the rollback
        async with database.transaction() as transaction:
            await transaction.driver.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    assert is_transient(raised.value)


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
