"""Server-Sent Events to thousands of readers: bytes that were made once, sent as they are.

A stream waits for what comes, and for its reader's end; a keep-alive goes out when nothing else
has for a while. Who doesn't read is waited for, and meanwhile nothing is asked of the events'
source. As the server stops, streams end at once: readers come back to another replica, or later.

A source may also push: what it has for a thousand readers who wait goes to their connections then
and there, without waking a task for each, and without a way through every layer in between.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Generic, TypeVar

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from kit.server import DIRECT, ENDLESS, BoundedProtocol

T = TypeVar("T")

KEEP_ALIVE = b":\n\n"  # a comment, which readers pass over


class EventStream(StreamingResponse, Generic[T]):
    """An answer that goes on until its events end, or whoever reads them is gone.

    `events` gives them, and may use the stream that it is given to `push`; `written` gives an event
    as it is sent, all of it.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: Callable[["EventStream[T]"], AsyncGenerator[T, None]],
        written: Callable[[T], bytes],
        *,
        keep_alive_seconds: float,
    ) -> None:
        super().__init__((), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._events = events
        self._written = written
        self._pause = keep_alive_seconds
        self._sent_at = 0.0
        self._connection: BoundedProtocol | None = None

    @property
    def ready(self) -> bool:
        """Whether the reader keeps up, so that events may be pushed."""
        return self._connection is not None and self._connection.body_wanted

    def push(self, event: T) -> None:
        """Send an event to a `ready` reader while nothing is being sent that was asked for."""
        assert self._connection is not None
        self._connection.write_body(self._written(event))
        self._sent_at = asyncio.get_running_loop().time()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the headers, then each event as one message."""
        scope.setdefault("state", {})[ENDLESS] = True
        self._connection = scope.get("extensions", {}).get(DIRECT)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as group, aclosing(self._events(self)) as events:
                await send(
                    {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                )
                self._sent_at = loop.time()
                beside = [
                    group.create_task(_until_gone(receive)),
                    group.create_task(self._keep_alive(send)),
                ]
                async for event in events:
                    body = self._written(event)
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                    self._sent_at = loop.time()
                for task in beside:
                    task.cancel()
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except* _ReaderGoneError:
            pass

    async def _keep_alive(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        while True:
            left = self._sent_at + self._pause - loop.time()
            if left > 0:
                await asyncio.sleep(left)
            else:
                await send({"type": "http.response.body", "body": KEEP_ALIVE, "more_body": True})
                self._sent_at = loop.time()


class _ReaderGoneError(Exception):
    """Ends a stream from beside it."""


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    raise _ReaderGoneError
