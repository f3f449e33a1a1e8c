"""ingest, put together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from rich.console import Console

from kit import clock
from kit.auth import Authenticator
from kit.database import Database
from kit.http import PROBLEMS
from kit.jobs import Job
from kit.publisher import Publisher
from kit.replica import Replica
from kit.service import Service
from schemas.directory import Entry
from services.ingest.api import (
    directory,
    duplicates,
    events,
    owners,
    preview,
    quarantine,
    receive,
    records,
    rereads,
)
from services.ingest.api import sources as sources_api
from services.ingest.api.parts import Parts
from services.ingest.bulk import command
from services.ingest.domain.sealing import Seal, keys_of
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import all_vendors
from services.ingest.gateway import Sources, resolved
from services.ingest.handlers import Handlers
from services.ingest.jobs import forget_events
from services.ingest.pacing import BESIDE_LIVE, GiveWay
from services.ingest.rereading import Rereading
from services.ingest.settings import Settings
from services.ingest.store import digest
from services.ingest.store.events import FIRST
from services.ingest.tracing import Trace, Tracer

__all__ = ["Settings", "create_app"]

MIGRATIONS = Path(__file__).parent / "migrations"
LANES = {"normalise": "", "backfill": "backfill"}  # by the role of the process that reads it
BACKFILL_RECORDS = 20  # messages of up to 500 rows: what fits in one transaction
REFRESH_SECONDS = 0.5  # how long another replica goes on with a source's former configuration


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service as an ASGI application; it starts and stops with the application's life."""
    settings = settings or Settings()
    database = Database(settings.database, migrations=MIGRATIONS)
    publisher = Publisher(settings.kit)
    sources = _sources(settings)
    replica: Replica[Entry] = Replica(Entry)
    handlers = Handlers(sources, replica)
    rereading = Rereading(database, publisher, sources)

    async def refresh_sources() -> None:
        async with database.transaction() as transaction:
            await sources.refresh(transaction)

    async def prepare() -> None:
        sources.load()
        await refresh_sources()

    async def checksum() -> str:
        async with database.transaction() as transaction:
            return await digest.checksum(transaction)

    # One message at a time then: while it is read, nothing else in the process moves.
    beside_live = not settings.roles.isdisjoint({"receive", "normalise"})

    def live_lag_seconds() -> float:
        return max((c.lag_seconds() for c in service.consumers if not c.lane), default=0.0)

    service = Service(
        name="ingest",
        settings=settings.kit,
        database=database,
        publisher=publisher,
        apply=handlers.apply,
        checksum=checksum,
        prepare=prepare,
        current=handlers.current,
        lanes=[lane for role, lane in LANES.items() if role in settings.roles],
        lane_records=1 if beside_live else BACKFILL_RECORDS,
        around={
            LANES["backfill"]: GiveWay(
                live_lag_seconds,
                messages_per_second=settings.backfill_rate,
                share=BESIDE_LIVE if beside_live else 1.0,
            )
        },
        jobs=[
            Job("refresh-sources", REFRESH_SECONDS, refresh_sources),
            forget_events(database, now_us=clock.real_micros, days=settings.event_days),
            # In whoever reads the answers.
            *(rereading.jobs() if "backfill" in settings.roles else ()),
        ],
    )
    app = service.application(title="Pacesetter ingest")
    parts = Parts(
        settings=settings,
        database=database,
        publisher=publisher,
        replica=replica,
        sources=sources,
        authenticator=Authenticator(settings.kit),
        replay=handlers.replay,
        publish_records=service.processor.publish,
        preview=handlers.preview,
        tracer=Tracer(settings.kit, database, source_of=handlers.source_of),
        now_us=clock.real_micros,
        clock=clock.load(settings.kit.clock),
    )
    receive.add_route(app, parts)
    for routes in (
        directory,
        owners,
        records,
        rereads,
        sources_api,
        preview,
        quarantine,
        events,
        duplicates,
    ):
        app.include_router(routes.router(parts), responses=PROBLEMS)
    return app


def _sources(settings: Settings) -> Sources:
    """The sources, with the keys that their secrets are sealed with."""
    keys = settings.secrets_key.get_secret_value()
    seal = Seal(keys_of(resolved(keys)) if keys else ())
    return Sources(settings.sources, seal=seal, folder=settings.secrets_folder)


def import_rows(options: command.Options, console: Console) -> int:
    """What `python -m services import` does; returns its exit code."""
    settings = Settings()
    parts = command.Parts(
        kit=settings.kit,
        database=Database(settings.database, migrations=MIGRATIONS),
        sources=_sources(settings),
        console=console,
    )
    return command.main(options, parts)


def preview_file(path: Path, *, source: str, vendor: str, headers: Mapping[str, str]) -> list[Any]:
    """What `python -m services preview` shows; ValueError or a Problem says what is wrong."""
    settings = Settings()
    if source:
        sources = _sources(settings)
        sources.load()
        found = sources.get(source)
        if found is None:
            raise ValueError(f"no source {source!r} in the sources file (INGEST_SOURCES)")
    elif vendor in all_vendors():
        found = Source(id=vendor, tenant="preview", vendor=vendor)
    else:
        raise ValueError(f"vendor {vendor!r} is none of {', '.join(sorted(all_vendors()))}")
    return preview.offline(found, path.read_bytes(), headers, most=settings.max_items)


async def trace(tenant: str, *, request: str, vendor_event: str, record: str, limit: int) -> Trace:
    """What `python -m services trace` shows."""
    settings = Settings()
    database = Database(settings.database, migrations=MIGRATIONS)
    sources = _sources(settings)
    sources.load()
    handlers = Handlers(sources, Replica(Entry))
    tracer = Tracer(settings.kit, database, source_of=handlers.source_of)
    try:
        if request:
            return await tracer.of_request(tenant, request, FIRST, limit)
        if vendor_event:
            return await tracer.of_vendor_event(tenant, vendor_event, FIRST, limit)
        kind, _, number = record.partition("/")
        return await tracer.of_record(tenant, kind, number, None, limit)
    finally:
        await database.close()
