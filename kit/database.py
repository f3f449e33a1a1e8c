"""PostgreSQL: one engine per process, one transaction per unit of work, migrations at start.

`Database.transaction()` holds the only commit in the repository. It gives a `Transaction` on the
bare asyncpg connection, for set-based statements (`unnest` arrays; an order of magnitude faster
than an ORM's). SQLAlchemy keeps the pool, SQLModel and Alembic the tables.
"""

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import structlog
from alembic import command
from alembic.config import Config
from asyncpg.exceptions import InterfaceError, PostgresError
from asyncpg.transaction import Transaction as AsyncpgTransaction
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from kit import telemetry

log = structlog.get_logger(__name__)

POOL_SIZE = 10  # connections per process: one consumer, a few jobs, some readers
LOCK_POLL_SECONDS = 0.2
MIGRATION_WAIT_SECONDS = 120.0

# SQLSTATE classes and codes after which the same transaction may succeed: connection (08),
# a server that has become a standby, transaction rollback (40), resources (53), lock not available,
# shutdown or start-up, and input or output of the server's own (58).
_TRANSIENT_STATES = ("08", "25006", "40", "53", "55P03", "57P01", "57P02", "57P03", "58")


@dataclass(frozen=True, slots=True)
class Transaction:
    """An open transaction; committed by its owner.

    `epochs` is what `kit.replica` has read in it, by tenant and topic; after a lock it reads again.
    """

    driver: asyncpg.Connection
    epochs: dict[str, dict[str, str]] = field(default_factory=dict)

    async def lock(self, name: str) -> None:
        """Wait to be alone with `name` until the end of the transaction."""
        await self.driver.execute("SELECT pg_advisory_xact_lock($1, $2)", *_lock_id(name))
        self.epochs.clear()

    async def lock_shared(self, names: Iterable[str]) -> None:
        """Wait until nobody is alone with any of `names`; many may share them."""
        # By name, as those do who take several alone.
        ids = [_lock_id(name) for name in sorted(set(names))]
        if ids:
            await self.driver.execute(
                "SELECT pg_advisory_xact_lock_shared(a, b)"
                " FROM unnest($1::int[], $2::int[]) AS n (a, b)",
                *columns(ids, 2),
            )
            self.epochs.clear()

    async def try_lock(self, name: str) -> bool:
        """Take `name` until the end of the transaction if nobody has it."""
        taken = await self.driver.fetchval(
            "SELECT pg_try_advisory_xact_lock($1, $2)", *_lock_id(name)
        )
        self.epochs.clear()
        return bool(taken)


def _lock_id(name: str) -> tuple[int, int]:
    """Two signed 32-bit numbers; a collision only makes two names wait for each other."""
    data = name.encode()
    return zlib.crc32(data) - 2**31, zlib.adler32(data) - 2**31


