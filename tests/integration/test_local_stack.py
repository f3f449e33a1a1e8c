"""The stack without Docker, with real processes: up, re-use, crashes, orphans, clear errors.

One stack in a temporary folder serves the tests in order of cost; those that need a fresh or
broken one make their own. Owners that get killed are child processes of the test.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from deploy.local import (
    Stack,
    StackError,
    artifacts,
    machine,
    postgres,
    postgres_programs,
    processes,
    resolve,
)

ROOT = Path(__file__).parents[2]
TOPIC = "stack.check.v1"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack") / "local") as running:
        running.ensure_databases(["ingest", "metrics"])
        yield running
    status = running.status()
    assert not status.kafka.running
    assert not status.postgres.running
    running.clean()
    assert not running.folder.exists()


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.local", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


async def send(address: str, *values: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=address, acks="all")
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(TOPIC, value)
    finally:
        await producer.stop()


async def received(address: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        TOPIC, bootstrap_servers=address, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    try:
        async with asyncio.timeout(20):
            return [(await anext(consumer)).value or b"" for _ in range(count)]
    finally:
        await consumer.stop()


async def create_topic(address: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(TOPIC, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def test_up_again_reuses_what_runs(stack: Stack) -> None:
    before = stack.status()
    stack.up()
    stack.ensure_databases(["ingest", "metrics"])
    after = stack.status()
    assert before == after
    assert after.kafka.running
    assert after.postgres.running


async def test_listens_on_loopback_only(stack: Stack) -> None:
    status = stack.status()
    for part in (status.kafka, status.postgres):
        assert part.pid is not None
        listening = [
            connection.laddr.ip
            for connection in processes.system.Process(part.pid).net_connections("tcp")
            if connection.status == "LISTEN"
        ]
        assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


async def test_each_database_is_its_roles_own(stack: Stack) -> None:
    own = await asyncpg.connect(stack.dsn("ingest"))
    assert await own.fetchval("SELECT current_user || current_database()") == "ingestingest"
    assert int(await own.fetchval("SHOW server_version_num")) >= 180000
    await own.close()
    with pytest.raises(asyncpg.exceptions.InsufficientPrivilegeError):
        await asyncpg.connect(stack.dsn("ingest").removesuffix("/ingest") + "/metrics")


async def test_a_wrong_password_is_refused(stack: Stack) -> None:
    port = stack.status().postgres.port
    with pytest.raises(asyncpg.exceptions.InvalidPasswordError):
        await asyncpg.connect(f"postgresql://ingest:wrong@127.0.0.1:{port}/ingest")


async def test_commits_survive_sigkill_on_the_same_ports(stack: Stack) -> None:
    before = stack.status()
    await create_topic(stack.kafka)
    await send(stack.kafka, b"1", b"2")
    connection = await asyncpg.connect(stack.dsn("ingest"))
    await connection.execute("CREATE TABLE fact (id int); INSERT INTO fact VALUES (1), (2)")

    stack.kill_kafka()
    stack.kill_postgres()
    killed = stack.status()
    assert not killed.kafka.running
    assert not killed.postgres.running
    stack.up()

    after = stack.status()
    assert (after.kafka.port, after.postgres.port) == (before.kafka.port, before.postgres.port)
    await send(stack.kafka, b"3")
    assert await received(stack.kafka, 3) == [b"1", b"2", b"3"]
    connection = await asyncpg.connect(stack.dsn("ingest"))
    assert await connection.fetchval("SELECT count(*) FROM fact") == 2
    await connection.close()


async def test_clean_restarts_keep_address_and_data(stack: Stack) -> None:
    addresses = (stack.kafka, stack.postgres)
    stack.restart_kafka()
    stack.restart_postgres()
    assert (stack.kafka, stack.postgres) == addresses
    assert await received(stack.kafka, 3) == [b"1", b"2", b"3"]


def test_a_folder_in_use_names_its_owner(stack: Stack) -> None:
    with pytest.raises(StackError, match=f"in use by process {os.getpid()}"):
        Stack(stack.folder).up()
    done = command("up", "--folder", str(stack.folder))
    assert done.returncode == 1
    assert f"in use by process {os.getpid()}" in done.stderr
    assert "Traceback" not in done.stderr


def test_choose_prefers_given_addresses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PACESETTER_KAFKA", "127.0.0.1:1")
    with pytest.raises(StackError, match="PACESETTER_POSTGRES is not set"):
        resolve.choose(tmp_path)
    monkeypatch.setenv("PACESETTER_POSTGRES", "postgresql://someone@127.0.0.1:2/")
    found = resolve.choose(tmp_path)
    assert (found.kafka, found.postgres) == ("127.0.0.1:1", "postgresql://someone@127.0.0.1:2")
    monkeypatch.setenv("PACESETTER_STACK", "cloud")
    with pytest.raises(StackError, match="no known stack"):
        resolve.choose(tmp_path)


def test_background_stack_of_the_command_line(tmp_path: Path) -> None:
    folder = str(tmp_path / "local")
    try:
        first = command("up", "--folder", folder)
        assert first.returncode == 0, first.stderr
        second = command("up", "--folder", folder)
        assert second.stdout == first.stdout
        stack = Stack(Path(folder))
        running = stack.status()
        assert running.kafka.running
        assert stack.kafka in first.stdout
        assert stack.postgres in first.stdout
        other = command("up", "--folder", folder, "--kafka-port", "15001")
        assert other.returncode == 1
        assert "already runs on port" in other.stderr
        assert stack.status() == running, "a refused order stops nothing"
        assert command("down", "--folder", folder).returncode == 0
        assert not stack.status().kafka.running
        assert not stack.status().postgres.running
    finally:
        assert command("clean", "--folder", folder).returncode == 0
    assert not Path(folder).exists()


def test_a_killed_owner_leaves_nothing_and_its_folder_is_taken_over(tmp_path: Path) -> None:
    folder = tmp_path / "local"
    program = (
        "import sys, time; from pathlib import Path; from deploy.local import Stack\n"
        "with Stack(Path(sys.argv[1])): print('up', flush=True); time.sleep(300)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    said = owner.stdout.readline()
    stack = Stack(folder)
    orphaned = stack.status()
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    assert said == "up\n"

    # At once, while what it left is still ending: recognised, waited for, and replaced.
    stack.start_postgres()
    taken_over = stack.status()
    assert taken_over.postgres.running
    assert taken_over.postgres.pid != orphaned.postgres.pid
    assert taken_over.postgres.port == orphaned.postgres.port

    deadline = time.monotonic() + 15
    while stack.status().kafka.running:
        assert time.monotonic() < deadline, "Kafka outlives its owner"
        time.sleep(0.05)
    stack.clean()


def test_a_foreign_process_with_the_remembered_id_is_left_alone(tmp_path: Path) -> None:
    remembered = {"pid": os.getpid(), "started": 1.0, "owner": None}
    state = {"kafka": {"port": 15002, "process": remembered}, "password": "x"}
    (tmp_path / "state.json").write_text(json.dumps(state))
    stack = Stack(tmp_path)
    assert not stack.status().kafka.running
    stack.down()  # would end this very test


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(StackError, match=f"Port {port}, wanted for Kafka, is taken"):
            Stack(tmp_path, kafka_port=port).start_kafka()
        with pytest.raises(StackError, match=f"Port {port}, wanted for PostgreSQL, is taken"):
            Stack(tmp_path, postgres_port=port).start_postgres()


@pytest.mark.parametrize("version", [None, "1.8.0_392", "11.0.2"])
def test_no_or_old_java_is_one_message(tmp_path: Path, version: str | None) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    if version:
        java = programs / "java"
        java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
        java.chmod(0o755)
    path = f"{programs}:/bin" if not Path("/bin/java").exists() else str(programs)
    folder = tmp_path / "local"
    done = command("up", "--folder", str(folder), PATH=path, JAVA_HOME="")
    assert done.returncode == 1
    assert done.stderr.startswith("error: Kafka needs Java 17 or later")
    assert done.stderr.count("\n") == 1
    assert not Stack(folder).status().postgres.running, "half a stack is not left behind"
    Stack(folder).clean()


def test_a_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "FREE_BYTES_NEEDED", 1 << 62)
    with pytest.raises(StackError, match="the stack needs"):
        Stack(tmp_path).up()


def test_old_postgres_programs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = tmp_path / "postgres"
    server.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 16.2'\n")
    server.chmod(0o755)
    monkeypatch.setenv("PACESETTER_PG_BIN", str(tmp_path))
    with pytest.raises(StackError, match=r"18 or later is needed: .* is version 16\.2"):
        Stack(tmp_path / "local").start_postgres()


def test_data_of_another_major_is_refused(tmp_path: Path) -> None:
    (tmp_path / "17").mkdir()
    (tmp_path / "17" / "PG_VERSION").write_text("17\n")
    programs = postgres_programs.Programs(tmp_path, "18.4")
    server = postgres.Postgres(tmp_path, tmp_path / "log", programs, None, 15003, "secret")
    with pytest.raises(StackError, match="holds data of PostgreSQL 17"):
        server.prepare()


def test_docker_without_an_engine_is_no_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2; exit 1\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PACESETTER_STACK", "docker")
    monkeypatch.setattr(resolve, "COMPOSE_FILE", docker)
    with pytest.raises(StackError, match="Cannot connect to the Docker daemon"):
        resolve.choose(tmp_path / "local")


def test_clean_keeps_what_others_put_into_the_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "state.json").write_text('{"password": "x"}')
    Stack(tmp_path).clean()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_artifacts_with_another_hash_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PACESETTER_CACHE", str(tmp_path))
    right = artifacts.Artifact("org.example:thing:1", "0" * 64, 5)
    monkeypatch.setattr(artifacts, "read_lock", lambda: artifacts.Lock("0", [right]))

    def serve(_lock: artifacts.Lock, into: Path) -> None:
        (into / right.file_name).write_bytes(b"other")

    monkeypatch.setattr(artifacts, "_fetch_with_jgo", serve)
    monkeypatch.setattr(artifacts, "_fetch_with_mvn", serve)
    with pytest.raises(StackError, match=r"SHA-256 of thing-1\.jar differs"):
        artifacts.installed()
    assert not (tmp_path / "kafka-0" / "jars").exists()
