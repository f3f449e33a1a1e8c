"""A small company for payouts' tests: directory, goals, plans, deals, and its own evaluator."""

from collections.abc import Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from kit.consumer import Batch
from kit.database import Database
from schemas.base import State
from schemas.crm import Record
from schemas.directory import Membership, Organisation, OwnerMapping, Person, Team
from schemas.spm import Goal, PlanDocument
from services.payouts.app import MIGRATIONS, checksum
from services.payouts.handlers import Payouts
from services.payouts.store import Configuration
from tests.support import TENANT, a_record

QUARTER = "quarter:2026-10-01"


class World:
    """One payouts store without Kafka."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.payouts = Payouts(Configuration())

    async def apply(self, *states: State) -> list[Any]:
        """One batch, cut as the consumer does: the newest per key."""
        newest: dict[tuple[str, str], State] = {}
        for state in states:
            known = newest.get((state.topic, state.key))
            if known is None or known.version < state.version:
                newest[state.topic, state.key] = state
        async with self.database.transaction() as transaction:
            return await self.payouts.apply(transaction, Batch(list(newest.values())))

    async def checksum(self) -> str:
        return await checksum(self.database)

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        async with self.database.transaction() as transaction:
            return await transaction.driver.fetch(query, *arguments)

    async def earned(self) -> dict[tuple[str, str, str], Decimal]:
        """Payee, plan and period to pay, where anything counts."""
        rows = await self.fetch(
            "SELECT payee, plan, period, earned_minor FROM statement WHERE lines > 0"
        )
        return {(r[0], r[1], r[2]): r[3] / 100 for r in rows}


@asynccontextmanager
async def a_world(dsn: str) -> Any:
    database = Database(dsn, migrations=MIGRATIONS)
    try:
        await database.migrate()
        yield World(database)
    finally:
        await database.close()


def organisation(version: int = 1, zone: str = "UTC") -> Organisation:
    return Organisation(tenant=TENANT, version=version, id="all", name="Acme", zone=zone)


def person(name: str, version: int = 1, role: str = "rep") -> Person:
    return Person(tenant=TENANT, version=version, id=name, name=name.title(), role=role)


def owner(
    number: str,
    name: str,
    version: int = 1,
    *,
    until: date | None = None,
    since: date | None = None,
) -> OwnerMapping:
    return OwnerMapping(
        tenant=TENANT,
        version=version,
        id=f"{number}-{since or 'ever'}",
        source="crm",
        owner_id=number,
        person=name,
        valid_from=since,
        valid_to=until,
    )


def member(name: str, team: str, version: int = 1, *, manages: bool = False) -> Membership:
    return Membership(
        tenant=TENANT, version=version, id=f"m-{name}", person=name, team=team, manages=manages
    )


def team(name: str, parent: str = "", version: int = 1) -> Team:
    return Team(tenant=TENANT, version=version, id=name, name=name, parent=parent)


def goal(
    name: str,
    target: str,
    version: int = 1,
    *,
    period: str = QUARTER,
    unit: str = "USD",
    deleted: bool = False,
) -> Goal:
    return Goal(
        tenant=TENANT,
        version=version,
        subject=f"person:{name}",
        metric="revenue_won",
        period=period,
        target=Decimal(target),
        unit=unit,
        deleted=deleted,
    )


def document(**changes: Any) -> dict[str, Any]:
    """A plan in three tiers by attainment."""
    made: dict[str, Any] = {
        "plan": "ae",
        "name": "Account executive",
        "currency": "USD",
        "period": "quarter",
        "effective": {"from": "2026-01-01", "to": "2027-01-01"},
        "payees": {"role": "rep"},
        "rounding": "half_up_per_line",
        "components": [
            {
                "id": "new",
                "credit": {
                    "record": "opportunity",
                    "when": {"status": "won"},
                    "basis": "amount",
                    "date": "closed_at",
                    "share": 100,
                },
                "rate": {
                    "type": "tiers_marginal",
                    "measure": "attainment",
                    "boundary": "upper",
                    "tiers": [
                        {"from": 0, "rate": "0.05"},
                        {"from": 1, "rate": "0.08"},
                        {"from": "1.5", "rate": "0.1"},
                    ],
                },
                "quota": {"goal": "revenue_won"},
            }
        ],
    }
    return made | changes


def plan(version: int = 1, *, deleted: bool = False, **changes: Any) -> PlanDocument:
    made = document(**changes)
    return PlanDocument(
        tenant=TENANT,
        version=version,
        id=made["plan"],
        revision=version,
        document=made,
        deleted=deleted,
    )


def deal(
    number: int,
    amount: str | None = "1000",
    *,
    version: int = 1,
    by: str = "1",
    day: str = "2026-10-05",
    status: str = "won",
    currency: str | None = "USD",
    deleted: bool = False,
    **more: Any,
) -> Record:
    fields = {"owner_id": by, "amount": amount, "currency": currency, "status": status, **more}
    return a_record(
        "opportunity",
        f"crm:{number}",
        version=version,
        deleted=deleted,
        closed_at=f"{day}T12:00:00+00:00",
        **{name: value for name, value in fields.items() if value is not None},
    )


def newest(states: Iterable[State]) -> list[State]:
    """The last state of each key."""
    last: dict[tuple[str, str], State] = {}
    for state in sorted(states, key=lambda s: s.version):
        last[state.topic, state.key] = state
    return list(last.values())


def expected(states: Iterable[State]) -> dict[tuple[str, str, str], Decimal]:
    """What everyone earns under plans by role and quarter, computed another way: whole sums of M.

    It knows one owner mapping per owner, the UTC calendar of 2026 and marginal tiers.
    """
    last = newest(states)
    people = {s.id: s for s in last if isinstance(s, Person)}
    owners = {s.owner_id: s.person for s in last if isinstance(s, OwnerMapping) and not s.deleted}
    goals = {(s.subject, s.period): s for s in last if isinstance(s, Goal) and not s.deleted}
    found: dict[tuple[str, str, str], Decimal] = {}
    for chosen in (s for s in last if isinstance(s, PlanDocument) and not s.deleted):
        deals: dict[tuple[str, str], list[tuple[str, str, Decimal]]] = {}
        for record in (s for s in last if isinstance(s, Record) and not s.deleted):
            who = people.get(owners.get(record.text("owner_id") or "", ""))
            wanted = (record.text("status"), record.text("currency")) == ("won", "USD")
            if who is None or who.deleted or who.role != "rep" or not wanted:
                continue
            amount, day = record.decimal("amount"), str(record.get("closed_at"))[:10]
            if amount is not None and day.startswith("2026"):
                month = (int(day[5:7]) - 1) // 3 * 3 + 1
                period = f"quarter:2026-{month:02}-01"
                deals.setdefault((who.id, period), []).append((day, record.id, amount))
        for (name, period), entries in deals.items():
            quota = goals.get((f"person:{name}", period))
            usable = quota is not None and quota.unit == "USD" and quota.target > 0
            [component] = chosen.document["components"]
            tiers = component["rate"]["tiers"]

            def whole(x: Decimal, tiers: Sequence[Any] = tiers, goal: Any = quota) -> Decimal:
                starts = [Decimal(t["from"]) * goal.target for t in tiers]
                ends = [*starts[1:], Decimal(10) ** 20]
                return sum(
                    (
                        Decimal(t["rate"]) * max(Decimal(0), min(x, end) - start)
                        for t, start, end in zip(tiers, starts, ends, strict=True)
                    ),
                    Decimal(0),
                )

            total, paid = Decimal(0), Decimal(0)
            for _, _, amount in sorted(entries):
                if usable:
                    line = whole(total + amount) - whole(total)
                    paid += line.quantize(Decimal("0.01"), ROUND_HALF_UP)
                total += amount
            found[name, chosen.id, period] = paid
    return found
