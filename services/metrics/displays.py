"""Tells displays outside when the order at the top of a board has changed.

One replica at a time looks at the boards. A new order is first a row, with the event as it will be
sent, in place of an event that hasn't been sent yet: a display is told the newest order, not every
one. Whoever takes a row sends it, and nobody else until its lease ends; who dies between the answer
and our commit makes the receiver see the event once more, under the same id.

Displays are states on spm.boards.v1, so that they survive a rebuild; after one, each is told the
order anew. Their secrets are only named there: what is on a topic or in an answer of the API can't
be used to sign, and metrics needs no keys to seal with. `env:METRICS_SECRET_<tenant>__<NAME>`, or
`file:<name>` in the tenant's folder of METRICS_SECRETS_FOLDER, so that nobody names another's.
"""

import asyncio
import os
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import structlog
from standardwebhooks import Webhook

from kit.database import Database, Transaction
from kit.webhooks import Poster, WebhookError, signer
from schemas.spm import BoardDocument
from services.metrics import telemetry
from services.metrics.domain import displays
from services.metrics.domain.displays import Display
from services.metrics.store import digest
from services.metrics.store import displays as store
from services.metrics.store.context import Context
from services.metrics.store.displays import Due, News
from services.metrics.store.leaderboards import Leaderboards

LOCK = "metrics/displays"
LEASE = timedelta(seconds=60)  # several times what an attempt may take
AT_ONCE = 50  # one that hangs holds up the others until its attempt has timed out
CLOUD_EVENT = "application/cloudevents+json"

log = structlog.get_logger(__name__)


class Displays:
    """Looks after all displays; jobs call `look` and `send` again and again."""

    def __init__(
        self,
        database: Database,
        context: Context,
        leaderboards: Leaderboards,
        poster: Poster,
        *,
        secrets: Path | None,
    ) -> None:
        self._database = database
        self._context = context
        self._leaderboards = leaderboards
        self._poster = poster
        self._secrets = secrets
        self._looked: dict[tuple[str, str], tuple[int, str]] = {}

    def check(self, tenant: str, display: Display) -> None:
        """Raise ValueError when the display could never be told anything."""
        self._poster.url(display.url)
        self._signer(tenant, display)

    async def look(self) -> None:
        """Note which displays are to be told something, unless another replica does."""
        async with self._database.transaction() as transaction:
            if await transaction.try_lock(LOCK):
                await self._look(transaction)

    async def send(self) -> bool:
        """Send what is due; True when there may be more."""
        async with self._database.transaction() as transaction:
            due = await store.take(transaction, datetime.now(UTC), lease=LEASE, limit=AT_ONCE)
        await asyncio.gather(*map(self._send, due))
        return len(due) == AT_ONCE

    async def _look(self, transaction: Transaction) -> None:
        states = {
            (tenant, state.id): state
            for tenant in await digest.replicated_tenants(transaction)
            for state in await self._context.boards.load(transaction, tenant)
            if state.kind == "display" and not state.deleted
        }
        kept = await store.kept(transaction)
        await store.forget(transaction, kept.keys() - states.keys())
        versions = await self._leaderboards.versions({tenant for tenant, _ in states})
        looks = {place: (state.version, versions[place[0]]) for place, state in states.items()}
        news: list[News] = []
        for place, state in states.items():
            if self._looked.get(place) != looks[place] or place not in kept:
                news += await self._news(state, kept.get(place))
        await store.put(transaction, news, datetime.now(UTC))
        self._looked = looks

    async def _news(self, state: BoardDocument, kept: store.Kept | None) -> Sequence[News]:
        """What the display is to be told, if anything."""
        display, mistakes = displays.read_display(state.document)
        try:
            if display is None:
                raise ValueError("; ".join(map(str, mistakes)))  # noqa: TRY301  # one place logs
            standings = await self._leaderboards.standings(state.tenant, display.board, None)
        except (ValueError, LookupError):
            # One board that is no more must not hold up the others.
            log.exception("display_failed", tenant=state.tenant, display=state.id)
            return []
        board = displays.top(standings.shown("everyone"), display.top)
        order = displays.places(board)
        if kept == store.Kept(state.version, order):
            return []
        body = displays.event(state.tenant, display, board, datetime.now(UTC))
        return [News(state.tenant, state.id, state.version, order, board.version, body)]

    async def _send(self, due: Due) -> None:
        try:
            display = await self._display(due)
            if display is None:
                return  # changed or gone meanwhile; the next look says what is to be sent
            status = await self._poster.post(
                self._poster.url(display.url),
                self._signer(due.tenant, display),
                str(uuid5(NAMESPACE_URL, f"/{due.tenant}/displays/{due.id}#{due.event}")),
                due.body,
                CLOUD_EVENT,
            )
        except (WebhookError, ValueError) as error:
            await self._failed(due, str(error))
            return
        telemetry.DISPLAY_EVENTS.labels("delivered").inc()
        async with self._database.transaction() as transaction:
            await store.taken(transaction, due, datetime.now(UTC), f"answered {status}")

    async def _failed(self, due: Due, why: str) -> None:
        jitter = random.uniform(-1, 1)  # noqa: S311  # spreads load, guards nothing
        now = datetime.now(UTC)
        again = displays.retry_at(due.failures + 1, due.made_at, now, jitter=jitter)
        async with self._database.transaction() as transaction:
            await store.failed(transaction, due, again, why)
        telemetry.DISPLAY_EVENTS.labels("given up" if again is None else "failed").inc()
        log.warning("display_not_told", tenant=due.tenant, display=due.id, error=why, again=again)

    async def _display(self, due: Due) -> Display | None:
        """The display as it was when this was to be sent to it."""
        async with self._database.transaction() as transaction:
            for state in await self._context.boards.load(transaction, due.tenant):
                if (state.kind, state.id, state.version) == ("display", due.id, due.document):
                    return displays.read_display(state.document)[0]
        return None

    def _signer(self, tenant: str, display: Display) -> Webhook:
        scheme, name = displays.secret_place(display.secret, tenant)
        if scheme == "env":
            found = os.environ.get(name, "")
        elif self._secrets is None:
            raise ValueError("METRICS_SECRETS_FOLDER is not set, so that no file can be named")
        else:
            try:
                found = (self._secrets / tenant / name).read_text().strip()
            except OSError as error:
                raise ValueError(f"the secret's file can't be read: {error.strerror}") from error
        return signer(found)
