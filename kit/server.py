"""HTTP/1 as uvicorn speaks it, with an end to what connections may take before they are answered.

A request's head is bounded here, its body by whoever reads it. A request that isn't complete in
time ends its connection, and so does a connection on which none begins. Connections over the limit
(uvicorn's `limit_concurrency`) are answered 503 and ended; those that are there go on. Only probes
are answered beyond it: a process must not be restarted, or out of sight, for being popular.
"""

import asyncio
import resource
from typing import Any, ClassVar

import structlog
from uvicorn._types import HTTPScope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from kit import telemetry

MAX_HEAD_BYTES = 64 * 1024  # beyond the first read, which is as much as the transport gives
REQUEST_SECONDS = 30.0  # for head and body, however slowly they trickle
RETRY_SECONDS = 5  # for those who find no room: connections end all the time
ENDLESS = "endless"  # in the state of a request whose answer never ends by itself: a stream
DIRECT = "pacesetter.connection"  # among a scope's extensions: the connection itself
# To ask, and then to read why not; closed at once, who is still sending would see a reset only.
REFUSED_SECONDS = 1.0
MAX_REFUSED = 256  # who get that long at once
PROBES = frozenset({b"/livez", b"/readyz", b"/metrics"})
OTHER_FILES = 2 * MAX_REFUSED  # open beside connections: these, Kafka, PostgreSQL, logs
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"connection: close\r\ncontent-length: 0\r\n\r\n"
)
_TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"retry-after: %d\r\nconnection: close\r\ncontent-length: 0\r\n\r\n" % RETRY_SECONDS
)

log = structlog.get_logger(__name__)


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    _over: ClassVar[set["BoundedProtocol"]] = set()  # the limit

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Ours refuses those who come; uvicorn's would at the limit refuse everyone who is there.
        self._max_connections, self.limit_concurrency = self.limit_concurrency, None
        # Requests come by the thousand per second: they move the deadline, and a timer that they
        # leave alone looks at it.
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None  # None: nothing is waited for
        self._in_head = False
        self._head_bytes = 0
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the first request its time, where there is room for the connection."""
        if self._max_connections is not None and len(self.connections) >= self._max_connections:
            if len(self._over) >= MAX_REFUSED:
                telemetry.CONNECTIONS_REFUSED.inc()
                self.transport = transport
                transport.abort()
                return
            self._over.add(self)
            super().connection_made(transport)
            self._timer = self.loop.call_later(REFUSED_SECONDS, self._refuse)
            return
        super().connection_made(transport)
        self._start_clock()
        self._timer = self.loop.call_later(REQUEST_SECONDS, self._check_clock)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._over.discard(self)
        super().connection_lost(exc)
        scope: HTTPScope | None = self.scope  # none before the first request
        if scope is not None:
            scope["extensions"].clear()  # or we would be garbage that only the collector finds

    def data_received(self, data: bytes) -> None:
        """Refuse a head that goes on and on."""
        if self._refused:
            return
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

    def shutdown(self) -> None:
        """Let an answer end that does."""
        super().shutdown()
        scope: HTTPScope | None = self.scope  # none before the first request
        if scope is not None and ENDLESS in scope["state"]:
            self.transport.close()

    def on_message_begin(self) -> None:
        """A request's head begins."""
        super().on_message_begin()
        self.scope["extensions"] = {DIRECT: self}  # type: ignore[dict-item]
        self._in_head, self._head_bytes = True, 0
        self._start_clock()

    def on_headers_complete(self) -> None:
        """And ends."""
        self._in_head = False
        if self in self._over and self.url.partition(b"?")[0] not in PROBES:
            self._refuse()
            return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Of a request that is taken."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """From here on it is our time, not the sender's."""
        self._deadline = None
        if not self._refused:
            super().on_message_complete()

    @property
    def body_wanted(self) -> bool:
        """Whether a part of the present answer can be written now, and won't be kept in memory."""
        cycle: RequestResponseCycle = self.cycle
        return (
            cycle.response_started
            and not cycle.response_complete
            and bool(cycle.chunked_encoding)
            and cycle.scope["method"] != "HEAD"
            and not self.flow.write_paused
            and not self.transport.is_closing()
        )

    def write_body(self, body: bytes) -> None:
        """Write a part of an answer whose `body_wanted`, as ASGI's `http.response.body` would."""
        self.transport.write(b"%x\r\n%b\r\n" % (len(body), body))

    def _refuse(self) -> None:
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        telemetry.CONNECTIONS_REFUSED.inc()
        self.transport.write(_TOO_MANY)
        self.transport.write_eof()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(REFUSED_SECONDS, self.transport.abort)

    def _start_clock(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.time() + REQUEST_SECONDS

    def _check_clock(self) -> None:
        """End the connection if its time is up, else look again when that can be, at the latest."""
        if self.transport.is_closing():  # or another protocol's by now, and closed by it
            return
        now = self.loop.time()
        again = now + REQUEST_SECONDS if self._deadline is None else self._deadline
        if again <= now:
            self.transport.close()
        else:
            self._timer = self.loop.call_at(again, self._check_clock)


def room_for(connections: int) -> int:
    """How many connections this process may have: those wanted, or as many as it may open files.

    A process out of files accepts nobody, and can't come back to Kafka or PostgreSQL either.
    """
    wanted = connections + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        if allowed < wanted:
            connections = max(1, allowed - OTHER_FILES)
            log.warning("few_open_files", allowed=allowed, max_connections=connections)
    return connections
