"""The composition root of payouts: what is made of what."""

import hashlib
from pathlib import Path

from fastapi import FastAPI

from kit.auth import Authenticator
from kit.database import Database
from kit.publisher import Publisher
from kit.service import Service
from services.payouts import store
from services.payouts.api import routes
from services.payouts.handlers import Payouts
from services.payouts.jobs import verify_job
from services.payouts.settings import Settings
from services.payouts.store import Configuration

MIGRATIONS = Path(__file__).parent / "migrations"

__all__ = ["Settings", "checksum", "create_app"]


def create_app(settings: Settings | None = None) -> FastAPI:
    """The payouts service as an ASGI application; nothing is connected before it starts."""
    settings = settings or Settings()
    database = Database(settings.database, migrations=MIGRATIONS)
    publisher = Publisher(settings.kit)
    configuration = Configuration()
    payouts = Payouts(configuration)

    async def digest() -> str:
        return await checksum(database)

    service = Service(
        name="payouts",
        settings=settings.kit,
        database=database,
        publisher=publisher,
        apply=payouts.apply,
        current=payouts.current,
        keeps_history=True,  # what was paid and why is never thrown away
        checksum=digest,
        jobs=[verify_job(database, seconds=settings.verify_seconds)],
    )
    app = service.application(title="Pacesetter payouts")
    app.include_router(
        routes(
            settings=settings,
            authenticator=Authenticator(settings.kit),
            database=database,
            publisher=publisher,
            configuration=configuration,
            apply=payouts.apply,
        )
    )
    return app


async def checksum(database: Database) -> str:
    """One digest of all derived tables: equal stores give equal checksums."""
    async with database.transaction() as transaction:
        found = await store.digests(transaction)
    text = "\n".join(f"{name}={value}" for name, value in sorted(found.items()))
    return hashlib.sha256(text.encode()).hexdigest()
