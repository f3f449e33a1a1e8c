"""ingest, put together."""

from pathlib import Path

from fastapi import FastAPI

from kit import clock
from kit.auth import Authenticator
from kit.database import Database
from kit.publisher import Publisher
from kit.replica import Replica
from kit.service import Service
from schemas.directory import Entry
from services.ingest import store
from services.ingest.api import directory, quarantine, receive, records
from services.ingest.api.parts import Parts
from services.ingest.gateway import Sources
from services.ingest.handlers import Handlers
from services.ingest.settings import Settings

__all__ = ["Settings", "create_app"]

MIGRATIONS = Path(__file__).parent / "migrations"


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service as an ASGI application; it starts and stops with the application's life."""
    settings = settings or Settings()
    database = Database(settings.database, migrations=MIGRATIONS)
    publisher = Publisher(settings.kit)
    sources = Sources(settings.sources)
    replica: Replica[Entry] = Replica(Entry)
    handlers = Handlers(sources, replica)

    async def prepare() -> None:
        sources.load()

    async def checksum() -> str:
        async with database.transaction() as transaction:
            return await store.checksum(transaction)

    service = Service(
        name="ingest",
        settings=settings.kit,
        database=database,
        publisher=publisher,
        apply=handlers.apply,
        checksum=checksum,
        prepare=prepare,
        current=handlers.current,
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
        now_us=clock.real_micros,
        clock=clock.load(settings.kit.clock),
    )
    receive.add_route(app, parts)
    for routes in (directory, quarantine, records):
        app.include_router(routes.router(parts))
    return app
