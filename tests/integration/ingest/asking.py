"""Re-reading without the rest of the service: a store, the jobs that ask, and a CRM's stand-in."""

import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import msgspec

from kit.consumer import Batch
from kit.database import Database
from kit.publisher import Publisher
from kit.replica import Replica
from schemas.base import State
from schemas.crm import Backfilled, Received, Record
from schemas.directory import Entry
from services.ingest.app import MIGRATIONS
from services.ingest.domain.sealing import Seal
from services.ingest.domain.sources import Api, Source
from services.ingest.gateway import Sources
from services.ingest.handlers import Handlers
from services.ingest.rereading import Rereading
from services.ingest.store import records, rereads
from tests.support import TENANT, crms
from tests.unit.ingest.bodies import received

SECOND = 1_000_000


class Killed(BaseException):
    """As if the process had ended here."""


class Topic:
    """What would be on Kafka."""

    def __init__(self) -> None:
        self.states: list[Backfilled] = []
        self.after: Callable[[int], None] = lambda _: None

    async def publish(self, states: Iterable[State]) -> None:
        self.states += [one for one in states if isinstance(one, Backfilled)]
        self.after(len(self.states))


class World:
    """A store, the jobs that ask, and a clock that can be put forward."""

    def __init__(
        self, database: Database, folder: Path, source: Source, seal: Seal | None = None
    ) -> None:
        self.database = database
        self.source = source
        self.sources = Sources(folder / "sources.yaml", seal=seal)
        self.ahead = 0
        self.topic = Topic()
        self.handlers = Handlers(self.sources, Replica(Entry), now_us=self.now_us)
        self.configure(source)
        self.restart()

    def restart(self) -> None:
        """Another process, with nothing in memory."""
        self.rereading = self.worker()

    def worker(self) -> Rereading:
        topic = cast(Publisher, self.topic)
        return Rereading(self.database, topic, self.sources, now_us=self.now_us)

    def configure(self, source: Source) -> None:
        self.source = source
        assert self.sources.path is not None
        entry = msgspec.to_builtins(source) | {"secrets": ["s"]}
        self.sources.path.write_text(json.dumps([entry]))
        self.sources.load()

    def now_us(self) -> int:
        return time.time_ns() // 1000 + self.ahead

    def wait(self, seconds: float) -> None:
        self.ahead += int(seconds * SECOND)

    async def receive(self, *bodies: Any, source: Source | None = None) -> None:
        """Requests of the CRM come in, one after the other."""
        for body in bodies:
            request = msgspec.structs.replace(
                received(source or self.source, body),
                version=self.now_us(),
                id=f"{self.now_us():014x}{self.ahead % 4096:012x}",
            )
            await self.apply([request])

    async def apply(self, states: Sequence[Received]) -> None:
        async with self.database.transaction() as transaction:
            await self.handlers.apply(transaction, Batch(states))

    async def ask(self, worker: Rereading | None = None) -> bool:
        """Run the job once, and read what it published, as whoever consumes the topic does."""
        before = len(self.topic.states)
        more = await (worker or self.rereading).run()
        for state in self.topic.states[before:]:
            await self.apply([state])
        return more

    async def want(self, *wishes: tuple[str, str], wanted: int = 0) -> None:
        async with self.database.transaction() as transaction:
            found = [
                rereads.Wish(TENANT, self.source.id, *one, "gap", wanted or self.now_us())
                for one in wishes
            ]
            now = at(self.now_us())
            await rereads.want(transaction, found, now=now, delay=now - now)

    async def waiting(self) -> list[rereads.Waiting]:
        async with self.database.transaction() as transaction:
            asked = [one.id for one in self.sources.with_api()]
            now = at(self.now_us())
            return await rereads.page(
                transaction, TENANT, asked=asked, now=now, after=("", "", ""), limit=1000
            )

    async def record(self, kind: str, number: str) -> Record | None:
        async with self.database.transaction() as transaction:
            return await records.find_record(transaction, TENANT, kind, number)


def at(us: int) -> datetime:
    return datetime.fromtimestamp(us / SECOND, UTC)


def source(vendor: str, url: str, **api: Any) -> Source:
    given: dict[str, Any] = {"token": crms.STATIC_TOKEN, "requests_per_second": 1000.0} | api
    more: dict[str, Any] = {"username": "u"} if vendor == "pipedrive" else {}
    if vendor == "salesforce":
        more = {"header": "x-secret"}
    return Source(
        id=vendor[:4],
        tenant=TENANT,
        vendor=vendor,
        secrets=("s",),
        api=Api(url=url, token_url=f"{url}/token", **given),
        **more,
    )


def main(hubspot: crms.HubSpot) -> list[crms.Asked]:
    """What it was asked, links apart."""
    return [one for one in hubspot.asked if "/associations/" not in one.path]


OAUTH = {"token": "", "client_id": crms.CLIENT_ID, "client_secret": crms.CLIENT_SECRET}


@asynccontextmanager
async def a_world(
    url: str, folder: Path, crm: crms.Crm, vendor: str, seal: Seal | None = None
) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(crms.serving(crm))
        database = Database(url, migrations=MIGRATIONS)
        stack.push_async_callback(database.close)
        await database.migrate()
        yield World(database, folder, source(vendor, address), seal)


def hub_deal(number: str, **properties: Any) -> Any:
    return {
        "id": number,
        "properties": {"dealname": f"Deal {number}", "hs_object_id": number} | properties,
        "createdAt": "2026-01-01T09:00:00Z",
        "updatedAt": "2026-01-02T09:00:00Z",
        "archived": False,
    }
