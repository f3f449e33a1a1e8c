"""Kafka and PostgreSQL as local processes, started, found again and stopped as one stack.

A stack is a folder. What runs in it, on which ports and with which password is remembered
there, so any later `Stack` of the same folder re-uses what runs and keeps the same addresses.
A stack either runs in the background (`up()`; survives its starter) or is owned (`with`, or
`owned=True`; its processes end with their owner, even when that is killed).
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from types import TracebackType
from typing import Self

from deploy.local import artifacts
from deploy.local import kafka as kafka_part
from deploy.local import postgres as postgres_part
from deploy.local import processes as run
from deploy.local.errors import StackError
from deploy.local.java import find_java
from deploy.local.machine import LOOPBACK, free_port, is_free, require_disk_space, require_port
from deploy.local.postgres_programs import find_programs, unprivileged_account, usable_by
from deploy.local.state import LOCK, STATE, FolderLock, Part, State, read_state, write_state

# How long children of a killed PostgreSQL may take to end before a new one can start.
LEFTOVERS_SECONDS = 15.0


@dataclass(frozen=True)
class PartStatus:
    """Kafka or PostgreSQL as it is now."""

    name: str
    running: bool
    pid: int | None
    port: int | None
    data: Path | None
    version: str


@dataclass(frozen=True)
class StackStatus:
    """Both parts as they are now."""

    folder: Path
    kafka: PartStatus
    postgres: PartStatus


class Stack:
    """A real Kafka and a real PostgreSQL in one folder; nothing happens before `up()`."""

    def __init__(
        self,
        folder: Path,
        *,
        kafka_port: int | None = None,
        postgres_port: int | None = None,
        owned: bool = False,
    ) -> None:
        self.folder = Path(folder).absolute()
        self.owned = owned
        self._kafka_port = kafka_port
        self._postgres_port = postgres_port
        self._lock = FolderLock(self.folder)
        self._writing = threading.RLock()

    def __enter__(self) -> Self:
        self.owned = True
        self.up()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    # --- the whole -----------------------------------------------------------------------

    def up(self) -> None:
        """Start both parts at once, or re-use what runs; returns when both serve."""
        self._make_folder()
        with self._acting():
            before = self._state()
            try:
                _at_once(self._start_kafka, self._start_postgres)
            except BaseException:
                self._undo(before)
                raise

    def _undo(self, before: State) -> None:
        """After a failed start, stop what it started: half a stack is of no use."""
        if not run.alive(before.kafka.process):
            self._stop_kafka()
        if not run.alive(before.postgres.process):
            self._stop_postgres()
        self._disown()

    def down(self) -> None:
        """Stop both parts cleanly; their data stays."""
        if not (self.folder / STATE).exists():
            self._disown()
            return
        with self._acting():
            _at_once(self._stop_kafka, self._stop_postgres)
        self._disown()

    def clean(self) -> None:
        """Stop both parts and delete all data, with the folder unless others keep files in it."""
        if not self.folder.exists():
            return
        with self._acting():
            _at_once(self._stop_kafka, self._stop_postgres)
            self._delete()
        self._disown()

    def _delete(self) -> None:
        data = self._state().postgres.data
        if data:
            # May lie outside the folder, see postgres.home.
            shutil.rmtree(Path(data).parent, ignore_errors=True)
        # By name: whoever made a stack in a folder full of other things keeps those.
        for ours in ("kafka", "postgres"):
            shutil.rmtree(self.folder / ours, ignore_errors=True)
        for ours in ("postgres.log", STATE, LOCK):
            (self.folder / ours).unlink(missing_ok=True)
        with suppress(OSError):  # not empty
            self.folder.rmdir()

    def status(self) -> StackStatus:
        """What runs, where and which version; changes nothing and waits for nobody."""
        state = self._state()
        return StackStatus(
            folder=self.folder,
            kafka=_status("Kafka", state.kafka),
            postgres=_status("PostgreSQL", state.postgres),
        )

    # --- addresses -----------------------------------------------------------------------

    @property
    def kafka(self) -> str:
        """The bootstrap address."""
        return f"{LOOPBACK}:{self._port('Kafka', self._state().kafka)}"

    @property
    def postgres(self) -> str:
        """The superuser's address without a database name: append `/name`."""
        return self._address(postgres_part.SUPERUSER)

    def dsn(self, database: str) -> str:
        """The address of one database, as the role that owns it."""
        return f"{self._address(database)}/{database}"

    def ensure_databases(self, names: Iterable[str]) -> None:
        """Create these databases if missing, each with a role of its name that owns it."""
        postgres_part.ensure_databases(self.postgres, names, self._state().password)

    def _address(self, role: str) -> str:
        state = self._state()
        port = self._port("PostgreSQL", state.postgres)
        return f"postgresql://{role}:{state.password}@{LOOPBACK}:{port}"

    def _port(self, name: str, part: Part) -> int:
        if not part.port:
            raise StackError(f"{name} of {self.folder} has never been started.", "Call up() first.")
        return part.port

    # --- one part at a time, for chaos tests ---------------------------------------------

    def start_kafka(self) -> None:
        """Start Kafka on the port it had, or re-use it."""
        self._make_folder()
        with self._acting():
            self._start_kafka()

    def start_postgres(self) -> None:
        """Start PostgreSQL on the port it had, or re-use it."""
        self._make_folder()
        with self._acting():
            self._start_postgres()

    def stop_kafka(self) -> None:
        """Stop Kafka cleanly."""
        with self._acting():
            self._stop_kafka()

    def stop_postgres(self) -> None:
        """Stop PostgreSQL cleanly."""
        with self._acting():
            self._stop_postgres()

    def restart_kafka(self) -> None:
        """Stop Kafka cleanly and start it on the same port."""
        with self._acting():
            self._stop_kafka()
            self._start_kafka()

    def restart_postgres(self) -> None:
        """Stop PostgreSQL cleanly and start it on the same port."""
        with self._acting():
            self._stop_postgres()
            self._start_postgres()

    def kill_kafka(self) -> None:
        """End Kafka by SIGKILL, as a crash would; `start_kafka` brings it back."""
        with self._acting():
            self._kill(self._state().kafka)

    def kill_postgres(self) -> None:
        """End all of PostgreSQL by SIGKILL of its first process; `start_postgres` recovers."""
        with self._acting():
            self._kill(self._state().postgres)

    def _kill(self, part: Part) -> None:
        if part.process is not None:
            run.kill(part.process)

    # --- starting and stopping -----------------------------------------------------------

    def _start_kafka(self) -> None:
        part = self._state().kafka
        folder = self.folder / "kafka"
        said = run.Said(kafka_part.logs(folder))
        if self._reusable("Kafka", part, self._kafka_port, kafka_part.STOP_STEPS):
            kafka_part.wait_until_ready(folder, part.port, _process(part), said)
            return
        with self._changing() as state:
            state.kafka.port = self._choose(state, "Kafka", self._kafka_port, state.kafka.port)
            state.controller_port = _controller_port(state)
        java = find_java()
        port, controller = state.kafka.port, state.controller_port
        broker = kafka_part.Kafka(folder, artifacts.installed(), java, port, controller)
        broker.prepare()
        process = self._launch(broker.order(), kafka_part.DIES_BY)
        with self._changing() as state:
            state.kafka = Part(port, broker.distribution.version, str(broker.data), process)
        kafka_part.wait_until_ready(folder, port, process, said)

    def _stop_kafka(self) -> None:
        part = self._state().kafka
        if part.process is None or not run.alive(part.process):
            return
        run.stop(part.process, "Kafka", kafka_part.STOP_STEPS)
        with suppress(OSError):  # without it, only a faster next start is lost
            kafka_part.keep_class_data(self.folder / "kafka", artifacts.folder_of(part.version))

    def _start_postgres(self) -> None:
        part = self._state().postgres
        if self._reusable("PostgreSQL", part, self._postgres_port, postgres_part.STOP_STEPS):
            said = run.Said([self._postgres_log])
            data, process = Path(part.data), _process(part)
            postgres_part.wait_until_ready(data, self._postgres_log, process, said)
            return
        with self._changing() as state:
            before = state.postgres.port
            state.postgres.port = self._choose(state, "PostgreSQL", self._postgres_port, before)
        server = self._server(state)
        with self._changing() as state:
            # Before anything is made there, so that clean() knows of it.
            state.postgres.data = str(server.data)
        server.prepare()
        deadline = time.monotonic() + LEFTOVERS_SECONDS
        while True:
            try:
                self._launch_postgres(server)
            except postgres_part.NotYetError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def _launch_postgres(self, server: postgres_part.Postgres) -> None:
        said = run.Said([server.log])
        process = self._launch(server.order(), postgres_part.DIES_BY)
        with self._changing() as state:
            version = server.programs.version
            state.postgres = Part(server.port, version, str(server.data), process)
        postgres_part.wait_until_ready(server.data, server.log, process, said)

    @property
    def _postgres_log(self) -> Path:
        return self.folder / "postgres.log"

    def _server(self, state: State) -> postgres_part.Postgres:
        account = unprivileged_account()
        return postgres_part.Postgres(
            folder=self._postgres_home(state, account),
            log=self._postgres_log,
            programs=usable_by(find_programs(), account),
            account=account,
            port=state.postgres.port,
            password=state.password,
        )

    def _postgres_home(self, state: State, account: run.Account | None) -> Path:
        # Where it was before, even if meanwhile it would be put elsewhere.
        known = Path(state.postgres.data).parent if state.postgres.data else None
        return known if known and known.exists() else postgres_part.home(self.folder, account)

    def _stop_postgres(self) -> None:
        process = self._state().postgres.process
        if process is not None:
            run.stop(process, "PostgreSQL", postgres_part.STOP_STEPS)

    def _reusable(
        self, name: str, part: Part, wanted: int | None, steps: list[tuple[Signals, float]]
    ) -> bool:
        """Whether a part runs that we may keep; one that is bound to another's life is ended."""
        if part.process is None or not run.alive(part.process):
            return False
        mine = os.getpid() if self.owned else None
        if part.process.owner != mine:
            # Bound to an owner that died, it is ending already; free of one, it would outlive us.
            run.stop(part.process, name, steps)
            return False
        if wanted is not None and wanted != part.port:
            raise StackError(
                f"{name} of {self.folder} already runs on port {part.port}, not on {wanted}.",
                "Stop it first, or don't ask for a port.",
            )
        return True

    def _choose(self, state: State, name: str, wanted: int | None, before: int) -> int:
        port = wanted or before
        if port:
            option = "--kafka-port" if name == "Kafka" else "--postgres-port"
            require_port(port, name, option)
            return port
        return free_port(state.kafka.port, state.postgres.port, state.controller_port)

    def _launch(self, order: run.Order, dies_by: Signals) -> run.Running:
        return run.start(order, dies_by=dies_by if self.owned else None)

    # --- the folder ----------------------------------------------------------------------

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise StackError(
                f"The folder {self.folder} cannot be made: {problem.strerror}.",
                "Choose another folder.",
            ) from problem
        require_disk_space(self.folder)

    @contextmanager
    def _acting(self) -> Iterator[None]:
        """Hold the folder while acting; an owner keeps it afterwards."""
        if self._lock.held:
            yield
            return
        self._lock.acquire(owning=self.owned)
        try:
            yield
        finally:
            if not self.owned:
                self._lock.release()

    def _disown(self) -> None:
        self._lock.release()

    def _state(self) -> State:
        with self._writing:
            return read_state(self.folder)

    @contextmanager
    def _changing(self) -> Iterator[State]:
        # Both parts start in parallel and share one state file.
        with self._writing:
            state = read_state(self.folder)
            yield state
            write_state(self.folder, state)


