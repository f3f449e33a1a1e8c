"""The command line: run a service, rebuild its store, deal with its dead letters.

`python -m services --help` explains every command.
"""

import asyncio
import importlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from kit import logs
from kit.auth import ROLES, development_token
from kit.rebuild import GroupIsActiveError, dead_letters, rebuild, replay_dead_letters
from kit.service import Service, serve
from kit.settings import KitSettings
from schemas.topics import consumed_by
from services.ingest import cli as ingest
from services.metrics import cli as metrics

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # our log has it, without variables
    help="Run and look after Pacesetter.",
)
console = Console()


class ServiceName(StrEnum):
    """The services, as the command line names them."""

    ingest = "ingest"
    metrics = "metrics"
    payouts = "payouts"
    notifications = "notifications"


@cli.command("serve")
def serve_command(service: ServiceName) -> None:
    """Run one service until Ctrl-C or SIGTERM."""
    settings = KitSettings()
    logs.configure(settings, service=service)
    module = _module(service)
    own = module.Settings()
    app = module.create_app(own)
    serve(app, host=settings.host, port=own.port, max_connections=settings.max_connections)


@cli.command("rebuild")
def rebuild_command(service: ServiceName) -> None:
    """Drop a service's store and make it again from the topics. Stop its replicas first."""
    with Progress(
        TextColumn("rebuilding [bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        task = bar.add_task(service, total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        try:
            checksum = asyncio.run(rebuild(_service(service), show))
        except GroupIsActiveError as error:
            raise typer.BadParameter(str(error)) from error
    console.print(f"done; checksum of the derived tables: [bold]{checksum}")


@cli.command("checksum")
def checksum_command(service: ServiceName) -> None:
    """Digest a service's derived tables: equal stores give equal checksums."""
    console.print(asyncio.run(_connected_checksum(_service(service))))


@cli.command("lint")
def lint_command(plans: list[Path]) -> None:
    """Check incentive plans (YAML) without publishing them; exits 1 when one has a mistake."""
    text = importlib.import_module("services.payouts.domain.text")
    mistakes = 0
    for plan in plans:
        for trouble in text.lint(plan.read_text()):
            mistakes += 1
            console.print(f"{plan}:{trouble.line or 1}: {trouble.where}: {trouble.what}")
    console.print("no mistakes" if not mistakes else f"{mistakes} mistakes")
    raise typer.Exit(1 if mistakes else 0)


SourceTopic = Annotated[str, typer.Argument(help="Source topic, e.g. crm.records.v1")]


@cli.command("dead-letters")
def dead_letters_command(service: ServiceName, topic: SourceTopic) -> None:
    """List what a service could not apply from a topic, and why."""
    _check_topic(service, topic)
    shown = Table("when", "message", "key", "error", "reason")

    async def collect() -> None:
        async for letter in dead_letters(_service(service), topic):
            when = letter.at.isoformat(timespec="seconds")
            shown.add_row(when, letter.source, letter.key, letter.error, letter.reason)

    asyncio.run(collect())
    console.print(shown)


@cli.command("replay")
def replay_command(service: ServiceName, topic: SourceTopic) -> None:
    """Apply a topic's dead letters again after a fix. Stop the service's replicas first."""
    _check_topic(service, topic)
    taken = asyncio.run(replay_dead_letters(_service(service), topic))
    console.print(f"replayed {taken} dead letters of {topic}")


cli.command("import")(ingest.import_rows)
cli.command("preview")(ingest.preview)
cli.command("trace")(ingest.trace)
cli.add_typer(metrics.cli, name="metrics")


@cli.command("token")
def token_command(
    tenant: str,
    role: Annotated[list[str], typer.Option(help=f"One of {', '.join(sorted(ROLES))}.")],
    person: str = "",
) -> None:
    """Print a development token (needs PACESETTER_DEV_SECRET; works on loopback only)."""
    secret = KitSettings().dev_secret.get_secret_value()
    if not secret:
        raise typer.BadParameter("set PACESETTER_DEV_SECRET to the secret the services run with")
    print(development_token(secret, tenant=tenant, person=person, roles=role))


def _check_topic(service: str, topic: str) -> None:
    known = [t.name for t in consumed_by(service)]
    if topic not in known:
        raise typer.BadParameter(f"{service} reads {', '.join(known)}")


def _module(service: str) -> Any:
    return importlib.import_module(f"services.{service}.app")


def _service(name: str) -> Service:
    logs.configure(KitSettings(), service=name)
    service: Service = _module(name).create_app().state.service
    return service


async def _connected_checksum(service: Service) -> str:
    async with service.connected():
        return await service.checksum()


if __name__ == "__main__":
    cli()
