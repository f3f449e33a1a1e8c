"""What everybody gets, and what must come out.

A company's deals and calls as time goes by: created, won, lost, reopened, re-owned, re-priced,
re-dated, deleted. Every twentieth message comes again, and of some versions the one before arrives
long after.
"""

import random
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg

from schemas.crm import CALL, OPPORTUNITY, Record
from schemas.directory import Entry, Organisation
from tests.bench import workload
from tests.bench.peers.job import ZONE
from tests.support import a_record

ORACLE = Path(__file__).with_name("oracle.sql").read_text()
A_MESSAGE = timedelta(seconds=80)  # 2 messages per person and day
LATE = 100  # messages later, and more
LATELY = 2_000  # records of a kind that still change
CELLS = "SELECT person, day, deals, revenue, calls FROM "

Cell = tuple[str, str]  # person and day
Cells = dict[Cell, tuple[int, int, int]]  # deals won, revenue in minor units, calls


def directory() -> list[Entry]:
    """The people of the other benchmarks, in the zone of the job."""
    zoned = Organisation(
        tenant=workload.TENANT, version=2, id="all", name="Bench", zone=ZONE.key, currency="USD"
    )
    return [*workload.directory(), zoned]


def messages(count: int, *, seed: int = 1) -> list[Record]:
    """So many states of records in the order in which they are published."""
    company = _Company(seed)
    made: list[Record] = []
    while len(made) < count:
        made.append(company.next_message(made))
    return made


class _Company:
    """Its deals and calls as they are now, and the versions that will arrive late."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._now: dict[str, dict[str, Record]] = {OPPORTUNITY: {}, CALL: {}}
        self._ids: dict[str, list[str]] = {OPPORTUNITY: [], CALL: []}
        self._late: list[Record] = []
        self._number = 0

    def next_message(self, sent: Sequence[Record]) -> Record:
        """The next one on the topic."""
        self._number += 1
        kind = self._chance.random()
        if sent and kind < 0.05:
            return self._chance.choice(sent)
        if len(self._late) > LATE and kind < 0.10:
            return self._late.pop(self._chance.randrange(len(self._late)))
        if kind < 0.55:
            return self._written(CALL, None if self._chance.random() < 0.9 else self._one(CALL))
        deal = None if self._chance.random() < 0.4 else self._one(OPPORTUNITY)
        written = self._written(OPPORTUNITY, deal)
        if self._chance.random() < 0.2:  # its next version is faster
            self._late.append(written)
            return self._written(OPPORTUNITY, written)
        return written

    def _one(self, kind: str) -> Record | None:
        """One of those that were made lately."""
        ids = self._ids[kind]
        if not ids:
            return None
        return self._now[kind][ids[-1 - self._chance.randrange(min(len(ids), LATELY))]]

    def _written(self, kind: str, of: Record | None) -> Record:
        """A new record, or the next version of one."""
        fields, number, version = self._fresh(kind), f"{workload.SOURCE}:{kind}{self._number}", 1
        if of is None:
            self._ids[kind].append(number)
        else:
            changed = self._chance.choice(["owner_id", *fields])  # people move the oftenest
            former: dict[str, Any] = {name: field.value for name, field in of.fields.items()}
            fields = former | {changed: fields[changed]}
            number, version = of.id, of.version + 1
        made = self._now[kind][number] = a_record(
            kind,
            number,
            version=version,
            tenant=workload.TENANT,
            deleted=of is not None and self._chance.random() < 0.02,
            **fields,
        )
        return made

    def _fresh(self, kind: str) -> dict[str, Any]:
        """Fields of a new record."""
        chance = self._chance
        now = workload.START + self._number * A_MESSAGE
        owner = str(chance.randrange(workload.PEOPLE))
        if kind == CALL:
            at = now - timedelta(hours=chance.randrange(24))
            return {"owner_id": owner, "occurred_at": at.isoformat(), "done": chance.random() < 0.9}
        amount = chance.randrange(100_000, 9_000_000)
        return {
            "owner_id": owner,
            "amount": f"{amount // 100}.{amount % 100:02}",
            "currency": "USD",
            "status": chance.choice(["open", "won", "won", "lost"]),
            "created_at": (now - timedelta(days=chance.randrange(30))).isoformat(),
            "closed_at": (now - timedelta(hours=chance.randrange(72))).isoformat(),
        }


async def expected(dsn: str, records: Sequence[Record]) -> Cells:
    """The oracle's answer, in a database of its own."""
    rows = [(record.key, record.version, record.encode().decode()) for record in records]
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("CREATE TABLE message (key text, version bigint, body jsonb)")
        await connection.copy_records_to_table("message", records=rows)
        return await cells(connection, f"({ORACLE})")
    finally:
        await connection.close()


async def cells(connection: asyncpg.Connection, source: str) -> Cells:
    """The result as it stands, without cells in which everything is zero."""
    rows = await connection.fetch(f"{CELLS} {source} AS result")
    found = {(row[0], row[1].isoformat()): (int(row[2]), int(row[3]), int(row[4])) for row in rows}
    return {cell: totals for cell, totals in found.items() if any(totals)}
