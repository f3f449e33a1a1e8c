"""Boards of many people: `python -m tests.bench.boards --help`.

The metrics service's own store and boards, without Kafka and HTTP: people, goals, deals and calls
are applied and folded as they are live. Then, tick after tick, some people's numbers move, and each
board is read: for the first time since, when the changes wait to be folded (`waiting`), are read
from the database and the board is computed; once they are folded (`folded`); and again, as by
everybody after. A read is the first rows with their movement, and the rows around somebody.

Shown are the time in the database (of its statements, as the driver measures them), that of the
whole read, and the CPU of this process, where the driver's is included.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from typing import Annotated, Any

import numpy as np
import typer
import uvloop
import yaml
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy import event

from kit.clock import real_time
from kit.consumer import Batch
from kit.database import Database
from schemas.base import State
from schemas.crm import Record
from schemas.directory import Membership, Organisation, OwnerMapping, Person, Team
from schemas.periods import written
from schemas.spm import BoardDocument, Goal
from services.metrics.domain import boards, catalogue
from services.metrics.handlers import Handler
from services.metrics.jobs import Folder
from services.metrics.settings import HERE, Settings
from services.metrics.store.context import Context
from services.metrics.store.definitions import Definitions
from services.metrics.store.leaderboards import Leaderboards
from tests.bench.soak import a_bench
from tests.bench.workload import SOURCE, TENANT
from tests.support import a_record

TEAMS = 100
CALLS = 2  # of each person, before
TOP = 50
AROUND = 5
AT_ONCE = 2_000
LEVELS = (50, 99)
KINDS = ("opened", "waiting", "folded", "again")  # of reads
BOARDS: dict[str, dict[str, Any]] = {
    "value": {"metric": "revenue_won", "columns": ["deals_won", "calls_made"]},
    "attainment": {"metric": "revenue_won", "rank_by": "attainment", "columns": ["deals_won"]},
    "points": {
        "rank_by": "points",
        "points": {"calls_made": 1, "revenue_won": "0.01"},
        "ties": "first",
    },
    "derived": {"metric": "win_rate", "columns": ["deals_won", "deals_lost"]},
}

console = Console()


@dataclass(slots=True)
class Figures:
    """Of one kind of reads: seconds each."""

    database: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


class World:
    """The parts of the service that a board is made by, on a store of its own."""

    def __init__(self, dsn: str) -> None:
        metrics = catalogue.parse(yaml.safe_load((HERE / "catalogue.yaml").read_text()))
        shipped = boards.parse_file(yaml.safe_load((HERE / "boards.yaml").read_text()), metrics)
        self.database = Database(dsn, migrations=HERE / "migrations")
        context = Context(metrics, shipped.published)
        self._handler = Handler(context)
        fields = Settings.model_fields
        self._folder = Folder(
            self.database,
            context,
            rows=fields["fold_rows"].default,
            waiting=fields["waiting_rows"].default,
        )
        definitions = Definitions(context, shipped)
        self.leaderboards = Leaderboards(self.database, context, definitions, real_time)
        self.in_database = 0.0
        event.listen(self.database.engine.sync_engine, "connect", self._measure)

    def _measure(self, connection: Any, _: object) -> None:
        def add(query: Any) -> None:
            self.in_database += query.elapsed

        connection.driver_connection.add_query_logger(add)

    async def apply(self, states: Sequence[State]) -> None:
        """Apply in batches."""
        for start in range(0, len(states), AT_ONCE):
            async with self.database.transaction() as transaction:
                await self._handler.apply(transaction, Batch(states[start : start + AT_ONCE]))

    async def fold(self) -> None:
        """Fold all that waits."""
        await self._folder.settle()

    async def read(self, board: str, person: str, figures: Figures) -> None:
        """The first rows and those around a person."""
        await asyncio.sleep(0)  # what the driver has to say of earlier statements is said
        self.in_database, cpu, began = 0.0, time.process_time(), time.perf_counter()
        standings = await self.leaderboards.standings(TENANT, board, None)
        top = standings.shown("finance")
        around = standings.shown("finance", around=person, rows=AROUND)
        figures.whole.append(time.perf_counter() - began)
        figures.cpu.append(time.process_time() - cpu)
        await asyncio.sleep(0)
        figures.database.append(self.in_database)
        if len(top.rows) != TOP or person not in {row.subject for row in around.rows}:
            raise RuntimeError(f"board {board}: rows are missing")


def company(people: int, now: datetime) -> list[State]:
    """People in teams, with goals, and the boards."""
    found: list[State] = [Organisation(tenant=TENANT, version=1, id="all", name="Bench")]
    found += [Team(tenant=TENANT, version=1, id=f"t{n}", name=f"Team {n}") for n in range(TEAMS)]
    month = written("month", now.date().replace(day=1))
    for number in range(people):
        who = f"p{number}"
        about: dict[str, Any] = {"tenant": TENANT, "version": 1, "id": who}
        found += [
            Person(**about, name=f"Person {number}"),
            Membership(**about, person=who, team=f"t{number % TEAMS}"),
            OwnerMapping(**about, source=SOURCE, owner_id=str(number), person=who),
            Goal(
                tenant=TENANT,
                version=1,
                subject=f"person:{who}",
                metric="revenue_won",
                period=month,
                target=Decimal(1_000 + number % 977),
                unit="USD",
            ),
        ]
    for name, definition in BOARDS.items():
        document = {"id": name, "title": name, "grain": "month", "limit": TOP} | definition
        found.append(
            BoardDocument(tenant=TENANT, version=1, kind="board", id=name, document=document)
        )
    return found


def _deal(number: int, owner: int, chance: random.Random, now: str) -> Record:
    return a_record(
        "opportunity",
        f"{SOURCE}:{number}",
        tenant=TENANT,
        owner_id=str(owner),
        status=chance.choice(("won", "won", "lost")),
        amount=f"{chance.randrange(100, 5_000)}.00",
        currency="USD",
        created_at=now,
        closed_at=now,
    )


def _call(number: int, owner: int, now: str) -> Record:
    return a_record(
        "call",
        f"{SOURCE}:{number}",
        tenant=TENANT,
        owner_id=str(owner),
        occurred_at=now,
        direction="outbound",
        done=True,
    )


async def run(dsn: str, people: int, moved: int, ticks: int) -> dict[tuple[str, str], Figures]:
    """Fill the store, then move and read; figures by board and kind of read."""
    world, chance, numbers = World(dsn), random.Random(1), count()
    now = datetime.now(UTC)
    await world.database.migrate()
    await world.apply(company(people, now))
    stamp = now.isoformat()
    states: list[State] = []
    for who in range(people):
        states.append(_deal(next(numbers), who, chance, stamp))
        states += [_call(next(numbers), who, stamp) for _ in range(CALLS)]
    await world.apply(states)
    await world.fold()
    found = {(b, kind): Figures() for b in BOARDS for kind in KINDS}

    async def read(kind: str) -> None:
        for board in BOARDS:
            person = f"person:p{chance.randrange(people)}"
            await world.read(board, person, found[board, kind])

    await read("opened")
    for _ in track(range(ticks), f"{ticks} ticks", console=console, transient=True):
        stamp = datetime.now(UTC).isoformat()
        some = [chance.randrange(people) for _ in range(moved)]
        changes: list[State] = [_call(next(numbers), who, stamp) for who in some[::2]]
        changes += [_deal(next(numbers), who, chance, stamp) for who in some[1::2]]
        await world.apply(changes)
        await read("waiting")
        await world.fold()
        await read("folded")
        await read("again")
    await world.database.close()
    return found


def shown(found: dict[tuple[str, str], Figures], title: str) -> Table:
    """The figures in milliseconds."""
    table = Table(title=title)
    for heading in ("board", "read", "database p50", "p99", "whole p50", "p99", "CPU p50", "p99"):
        table.add_column(heading, justify="left" if heading in ("board", "read") else "right")
    for (board, kind), figures in found.items():
        cells = [
            f"{1_000 * float(np.percentile(each, level)):,.1f}"
            for each in (figures.database, figures.whole, figures.cpu)
            for level in LEVELS
        ]
        table.add_row(board, kind, *cells)
    return table


def main(
    people: Annotated[int, typer.Option(min=2 * AROUND + TOP, help="On each board.")] = 10_000,
    moved: Annotated[int, typer.Option(min=2, help="Records between two reads.")] = 100,
    ticks: Annotated[int, typer.Option(min=1, help="How often something moves.")] = 200,
) -> None:
    """What reading boards costs in the database and in the service; milliseconds."""
    with a_bench() as bench, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(run(runner.run(bench.database()), people, moved, ticks))
    console.print(shown(found, f"{people:,} people, {moved:,} records a tick, {ticks:,} ticks; ms"))


if __name__ == "__main__":
    typer.run(main)
