"""A load generator for HTTP on loopback: prepared requests over persistent connections.

It builds nothing while it runs, so that its ceiling (measured against a server that answers at
once) lies far above what it measures.
"""

import asyncio
import time
from collections.abc import Sequence


class RefusedError(Exception):
    """A request was answered with something else than success."""


def prepared(path: str, host: str, body: bytes, headers: dict[str, str]) -> bytes:
    """The bytes of one POST request."""
    head = {"Host": host, "Content-Length": str(len(body)), **headers}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


async def send_all(host: str, port: int, requests: Sequence[bytes], *, connections: int) -> float:
    """Send every request once, each connection one after the other; returns the seconds."""
    pending = iter(requests)
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(_one_connection(host, port, pending))
    return time.perf_counter() - began


async def _one_connection(host: str, port: int, pending: "object") -> None:
    reader, writer = await asyncio.open_connection(host, port)
    for request in pending:  # type: ignore[attr-defined]  # an iterator shared by all connections
        await exchange(reader, writer, request)
    writer.close()
    await writer.wait_closed()


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> None:
    """Send one request over an open connection and read its answer; raises RefusedError."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 2"):
        raise RefusedError(head.decode(errors="replace"))
    length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
    await reader.readexactly(length)
