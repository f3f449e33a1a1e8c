"""HTTP/1 as uvicorn speaks it, with an end to what one connection may take before it is answered.

A request's head is bounded here, its body by whoever reads it. A request that isn't complete in
time ends its connection, and so does a connection on which none begins.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

MAX_HEAD_BYTES = 64 * 1024  # beyond the first read, which is as much as the transport gives
REQUEST_SECONDS = 30.0  # for head and body, however slowly they trickle
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"connection: close\r\ncontent-length: 0\r\n\r\n"
)


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        self._in_head = False
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the first request its time."""
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Refuse a head that goes on and on."""
        was_in_head = self._in_head
        cycle: RequestResponseCycle | None = self.cycle  # none before the first request
        if cycle is None or cycle.response_complete:
            self._start_clock()
        super().data_received(data)
        if was_in_head and self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(_TOO_LARGE)
                self.transport.close()

    def on_message_begin(self) -> None:
        """A request's head begins."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self._start_clock()

    def on_headers_complete(self) -> None:
        """And ends."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """From here on it is our time, not the sender's."""
        self._stop_clock()
        super().on_message_complete()

    def _start_clock(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.close)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
