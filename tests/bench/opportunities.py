"""A public CRM data set against SQL over its files: `python -m tests.bench.opportunities --help`.

The files become people, teams and a bulk import; wins, revenue, win rate and sales cycle of every
person, team and quarter are asked of metrics over HTTP, and compared with what `opportunities.sql`
finds in the files themselves, in a database of their own. What a row means is in
`opportunities.yaml`.
"""

import asyncio
import csv
import re
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import httpx
import typer
import yaml
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from deploy.local import Stack, StackError
from kit.settings import KitSettings
from schemas.crm import Record
from simulator.client import Client
from simulator.system import ServiceEndedError, System
from tests.bench import consume
from tests.bench.soak import a_bench

SQL = Path(__file__).with_suffix(".sql")
MAPPING = Path(__file__).with_suffix(".yaml")
SOURCE = "crm"
# Noon in UTC, which is a day's instant, is another hour here, and must stay the same day.
ORGANISATION = {"name": "Acme", "zone": "America/New_York", "currency": "USD"}
PIPELINE, TEAMS = "sales_pipeline", "sales_teams"
COLUMNS = {
    PIPELINE: (
        *("opportunity_id", "sales_agent", "product", "account", "deal_stage"),
        *("engage_date", "close_date", "close_value"),
    ),
    TEAMS: ("sales_agent", "manager", "regional_office"),
    "products": ("product",),
    "accounts": ("account",),
}
UNIQUE = {PIPELINE: "opportunity_id", TEAMS: "sales_agent"}
LEVELS = ("person", "team", "office", "organisation")
MEDIANS = ("sales_cycle_median",)  # read one by one; other metrics have series
QUESTIONS_AT_ONCE = 8
PATIENCE_SECONDS = 600.0
DIFFERENCES_SHOWN = 10
DIFFERENT, REFUSED = 1, 2  # exit codes

Row = dict[str, str]
Subject = tuple[str, str]  # level and name
Cell = tuple[str, str, str, date]  # metric, level, name and the quarter's first day
Values = Mapping[Cell, Decimal | None]
console = Console()


class FilesError(ValueError):
    """The files can't be compared; the words say which, why and what to do."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both sides: numbers, and what became of the rows. Quirks are as the files have them."""

    expected: Values
    found: Values
    rows: Mapping[str, int]
    records: Mapping[str, int]
    quirks: Mapping[str, int]

    @property
    def differences(self) -> list[Cell]:
        """The numbers that differ."""
        return [cell for cell, value in self.expected.items() if self.found[cell] != value]

    @property
    def equal(self) -> bool:
        """Whether everything is the same, and there was something to compare."""
        there = any(value is not None for value in self.expected.values())
        return there and not self.differences and self.rows == self.records


def read(folder: Path) -> dict[str, list[Row]]:
    """The four files' rows by the file's name; raises FilesError that says what is wrong."""
    missing = [f"{name}.csv" for name in COLUMNS if not (folder / f"{name}.csv").is_file()]
    if missing:
        raise FilesError(
            f"{folder} lacks {', '.join(missing)}: unpack the data set there (see --help)"
        )
    files = {name: _rows(folder / f"{name}.csv") for name in COLUMNS}
    subjects(files[TEAMS])  # raises where names make none
    return files


def _rows(path: Path) -> list[Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="", restval=None, strict=True)
            columns, rows = reader.fieldnames or (), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise FilesError(f"{path} is not CSV in UTF-8: {error}") from error
    lacking = [name for name in COLUMNS[path.stem] if name not in columns]
    if lacking:
        raise FilesError(
            f"{path} lacks the columns {', '.join(lacking)}; it has {', '.join(columns) or 'none'}"
        )
    if not rows:
        raise FilesError(f"{path} has a header and no rows")
    seen: set[str] = set()
    for line, row in enumerate(rows, 2):
        if len(row) != len(columns) or None in row.values():
            raise FilesError(f"{path}, line {line}: has not {len(columns)} values, as the header")
        key = row[UNIQUE[path.stem]] if path.stem in UNIQUE else ""
        if key and key in seen:
            raise FilesError(
                f"{path}, line {line}: {UNIQUE[path.stem]} {key!r} occurs twice; leave one of them"
            )
        seen.add(key)
    return rows


