"""A service from its parts, started and stopped in the right order.

Start: migrate → publishers → topics → consumer → jobs; a part that can't start ends the process
with one log line and a non-zero exit, so that whatever supervises it sees the failure. Stop: jobs →
consumer (finishes its batch) → publishers → database.

Every service answers `/livez` (the process works), `/readyz` (Kafka, database and consumer work)
and `/metrics` (Prometheus).
"""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
import uvicorn
from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from kit import http
from kit.consumer import (
    MAX_RECORDS,
    Apply,
    AroundBatch,
    Consumer,
    Current,
    Processor,
    nothing_around,
)
from kit.database import Database
from kit.jobs import Job, run_forever
from kit.kafka import create_topics
from kit.publisher import Publisher
from kit.server import BoundedProtocol, room_for
from kit.settings import KitSettings

log = structlog.get_logger(__name__)

PING_SECONDS = 2.0
GC_THRESHOLDS = (100_000, 20, 100)  # about five collections of the young per batch
SHUTDOWN_SECONDS = 30  # open requests and event streams get this long
MAX_MESSAGE_BYTES = 64 * 1024  # of a WebSocket's client, who has little to say


@dataclass(kw_only=True)
class Service:
    """The parts of one service. `checksum` digests the derived tables for `rebuild`."""

    name: str
    settings: KitSettings
    database: Database
    publisher: Publisher
    apply: Apply
    checksum: Callable[[], Awaitable[str]]
    jobs: Sequence[Job] = ()
    # What the store holds of keys that were just published; needed where replicas share keys.
    current: Current | None = None
    # Called after each batch's commit: what follows on it needn't wait for its turn.
    applied: Callable[[], None] = lambda: None
    # Called after the store is ready and before anything is consumed.
    prepare: Callable[[], Awaitable[None]] | None = None
    # Finishes what jobs derive inside the store (folding, say), so that a rebuild is complete.
    settle: Callable[[], Awaitable[None]] | None = None
    # Whether a rebuild keeps the former store beside the new one, as a schema of its own name.
    keeps_history: bool = False
    # Which of its lanes this process reads (schemas.topics); none: it only answers HTTP.
    lanes: Sequence[str] = ("",)
    # How many messages a lane other than the live one takes at once.
    lane_records: int = MAX_RECORDS
    # What is around each batch of a lane.
    around: Mapping[str, AroundBatch] = field(default_factory=dict)
    processor: Processor = field(init=False)
    # The processors' own way onto Kafka: a producer has one request under way per broker, and what
    # HTTP callers wait for must not queue behind a batch's results, nor these behind that.
    results: Publisher = field(init=False)
    consumers: list[Consumer] = field(default_factory=list, init=False)
    started: bool = field(default=False, init=False)
    starting: str = field(default="", init=False)  # which part, for the log when it can't

    def __post_init__(self) -> None:
        self.results = Publisher(self.settings)
        self.processor = self._new_processor()

    def _new_processor(self) -> Processor:
        return Processor(
            service=self.name,
            prefix=self.settings.topic_prefix,
            database=self.database,
            publisher=self.results,
            apply=self.apply,
            current=self.current,
            applied=self.applied,
        )

    def application(self, *, title: str, version: str = "1") -> FastAPI:
        """The HTTP application, whose life is the service's; routes are added by the caller."""
        app = FastAPI(
            title=title, version=version, lifespan=lambda _: self.running(), redoc_url=None
        )
        app.state.service = self
        http.install(app, max_body_bytes=self.settings.max_body_bytes)
        app.add_route("/livez", self._livez, include_in_schema=False)
        app.add_route("/readyz", self._readyz, include_in_schema=False)
        app.add_route("/metrics", _metrics, include_in_schema=False)
        return app

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything started on entry, stopped on exit."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                await self._connect(stack)
                for lane in self.lanes:
                    consumer = Consumer(
                        self.settings,
                        service=self.name,
                        processor=self._new_processor() if lane else self.processor,
                        lane=lane,
                        max_records=self.lane_records if lane else MAX_RECORDS,
                        around_batch=self.around.get(lane, nothing_around),
                    )
                    stack.push_async_callback(consumer.stop)
                    await consumer.start()
                    self.consumers.append(consumer)
                self.started = True
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"[:500]
                log.critical("service_not_started", at=self.starting, error=reason)
                raise
            tasks = [asyncio.create_task(run_forever(job), name=job.name) for job in self.jobs]
            stack.push_async_callback(_cancel, tasks)
            log.info("service_started")
            yield
            log.info("service_stopping")

    async def _connect(self, stack: contextlib.AsyncExitStack) -> None:
        stack.push_async_callback(self.database.close)
        self.starting = "database (<SERVICE>_DATABASE)"
        await self.database.migrate()
        self.starting = "Kafka (PACESETTER_KAFKA)"
        for publisher in (self.publisher, self.results):
            stack.push_async_callback(publisher.stop)
            await publisher.start()
        await create_topics(self.settings)
        self.starting = "preparation"
        if self.prepare is not None:
            await self.prepare()

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Store and publisher ready, nothing consumed: for commands and tests."""
        async with contextlib.AsyncExitStack() as stack:
            await self._connect(stack)
            yield

    async def _livez(self, _: Request) -> Response:
        if any(consumer.stuck() for consumer in self.consumers):
            return http.Problem(503, "stuck", "A batch makes no progress; restart.").response()
        return http.json_response({"status": "live"})

    async def _readyz(self, _: Request) -> Response:
        problem = None if self.started else "starting"
        for consumer in self.consumers:
            problem = problem or consumer.problem()
        if problem is None:
            try:
                async with asyncio.timeout(PING_SECONDS):
                    await self.database.ping()
            except Exception as error:  # noqa: BLE001  # any failure means: not ready
                problem = f"the database does not answer: {type(error).__name__}"
        if problem is not None:
            return http.Problem(503, "not-ready", problem).response()
        return http.json_response({"status": "ready"})


async def _metrics(_: Request) -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


async def _cancel(tasks: list["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def serve(app: FastAPI, *, host: str, port: int, max_connections: int) -> None:
    """Serve until SIGTERM or Ctrl-C; returns after everything is stopped."""
    # What was imported stays, and a batch makes tens of thousands of objects without cycles:
    # Python's collector would otherwise spend a quarter of an event's CPU looking through them.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    uvicorn.run(
        app,
        host=host,
        port=port,
        http=BoundedProtocol,
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,  # its memory is many times that of a connection
        limit_concurrency=room_for(max_connections),
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
