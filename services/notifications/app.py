"""The notifications service, put together. Import does nothing."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI

from kit import clock as clocks
from kit.auth import Authenticator, principal_dependency
from kit.database import Database
from kit.jobs import Job
from kit.publisher import Publisher
from kit.service import Service
from services.notifications import api, store
from services.notifications.domain.rules import Rules
from services.notifications.gateway import (
    Endpoint,
    InvalidEndpointsError,
    Progress,
    Sender,
    parse_endpoints,
)
from services.notifications.handlers import Handlers
from services.notifications.jobs import Barrier, Clockwork, Webhooks, Windows
from services.notifications.settings import Settings, read_yaml

MIGRATIONS = Path(__file__).parent / "migrations"

WINDOWS_SECONDS = 0.2  # business time may run thousands of times faster than real time
INBOX_SECONDS = 0.1
PUBLISH_SECONDS = 0.2
STREAM_SECONDS = 0.2
WEBHOOK_SECONDS = 0.5
BACKLOG_SECONDS = 5.0


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the service; nothing opens until it starts."""
    settings = settings or Settings()
    clock = clocks.load(settings.kit.clock)
    rules = settings.load_rules()
    endpoints = _endpoints(settings, rules)
    subscriptions = [endpoint.subscription for endpoint in endpoints]

    database = Database(settings.database, migrations=MIGRATIONS)
    publisher = Publisher(settings.kit)
    directories = store.Directories()
    handlers = Handlers(rules, directories, subscriptions, clock)
    windows = Windows(rules, directories, subscriptions, batch=settings.watch_batch)
    progress = Progress(settings.kit, service="notifications")
    barrier = Barrier(clock, progress, grace_seconds=settings.grace_seconds)
    clockwork = Clockwork(database, publisher, windows, barrier, clock)
    sender = Sender(
        connect_seconds=settings.connect_seconds,
        answer_seconds=settings.answer_seconds,
        development=_development(settings),
    )
    feed = api.Feed(database, limit=settings.stream_limit)

    async def checksum() -> str:
        async with database.transaction() as transaction:
            return await store.checksum(transaction)

    service = Service(
        name="notifications",
        settings=settings.kit,
        database=database,
        publisher=publisher,
        apply=handlers.apply,
        current=handlers.current,
        checksum=checksum,
        settle=clockwork.settle,
        jobs=[
            Job("windows", WINDOWS_SECONDS, clockwork.look_at_windows),
            Job("inbox", INBOX_SECONDS, clockwork.send_inbox),
            Job("publish", PUBLISH_SECONDS, clockwork.publish),
            Job("streams", STREAM_SECONDS, feed.poll),
            Job("backlog", BACKLOG_SECONDS, clockwork.measure_backlog),
            *_webhook_jobs(settings, database, sender, rules, endpoints),
        ],
    )
    app = service.application(title="Pacesetter notifications")
    _close_with(app, progress, sender)
    app.include_router(
        api.routes(
            api.Parts(
                database=database,
                directories=directories,
                rules=rules,
                feed=feed,
                clock=clock,
                principal=principal_dependency(Authenticator(settings.kit)),
                page_limit=settings.page_limit,
            )
        )
    )
    return app


def _endpoints(settings: Settings, rules: Rules) -> list[Endpoint]:
    if settings.endpoints is None:
        return []
    try:
        document = read_yaml(settings.endpoints)
        return parse_endpoints(document, rules, development=_development(settings))
    except InvalidEndpointsError as error:
        raise InvalidEndpointsError(f"{settings.endpoints}: {error}") from error


def _development(settings: Settings) -> bool:
    return bool(settings.kit.dev_secret.get_secret_value())


def _webhook_jobs(
    settings: Settings,
    database: Database,
    sender: Sender,
    rules: Rules,
    endpoints: list[Endpoint],
) -> list[Job]:
    return [
        Job(
            "webhooks",
            WEBHOOK_SECONDS,
            Webhooks(
                database,
                endpoint,
                sender,
                rules,
                lease_seconds=settings.lease_seconds,
                batch=settings.send_batch,
            ).run,
        )
        for endpoint in endpoints
    ]


def _close_with(app: FastAPI, progress: Progress, sender: Sender) -> None:
    """Close our own connections after the service's parts have stopped."""
    running = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(sender.close)
            stack.push_async_callback(progress.close)
            async with running(app):
                yield

    app.router.lifespan_context = lifespan
