"""`python -m services import`: options in; a progress bar, tables and an exit code out."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiokafka.errors import KafkaError
from asyncpg.exceptions import PostgresError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from kit.clock import real_micros
from kit.database import Database
from kit.kafka import create_topics
from kit.publisher import Publisher, PublishError
from kit.settings import KitSettings
from services.ingest.bulk import checkpoint, rows, topic
from services.ingest.bulk.checkpoint import CheckpointError, State
from services.ingest.bulk.forecast import Forecast, forecast
from services.ingest.bulk.importing import FileInput, Input, Show, run
from services.ingest.bulk.messages import (
    MAX_NAME,
    Import,
    MappingError,
    default_name,
    document,
    encoded,
    is_name,
)
from services.ingest.bulk.rows import FileError, Format
from services.ingest.domain import values
from services.ingest.domain.facts import BadEventError
from services.ingest.domain.sources import Source
from services.ingest.gateway import Sources, SourcesError
from services.ingest.store import sources as store

TOPIC = "kafka:"  # and a topic's name, in the place of a file's
DONE, UNREADABLE, REFUSED, INTERRUPTED = 0, 1, 2, 130  # exit codes


class OptionsError(ValueError):
    """What was typed can't be done; the words say why and what to type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was typed."""

    what: str  # a file's path, or TOPIC and a topic's name
    source: str
    mapping: Path
    form: Format | None = None
    delimiter: str = ""
    at: str = ""
    name: str = ""
    rate: float = 0.0
    dry_run: bool = False
    again: bool = False
    allow_unreadable: bool = False

    @property
    def topic(self) -> str:
        """The topic, where it is none of a file."""
        return self.what.removeprefix(TOPIC) if self.what.startswith(TOPIC) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the command works with."""

    kit: KitSettings
    database: Database
    sources: Sources
    console: Console


def main(options: Options, parts: Parts) -> int:
    """Do what was asked for; returns the exit code."""
    try:
        return asyncio.run(_main(options, parts))
    except KeyboardInterrupt:
        trouble, code = "interrupted; run the same command again to go on", INTERRUPTED
    except (BadEventError, CheckpointError, FileError, OptionsError) as error:
        trouble, code = str(error), REFUSED
    except MappingError as error:
        trouble, code = f"{options.mapping} can't be used:\n{error}", REFUSED
    except SourcesError as error:
        trouble, code = f"the sources file (INGEST_SOURCES): {error}", REFUSED
    except (KafkaError, PublishError) as error:
        trouble = f"{error}; when Kafka (PACESETTER_KAFKA) is back, run the same command again"
        code = REFUSED
    except (PostgresError, SQLAlchemyError, ConnectionError, TimeoutError) as error:
        trouble, code = f"PostgreSQL (INGEST_DATABASE): {error}", REFUSED
    except OSError as error:
        trouble, code = str(error), REFUSED
    parts.console.print(f"[red]stopped:[/] {escape(trouble)}", highlight=False)
    return code


async def _main(options: Options, parts: Parts) -> int:
    try:
        what = await _import(options, parts)
        if options.dry_run:
            async with _input(options, parts, what, remember=False) as given:
                with _progress(parts.console, "reading") as show:
                    found = await forecast(what, given, parts.database, show=show)
            _tell(found, parts.console)
            return UNREADABLE if found.unreadable and not options.allow_unreadable else DONE
        async with _input(options, parts, what, remember=True) as given:
            await _run(options, parts, what, given)
        return DONE
    finally:
        await parts.database.close()


async def _run(options: Options, parts: Parts, what: Import, given: Input) -> None:
    console = parts.console
    publisher = Publisher(parts.kit)
    try:
        await publisher.start()
        await create_topics(parts.kit)
        with _progress(console, "importing") as show:
            count = await run(what, given, publisher, rate=options.rate, show=show)
    finally:
        await publisher.stop()
    if not count:
        console.print(
            f"nothing to do: no row of {escape(what.name)} is left to be imported; --again "
            "imports all of them once more, which doubles nothing"
        )
        return
    console.print(
        f"imported {count} rows as [bold]{escape(what.name)}[/]; ingest reads them behind live "
        f"requests. Rows that can't be read: GET /v1/quarantine?source={what.source.id}"
    )


async def _import(options: Options, parts: Parts) -> Import:
    """What is to be imported, once everything that was typed is known to make sense."""
    origin = options.topic or Path(options.what).name
    name = options.name or default_name(origin)
    if not is_name(name):
        raise OptionsError(
            f"--as {name!r:.80}: a name is up to {MAX_NAME} letters, digits, . _ : @ -"
        )
    found = document(await asyncio.to_thread(options.mapping.read_text))
    return Import(
        name=name,
        source=await _source(options.source, parts),
        mapping=encoded(found),
        empty_clears=found.get("empty") == "cleared",
        at=_at(options),
    )


def _at(options: Options) -> int:
    """Where rows stand in time whose mapping doesn't say."""
    if options.topic:
        if options.at:
            raise OptionsError("--at is for files: a topic's messages have their own time")
        return 0  # below whatever else is known, should a message have none
    if not options.at:
        return Path(options.what).stat().st_mtime_ns // 1000
    at = values.micros(options.at)
    if at > real_micros():
        raise OptionsError(f"--at {options.at} is in the future: it would win over what comes next")
    return at


