"""A small organisation, a service to apply it to, and what the service should then say."""

import random
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from zoneinfo import ZoneInfo

import httpx
from fastapi import FastAPI

from kit.consumer import Batch
from kit.database import is_transient
from kit.service import Service
from schemas.base import State
from schemas.crm import Record
from schemas.directory import Membership, Organisation, OwnerMapping, Person, Team
from tests.support import TENANT, a_record

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

    async def numbers(self, tenant: str = TENANT) -> Numbers:
        """Every counter that says something."""
        await self.settle()
        rows = await self.fetch(
            "SELECT subject, metric, grain, start, unit, value, count FROM counter "
            "WHERE tenant = $1 AND (value <> 0 OR count <> 0)",
            tenant,
        )
        return {(r[0], r[1], f"{r[2]}:{r[3]}", r[4]): (r[5], r[6]) for r in rows}

    def client(self, headers: dict[str, str]) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=self.app)
        return httpx.AsyncClient(transport=transport, base_url="http://metrics", headers=headers)


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


def expected(history: Sequence[State]) -> Numbers:
    """What the counters must be, computed anew and plainly from the last version of everything."""
    last: dict[tuple[type, str], Any] = {}
    for state in sorted(history, key=lambda s: s.version):
        last[type(state), state.key] = state
    live = [s for s in last.values() if not getattr(s, "deleted", False)]
    org = next(s for s in live if isinstance(s, Organisation))
    people = {s.id for s in live if isinstance(s, Person)}
    parents = {s.id: s.parent for s in live if isinstance(s, Team)}
    sums: dict[tuple[str, str, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for record in (s for s in live if isinstance(s, Record)):
        for metric, unit, instant, value in _contributions(record):
            day = instant.astimezone(ZoneInfo(org.zone)).date()
            credited = _person(live, record, day)
            if credited not in people:
                continue
            subjects = [f"person:{credited}", "org:all"]
            above = _team(live, credited, day)
            while above and f"team:{above}" not in subjects:
                subjects.append(f"team:{above}")
                above = parents.get(above, "")
            for subject in subjects:
                for period in _periods(org, day):
                    slot = sums[subject, metric, period, unit]
                    slot[0] += value
                    slot[1] += 1
    return {key: (value, count) for key, (value, count) in sums.items()}


def _contributions(record: Record) -> list[tuple[str, str, datetime, int]]:
    def at(name: str) -> datetime | None:
        text = record.get(name)
        return datetime.fromisoformat(text) if isinstance(text, str) else None

    found: list[tuple[str, str, datetime | None, int]] = []
    if record.type == "opportunity":
        found.append(("opportunities_created", "count", at("created_at"), 1))
        if record.get("status") in ("won", "lost"):
            found.append((f"deals_{record.get('status')}", "count", at("closed_at"), 1))
        if record.get("status") == "won" and record.get("amount") not in (None, "none", "1e40"):
            places = {"EUR": 2, "USD": 2, "JPY": 0}.get(str(record.get("currency")))
            if places is not None:
                scaled = Decimal(str(record.get("amount"))) * 10**places
                minor = int(scaled.quantize(Decimal(1), ROUND_HALF_UP))
                found.append(("revenue_won", str(record.get("currency")), at("closed_at"), minor))
    elif record.get("done") is True:
        metric = {"call": "calls_made", "meeting": "meetings_held", "email": "emails_sent"}
        if record.type != "email" or record.get("direction") != "inbound":
            found.append((metric[record.type], "count", at("occurred_at"), 1))
    return [(m, u, when, v) for m, u, when, v in found if when is not None]


def _in_force(entry: Any, day: date) -> bool:
    return (entry.valid_from or date.min) <= day < (entry.valid_to or date.max)


def _person(live: Sequence[Any], record: Record, day: date) -> str:
    mappings = [
        s
        for s in live
        if isinstance(s, OwnerMapping)
        and (s.source, s.owner_id) == (record.source, record.get("owner_id"))
        and _in_force(s, day)
    ]
    return min(mappings, key=lambda m: m.id).person if mappings else ""


def _team(live: Sequence[Any], who: str, day: date) -> str:
    found = [s for s in live if isinstance(s, Membership) and s.person == who and _in_force(s, day)]
    return min(found, key=lambda m: (m.manages, m.id)).team if found else ""


def _periods(org: Organisation, day: date) -> list[str]:
    week = day - timedelta(days=(day.weekday() - org.week_start) % 7)
    months = (day.month - org.fiscal_year_start) % 12
    quarter, year = day.replace(day=1), day.replace(day=1)
    for _ in range(months % 3):
        quarter = (quarter - timedelta(days=1)).replace(day=1)
    for _ in range(months):
        year = (year - timedelta(days=1)).replace(day=1)
    return [
        f"day:{day}",
        f"week:{week}",
        f"month:{day.replace(day=1)}",
        f"quarter:{quarter}",
        f"year:{year}",
    ]
