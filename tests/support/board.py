"""A stand-in for the boards' API, behind the real pages: what it shows is scripted by the test."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Query
from starlette.responses import StreamingResponse

from kit import http
from kit.auth import Authenticator, Principal, principal_dependency
from kit.http import Problem
from kit.settings import KitSettings
from services.metrics import pages
from tests.support import DEV_SECRET

Row = dict[str, Any]
BOARD = "revenue-month"


def a_row(rank: int | None, name: str, value: str | None, **others: Any) -> Row:
    """A row of the board; its subject is made from the name."""
    row = {
        "rank": rank,
        "subject": f"person:{name.partition(' ')[0].lower()}",
        "name": name,
        "team": "North",
        "value": value,
        "count": 3,
        "target": None if value is None else "100000.00",
        "attainment": None if value is None else f"{float(value) / 100_000:.4f}",
        "gap_to_next": None,
        "movement": 0,
        "columns": {"deals_won": "3", "win_rate": None if value is None else "0.4286"},
    }
    return row | others


class Stage:
    """One board on a port of its own, which can go away and come back.

    It may be had under several names, for screens that change between boards.
    """

    def __init__(self, rows: list[Row], *, names: tuple[str, ...] = (BOARD,)) -> None:
        self.names = names
        self.own: Row | None = None  # one's own row, where the board hides numbers
        self.rows = {row["subject"]: row for row in rows}
        self.version = 1
        self.updates: list[dict[str, Any]] = []
        self.info = {
            "board": BOARD,
            "title": "Revenue this month",
            "metric": "revenue_won",
            "unit": "EUR",
            "period": "month:2026-11-01",
            "since": "2026-11-22",
        }
        self.streams = 0  # opened so far
        self._running = False
        self._changed = asyncio.Event()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.address = f"http://127.0.0.1:{self.port}"

    def update(self, *rows: Row, removed: tuple[str, ...] = ()) -> None:
        """Change the board and tell those who watch it."""
        self.rows |= {row["subject"]: row for row in rows}
        for subject in removed:
            del self.rows[subject]
        change = {
            "previous": f"v{self.version}",
            "version": f"v{self.version + 1}",
            "as_of": "2026-11-22T12:00:00+00:00",
            "rows": list(rows),
            "removed": list(removed),
        }
        self.version += 1
        self.updates.append(change)
        self._wake()

    def begin(self, period: str, *rows: Row) -> None:
        """Another period: those who watch get a snapshot of it."""
        self.rows = {row["subject"]: row for row in rows}
        self.info["period"] = period
        self.version += 1
        self.updates.append(self._snapshot() | {"previous": ""})
        self._wake()

    def change_unheard(self, *rows: Row) -> None:
        """Change the board without telling: the next update doesn't follow on what viewers know."""
        self.rows |= {row["subject"]: row for row in rows}
        self.version += 1

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The server, up inside the context."""
        config = uvicorn.Config(
            self._application(),
            port=self.port,
            log_config=None,
            ws="none",
            lifespan="off",
            timeout_graceful_shutdown=0,
        )
        server = uvicorn.Server(config)
        self._running = True
        task = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
            await asyncio.sleep(0.01)
        try:
            yield
        finally:
            self._running = False
            self._wake()
            server.should_exit = True
            await task

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _snapshot(self, board: str = BOARD) -> dict[str, Any]:
        rows = sorted(self.rows.values(), key=lambda row: (row["rank"] or 10**9, row["name"]))
        named = {} if board == BOARD else {"board": board, "title": f"The board {board}"}
        now = {"version": f"v{self.version}", "as_of": "", "rows": rows, "total": len(rows)}
        return self.info | named | now

    async def _events(self, known: str, board: str) -> AsyncIterator[str]:
        sent = len(self.updates)
        versions = [change["previous"] for change in self.updates]
        if known in versions:
            sent = versions.index(known)
        elif known != f"v{self.version}":
            yield _event("snapshot", self._snapshot(board))
        if self.own is not None:
            yield f"event: own\ndata: {json.dumps(self.own)}\n\n"
        yield ": hello\n\n"
        while self._running:
            changed = self._changed
            for change in self.updates[sent:]:
                yield _event("update" if change["previous"] else "snapshot", change)
            sent = len(self.updates)
            await changed.wait()

    def _application(self) -> FastAPI:
        app = FastAPI()
        http.install(app, max_body_bytes=1_000)
        authenticator = Authenticator(KitSettings(dev_secret=DEV_SECRET))
        who = Annotated[Principal, Depends(principal_dependency(authenticator))]

        @app.get("/v1/boards")
        async def boards(_: who) -> dict[str, Any]:
            columns = [
                {"id": "deals_won", "title": "Deals won", "unit": "count"},
                {"id": "win_rate", "title": "Win rate", "unit": "ratio"},
            ]
            shown = {"metric": "revenue_won", "metric_title": "Revenue won", "grain": "month"}
            return {
                "boards": [
                    {"id": BOARD, "title": self.info["title"], **shown, "columns": columns},
                    {"id": "calls-day", "title": "Calls today", "metric": "calls_made"},
                ]
            }

        @app.get("/v1/boards/{board}")
        async def snapshot(_: who, board: str) -> dict[str, Any]:
            if board not in self.names:
                raise Problem(404, "unknown-board", "There is no such board.")
            return self._snapshot(board)

        @app.get("/v1/boards/{board}/events")
        async def events(
            _: who, board: str, last_event_id: Annotated[str, Query()] = ""
        ) -> StreamingResponse:
            if board not in self.names:
                raise Problem(404, "unknown-board", "There is no such board.")
            self.streams += 1
            events = self._events(last_event_id, board)
            return StreamingResponse(events, media_type="text/event-stream")

        app.include_router(pages.router(authenticator))
        return app


def _event(kind: str, data: dict[str, Any]) -> str:
    return f"id: {data['version']}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"
