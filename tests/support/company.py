"""A small company on the real metrics service and PostgreSQL, for its pages: a year of work.

Nothing in it is drawn by chance twice: the same numbers every time. It is the afternoon of
17 November 2026 there.
"""

import contextlib
import random
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest
from pydantic import SecretStr

from deploy.local import Stack
from kit.settings import KitSettings
from schemas.base import State
from schemas.crm import Record, StageEntry
from schemas.directory import (
    Assignment,
    Membership,
    Organisation,
    OwnerMapping,
    Person,
    Team,
    Territory,
)
from schemas.spm import Goal
from services.metrics.app import create_app
from services.metrics.settings import Settings
from tests.integration.metrics.test_streams import serving
from tests.integration.metrics.world import World
from tests.support import DEV_SECRET, TENANT, a_record, bearer

NOW = datetime(2026, 11, 17, 15, 30, tzinfo=UTC)
NOVEMBER = "month:2026-11-01"
TEAMS = {"sales": ("Sales", ""), "north": ("North", "sales"), "south": ("South", "sales")}
PEOPLE = {
    "ada": ("Ada Lovelace", "north"),
    "ben": ("Ben Ode", "north"),
    "cy": ("Cy Twombly", "north"),
    "di": ("Di Prince", "south"),
    "eve": ("Eve Nobody", "south"),
    "grace": ("Grace Hopper", "north"),
}
MANAGER = "grace"
TERRITORIES = {"dach": ("DACH", ""), "germany": ("Germany", "dach"), "austria": ("Austria", "dach")}
LOOKS_AFTER = {"ada": "germany", "ben": "austria", "cy": "germany"}
ROLES = {"ada": "Account executive", "ben": "Account executive"}
STAGES = ("qualified", "demo", "proposal", "negotiation")
TARGETS = {"ada": 100_000, "ben": 70_000, "cy": 60_000, "di": 80_000, "eve": 50_000}


@dataclass(frozen=True, slots=True)
class Company:
    """The service with its address."""

    world: World
    address: str

    def token(self, *roles: str, person: str = "") -> str:
        """What lets someone in."""
        return bearer(*roles, person=person)["Authorization"].removeprefix("Bearer ")

    def link(self, path: str, *roles: str, person: str = "") -> str:
        """A link to a page that lets someone in."""
        joint = "&" if "?" in path else "?"
        return f"{self.address}{path}{joint}token={self.token(*roles, person=person)}"

    async def get(self, path: str, *, person: str, role: str = "rep", **params: str) -> Any:
        """What the API answers to someone."""
        headers = bearer(role, person=person)
        async with httpx.AsyncClient(base_url=self.address, headers=headers) as client:
            answer = await client.get(path, params=params)
            assert answer.status_code == 200, answer.text
            return answer.json()


@contextlib.asynccontextmanager
async def a_company(stack: Stack) -> AsyncIterator[Company]:
    """The company, up inside the context."""
    name = f"pages_{uuid.uuid4().hex[:12]}"
    connection = await asyncpg.connect(f"{stack.postgres}/postgres")
    await connection.execute(f'CREATE DATABASE "{name}"')
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("services.metrics.app.clock.load", lambda _: lambda: NOW)
            kit = KitSettings(dev_secret=SecretStr(DEV_SECRET))
            app = create_app(Settings(kit=kit, database=f"{stack.postgres}/{name}"))
        world = World(app, None)
        await world.service.database.migrate()
        try:
            await world.apply(*everything())
            await world.settle()
            async with serving(world) as (address, _):
                yield Company(world, address)
        finally:
            await world.service.database.close()
    finally:
        await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        await connection.close()


def everything() -> list[State]:
    """All that the company has said so far."""
    return [*_directory(), *_goals(), *_records()]


