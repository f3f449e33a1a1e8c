"""The metrics service, put together; nothing opens until it runs."""

from pathlib import Path
from typing import Any

import yaml
from fastapi import FastAPI

from kit import clock
from kit.auth import Authenticator, principal_dependency
from kit.database import Database
from kit.jobs import Job
from kit.publisher import Publisher
from kit.service import Service
from services.metrics import api, pages
from services.metrics.api.parts import Parts
from services.metrics.boards import Hub
from services.metrics.domain import catalogue, leaderboard
from services.metrics.domain.catalogue import CatalogueError
from services.metrics.handlers import Handler
from services.metrics.jobs import Folder, MeasurePublisher
from services.metrics.settings import Settings
from services.metrics.store import digest
from services.metrics.store.context import Context
from services.metrics.store.leaderboards import Leaderboards

VACUUM_SECONDS = 5.0

__all__ = ["Settings", "create_app"]


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the service; raises `CatalogueError` when a catalogue or board makes no sense."""
    settings = settings or Settings()
    metrics = _parsed(settings.catalogue, catalogue.parse)
    boards = _parsed(settings.boards, lambda document: leaderboard.parse(document, metrics))
    database = Database(settings.database, migrations=Path(__file__).with_name("migrations"))
    publisher = Publisher(settings.kit)
    context = Context(boards.published)
    now = clock.load(settings.kit.clock)
    leaderboards = Leaderboards(database, context, metrics, now)
    hub = Hub(
        lambda tenant, board: leaderboards.board(tenant, boards.definitions[board], None),
        leaderboards.versions,
        updates=settings.stream_updates,
    )
    folder = Folder(database, context, rows=settings.fold_rows)
    measures = MeasurePublisher(database, publisher, rows=settings.publish_rows)

    async def checksum() -> str:
        await folder.settle()
        async with database.transaction() as transaction:
            return await digest.checksum(transaction, context)

    service = Service(
        name="metrics",
        settings=settings.kit,
        database=database,
        publisher=publisher,
        apply=Handler(metrics, context).apply,
        checksum=checksum,
        settle=folder.settle,
        jobs=[
            Job("fold", settings.fold_seconds, folder.fold),
            Job("publish-measures", settings.fold_seconds, measures.publish),
            Job("boards", settings.board_seconds, hub.tick),
            Job("vacuum", VACUUM_SECONDS, folder.vacuum),
        ],
    )
    app = service.application(title="Pacesetter metrics")
    authenticator = Authenticator(settings.kit)
    parts = Parts(
        settings=settings,
        catalogue=metrics,
        boards=boards,
        database=database,
        publisher=publisher,
        context=context,
        leaderboards=leaderboards,
        hub=hub,
        clock=now,
        principal=principal_dependency(authenticator),
    )
    app.include_router(api.router(parts))
    app.include_router(pages.router(authenticator))
    return app


def _parsed(path: Path, parse: Any) -> Any:
    try:
        return parse(yaml.safe_load(path.read_text()))
    except (yaml.YAMLError, CatalogueError) as error:
        raise CatalogueError(f"{path}: {error}") from error
