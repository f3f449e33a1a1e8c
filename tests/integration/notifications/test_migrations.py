"""The migrations make the tables that tables.py declares."""

from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from services.notifications import tables
from tests.integration.notifications.conftest import World


async def test_tables_and_migrations_agree(world: World) -> None:
    def differences(connection: Any) -> list[Any]:
        context = MigrationContext.configure(
            connection,
            opts={"include_name": lambda name, *_: name != "alembic_version"},
        )
        return list(compare_metadata(context, tables.METADATA))

    async with world.database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_the_migration_can_be_taken_back(world: World) -> None:
    from alembic import command  # noqa: PLC0415  # only here

    from kit.database import alembic_config  # noqa: PLC0415
    from services.notifications.app import MIGRATIONS  # noqa: PLC0415

    async with world.database.engine.connect() as connection:
        await connection.run_sync(
            lambda c: command.downgrade(alembic_config(MIGRATIONS, c), "base")
        )
    left = await world.all("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert left == [{"tablename": "alembic_version"}]