def _directory() -> Iterator[State]:
    known: dict[str, Any] = {"tenant": TENANT, "version": 1}
    yield Organisation(**known, id="all", name="Acme", currency="EUR", zone="Europe/Berlin")
    for team, (name, parent) in TEAMS.items():
        yield Team(**known, id=team, name=name, parent=parent)
    for territory, (name, parent) in TERRITORIES.items():
        yield Territory(**known, id=territory, name=name, parent=parent)
    for person, territory in LOOKS_AFTER.items():
        yield Assignment(**known, id=f"a-{person}", person=person, territory=territory)
    for person, (name, team) in PEOPLE.items():
        role = ROLES.get(person, "rep")
        yield Person(**known, id=person, name=name, role=role, joined=date(2024, 1, 8))
        yield OwnerMapping(**known, id=f"o-{person}", source="crm", owner_id=person, person=person)
        manages = person == MANAGER
        yield Membership(**known, id=f"m-{person}", person=person, team=team, manages=manages)


def _goals() -> Iterator[State]:
    def goal(subject: str, metric: str, period: str, target: int, unit: str = "count") -> Goal:
        return Goal(
            tenant=TENANT,
            version=1,
            subject=subject,
            metric=metric,
            period=period,
            target=Decimal(target),
            unit=unit,
            days="business",
        )

    for person, target in TARGETS.items():
        yield goal(f"person:{person}", "revenue_won", NOVEMBER, target, "EUR")
        yield goal(f"person:{person}", "calls_made", NOVEMBER, 160)
    yield goal("team:north", "revenue_won", NOVEMBER, 250_000, "EUR")
    yield goal("territory:dach", "revenue_won", NOVEMBER, 240_000, "EUR")


def _records() -> Iterator[Record]:
    dice = random.Random(17)
    for stage in STAGES:
        yield a_record("stage", f"crm:{stage}", name=stage.title())
    number = 0
    for back in range(300, -1, -1):
        day = NOW.replace(hour=0, minute=0) - timedelta(days=back)
        if day.weekday() > 4:
            continue
        for place, person in enumerate(TARGETS):
            for _ in range(dice.choice((0, 1, 1, 2)) if back % (6 - place) else 0):
                number += 1
                yield _deal(dice, number, person, day)
            if back > 60:
                continue
            for kind, most in (("call", 9 - place), ("email", 5), ("meeting", 2)):
                for _ in range(dice.randint(0, most)):
                    number += 1
                    at = day + timedelta(minutes=int(dice.triangular(7 * 60, 17 * 60, 9.5 * 60)))
                    if at < NOW:
                        yield a_record(
                            kind,
                            f"crm:{number}",
                            owner_id=person,
                            done=True,
                            created_at=at.isoformat(),
                            occurred_at=at.isoformat(),
                            name=f"{kind.title()} {number}",
                        )


def _deal(dice: random.Random, number: int, person: str, day: datetime) -> Record:
    """A deal that was created on a day: how far it has come until now."""
    created = day + timedelta(hours=dice.randint(8, 16))
    reached = dice.choices((1, 2, 3, 4), (3, 2, 1, 6))[0]
    days = [dice.randint(2, 9) for _ in range(reached)]
    entered = [created + timedelta(days=sum(days[:place])) for place in range(reached)]
    closed = created + timedelta(days=sum(days), hours=2)
    status = "won" if reached == len(STAGES) and dice.random() < 0.75 else "lost"
    fields: dict[str, Any] = {
        "owner_id": person,
        "name": f"Deal with {dice.choice(('Alto', 'Brio', 'Crux', 'Dune', 'Echo'))} {number}",
        "status": status if closed < NOW else "open",
        "amount": f"{dice.randint(12, 160) * 100 + dice.choice((0, 50))}.00",
        "currency": "EUR",
        "created_at": created.isoformat(),
        "expected_close": (created + timedelta(days=28)).isoformat(),
    }
    if closed < NOW:
        fields["closed_at"] = closed.isoformat()
    record = a_record("opportunity", f"crm:{number}", **fields)
    stages = [
        StageEntry(int(at.timestamp() * 1e6), stage)
        for at, stage in zip(entered, STAGES, strict=False)
        if at < NOW
    ]
    return msgspec.structs.replace(record, stages=stages)
