"""What the command line can do with ingest: import, preview, trace.

`services/__main__.py` knows these commands on every call; the service is loaded when one is run.
"""

import asyncio
import importlib
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kit import logs
from kit.http import Problem
from kit.settings import KitSettings
from services.ingest.bulk.rows import Format

console = Console()


def import_rows(  # noqa: PLR0913  # one parameter per option
    what: Annotated[str, typer.Argument(metavar="FILE|kafka:TOPIC", help="Where the rows are.")],
    source: Annotated[str, typer.Option(help="Id of the source whose records these are.")],
    mapping: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="What a row means (YAML).")
    ],
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would change; write nothing.")
    ] = False,
    form: Annotated[
        Format | None, typer.Option("--format", help="Unless the file's name ends in it.")
    ] = None,
    delimiter: Annotated[str, typer.Option(help="Of CSV; found out by the header else.")] = "",
    at: Annotated[
        str,
        typer.Option(
            metavar="INSTANT",
            help="When rows were true whose mapping has no `at`; else the file's last change. "
            "What the CRM has said since then stays.",
        ),
    ] = "",
    name: Annotated[
        str, typer.Option("--as", metavar="NAME", help="The import's name; else the file's.")
    ] = "",
    rate: Annotated[float, typer.Option(min=0, help="Rows per second at most; 0: no limit.")] = 0,
    again: Annotated[
        bool, typer.Option("--again", help="From the first row, though it was imported.")
    ] = False,
    allow_unreadable: Annotated[
        bool, typer.Option("--allow-unreadable", help="A dry run with bad rows exits with 0.")
    ] = False,
) -> None:
    """Import records from a file or a Kafka topic. The guide is docs/guides/import.md.

    Look with --dry-run at what would change, then import; after an interruption, run the same
    command again, and it goes on:

    \b
      python -m services import deals.csv --source crm --mapping deals.yaml

    \b
    With this deals.yaml, for the columns Id, Name, Amount, Currency, Changed:
      rules:
        - type: opportunity
          id: Id
          op: snapshot
          at: Changed
          fields: {name: Name, amount: Amount, currency: Currency}

    Rows are read behind live requests. A row that can't be read is put aside alone, with its line.

    Exit codes: 0 done, 1 a dry run has found rows that can't be read, 2 stopped.
    """  # noqa: D301  # the mark of lines that are to stay as they are
    command = importlib.import_module("services.ingest.bulk.command")
    options = command.Options(
        what=what,
        source=source,
        mapping=mapping,
        form=form,
        delimiter=delimiter,
        at=at,
        name=name,
        rate=rate,
        dry_run=dry_run,
        again=again,
        allow_unreadable=allow_unreadable,
    )
    logs.configure(KitSettings(), service="ingest")
    raise typer.Exit(_app().import_rows(options, console))


def preview(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A request's body.")],
    source: Annotated[str, typer.Option(help="Read it as this source of INGEST_SOURCES.")] = "",
    vendor: Annotated[str, typer.Option(help="Or as this vendor's, e.g. hubspot.")] = "",
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME:VALUE", help="A header of the request.")
    ] = None,
) -> None:
    """Show the events that a request's body would become, as JSON; nothing is connected to."""
    if bool(source) == bool(vendor):
        raise typer.BadParameter("give either --source or --vendor")
    pairs = [one.partition(":") for one in header or []]
    headers = {name.strip(): value.strip() for name, _, value in pairs}
    try:
        found = _app().preview_file(file, source=source, vendor=vendor, headers=headers)
    except (Problem, ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())


def trace(
    tenant: str,
    request: Annotated[str, typer.Option(help="Our id of a request, as its sender got it.")] = "",
    vendor_event: Annotated[str, typer.Option(help="The vendor's id of an event.")] = "",
    record: Annotated[str, typer.Option(help="<type>/<id>, e.g. opportunity/hub:1.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Events at most.")] = 100,
) -> None:
    """Show what happened to an event: received, read, put aside, applied, and by whom."""
    if sum(map(bool, (request, vendor_event, record))) != 1:
        raise typer.BadParameter("give exactly one of --request, --vendor-event and --record")
    tracing = importlib.import_module("services.ingest.tracing")
    asked = _app().trace(
        tenant, request=request, vendor_event=vendor_event, record=record, limit=limit
    )
    try:
        found = asyncio.run(asked)
    except tracing.UnavailableError as error:
        console.print(f"Kafka (PACESETTER_KAFKA) does not answer: {error}")
        raise typer.Exit(1) from error
    shown = Table("when", "what", "which", "")
    for line in tracing.timeline(found):
        shown.add_row(*map(escape, line))
    console.print("nothing is known of it" if found.nothing else shown)


def _app() -> Any:
    return importlib.import_module("services.ingest.app")
