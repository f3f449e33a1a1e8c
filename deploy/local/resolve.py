"""Chooses which Kafka and PostgreSQL to use.

The order: addresses given in the environment (PACESETTER_KAFKA and PACESETTER_POSTGRES), Docker
if an engine really answers, local processes, and as the last resort a broker in this process's
memory beside a local PostgreSQL. PACESETTER_STACK=env|docker|local|memory forces one, and then
its failure is an error instead of a reason to try the next.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deploy.local.errors import StackError
from deploy.local.machine import LOOPBACK
from deploy.local.stack import Stack

Source = Literal["env", "docker", "local", "memory"]

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
DOCKER_ANSWER_SECONDS = 10
DOCKER_UP_SECONDS = 600

# As docker-compose.yml publishes them.
DOCKER_KAFKA = f"{LOOPBACK}:9092"
DOCKER_POSTGRES = f"postgresql://pacesetter:pacesetter@{LOOPBACK}:5432"

NOT_DURABLE = (
    "Kafka runs IN MEMORY, inside this process: every message is lost when it ends. "
    "This is for a try-out only; nothing here is durable."
)


@dataclass(frozen=True)
class Addresses:
    """Where Kafka and PostgreSQL are: the latter without a database name, as a superuser."""

    kafka: str
    postgres: str
    source: Source
    durable: bool = True
    # The local stack, where there is one: it makes databases and stops what it started.
    stack: Stack | None = None
    # What must stay referenced while the addresses are used: the broker in memory.
    keeper: object = field(default=None, repr=False)


def choose(folder: Path) -> Addresses:
    """Addresses that answer, from the first source that has them."""
    forced = os.environ.get("PACESETTER_STACK")
    if forced:
        return _forced(forced, folder)
    if os.environ.get("PACESETTER_KAFKA") or os.environ.get("PACESETTER_POSTGRES"):
        return _from_environment(folder)
    refusals = []
    for source in (_from_docker, _from_processes, _from_memory):
        try:
            return source(folder)
        except StackError as refusal:
            refusals.append(refusal)
    # The last resort being unusable is no news; why real processes don't start is.
    raise refusals[1]


def _forced(name: str, folder: Path) -> Addresses:
    sources: dict[str, Callable[[Path], Addresses]] = {
        "env": _from_environment,
        "docker": _from_docker,
        "local": _from_processes,
        "memory": _from_memory,
    }
    if name not in sources:
        raise StackError(
            f"PACESETTER_STACK={name} is no known stack.", f"Use one of {', '.join(sources)}."
        )
    return sources[name](folder)


def _from_environment(_folder: Path) -> Addresses:
    kafka = os.environ.get("PACESETTER_KAFKA")
    postgres = os.environ.get("PACESETTER_POSTGRES")
    if not kafka or not postgres:
        missing = "PACESETTER_POSTGRES" if kafka else "PACESETTER_KAFKA"
        raise StackError(
            f"{missing} is not set.",
            "Set PACESETTER_KAFKA and PACESETTER_POSTGRES together, or neither.",
        )
    return Addresses(kafka, postgres.rstrip("/"), "env")


def _from_docker(_folder: Path) -> Addresses:
    docker = shutil.which("docker")
    if docker is None:
        raise StackError("There is no docker command.", "Install Docker with Compose.")
    if not COMPOSE_FILE.exists():
        raise StackError(f"There is no {COMPOSE_FILE}.", "Use a full checkout.")
    _run([docker, "version", "--format", "{{.Server.Version}}"], DOCKER_ANSWER_SECONDS)
    compose = [docker, "compose", "--file", str(COMPOSE_FILE)]
    _run([*compose, "up", "--detach", "--wait", "kafka", "postgres"], DOCKER_UP_SECONDS)
    return Addresses(DOCKER_KAFKA, DOCKER_POSTGRES, "docker")


def _run(command: list[str], patience_seconds: float) -> None:
    remedy = "Start the Docker engine, or force another stack with PACESETTER_STACK."
    try:
        done = subprocess.run(  # noqa: S603 - the user's own Docker
            command, check=False, capture_output=True, text=True, timeout=patience_seconds
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise StackError(f"Docker does not answer: {problem}", remedy) from problem
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().split("\n")[-1]
        raise StackError(f"Docker cannot: {said}", remedy)


def _from_processes(folder: Path) -> Addresses:
    stack = Stack(folder)
    stack.up()
    return Addresses(stack.kafka, stack.postgres, "local", stack=stack)


def _from_memory(folder: Path) -> Addresses:
    if importlib.util.find_spec("confluent_kafka") is None:
        raise StackError(
            "A broker in memory needs the package confluent-kafka.", "Install it with pip."
        )
    # Its own broker, of librdkafka; it lives as long as this object.
    producer = importlib.import_module("confluent_kafka").Producer({"test.mock.num.brokers": 1})
    broker = next(iter(producer.list_topics(timeout=10).brokers.values()))
    stack = Stack(folder)
    stack.start_postgres()
    # Reaches the terminal even where nobody has set up logging.
    logging.getLogger(__name__).warning(NOT_DURABLE)
    kafka = f"{broker.host}:{broker.port}"
    return Addresses(kafka, stack.postgres, "memory", durable=False, stack=stack, keeper=producer)
