"""A receiver of our own webhooks: verifies their signatures and counts what comes twice.

Answers 503 to a few first tries, so that retries are seen; a repeated `webhook-id` is counted and
not taken as a new message.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

TOLERANCE_SECONDS = 300
FAIL_EVERY = 10  # every tenth message is refused at its first try


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are the demo's business


class Receiver:
    """Listens on a port of the loopback address while `running`."""

    def __init__(self, secret: str, port: int) -> None:
        self._key = base64.b64decode(secret.removeprefix("whsec_"))
        self._port = port
        self.url = f"http://127.0.0.1:{port}/webhooks"
        self.accepted: Counter[str] = Counter()  # by webhook-id
        self.tries: Counter[str] = Counter()
        self.refused_signatures = 0

    @property
    def distinct(self) -> int:
        """Different messages that were taken."""
        return len(self.accepted)

    @property
    def repeated(self) -> int:
        """Messages that were taken and came again."""
        return self.accepted.total() - len(self.accepted)

    def valid(self, headers: dict[str, str], body: bytes) -> bool:
        """Whether one of the signatures is right and the message is fresh."""
        message_id, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        if not stamp.isdigit() or abs(time.time() - int(stamp)) > TOLERANCE_SECONDS:
            return False
        signed = f"{message_id}.{stamp}.".encode() + body
        expected = base64.b64encode(hmac.new(self._key, signed, hashlib.sha256).digest()).decode()
        given = headers.get("webhook-signature", "").split()
        return any(hmac.compare_digest(f"v1,{expected}", one) for one in given)

    async def _take(self, request: Request) -> Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        if not self.valid(headers, await request.body()):
            self.refused_signatures += 1
            return Response(status_code=401)
        message_id = headers["webhook-id"]
        self.tries[message_id] += 1
        if self.tries[message_id] == 1 and len(self.tries) % FAIL_EVERY == 0:
            return Response(status_code=503)
        self.accepted[message_id] += 1
        return Response(status_code=204)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Receiver"]:
        """Listens on entry, has stopped on exit."""
        app = Starlette(routes=[Route("/webhooks", self._take, methods=["POST"])])
        config = uvicorn.Config(
            app,
            host="127.0.0.1",
            port=self._port,
            log_config=None,
            access_log=False,
            lifespan="off",
        )
        server = _Server(config)
        task = asyncio.create_task(server.serve())
        while not (server.started or task.done()):  # noqa: ASYNC110  # uvicorn has no event for it
            await asyncio.sleep(0.01)
        try:
            yield self
        finally:
            server.should_exit = True
            await task
