"""The ledger only grows, and tables say what migrations made."""

from typing import Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from services.payouts.jobs import verify
from services.payouts.tables import METADATA
from tests.integration.payouts.world import (
    World,
    deal,
    goal,
    organisation,
    owner,
    person,
    plan,
)

COLUMNS = "tenant, statement, number, line, debit, credit, amount_minor, currency, cause"


@pytest.mark.parametrize(
    "attack",
    [
        "UPDATE transfer SET amount_minor = 1",
        "UPDATE transfer SET amount_minor = 1 WHERE false",
        "DELETE FROM transfer",
        "TRUNCATE transfer",
        "SET session_replication_role = replica; DELETE FROM transfer",
        "INSERT INTO entry (amount_minor) VALUES (1)",
        f"INSERT INTO transfer ({COLUMNS}) VALUES ('t', 's', 1, 'l', 'a', 'a', 1, 'USD', 'c')",
        f"INSERT INTO transfer ({COLUMNS}) VALUES ('t', 's', 1, 'l', 'a', 'b', 0, 'USD', 'c')",
        f"INSERT INTO transfer ({COLUMNS}) SELECT {COLUMNS} FROM transfer",
    ],
)
async def test_the_database_refuses_every_change_of_the_past(world: World, attack: str) -> None:
    await world.apply(
        organisation(), person("ann"), owner("1", "ann"), goal("ann", "1000"), plan(), deal(1)
    )
    with pytest.raises(asyncpg.exceptions.PostgresError):
        async with world.database.transaction() as transaction:
            await transaction.driver.execute(attack)
    assert [row["amount_minor"] for row in await world.fetch("SELECT * FROM transfer")] == [5000]


async def test_a_store_that_does_not_add_up_is_seen(world: World) -> None:
    await world.apply(
        organisation(), person("ann"), owner("1", "ann"), goal("ann", "1000"), plan(), deal(1)
    )
    assert await verify(world.database) == []
    await world.fetch("UPDATE statement_line SET posted_minor = posted_minor + 1")
    [wrong] = await verify(world.database)
    assert (wrong.ledger, wrong.lines, wrong.statement_total) == (5000, 5001, 5000)


async def test_tables_and_migrations_agree(world: World) -> None:
    def differences(connection: Any) -> Any:
        return compare_metadata(MigrationContext.configure(connection), METADATA)

    async with world.database.engine.connect() as connection:
        found = await connection.run_sync(differences)
    assert [d for d in found if "alembic_version" not in str(d)] == []


async def test_migrations_go_down_and_up_again(world: World) -> None:
    from alembic import command  # noqa: PLC0415  # only here

    from kit.database import alembic_config  # noqa: PLC0415  # only here
    from services.payouts.app import MIGRATIONS  # noqa: PLC0415  # only here

    async with world.database.engine.connect() as connection:
        await connection.run_sync(
            lambda sync: command.downgrade(alembic_config(MIGRATIONS, sync), "base")
        )
    await world.database.migrate()
    assert await world.fetch("SELECT * FROM transfer") == []
