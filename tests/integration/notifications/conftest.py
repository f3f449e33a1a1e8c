"""The notifications service on a real PostgreSQL, with a clock that tests set."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from kit.consumer import Batch
from kit.database import Database
from kit.settings import KitSettings
from schemas.base import State
from schemas.directory import Membership, Organisation, OwnerMapping, Person, Team
from schemas.spm import Alert, Measure
from services.notifications import store
from services.notifications.app import MIGRATIONS
from services.notifications.domain.deliveries import Subscription
from services.notifications.handlers import Handlers
from services.notifications.jobs import Windows
from services.notifications.settings import Settings
from tests.support import DEV_SECRET, TENANT

NOON_TUESDAY = datetime(2026, 11, 3, 12, tzinfo=UTC)


def a_directory(*, version: int = 1, zone: str = "UTC", tenant: str = TENANT) -> list[State]:
    """Ann sells in team north, which Mia manages; Max manages everyone."""
    common: dict[str, Any] = {"tenant": tenant, "version": version}
    joined = date(2026, 1, 1)
    return [
        Organisation(**common, id="all", name="Acme", zone=zone, currency="USD"),
        Team(**common, id="all", name="Everyone"),
        Team(**common, id="north", name="North", parent="all"),
        Person(**common, id="ann", name="Ann", joined=joined),
        Person(**common, id="ben", name="Ben", joined=joined),
        Person(**common, id="mia", name="Mia", role="manager", joined=joined),
        Person(**common, id="max", name="Max", role="manager", joined=joined),
        Membership(**common, id="m1", person="ann", team="north"),
        Membership(**common, id="m2", person="ben", team="north"),
        Membership(**common, id="m3", person="mia", team="north", manages=True),
        Membership(**common, id="m4", person="max", team="all", manages=True),
        OwnerMapping(**common, id="o1", source="crm", owner_id="7", person="ann"),
        OwnerMapping(**common, id="o2", source="crm", owner_id="8", person="ben"),
    ]


def a_measure(
    metric: str,
    value: int,
    *,
    person: str = "ann",
    day: str = "2026-11-02",
    version: int = 1,
    tenant: str = TENANT,
) -> Measure:
    return Measure(
        tenant=tenant, version=version, subject=f"person:{person}", metric=metric,
        period=f"day:{day}", unit="count", value=Decimal(value), count=value,
    )  # fmt: skip


@dataclass
class World:
    """One store, with what works on it. `now` is the business clock."""

    database: Database
    now: datetime = NOON_TUESDAY
    subscriptions: list[Subscription] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rules = Settings(kit=KitSettings(dev_secret=DEV_SECRET)).load_rules()

    def worker(self) -> "Worker":
        return Worker(self)

    async def all(self, statement: str, *arguments: Any) -> list[dict[str, Any]]:
        async with self.database.transaction() as transaction:
            return [dict(r) for r in await transaction.driver.fetch(statement, *arguments)]

    async def alerts(self) -> dict[str, Alert]:
        keys = [tuple(r.values()) for r in await self.all(
            "SELECT tenant, rule, subject, window_key FROM alert")]  # fmt: skip
        async with self.database.transaction() as transaction:
            return {a.key: a for a in await store.states(transaction, keys)}

    async def firing(self) -> set[str]:
        return {key for key, alert in (await self.alerts()).items() if alert.state == "firing"}

    async def checksum(self) -> str:
        async with self.database.transaction() as transaction:
            return await store.checksum(transaction)


class Worker:
    """One replica: its own caches on the common store."""

    def __init__(self, world: World) -> None:
        directories = store.Directories()
        self._world = world
        self._handlers = Handlers(world.rules, directories, world.subscriptions, lambda: world.now)
        self.windows = Windows(world.rules, directories, world.subscriptions, batch=3)

    async def apply(self, *states: State) -> list[Alert]:
        async with self._world.database.transaction() as transaction:
            return list(await self._handlers.apply(transaction, Batch(states)))  # type: ignore[arg-type]

    async def look(self) -> None:
        await self.windows.set_back(self._world.database, self._world.now)
        while await self.windows.look(self._world.database, self._world.now):
            pass

    async def send(self) -> int:
        async with self._world.database.transaction() as transaction:
            return await store.send_inbox(transaction, self._world.now, 500)

    async def everything(self, *states: State) -> None:
        await self.apply(*states)
        await self.look()
        await self.send()


def batches(states: Sequence[State], chance: random.Random) -> Iterable[list[State]]:
    """The states cut into batches, each with at most one state per key: the newest."""
    position = 0
    while position < len(states):
        size = chance.randint(1, 5)
        newest: dict[tuple[str, str], State] = {}
        for state in states[position : position + size]:
            known = newest.get((state.topic, state.key))
            if known is None or known.version < state.version:
                newest[state.topic, state.key] = state
        yield list(newest.values())
        position += size


NewWorld = Callable[..., Awaitable[World]]


@pytest.fixture
async def new_world(new_database: Callable[[], Any]) -> AsyncIterator[NewWorld]:
    databases: list[Database] = []

    async def make(**given: Any) -> World:
        database = Database(await new_database(), migrations=MIGRATIONS)
        databases.append(database)
        await database.migrate()
        return World(database, **given)

    yield make
    for database in databases:
        await database.close()


@pytest.fixture
async def world(new_world: NewWorld) -> World:
    return await new_world()