def _process(part: Part) -> run.Running:
    assert part.process is not None  # asked only after finding it alive
    return part.process


def _controller_port(state: State) -> int:
    """The port it had, unless someone took it meanwhile: no client depends on it."""
    taken = (state.kafka.port, state.postgres.port)
    port = state.controller_port
    return port if port and port not in taken and is_free(port) else free_port(*taken)


def _status(name: str, part: Part) -> PartStatus:
    running = run.alive(part.process)
    return PartStatus(
        name=name,
        running=running,
        pid=part.process.pid if running and part.process else None,
        port=part.port or None,
        data=Path(part.data) if part.data else None,
        version=part.version,
    )


def _at_once(*steps: Callable[[], None]) -> None:
    """Run steps in parallel to their end; all that failed is said in one error."""
    with ThreadPoolExecutor(max_workers=len(steps)) as pool:
        failures = [one.exception() for one in [pool.submit(step) for step in steps]]
    problems = [failure for failure in failures if failure is not None]
    clear = [problem for problem in problems if isinstance(problem, StackError)]
    if len(clear) < len(problems):
        raise next(problem for problem in problems if not isinstance(problem, StackError))
    if clear:
        raise StackError(
            " ".join(problem.happened for problem in clear),
            " ".join(dict.fromkeys(problem.remedy for problem in clear)),
        ) from clear[0]
