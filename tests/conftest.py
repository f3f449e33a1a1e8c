"""Fixtures: one real Kafka and PostgreSQL per session; database and topics per test."""

import itertools
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr

from deploy.local import Stack
from kit.settings import KitSettings
from tests.support import DEV_SECRET

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Real Kafka and PostgreSQL on free ports, gone with the session."""
    folder = Path(tempfile.mkdtemp(prefix="pacesetter-test-"))
    stack = Stack(folder, owned=True)
    try:
        stack.up()
        yield stack
    finally:
        stack.clean()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def kit_settings(stack: Stack) -> KitSettings:
    """Settings on the session's Kafka, with topics and groups of the test's own."""
    return KitSettings(
        kafka=stack.kafka,
        topic_prefix=f"t{uuid.uuid4().hex[:8]}.",
        dev_secret=SecretStr(DEV_SECRET),
        log_format="json",
    )


@pytest.fixture
async def new_database(stack: Stack) -> AsyncIterator[Callable[[], Awaitable[str]]]:
    """Call it for the DSN of a fresh, empty database; dropped after the test."""
    made: list[str] = []

    async def make() -> str:
        name = f"test_{os.getpid()}_{next(_numbers)}"
        connection = await asyncpg.connect(f"{stack.postgres}/postgres")
        await connection.execute(f'CREATE DATABASE "{name}"')
        await connection.close()
        made.append(name)
        return f"{stack.postgres}/{name}"

    yield make
    connection = await asyncpg.connect(f"{stack.postgres}/postgres")
    for name in made:
        await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    await connection.close()