async def _source(number: str, parts: Parts) -> Source:
    """As configured in the sources file or by API."""
    parts.sources.load()
    found = parts.sources.get(number)
    if found is not None:
        return found
    async with parts.database.transaction() as transaction:
        await parts.sources.refresh(transaction)
        holders = await store.holders(transaction, number)
    tenants = [one.tenant for one in holders if not one.deleted]
    found = parts.sources.known(tenants[0], number) if tenants else None
    if found is None:
        raise OptionsError(
            f"--source {number!r:.80} is neither in the sources file (INGEST_SOURCES) nor was it "
            "made by API"
        )
    return found


@asynccontextmanager
async def _input(
    options: Options, parts: Parts, what: Import, *, remember: bool
) -> AsyncIterator[Input]:
    """The rows, and where how far they have been imported is remembered."""
    if options.topic:
        async with topic.opened(
            parts.kit,
            options.topic,
            group=what.name if remember else "",
            identity=what.identity,
            now=real_micros(),
            again=options.again,
        ) as found:
            yield found
        return
    path = Path(options.what)
    file = rows.opened(
        path, options.form, delimiter=options.delimiter, empty_clears=what.empty_clears
    )
    digest = await asyncio.to_thread(checkpoint.digest, path)
    state = State(name=what.name, file=digest, identity=what.identity, began=real_micros())
    if not remember:
        yield FileInput(path, file, state)
        return
    saved = checkpoint.path_of(path, what.name, default=not options.name)
    state = checkpoint.resumed(checkpoint.load(saved), state, again=options.again)
    yield FileInput(path, file, state, saved)


@contextmanager
def _progress(console: Console, doing: str) -> Iterator[Show]:
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]} rows"),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        task = bar.add_task(doing, total=None, rows=0)

        def show(count: int, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, rows=count)

        yield show


def _tell(found: Forecast, console: Console) -> None:
    """What an import would change."""
    types = Table("records", "new", "changed", "unchanged", "fields that change")
    for kind, outlook in sorted(found.types.items()):
        fields = ", ".join(f"{name} {count}" for name, count in outlook.fields.most_common())
        counts = (outlook.new, outlook.changed, outlook.unchanged)
        types.add_row(escape(kind), *map(str, counts), escape(fields))
    console.print(types)
    if found.examples:
        examples = Table("for example", "field", "before", "after")
        for example in found.examples:
            for name, (before, after) in example.fields.items():
                examples.add_row(*map(escape, (example.record, name, before, after)))
        console.print(examples)
    console.print(
        f"{found.rows} rows; {found.ignored} meet no rule's conditions; "
        f"{found.unreadable} can't be read{':' if found.reasons else ''}"
    )
    for reason in found.reasons:
        console.print(f"  {escape(reason)}", highlight=False)
    console.print("nothing was written")
