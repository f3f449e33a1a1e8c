"""The four services as child processes on a local Kafka and PostgreSQL, for the demo and for tests.

`System` writes what the services read (sources, endpoints, keys, the time map), starts them with
their logs in the folder, and can kill, restart and rebuild each by name. Children end with their
owner, even when that is killed. `wait_drained` returns when every consumer has applied everything
that is on its topics.
"""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata

from deploy.local import Stack
from deploy.local import processes as run
from deploy.local.machine import free_port, is_free
from kit.auth import Role, development_token, new_api_key, write_api_keys
from kit.consumer import group_of
from kit.settings import KitSettings
from schemas.topics import SERVICES, consumed_by, lanes
from simulator import seed as seeds
from simulator.organisation import TENANT
from simulator.player import TimeMap
from simulator.vendors import Secrets

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_PORTS = {"ingest": 8001, "metrics": 8002, "payouts": 8003, "notifications": 8004}
STOP_STEPS = [(signal.SIGTERM, 15.0), (signal.SIGKILL, 5.0)]
READY_SECONDS = 60.0
COMMAND_SECONDS = 300.0
LAST_LINES = 12


class ServiceEndedError(Exception):
    """A service's process ended by itself; the message has its last log lines."""


@dataclass
class System:
    """Four services, their stack and everything they are configured with."""

    folder: Path
    stack: Stack
    time_map: TimeMap | None = None
    name: str = ""  # keeps several systems on one stack apart: topics, groups, databases
    fixed_ports: bool = False  # the documented ports where they are free
    services: Sequence[str] = SERVICES
    receiver_url: str = ""  # where notifications sends webhooks, when somebody listens
    webhook_secret: str = field(default_factory=seeds.new_webhook_secret)
    extra_environment: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict, init=False)
    dev_secret: str = field(default_factory=lambda: secrets.token_urlsafe(32), init=False)
    processes: dict[str, run.Running] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.folder = Path(self.folder).absolute()
        self.api_key, self._stored_key = new_api_key("demo", tenant=TENANT, roles=["admin"])
        partners_key, self._partners_key = new_api_key("partners", tenant=TENANT, roles=["ops"])
        self.vendor_secrets = Secrets(
            hubspot_client_secret=secrets.token_urlsafe(24),
            pipedrive_user="pacesetter",
            pipedrive_password=secrets.token_urlsafe(18),
            partners_key=partners_key,
        )
        for service in SERVICES:
            default = DEFAULT_PORTS[service]
            usable = self.fixed_ports and is_free(default)
            self.ports[service] = default if usable else free_port(*self.ports.values())

    # --- addresses and credentials ---------------------------------------------------------

    def url(self, service: str) -> str:
        """The base address of one service."""
        return f"http://127.0.0.1:{self.ports[service]}"

    @property
    def urls(self) -> dict[str, str]:
        """The base addresses of all services."""
        return {service: self.url(service) for service in SERVICES}

    def hook_url(self, source: str) -> str:
        """Where a source's webhooks go."""
        return f"{self.url('ingest')}/v1/sources/{source}/events"

    def token(self, *roles: Role, person: str = "") -> str:
        """A development token of somebody with these roles."""
        return development_token(self.dev_secret, tenant=TENANT, person=person, roles=list(roles))

    @property
    def headers(self) -> dict[str, str]:
        """Request headers of a machine that may see and do everything."""
        return {"X-API-Key": self.api_key}

    def dsn(self, service: str) -> str:
        """The address of one service's database."""
        return self.stack.dsn(self._database(service))

    def _database(self, service: str) -> str:
        return f"{self.name}_{service}" if self.name else service

    # --- life --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Write the configuration, make the databases, start all services; see `wait_ready`."""
        await asyncio.to_thread(self._prepare)
        for service in self.services:
            self.start_service(service)

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.stack.ensure_databases([self._database(service) for service in SERVICES])
        write_api_keys(self.folder / "api-keys.json", [self._stored_key, self._partners_key])
        if self.time_map is not None:
            self.set_time(self.time_map)
        _write_private(self.folder / "sources.yaml", seeds.sources_yaml(self.vendor_secrets))
        if self.receiver_url:
            endpoints = seeds.endpoints_yaml(self.receiver_url, self.webhook_secret)
            _write_private(self.folder / "endpoints.yaml", endpoints)

    def set_time(self, points: TimeMap) -> None:
        """Give the services another time map; they read it at once."""
        self.time_map = points
        fresh = self.folder / "clock.json.new"
        fresh.write_text(json.dumps(points))
        fresh.replace(self.folder / "clock.json")

    @property
    def environment(self) -> dict[str, str]:
        """What the services are started with."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PACESETTER_", *(f"{s.upper()}_" for s in SERVICES)))
        }
        found = {
            **kept,
            "PACESETTER_KAFKA": self.stack.kafka,
            "PACESETTER_DEV_SECRET": self.dev_secret,
            "PACESETTER_API_KEYS": str(self.folder / "api-keys.json"),
            "PACESETTER_LOG_FORMAT": "json",
            "INGEST_SOURCES": str(self.folder / "sources.yaml"),
            "INGEST_PUBLIC_URL": self.url("ingest"),
            "PYTHONUNBUFFERED": "1",
        }
        if kept.pop("PYTHONDONTWRITEBYTECODE", ""):
            # Four services compile for seconds at each start otherwise: kept, in a folder of ours.
            found["PYTHONPYCACHEPREFIX"] = str(self.folder.parent / "pycache")
            del found["PYTHONDONTWRITEBYTECODE"]
        if self.name:
            found["PACESETTER_TOPIC_PREFIX"] = f"{self.name}."
        if self.time_map is not None:
            found["PACESETTER_CLOCK"] = str(self.folder / "clock.json")
        if self.receiver_url:
            found["NOTIFICATIONS_ENDPOINTS"] = str(self.folder / "endpoints.yaml")
        for service in SERVICES:
            found[f"{service.upper()}_DATABASE"] = self.dsn(service)
            found[f"{service.upper()}_PORT"] = str(self.ports[service])
        return {**found, **self.extra_environment}

    def log(self, service: str) -> Path:
        """Where a service's output goes."""
        return self.folder / f"{service}.log"

    def start_service(self, service: str) -> None:
        """Start one service on the port it has; see `wait_ready`."""
        order = run.Order(
            command=[sys.executable, "-m", "services", "serve", service],
            folder=ROOT,
            log=self.log(service),
            environment=self.environment,
        )
        self.processes[service] = run.start(order, dies_by=signal.SIGKILL)

    def kill(self, service: str) -> None:
        """End a service by SIGKILL, as a crash would."""
        run.kill(self.processes.pop(service))

    def pause(self, service: str) -> None:
        """Stop a service's process in its tracks, as a stalled machine would."""
        os.kill(self.processes[service].pid, signal.SIGSTOP)

    def resume(self, service: str) -> None:
        """Let a paused service go on."""
        os.kill(self.processes[service].pid, signal.SIGCONT)

    async def stop_service(self, service: str) -> None:
        """Stop one service cleanly."""
        process = self.processes.pop(service, None)
        if process is not None:
            await asyncio.to_thread(run.stop, process, service, STOP_STEPS)

    async def restart(self, service: str) -> None:
        """Stop one service cleanly, start it again and wait until it is ready."""
        await self.stop_service(service)
        self.start_service(service)
        await self.wait_ready([service])

    async def stop(self) -> None:
        """Stop all services cleanly; the stack is its owner's to stop."""
        await asyncio.gather(*(self.stop_service(service) for service in list(self.processes)))

    # --- waiting -------------------------------------------------------------------------------

    async def wait_ready(
        self, services: Sequence[str] = (), *, within_seconds: float = READY_SECONDS
    ) -> None:
        """Return when these services (all, if none is named) answer that they are ready."""
        deadline = time.monotonic() + within_seconds
        async with httpx.AsyncClient(timeout=3.0) as client:
            for service in services or self.services:
                while (problem := await self._unready(client, service)) is not None:
                    self.check_alive()
                    if time.monotonic() > deadline:
                        raise TimeoutError(
                            f"{service} is not ready: {problem}\n{self.tail(service)}"
                        )
                    await asyncio.sleep(0.1)

    async def _unready(self, client: httpx.AsyncClient, service: str) -> str | None:
        try:
            answer = await client.get(f"{self.url(service)}/readyz")
        except httpx.TransportError as error:
            return type(error).__name__
        return None if answer.is_success else answer.text[:300]

    def check_alive(self) -> None:
        """Raise when a service's process has ended by itself."""
        for service, process in self.processes.items():
            if not run.alive(process):
                raise ServiceEndedError(f"{service} has ended:\n{self.tail(service)}")

    def tail(self, service: str, lines: int = LAST_LINES) -> str:
        """The last lines of a service's log."""
        log = self.log(service)
        text = log.read_text(errors="replace") if log.exists() else ""
        return "\n".join(line[:500] for line in text.splitlines()[-lines:])

    async def lag(self) -> dict[str, int]:
        """Messages that each service has still to apply."""
        prefix = f"{self.name}." if self.name else ""
        settings = KitSettings(kafka=self.stack.kafka, topic_prefix=prefix)
        admin = AIOKafkaAdminClient(bootstrap_servers=self.stack.kafka)
        reader = AIOKafkaConsumer(bootstrap_servers=self.stack.kafka)
        await admin.start()
        try:
            await reader.start()
            found: dict[str, int] = {}
            for service in self.services:
                partitions = [
                    TopicPartition(prefix + topic.name, number)
                    for topic in consumed_by(service)
                    for number in range(topic.partitions)
                ]
                done: dict[TopicPartition, OffsetAndMetadata] = {}
                for lane in lanes(service):
                    group = group_of(settings, service, lane)
                    done |= await admin.list_consumer_group_offsets(group)
                starts = await reader.beginning_offsets(partitions)
                ends = await reader.end_offsets(partitions)
                found[service] = sum(
                    ends[tp] - (done[tp].offset if tp in done else starts[tp]) for tp in partitions
                )
            return found
        finally:
            await reader.stop()
            await admin.close()

    async def wait_drained(self, *, within_seconds: float = 120.0) -> None:
        """Return when nothing is left to apply, seen twice."""
        deadline = time.monotonic() + within_seconds
        quiet = 0
        while quiet < 2:  # noqa: PLR2004  # what one service applies makes work for another
            self.check_alive()
            lag = await self.lag()
            quiet = 0 if any(lag.values()) else quiet + 1
            if time.monotonic() > deadline:
                raise TimeoutError(f"still to apply: {lag}")
            await asyncio.sleep(0.4)

    # --- commands --------------------------------------------------------------------------------

    async def rebuild(self, service: str) -> str:
        """Drop a stopped service's store, make it again from the topics; gives its checksum."""
        return (await self.command("rebuild", service)).rsplit(maxsplit=1)[-1]

    async def checksum(self, service: str) -> str:
        """The digest of a service's derived tables."""
        return (await self.command("checksum", service)).rsplit(maxsplit=1)[-1]

    async def command(self, *arguments: str) -> str:
        """Run `python -m services …` with the services' environment; its output."""
        done = await asyncio.to_thread(
            subprocess.run,  # our own commands
            [sys.executable, "-m", "services", *arguments],
            cwd=ROOT,
            env={**self.environment, "PACESETTER_LOG_LEVEL": "WARNING", "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(
                f"services {' '.join(arguments)}: {done.stdout} {done.stderr[-2000:]}"
            )
        return done.stdout.strip()


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
