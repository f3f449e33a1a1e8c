"""One real PostgreSQL server as a local process.

Promises: listens on the loopback address only and needs a password; keeps one data folder per
major version; survives a crash of any process at any moment without losing a commit; is ready
when `wait_until_ready` returns, recovery included. Each database belongs to a role of its name,
and no other role may connect to it.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from signal import SIGINT, SIGQUIT, Signals
from tempfile import NamedTemporaryFile

import asyncpg

from deploy.local.errors import StackError
from deploy.local.machine import LOOPBACK, open_place, reachable_for
from deploy.local.postgres_programs import Programs
from deploy.local.processes import POLL_SECONDS, Account, Order, Running, Said, alive

SUPERUSER = "pacesetter"
READY_SECONDS = 90.0
INITDB_SECONDS = 120.0

# A fast stop, then an immediate one that the next start recovers from; never SIGKILL, which
# would leave its children and shared memory behind.
STOP_STEPS: list[tuple[Signals, float]] = [(SIGINT, 30.0), (SIGQUIT, 20.0)]
DIES_BY = SIGINT

SETTINGS = {
    "listen_addresses": LOOPBACK,
    # Nobody needs a socket in the file system: no folder to choose, guard and clean.
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    # What is committed is on disk: the chaos tests kill this server and compare with an oracle.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_checkpoints": "off",
    "password_encryption": "scram-sha-256",
}

NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")

# Where postmaster.pid tells how far the server is.
STATUS_LINE = 7

# What a new server says while a killed one or its children are still ending, or while nobody
# has collected the killed one's exit status yet.
STILL_IN_USE = ("pre-existing shared memory block", 'lock file "postmaster.pid" already exists')


class NotYetError(StackError):
    """The server of before has not quite ended; trying again helps."""


@dataclass(frozen=True)
class Postgres:
    """A server in a folder: makes its cluster and says how to start it."""

    folder: Path
    log: Path
    programs: Programs
    account: Account | None
    port: int
    password: str

    @property
    def data(self) -> Path:
        """The cluster of this major version."""
        return self.folder / str(self.programs.major)

    def prepare(self) -> None:
        """Make the cluster where there is none; refuse one of another major version."""
        self._make_folder()
        self._refuse_other_major()
        if not (self.data / "PG_VERSION").exists():
            self._initdb()

    def _make_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        if self.account is not None:
            os.chown(self.folder, self.account.uid, self.account.gid)
            self.folder.chmod(0o700)

    def _refuse_other_major(self) -> None:
        wanted = str(self.programs.major)
        found = {path.parent.name: path.read_text().strip() for path in self._clusters()}
        others = sorted(version for version in found.values() if version != wanted)
        if others and found.get(wanted) != wanted:
            raise StackError(
                f"{self.folder} holds data of PostgreSQL {others[-1]}, and the programs found "
                f"are version {self.programs.version}.",
                f"Name the bin folder of a PostgreSQL {others[-1]} with PACESETTER_PG_BIN, or "
                "drop the data with `clean` and rebuild it from the topics.",
            )

    def _clusters(self) -> list[Path]:
        return list(self.folder.glob("*/PG_VERSION"))

    def _initdb(self) -> None:
        # Made under another name and renamed when whole: an initdb cut short leaves a folder
        # that looks like a cluster and is none.
        partial = self.folder / "new"
        shutil.rmtree(partial, ignore_errors=True)
        with NamedTemporaryFile("w", dir=self.folder, prefix="password-") as secret:
            secret.write(self.password)
            secret.flush()
            if self.account is not None:
                os.chown(secret.name, self.account.uid, self.account.gid)
            done = subprocess.run(  # noqa: S603 - a program of ours
                [self.programs.bin / "initdb", *self._initdb_options(partial, secret.name)],
                check=False,
                capture_output=True,
                text=True,
                timeout=INITDB_SECONDS,
                cwd="/",
                env=_environment(),
                user=self.account.uid if self.account else None,
                group=self.account.gid if self.account else None,
                extra_groups=[] if self.account else None,
                start_new_session=True,
            )
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().split("\n")[-1]
            raise StackError(
                f"The PostgreSQL cluster in {self.data} could not be made: {said}",
                "Delete that folder and try again.",
            )
        partial.rename(self.data)

    def _initdb_options(self, target: Path, password_file: str) -> list[str]:
        return [
            f"--pgdata={target}",
            f"--username={SUPERUSER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            # The same order of text on every machine, whatever its C library.
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
            # A power cut in this second costs an empty cluster, which is made again.
            "--no-sync",
        ]

    def order(self) -> Order:
        """How to start the server."""
        settings = SETTINGS | {"port": str(self.port)}
        options = [f"--{name}={value}" for name, value in settings.items()]
        command = [str(self.programs.bin / "postgres"), "-D", str(self.data), *options]
        return Order(command, Path("/"), self.log, _environment(), self.account)


def wait_until_ready(data: Path, log: Path, process: Running, said: Said) -> None:
    """Return when the server takes connections, or say why it does not."""
    deadline = time.monotonic() + READY_SECONDS
    remedy = f"Its log is {log}."
    while not is_ready(data, process):
        if not alive(process):
            words = said.last_words("FATAL", "PANIC")
            kind = NotYetError if any(text in words for text in STILL_IN_USE) else StackError
            raise kind(f"PostgreSQL ended while starting: {words}", remedy)
        if time.monotonic() > deadline:
            raise StackError(f"PostgreSQL is not ready after {READY_SECONDS:.0f} s.", remedy)
        time.sleep(POLL_SECONDS)


def _environment() -> dict[str, str]:
    # Nothing of the caller's: PGDATA, PGPORT or a locale would change what is started.
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def is_ready(data: Path, process: Running) -> bool:
    """Whether the server says so in its lock file, as pg_ctl asks; the file names its process."""
    try:
        lines = (data / "postmaster.pid").read_text().split("\n")
    except OSError:
        return False
    status = "".join(lines[STATUS_LINE : STATUS_LINE + 1]).strip()
    return lines[0] == str(process.pid) and status == "ready"


def home(folder: Path, account: Account | None) -> Path:
    """Where clusters live: in the stack's folder, or where an unprivileged account can reach.

    As root, a folder below a private one (root's home, a test's temporary folder) is closed to
    the account PostgreSQL runs as.
    """
    if account is None or reachable_for(folder, account):
        return folder / "postgres"
    name = sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return open_place(f"postgres-data-{name}")


def ensure_databases(address: str, names: Iterable[str], password: str) -> None:
    """Create what is missing of these databases and of the roles that own them."""
    wanted = list(names)
    for name in wanted:
        if not NAME.fullmatch(name) or name in (SUPERUSER, "postgres"):
            raise StackError(
                f"{name!r} cannot be the name of a database and its role.",
                "Use lower-case letters, digits and underscores.",
            )
    # In a thread, so that it also works where the caller already runs an event loop.
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(asyncio.run, _ensure_databases(address, wanted, password)).result()


async def _ensure_databases(address: str, names: list[str], password: str) -> None:
    try:
        connection = await asyncpg.connect(f"{address}/postgres", timeout=30)
    except (OSError, asyncpg.exceptions.PostgresError) as problem:
        raise StackError(
            f"PostgreSQL does not take connections: {problem}", "Is the stack up?"
        ) from problem
    try:
        # One stack at a time: two that create the same role at once would trip each other.
        await connection.execute("SELECT pg_advisory_lock(hashtext('pacesetter databases'))")
        for name in names:
            await _ensure_database(connection, name, password)
    finally:
        await connection.close()


async def _ensure_database(connection: asyncpg.Connection, name: str, password: str) -> None:
    # Names and the password are of safe characters only; utility statements take no parameters.
    if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", name):
        await connection.execute(f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{password}'")
    if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
        await connection.execute(f'CREATE DATABASE "{name}" OWNER "{name}"')
        await connection.execute(f'REVOKE CONNECT ON DATABASE "{name}" FROM PUBLIC')
