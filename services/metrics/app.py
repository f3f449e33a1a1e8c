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
from kit.webhooks import Poster
from services.metrics import api, pages
from services.metrics.api.parts import Parts
from services.metrics.boards import Hub
from services.metrics.contests import Referee
from services.metrics.displays import Displays
from services.metrics.domain import boards, catalogue
from services.metrics.domain.catalogue import CatalogueError
from services.metrics.handlers import Handler
from services.metrics.jobs import Folder, MeasurePublisher
from services.metrics.recounting import Recounter
from services.metrics.settings import Settings
from services.metrics.store import digest
from services.metrics.store.contests import Contests
from services.metrics.store.context import Context
from services.metrics.store.definitions import Definitions
from services.metrics.store.forecasts import Forecasts
from services.metrics.store.leaderboards import Leaderboards

BOARDS_SECONDS = 0.05  # between two looks at what others have applied or folded
VACUUM_SECONDS = 5.0
MEASURES_SECONDS = 0.1  # between two looks at what is to be published
DISPLAY_SECONDS = 1.0  # between two looks at what displays outside show
CONTEST_SECONDS = 1.0  # between two looks at contests: a change of the lead is told within it
RECOUNT_SECONDS = 0.5  # between two looks whether the past is to be counted again

__all__ = ["Settings", "create_app"]


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the service; raises `CatalogueError` when a catalogue or board makes no sense."""
    settings = settings or Settings()
    metrics = _parsed(settings.catalogue, catalogue.parse)
    shipped = _parsed(settings.boards, lambda document: boards.parse_file(document, metrics))
    database = Database(settings.database, migrations=Path(__file__).with_name("migrations"))
    publisher = Publisher(settings.kit)
    context = Context(metrics, shipped.published)
    handler = Handler(context)
    now = clock.load(settings.kit.clock)
    definitions = Definitions(context, shipped)
    leaderboards = Leaderboards(database, context, definitions, now)
    contests = Contests(context, definitions, now)
    referee = Referee(database, publisher, context, contests)
    hub = Hub(
        lambda tenant, board: leaderboards.standings(tenant, board, None),
        leaderboards.versions,
        updates=settings.stream_updates,
    )
    told = Displays(
        database, context, leaderboards, _poster(settings), secrets=settings.secrets_folder
    )
    # What a commit leaves to do is done at once where it was; other replicas look by the clock.
    watched = Job("boards", BOARDS_SECONDS, hub.tick, settings.board_seconds)
    folder = Folder(database, context, rows=settings.fold_rows, waiting=settings.waiting_rows)
    fold = Job("fold", settings.fold_seconds, folder.fold)
    measures = MeasurePublisher(database, publisher, rows=settings.publish_rows)
    recounter = Recounter(
        settings.kit,
        database,
        context,
        handler,
        room=folder.room,
        share=settings.recount_share,
    )

    def applied() -> None:
        watched.due.set()
        fold.due.set()

    async def settle() -> None:
        await recounter.serve()
        await folder.settle()

    async def checksum() -> str:
        await settle()
        async with database.transaction() as transaction:
            return await digest.checksum(transaction, context)

    service = Service(
        name="metrics",
        settings=settings.kit,
        database=database,
        publisher=publisher,
        apply=handler.apply,
        around={"": folder.room},
        checksum=checksum,
        prepare=recounter.prepare,
        settle=settle,
        applied=applied,
        jobs=[
            fold,
            Job("publish-measures", MEASURES_SECONDS, measures.publish),
            watched,
            Job("contests", CONTEST_SECONDS, referee.step),
            Job("displays", DISPLAY_SECONDS, told.look),
            Job("display-events", DISPLAY_SECONDS, told.send),
            Job("recount", RECOUNT_SECONDS, recounter.serve),
            Job("vacuum", VACUUM_SECONDS, folder.vacuum),
        ],
    )
    app = service.application(title="Pacesetter metrics")
    authenticator = Authenticator(settings.kit)
    parts = Parts(
        settings=settings,
        database=database,
        publisher=publisher,
        context=context,
        leaderboards=leaderboards,
        contests=contests,
        forecasts=Forecasts(database, context, now),
        hub=hub,
        displays=told,
        clock=now,
        principal=principal_dependency(authenticator),
    )
    app.include_router(api.router(parts))
    app.include_router(pages.router(authenticator))
    return app


def _poster(settings: Settings) -> Poster:
    return Poster(
        connect_seconds=settings.display_connect_seconds,
        answer_seconds=settings.display_answer_seconds,
        development=bool(settings.kit.dev_secret.get_secret_value()),
        networks=settings.display_networks,
    )


def _parsed(path: Path, parse: Any) -> Any:
    try:
        return parse(yaml.safe_load(path.read_text()))
    except (yaml.YAMLError, CatalogueError) as error:
        raise CatalogueError(f"{path}: {error}") from error
