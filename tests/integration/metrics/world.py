"""A small organisation, a service to apply it to, and what the service should then say."""

import random
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from kit.consumer import Batch
from kit.database import is_transient
from kit.service import Service
from schemas.base import State
from schemas.crm import Record
from schemas.directory import Entry, Membership, Organisation, OwnerMapping, Person, Team
from services.metrics.handlers import Handler
from services.metrics.store import recounts
from tests.support import TENANT, a_record

ORACLE = Path(__file__).with_name("oracle.sql").read_text()
METRICS = [
    *("opportunities_created", "deals_won", "deals_lost", "revenue_won"),
    *("calls_made", "emails_sent", "meetings_held", "close_dates_slipped", "close_date_slip"),
]
Numbers = dict[tuple[str, str, str, str], tuple[int, int]]  # subject, metric, period, unit


class World:
    """A metrics service without Kafka: batches go straight into its handler."""

    def __init__(self, app: FastAPI, outbox: Any) -> None:
        self.app = app
        self.service: Service = app.state.service
        self.outbox = outbox

    async def apply(self, *states: State) -> None:
        async with self.service.database.transaction() as transaction:
            await self.service.processor._apply(transaction, Batch(states))

    async def patiently(self, *states: State) -> None:
        """As the kit does: again after a deadlock or a lost connection."""
        while True:
            try:
                await self.apply(*states)
            except Exception as error:
                if not is_transient(error):
                    raise
            else:
                return

    async def recounted(self, history: Sequence[State]) -> None:
        """As the job does with what the topic has kept, if a recount was asked for."""
        records = [state for state in history if isinstance(state, Record)]
        random.Random(len(records)).shuffle(records)
        handler: Handler = self.service.apply.__self__  # type: ignore[attr-defined]
        async with self.service.database.transaction() as transaction:
            waiting = await recounts.unfinished(transaction)
            if waiting:
                await handler.apply_records(transaction, records, again=True)
                await transaction.driver.execute("UPDATE recount SET finished_at = now()")

    async def settle(self) -> None:
        assert self.service.settle is not None
        await self.service.settle()

    async def publish(self) -> None:
        await self.job("publish-measures")

    async def job(self, name: str) -> None:
        await next(job for job in self.service.jobs if job.name == name).run()

    async def fetch(self, query: str, *arguments: object) -> list[Any]:
        async with self.service.database.transaction() as transaction:
            return await transaction.driver.fetch(query, *arguments)

    async def expected(self, history: Sequence[State]) -> Numbers:
        """What the counters must be: the oracle's answer to the last version of everything."""
        last: dict[str, State] = {}
        for state in sorted(history, key=lambda s: s.version):
            last[f"{type(state).__name__} {state.key}"] = state
        rows = [(_kind(state), state.encode().decode()) for state in last.values()]
        async with self.service.database.transaction() as transaction:
            await transaction.driver.execute("CREATE TEMP TABLE state (kind text, body jsonb)")
            await transaction.driver.executemany("INSERT INTO state VALUES ($1, $2)", rows)
            found = await transaction.driver.fetch(ORACLE)
            await transaction.driver.execute("DROP TABLE state")
        return _numbers(found)

    async def numbers(self, tenant: str = TENANT) -> Numbers:
        """Every counter of the oracle's metrics that says something."""
        await self.settle()
        rows = await self.fetch(
            "SELECT subject, metric, grain, start, unit, value, count FROM counter "
            "WHERE tenant = $1 AND metric = ANY ($2) AND (value <> 0 OR count <> 0)",
            tenant,
            METRICS,
        )
        return _numbers(rows)

    def client(self, headers: dict[str, str]) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=self.app)
        return httpx.AsyncClient(transport=transport, base_url="http://metrics", headers=headers)


def _numbers(rows: Sequence[Any]) -> Numbers:
    return {(r[0], r[1], f"{r[2]}:{r[3]}", r[4]): (r[5], r[6]) for r in rows}


def organisation(**changes: Any) -> Organisation:
    fields: dict[str, Any] = {
        "tenant": TENANT,
        "version": 1,
        "id": "all",
        "name": "Acme",
        "currency": "EUR",
    }
    return Organisation(**(fields | {"zone": "Europe/Berlin"} | changes))


def person(number: int, version: int = 1, **changes: Any) -> Person:
    return Person(
        tenant=TENANT, version=version, id=f"p{number}", name=f"Person {number}", **changes
    )


def team(name: str, parent: str = "", version: int = 1, **changes: Any) -> Team:
    return Team(
        tenant=TENANT, version=version, id=name, name=name.title(), parent=parent, **changes
    )