def subjects(teams: Sequence[Row]) -> dict[Subject, str]:
    """Whom metrics counts for, by level and the name in the files."""
    found: dict[Subject, str] = {("organisation", "all"): "org:all"}
    offices: dict[str, str] = {}
    for row in teams:
        manager, office = row["manager"], row["regional_office"]
        if offices.setdefault(manager, office) != office:
            both = f"{offices[manager]} and in {office}"
            raise FilesError(f"{TEAMS}.csv: {manager}'s team is in {both}; it must be in one")
        found["person", row["sales_agent"]] = f"person:{an_id(row['sales_agent'])}"
        found["team", manager] = f"team:{an_id(manager)}"
        found["office", office] = f"team:office-{an_id(office)}"
    if len(set(found.values())) < len(found):
        raise FilesError(f"{TEAMS}.csv: two names differ in punctuation only; rename one of them")
    return found


def an_id(name: str) -> str:
    """An id that looks like the name."""
    found = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not found:
        raise FilesError(f"{TEAMS}.csv: {name!r} is no name; give everyone and every office one")
    return found


def directory(teams: Sequence[Row]) -> list[dict[str, Any]]:
    """Agents in their managers' teams, which are parts of the regional offices."""
    found: dict[tuple[str, str], dict[str, Any]] = {}

    def add(kind: str, number: str, **fields: Any) -> str:
        found[kind, number] = {"kind": kind, "id": number, **fields}
        return number

    add("organisation", "all", **ORGANISATION)
    for row in teams:
        agent, manager, office = row["sales_agent"], row["manager"], row["regional_office"]
        above = add("team", f"office-{an_id(office)}", name=office)
        team = add("team", an_id(manager), name=manager, parent=above)
        for name, leads in ((agent, False), (manager, True)):
            person = add("person", an_id(name), name=name)
            belongs = {"person": person, "team": team, "manages": leads}
            add("membership", f"{team}:{'manager' if leads else person}", **belongs)
        person = an_id(agent)
        add("owner", f"{SOURCE}:{person}", source=SOURCE, owner_id=agent, person=person)
    return list(found.values())


async def compare(
    folder: Path, stack: Stack, work: Path, *, name: str = "", progress: Progress
) -> Comparison:
    """Import the folder's files into a fresh system on the stack, and compare with SQL over them.

    `name` keeps several systems on one stack apart.
    """
    files = read(folder)
    whom = subjects(files[TEAMS])
    system = System(work / "system", stack, name=name, services=("ingest", "metrics"))
    with _step(progress, "the files into SQL"):
        expected, rows, quirks = await _by_sql(folder, stack, f"{name}_files".lstrip("_"))
    try:
        with _step(progress, "ingest and metrics start"):
            await system.start()
            await system.wait_ready()
        async with httpx.AsyncClient(timeout=60) as http:
            client = Client(http, system.urls, system.headers)
            with _step(progress, "people, teams and the source"):
                await client.put("ingest", "/v1/directory", json=directory(files[TEAMS]))
                # The files name no currency. That it is assumed is shown with every amount.
                source = {"vendor": "generic", "currency": ORGANISATION["currency"]}
                source |= {"mapping": yaml.safe_load(MAPPING.read_text())}
                await client.put("ingest", f"/v1/sources/{SOURCE}", json=source)
            with _step(progress, f"{len(files[PIPELINE]):,} rows are imported"):
                # How far an import has come is kept beside its file: not in somebody's folder.
                copy = shutil.copy(folder / f"{PIPELINE}.csv", work)
                options = ("--source", SOURCE, "--mapping", str(MAPPING))
                await system.command("import", str(copy), *options)
            with _step(progress, "ingest and metrics apply them"):
                await _applied(system, client)
            quarantined = client.pages("ingest", "/v1/quarantine", limit=1000, source=SOURCE)
            records = await _records(system) | {"quarantined": len([i async for i in quarantined])}
            found = await _by_http(client, whom, expected, progress)
    finally:
        await system.stop()
    return Comparison(expected, found, rows, {s: n for s, n in records.items() if n}, quirks)


