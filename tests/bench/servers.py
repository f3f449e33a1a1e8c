"""Servers to measure against: one that only answers, one that only produces.

`python -m tests.bench.servers echo|produce PORT KAFKA TOPIC`
"""

import contextlib
import sys
from collections.abc import AsyncIterator

import uvicorn
from aiokafka import AIOKafkaProducer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def application(kind: str, kafka: str, topic: str) -> Starlette:
    """The bare server: reads the body, produces it if asked to, answers 202."""
    producers: list[AIOKafkaProducer] = []

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        if kind == "produce":
            producer = AIOKafkaProducer(
                bootstrap_servers=kafka,
                acks="all",
                enable_idempotence=True,
                compression_type="zstd",
                max_batch_size=512 * 1024,  # as ours: more than one large body shares a batch
                max_request_size=4 * 1024 * 1024,
            )
            await producer.start()
            producers.append(producer)
        yield
        for producer in producers:
            await producer.stop()

    async def receive(request: Request) -> Response:
        body = await request.body()
        for producer in producers:
            await producer.send_and_wait(topic, body)
        return Response(b'{"id":"0"}', 202, media_type="application/json")

    async def ready(_: Request) -> Response:
        return Response(b"{}")

    routes = [
        Route("/v1/sources/hub/events", receive, methods=["POST"]),
        Route("/readyz", ready),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


if __name__ == "__main__":
    _, kind, port, kafka, topic = sys.argv
    uvicorn.run(
        application(kind, kafka, topic), port=int(port), access_log=False, log_level="warning"
    )