class Database:
    """One service's PostgreSQL database."""

    def __init__(self, url: str, *, migrations: Path) -> None:
        self._url = url
        self._migrations = migrations
        self.engine: AsyncEngine = create_async_engine(
            _async_url(url), pool_size=POOL_SIZE, max_overflow=POOL_SIZE
        )
        pool: Any = self.engine.pool
        telemetry.DATABASE_CONNECTIONS.set_function(pool.checkedout)

    @contextlib.asynccontextmanager
    async def transaction(self, *, snapshot: bool = False) -> AsyncIterator[Transaction]:
        """Everything inside happens, or nothing does; a `snapshot` sees one instant throughout."""
        connection, driver, begun = await self._begin("repeatable_read" if snapshot else None)
        try:
            yield Transaction(driver)
        except BaseException:
            await _roll_back(connection, begun)
            raise
        else:
            await _commit(connection, begun)
        finally:
            await connection.close()

    async def _begin(
        self, isolation: str | None
    ) -> tuple[AsyncConnection, asyncpg.Connection, AsyncpgTransaction]:
        """A pooled connection with a transaction just begun on it.

        BEGIN itself shows whether a connection has died in the pool: asking it before, as
        SQLAlchemy's `pool_pre_ping` does, takes three round trips more.
        """
        for left in reversed(range(2 * POOL_SIZE + 1)):
            connection = await self.engine.connect()
            try:
                raw = await connection.get_raw_connection()
                driver = raw.driver_connection
                assert driver is not None
                begun = driver.transaction(isolation=isolation)
                await begun.start()
            except BaseException as error:
                await connection.invalidate()
                await connection.close()
                # Any error: asyncpg has several for a connection that was ended while idle.
                if not left or not isinstance(error, Exception):
                    raise
            else:
                return connection, driver, begun
        raise AssertionError  # the last attempt returns or raises

    async def migrate(self) -> None:
        """Bring the schema to the newest revision; many processes may call this at once."""
        async with asyncio.timeout(MIGRATION_WAIT_SECONDS), self.engine.connect() as connection:
            # Polling, because a blocking advisory lock and CREATE INDEX CONCURRENTLY wait for
            # each other for ever without PostgreSQL noticing.
            while not await connection.scalar(  # noqa: ASYNC110  # another process holds it
                text("SELECT pg_try_advisory_lock(7077)")
            ):
                await asyncio.sleep(LOCK_POLL_SECONDS)
            await connection.commit()
            try:
                await connection.run_sync(self._upgrade)
            finally:
                await connection.execute(text("SELECT pg_advisory_unlock(7077)"))
                await connection.commit()

    def _upgrade(self, connection: Connection) -> None:
        command.upgrade(alembic_config(self._migrations, connection), "head")

    async def drop(self, *, keep_as: str = "") -> None:
        """Remove everything in the store, its history included, or keep it as another schema."""
        gone = "DROP SCHEMA public CASCADE"
        if keep_as:
            gone = f'ALTER SCHEMA public RENAME TO "{keep_as}"'
        async with self.engine.begin() as connection:
            await connection.execute(text(gone))
            await connection.execute(text("CREATE SCHEMA public"))

    async def ping(self) -> None:
        """Raise when the database doesn't answer."""
        async with self.transaction():  # which passes over connections that died in the pool
            pass

    async def close(self) -> None:
        """Close all connections."""
        await self.engine.dispose()


async def _commit(connection: AsyncConnection, begun: AsyncpgTransaction) -> None:
    try:
        await begun.commit()
    except BaseException:
        await connection.invalidate()  # nobody knows what became of it
        raise


async def _roll_back(connection: AsyncConnection, begun: AsyncpgTransaction) -> None:
    try:
        await begun.rollback()
    except Exception:  # noqa: BLE001  # what it is rolled back for is what counts
        await connection.invalidate()
    except BaseException:
        await connection.invalidate()  # not into the pool with a transaction open
        raise


def alembic_config(migrations: Path, connection: Connection) -> Config:
    """Alembic for one service's `migrations/` folder on an open connection."""
    config = Config()
    config.set_main_option("script_location", str(migrations))
    config.attributes["connection"] = connection
    return config


def run_migrations(context: Any) -> None:
    """The body of every service's `migrations/env.py`: one transaction per migration."""
    connection: Connection = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=context.config.attributes.get("metadata"),
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()


def columns(rows: Iterable[Sequence[Any]], width: int) -> list[list[Any]]:
    """Rows as the columns that `unnest` takes; so many empty ones when there are no rows."""
    found = [list(column) for column in zip(*rows, strict=True)]
    return found or [[] for _ in range(width)]


def is_transient(error: BaseException) -> bool:
    """Whether the same work may succeed when tried again: connections, deadlocks, restarts."""
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return True
        state = getattr(error.orig, "sqlstate", None) or ""
        return state.startswith(_TRANSIENT_STATES) or isinstance(error.orig, InterfaceError)
    if isinstance(error, PostgresError):
        return (getattr(error, "sqlstate", None) or "").startswith(_TRANSIENT_STATES)
    return isinstance(error, InterfaceError | OSError | TimeoutError | PoolTimeoutError)


def _async_url(url: str) -> str:
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            return "postgresql+asyncpg://" + url.removeprefix(scheme)
    return url