async def _by_sql(
    folder: Path, stack: Stack, database: str
) -> tuple[Values, dict[str, int], dict[str, int]]:
    """Numbers, rows by state and quirks, of the files as they are."""
    await asyncio.to_thread(stack.ensure_databases, [database])
    connection = await asyncpg.connect(stack.dsn(database))
    try:
        for name in COLUMNS:
            path = folder / f"{name}.csv"
            with path.open(encoding="utf-8-sig", newline="") as file:
                columns = next(csv.reader(file))
            quoted = (column.replace('"', '""') for column in columns)
            typed = ", ".join(f'"{column}" text' for column in quoted)
            await connection.execute(f"CREATE TABLE {name} ({typed})")
            await connection.copy_to_table(
                name, source=path, format="csv", header=True, encoding="utf8", force_null=columns
            )
        await connection.execute(SQL.read_text())
        cells = await connection.fetch("TABLE expected")
        states = await connection.fetch("TABLE state")
        quirks = await connection.fetch("TABLE quirk ORDER BY quirk")
    except asyncpg.DataError as error:
        raise FilesError(f"{folder}: PostgreSQL can't read the files: {error}") from error
    finally:
        await connection.close()
    if not cells:
        raise FilesError(f"{folder}/{PIPELINE}.csv: no row that can be read has a date")
    return {(m, lev, n, q): value for m, lev, n, q, value in cells}, dict(states), dict(quirks)


async def _applied(system: System, client: Client) -> None:
    """Return when metrics has applied and folded all that is on the topics."""
    await system.wait_drained(within_seconds=PATIENCE_SECONDS)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (await client.get("metrics", "/v1/values/all", limit=1))["pending"]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"metrics doesn't fold its numbers:\n{system.tail('metrics')}")
        await asyncio.sleep(0.2)


async def _records(system: System) -> dict[str, int]:
    """How many opportunities ingest has published as won, lost and open."""
    prefix = f"{system.name}." if system.name else ""
    settings = KitSettings(kafka=system.stack.kafka, topic_prefix=prefix)
    last: dict[str, Record] = {}
    for key, value in await consume.messages_of(settings, Record.topic):
        record = Record.decode(value)
        if key.decode() not in last or record.version > last[key.decode()].version:
            last[key.decode()] = record
    return dict(Counter(r.text("status") or "without a stage" for r in last.values()))


async def _by_http(
    client: Client, whom: Mapping[Subject, str], wanted: Iterable[Cell], progress: Progress
) -> Values:
    """The same cells as metrics answers them: series by quarter, and medians one by one."""
    quarters = sorted({quarter for *_, quarter in wanted})
    rows = sorted({(metric, level, name) for metric, level, name, _ in wanted})
    found: dict[Cell, Decimal | None] = {}

    async def series(metric: str, level: str, name: str) -> None:
        answer = await client.get(
            "metrics",
            "/v1/series",
            subject=whom[level, name],
            metric=metric,
            grain="quarter",
            **{"from": quarters[0].isoformat(), "to": quarters[-1].isoformat()},
        )
        for point in answer["points"]:
            cell = metric, level, name, date.fromisoformat(point["start"])
            found[cell] = _decimal(point["value"])

    async def values(metric: str, level: str, name: str) -> None:
        for quarter in quarters:
            answer = await client.get(
                "metrics",
                "/v1/values",
                subject=whom[level, name],
                metric=metric,
                period=f"quarter:{quarter}",
            )
            found[metric, level, name, quarter] = _decimal(answer["value"])

    gate = asyncio.Semaphore(QUESTIONS_AT_ONCE)
    bar = progress.add_task("numbers are asked of metrics", total=len(rows))

    async def asked(question: Callable[[str, str, str], Awaitable[None]], *row: str) -> None:
        async with gate:
            await question(*row)
        progress.advance(bar)

    async with asyncio.TaskGroup() as group:
        for row in rows:
            group.create_task(asked(values if row[0] in MEDIANS else series, *row))
    return found


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


@contextmanager
def _step(progress: Progress, what: str) -> Iterator[None]:
    """A step whose length nobody knows."""
    task = progress.add_task(what, total=None)
    yield
    progress.update(task, total=1, completed=1)


