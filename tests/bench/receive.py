"""The receiving stage: signed HubSpot posts into a real process that only receives (INGEST_ROLES).

The floor is the same HTTP server with a route that only reads the body and produces it (acks=all).
The generator's ceiling is the same requests against a route that answers at once.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from deploy.local.machine import free_port
from tests.bench import load, workload
from tests.bench.measure import Measurement

HOST = "127.0.0.1"
PATH = f"/v1/sources/{workload.SOURCE}/events"
CONNECTIONS = 64
READY_SECONDS = 60


@contextmanager
def server(command: Sequence[str], port: int, environment: dict[str, str]) -> Iterator[int]:
    """A server process, ready; gives its pid."""
    process = subprocess.Popen(  # our own arguments
        command, env=os.environ | environment, stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not _ready(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)} did not become ready")
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def bare(kind: str, kafka: str, topic: str, port: int) -> list[str]:
    """The command of a bare server."""
    return [sys.executable, "-m", "tests.bench.servers", kind, str(port), kafka, topic]


def ingest(
    folder: Path,
    *,
    kafka: str,
    prefix: str,
    database: str,
    port: int,
    roles: str = "receive,normalise,backfill",
) -> tuple[list[str], dict[str, str]]:
    """The command and environment of the real service in these roles, with one HubSpot source."""
    sources = folder / "sources.yaml"
    source = {
        "id": workload.SOURCE,
        "tenant": workload.TENANT,
        "vendor": "hubspot",
        "secrets": [workload.SECRET],
    }
    sources.write_text(json.dumps([source]))
    environment = {
        "PACESETTER_KAFKA": kafka,
        "PACESETTER_TOPIC_PREFIX": prefix,
        "PACESETTER_LOG_LEVEL": "WARNING",
        "INGEST_DATABASE": database,
        "INGEST_PORT": str(port),
        "INGEST_ROLES": roles,
        "INGEST_SOURCES": str(sources),
        "INGEST_PUBLIC_URL": f"http://{HOST}:{port}",
    }
    return [sys.executable, "-m", "services", "serve", "ingest"], environment


def measure(port: int, pid: int, bodies: Sequence[bytes], *, events: int) -> Measurement:
    """Post every body once and time it; the CPU is the server's."""
    url = f"http://{HOST}:{port}{PATH}"
    requests = [
        load.prepared(PATH, f"{HOST}:{port}", body, workload.signed(body, url)) for body in bodies
    ]
    process = psutil.Process(pid)
    before = sum(process.cpu_times()[:2])
    seconds = asyncio.run(load.send_all(HOST, port, requests, connections=CONNECTIONS))
    return Measurement(events, seconds, sum(process.cpu_times()[:2]) - before)


def a_port() -> int:
    """A free port."""
    return free_port()


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://{HOST}:{port}/readyz", timeout=1).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
