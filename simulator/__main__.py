"""The command line of the play: look at it, or send it into a running system."""

import asyncio
import json
import os
import time
from datetime import UTC, date, datetime
from itertools import islice
from typing import Annotated
from zoneinfo import ZoneInfo

import httpx
import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from simulator import demo, seed
from simulator.client import Client
from simulator.days import Change, Value, play
from simulator.delivery import Delivery, deliver
from simulator.organisation import ZONE, make_company
from simulator.player import Player, end_of_play, time_map
from simulator.vendors import Secrets

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Play believable days of a sales organisation: 40 people, six teams, two CRMs and a "
    "partner portal. Start with `preview`; `demo` runs everything on this machine.",
)
console = Console()

Seed = Annotated[int, typer.Option("--seed", help="Another number, other people and days.")]
Days = Annotated[int, typer.Option(min=1, max=250, help="Working days to play.")]
FIRST_DAY = demo.START_DAY.isoformat()
Start = Annotated[str, typer.Option(help="The first day, as 2026-11-09; a history precedes it.")]


@cli.command()
def preview(
    days: Days = 1,
    seed_number: Seed = 1,
    start: Start = FIRST_DAY,
    limit: Annotated[int, typer.Option(min=1, help="Rows to print.")] = 60,
) -> None:
    """Print what happens on these days, without sending anything."""
    first = _day(start)
    company = make_company(seed_number, first)
    names = {m.owner_id: m.person for m in company.mappings}
    table = Table("when", "who", "CRM", "what", "record", "fields", box=None)
    visible = (c for c in play(seed_number, first, days, company) if _local(c).date() >= first)
    for change in islice(visible, limit):
        fields = ", ".join(f"{k}={_said(v)}" for k, v in change.fields.items())
        when = f"{_local(change):%a %H:%M:%S}"
        who = names.get(change.actor, change.actor)
        table.add_row(when, who, change.source, f"{change.type} {change.op}", change.id, fields)
    console.print(table)


@cli.command()
def send(
    ingest: Annotated[str, typer.Option(help="Base address of ingest.")] = "http://127.0.0.1:8001",
    metrics: Annotated[str, typer.Option(help="Base address of metrics, for the goals.")] = "",
    payouts: Annotated[str, typer.Option(help="Base address of payouts, for the plan.")] = "",
    days: Days = 1,
    seed_number: Seed = 1,
    start: Start = FIRST_DAY,
    rate: Annotated[
        float, typer.Option(min=0, help="Vendor events per second; 0: as fast as it goes.")
    ] = demo.RATE,
    *,
    with_history: Annotated[
        bool, typer.Option("--history/--no-history", help="Send the weeks before the first day.")
    ] = True,
) -> None:
    """Play into a running system, each event at its time.

    Ingest must know the sources `hubspot`, `pipedrive` and `partners` (`sources` prints them).
    Secrets come from the environment: SIMULATOR_HUBSPOT_SECRET, SIMULATOR_PIPEDRIVE_PASSWORD, and
    SIMULATOR_API_KEY (role admin), with which people, goals and the plan are set up first.
    """
    first = _day(start)
    urls = {"ingest": ingest, "metrics": metrics, "payouts": payouts}
    counts = asyncio.run(_send(urls, first, days, seed_number, rate, with_history=with_history))
    console.print(counts)


@cli.command()
def sources() -> None:
    """Print the sources file that ingest needs for `send`, with the secrets of the environment."""
    print(seed.sources_yaml(_secrets()))


cli.command("demo")(demo.main)


async def _send(
    urls: dict[str, str],
    first: date,
    days: int,
    seed_number: int,
    rate: float,
    *,
    with_history: bool,
) -> str:
    company, secrets = make_company(seed_number, first), _secrets()
    async with httpx.AsyncClient(timeout=20) as http:
        client = Client(http, urls, {"X-API-Key": secrets.partners_key})
        await client.put("ingest", "/v1/directory", json=seed.directory(company))
        await seed.late(client, company)
        if urls["metrics"]:
            await client.put("metrics", "/v1/goals", json=seed.goals(company))
        if urls["payouts"]:
            await seed.put_plan(client)
    morning = datetime.combine(first, datetime.min.time(), ZoneInfo(ZONE)).astimezone(UTC)
    changes = play(seed_number, first, days, company)
    deliveries = deliver(changes, seed_number, end_of_play(first, days))
    wanted = (d for d in deliveries if with_history or d.at >= morning)
    points = None
    if rate:
        day_seconds = demo.events_per_day(seed_number) / rate
        points = time_map(first, days, real_start=time.time(), day_seconds=day_seconds)
    began = time.monotonic()
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()) as bar:
        task = bar.add_task("sending")

        def show(_: Delivery) -> None:
            bar.update(
                task, description=f"{player.counts.events} events, {player.counts.retries} retries"
            )

        player = Player(
            lambda source: f"{urls['ingest']}/v1/sources/{source}/events",
            secrets,
            on_progress=show,
        )
        await player.play(wanted, points)
    counts = player.counts
    seconds = time.monotonic() - began
    return (
        f"{counts.events} events in {counts.requests} requests, {counts.events / seconds:,.0f} "
        f"events/s; {counts.repeated} repeated, {counts.late} late, {counts.retries} retries"
    )


def _secrets() -> Secrets:
    def needed(name: str) -> str:
        value = os.environ.get(name, "")
        if not value:
            raise typer.BadParameter(f"set {name} in the environment")
        return value

    return Secrets(
        hubspot_client_secret=needed("SIMULATOR_HUBSPOT_SECRET"),
        pipedrive_user="pacesetter",
        pipedrive_password=needed("SIMULATOR_PIPEDRIVE_PASSWORD"),
        partners_key=needed("SIMULATOR_API_KEY"),
    )


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a day such as 2026-11-09") from None


def _local(change: Change) -> datetime:
    return change.at.astimezone(ZoneInfo(ZONE))


def _said(value: Value) -> str:
    if isinstance(value, datetime):
        return f"{value.astimezone(ZoneInfo(ZONE)):%H:%M:%S}"
    return json.dumps(value) if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    cli()