def numbers_table(made: Comparison) -> Table:
    """How many numbers there are of each metric and level, and how many differ."""
    shown = Table("metric", "level", title="metrics over HTTP beside SQL over the files")
    for heading in ("compared", "with data", "differ"):
        shown.add_column(heading, justify="right")
    compared = Counter((metric, level) for metric, level, *_ in made.expected)
    data = Counter((m, lev) for (m, lev, *_), value in made.expected.items() if value is not None)
    differ = Counter((metric, level) for metric, level, *_ in made.differences)
    for of in sorted(compared, key=lambda of: (of[0], LEVELS.index(of[1]))):
        shown.add_row(*of, f"{compared[of]:,}", f"{data[of]:,}", f"{differ[of]:,}")
    totals = (f"{sum(counts.values()):,}" for counts in (compared, data, differ))
    shown.add_section()
    shown.add_row("all", "", *totals)
    return shown


def rows_table(made: Comparison) -> Table:
    """What became of the rows, and what is odd about some of them."""
    shown = Table("rows of the pipeline", title="nothing is lost")
    shown.add_column("files", justify="right")
    shown.add_column("ingest", justify="right")
    for state in sorted({"open", "won", "lost", "quarantined"} | {*made.rows, *made.records}):
        shown.add_row(state, f"{made.rows.get(state, 0):,}", f"{made.records.get(state, 0):,}")
    shown.add_row("all", f"{sum(made.rows.values()):,}", f"{sum(made.records.values()):,}")
    shown.add_section()
    for quirk, count in made.quirks.items():
        shown.add_row(quirk, f"{count:,}", "")
    return shown


def tell(made: Comparison) -> None:
    """Print the tables, and the first differences."""
    console.print(rows_table(made))
    console.print(numbers_table(made))
    for cell in made.differences[:DIFFERENCES_SHOWN]:
        metric, level, name, quarter = cell
        sql, ours = ("no data" if v is None else v for v in (made.expected[cell], made.found[cell]))
        words = f"{metric}, {level} {name}, quarter of {quarter}: SQL {sql}, metrics {ours}"
        console.print(words, markup=False)


def main(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", exists=True, file_okay=False, help="Where the four files are."
        ),
    ],
) -> None:
    """Does the product count a real CRM's deals as SQL over the files does?

    The data set is "CRM Sales Opportunities" of Maven Analytics, free in the
    publisher's Data Playground. It is not part of this repository: unpack it
    into FOLDER. These files and columns are read:

    \b
      sales_pipeline.csv  opportunity_id, sales_agent, product, account,
                          deal_stage, engage_date, close_date, close_value
      sales_teams.csv     sales_agent, manager, regional_office
      products.csv        product
      accounts.csv        account

    Stages are Prospecting, Engaging, Won and Lost; dates are written 2017-03-01.
    Any files of this form can be compared.

    Agents become people, managers' teams parts of the regional offices, and the
    pipeline goes through `python -m services import` into services that live,
    with a Kafka and a PostgreSQL, for this run. Then wins, losses, revenue, win
    rate and sales cycle (mean and median) of every person, team and office, and
    of all, are compared quarter by quarter; so is what became of the rows.

    Exit codes: 0 all the same, 1 something differs, 2 stopped, with the reason.
    """
    began = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    try:
        read(folder)  # before anything is started
        with Progress(*columns, TimeElapsedColumn(), console=console) as bar, ExitStack() as opened:
            with _step(bar, "Kafka and PostgreSQL start"):
                bench = opened.enter_context(a_bench())
            made = asyncio.run(compare(folder, bench.stack, bench.folder, progress=bar))
    except (FilesError, StackError, ServiceEndedError, RuntimeError, TimeoutError) as error:
        console.print("[red]stopped:[/]", escape(str(error)), highlight=False, soft_wrap=True)
        raise typer.Exit(REFUSED) from error
    tell(made)
    verdict = "all the same" if made.equal else "[red]not the same[/]"
    console.print(f"{verdict}; {time.monotonic() - began:.0f} s")
    if not made.equal:
        raise typer.Exit(DIFFERENT)


if __name__ == "__main__":
    typer.run(main)