def member(number: int, team_id: str, version: int = 1, **changes: Any) -> Membership:
    fields = {"id": f"m{number}", "person": f"p{number}", "team": team_id}
    return Membership(tenant=TENANT, version=version, **(fields | changes))


def owner(number: int, version: int = 1, **changes: Any) -> OwnerMapping:
    fields = {"id": f"o{number}", "owner_id": str(number), "person": f"p{number}"}
    return OwnerMapping(tenant=TENANT, version=version, source="crm", **(fields | changes))


def small_company() -> list[State]:
    """Four people in two teams below one; person 4 manages the upper one."""
    return [
        organisation(),
        team("all-sales"),
        team("north", "all-sales"),
        team("south", "all-sales"),
        *(person(n) for n in (1, 2, 3, 4)),
        *(owner(n) for n in (1, 2, 3, 4)),
        member(1, "north"),
        member(2, "north"),
        member(3, "south"),
        member(4, "all-sales", manages=True),
    ]


def won(number: str = "crm:1", *, version: int = 1, owner_id: int = 1, **fields: Any) -> Record:
    """A deal won on 2 November 2026 for 100.00 EUR."""
    known = {
        "owner_id": str(owner_id),
        "status": "won",
        "amount": "100.00",
        "currency": "EUR",
        "created_at": "2026-10-05T08:00:00Z",
        "closed_at": "2026-11-02T10:00:00Z",
    }
    deleted = fields.pop("deleted", False)
    return a_record("opportunity", number, version=version, deleted=deleted, **(known | fields))


def call(number: str, *, version: int = 1, owner_id: int = 1, **fields: Any) -> Record:
    """A call made on 3 November 2026."""
    known: dict[str, Any] = {
        "owner_id": str(owner_id),
        "done": True,
        "occurred_at": "2026-11-03T09:00:00Z",
    }
    deleted = fields.pop("deleted", False)
    return a_record("call", number, version=version, deleted=deleted, **(known | fields))


def a_history(seed: int, records: int = 60) -> list[State]:
    """Records and directory in several versions each, with every kind of trouble in them."""
    dice = random.Random(seed)
    history = small_company()
    history += [
        organisation(version=2, zone=dice.choice(["Asia/Tokyo", "America/New_York", "UTC"])),
        organisation(version=3, week_start=6, fiscal_year_start=dice.choice([1, 2, 4])),
        team("south", "north", version=2),
        team("south", dice.choice(["", "all-sales", "south"]), version=3),
        member(2, "north", version=2, valid_to=date(2026, 11, 2)),
        member(2, "south", id="m2b", valid_from=date(2026, 11, 2)),
        member(3, "south", version=2, deleted=True),
        owner(3, version=2, person="p1"),
        owner(3, version=3, valid_from=date(2026, 10, 1), valid_to=date(2026, 11, 3)),
        owner(2, version=2, deleted=True),
        owner(2, version=3, deleted=dice.random() < 0.5),
        person(4, version=2, deleted=dice.random() < 0.5),
    ]
    for number in range(records):
        kind = dice.choice(["opportunity", "opportunity", "call", "email", "meeting"])
        for version in range(1, dice.randint(1, 4) + 1):
            history.append(_random_record(dice, kind, f"crm:{number}", version))
    return history


def _random_record(dice: random.Random, kind: str, number: str, version: int) -> Record:
    def instant() -> str:
        at = datetime(2026, 10, 1, tzinfo=UTC) + timedelta(minutes=dice.randrange(60 * 24 * 60))
        return at.isoformat()

    fields: dict[str, Any] = {"owner_id": dice.choice(["1", "2", "3", "4", "9"])}
    if kind == "opportunity":
        fields |= {
            "status": dice.choice(["open", "won", "won", "lost"]),
            "amount": dice.choice(["100", "99.995", "-5.5", "0", "1e40", "none"]),
            "currency": dice.choice(["EUR", "EUR", "USD", "JPY", "???"]),
            "created_at": instant(),
            "closed_at": instant(),
        }
    else:
        fields |= {"done": dice.choice([True, True, False, 1]), "occurred_at": instant()}
        fields["direction"] = dice.choice(["inbound", "outbound", None])
    for name in list(fields):
        if dice.random() < 0.05:
            del fields[name]
    return a_record(kind, number, version=version, deleted=dice.random() < 0.15, **fields)


def _kind(state: State) -> str:
    return str(state.__struct_config__.tag) if isinstance(state, Entry) else "record"
