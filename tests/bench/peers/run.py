"""One run of one peer: warm, frozen while the events are put on the topic, timed until they stand.

The result is polled in PostgreSQL, by the same connection for everybody. A result stands when it is
the oracle's; one that never is stands when it has not changed for longer than any restart takes.
"""

import asyncio
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import asyncpg
import psutil
from aiokafka.admin import AIOKafkaAdminClient

from kit.kafka import create_topics, declared
from kit.settings import KitSettings
from schemas.crm import Record
from tests.bench import consume
from tests.bench.__main__ import Bench
from tests.bench.peers import events
from tests.bench.peers.events import Cells

ROOT = Path(__file__).parents[3]
WARM_SHARE = 0.05  # of the events, before the clock starts
KILL_AT = 0.5  # of the expected calls
STARTING_SECONDS = 90.0
QUIET_SECONDS = 30.0  # sessions and transactions of a killed process end after 10 s
NEAR, NEAR_SECONDS, FAR_SECONDS = 0.9, 0.2, 0.5  # the nearer the end, the oftener it is looked at
AIM_SECONDS = 0.05  # between looks before a kill
TABLE = """
CREATE TABLE result (
    person text, day date, deals bigint NOT NULL, revenue bigint NOT NULL, calls bigint NOT NULL,
    PRIMARY KEY (person, day)
)
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run happens."""

    kafka: KitSettings
    database: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Peer:
    """A way to do the job: how it is had, started and read."""

    name: str
    about: str
    share: float  # of the events, so that a slow one doesn't take the whole evening
    install: Callable[[], Sequence[str]]  # its command; raises NotInstalledError
    environment: Callable[[Place], dict[str, str]]
    result: str = "result"
    shared_table: bool = True  # or it keeps the result in its own
    directory: bool = False  # whether it reads the organisation from Kafka


class NotInstalledError(Exception):
    """A peer that can't be had here; the text is the reason."""


class PeerError(Exception):
    """A peer that didn't do it; the text is what is known."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run has shown. Seconds count until the result stands, from its start or the kill."""

    events: int
    seconds: float
    cpu: float  # of the peer's processes
    servers_cpu: float  # of Kafka and PostgreSQL
    again: float  # from the kill until the result moved again; 0 without a kill
    cells: int  # of the expected result
    wrong_cells: int
    wrong_counts: int  # sum of the absolute differences of deals and calls
    wrong_minor: int  # and of revenue, in minor units

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds

    @property
    def exact(self) -> bool:
        """Whether the result is the oracle's."""
        return self.wrong_cells == 0


class Worker:
    """A peer's process with all its children, which are killed and frozen together."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self._command = command
        self._environment = os.environ | environment
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin, or begin again."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdout=log, stderr=log
            )

    def check(self) -> None:
        """Raise when it has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            said = self._log.read_text(errors="replace").strip().splitlines()
            raise PeerError(
                f"ended with {self._process.returncode}: {' | '.join(said[-3:])[-400:]}"
            )

    def freeze(self) -> None:
        """Stop all of it, as SIGSTOP does."""
        for process in self._all():
            process.suspend()

    def thaw(self) -> None:
        """Let it go on."""
        for process in self._all():
            process.resume()

    def kill(self) -> None:
        """SIGKILL to all of it, at once."""
        everyone = self._all()
        for process in everyone:
            process.kill()
        if self._process is not None:
            self._process.wait(10)
        psutil.wait_procs(everyone, 10)

    @property
    def pid(self) -> int:
        """Of the process itself."""
        assert self._process is not None
        return self._process.pid

    def _all(self) -> list[psutil.Process]:
        if self._process is None or self._process.poll() is not None:
            return []
        root = psutil.Process(self._process.pid)
        return [root, *root.children(recursive=True)]


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds so far."""

    peer: float
    servers: float  # Kafka and PostgreSQL

    @classmethod
    def now(cls, worker: Worker, servers: Sequence[int]) -> Self:
        """Of these processes, their children, and those of them that have ended."""
        return cls(_cpu_of(worker.pid), sum(map(_cpu_of, servers)))


def _cpu_of(pid: int) -> float:
    total = 0.0
    root = psutil.Process(pid)
    for process in (root, *root.children(recursive=True)):
        try:
            total += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:  # its parent counts it from now on
            continue
    return total


class Result:
    """A peer's result in PostgreSQL, beside what it must become."""

    def __init__(self, connection: Any, source: str, expected: Cells) -> None:
        self._connection = connection
        self._source = source
        self.expected = expected
        self._sums = _sums(expected)
        self.seen: tuple[int, ...] = ()
        self.changed_at = time.monotonic()

    async def look(self) -> bool:
        """Whether it has changed since the last look."""
        row = await self._connection.fetchrow(
            "SELECT coalesce(sum(deals), 0)::bigint, coalesce(sum(revenue), 0)::bigint,"
            f" coalesce(sum(calls), 0)::bigint FROM {self._source} AS result"
        )
        before, self.seen = self.seen, tuple(row)
        if before != self.seen:
            self.changed_at = time.monotonic()
        return before != self.seen

    @property
    def progress(self) -> float:
        """How much of the calls is there."""
        return self.seen[2] / self._sums[2]

    @property
    def looks_finished(self) -> bool:
        """Whether the sums are the expected ones."""
        return self.seen == self._sums

    async def differences(self) -> tuple[int, int, int]:
        """Cells that differ, and the sums of the absolute differences of counts and of revenue."""
        found = await events.cells(self._connection, self._source)
        nothing = (0, 0, 0)
        pairs = [
            (found.get(cell, nothing), self.expected.get(cell, nothing))
            for cell in found.keys() | self.expected.keys()
        ]
        return (
            sum(is_ != must for is_, must in pairs),
            sum(abs(is_[0] - must[0]) + abs(is_[2] - must[2]) for is_, must in pairs),
            sum(abs(is_[1] - must[1]) for is_, must in pairs),
        )


def _sums(cells: Cells) -> tuple[int, ...]:
    return tuple(sum(totals[number] for totals in cells.values()) for number in range(3))


async def run(
    bench: Bench,
    peer: Peer,
    command: Sequence[str],
    *,
    records: Sequence[Record],
    expected: Cells,
    kill: bool,
    patience: float,
) -> Outcome:
    """One run over these events, with or without a SIGKILL in the middle."""
    place = Place(bench.settings(), await bench.database(), bench.folder / uuid.uuid4().hex)
    place.folder.mkdir()
    await _prepare(peer, place)
    worker = Worker(command, peer.environment(place), place.folder / "log")
    connection = await asyncpg.connect(place.database)
    result = Result(connection, peer.result, expected)
    warm = round(len(records) * WARM_SHARE)
    await consume.preload(place.kafka, records[:warm])
    status = bench.stack.status()
    servers = [part.pid for part in (status.kafka, status.postgres) if part.pid]
    try:
        worker.start()
        await _until_warm(result, worker)
        worker.freeze()
        await consume.preload(place.kafka, records[warm:])
        before, began = Spent.now(worker, servers), time.monotonic()
        worker.thaw()
        again = 0.0
        if kill:
            began, again = await _kill(result, worker, patience)
        after = await _until_it_stands(result, worker, servers, patience)
        wrong = await result.differences()
        return Outcome(
            events=len(records) - warm,
            seconds=result.changed_at - began,
            cpu=after.peer - before.peer,
            servers_cpu=after.servers - before.servers,
            again=again,
            cells=len(expected),
            wrong_cells=wrong[0],
            wrong_counts=wrong[1],
            wrong_minor=wrong[2],
        )
    finally:
        worker.thaw()
        worker.kill()
        await connection.close()


async def _prepare(peer: Peer, place: Place) -> None:
    if peer.directory:
        await create_topics(place.kafka)
        await consume.preload(place.kafka, events.directory())
    else:
        name = place.kafka.topic_prefix + Record.topic
        admin = AIOKafkaAdminClient(bootstrap_servers=place.kafka.kafka)
        await admin.start()
        await admin.create_topics([one for one in declared(place.kafka) if one.name == name])
        await admin.close()
    if peer.shared_table:
        connection = await asyncpg.connect(place.database)
        await connection.execute(TABLE)
        await connection.close()


async def _until_warm(result: Result, worker: Worker) -> None:
    """Until something is there and nothing has changed for three seconds."""
    deadline = time.monotonic() + STARTING_SECONDS
    while True:
        worker.check()
        try:
            await result.look()
        except asyncpg.UndefinedTableError:  # it makes its own
            result.changed_at = time.monotonic()
        now = time.monotonic()
        if result.seen and result.seen[2] and now - result.changed_at > 3:
            return
        if now > deadline:
            raise PeerError(f"nothing was in its result after {STARTING_SECONDS:.0f} s")
        await asyncio.sleep(FAR_SECONDS)


async def _kill(result: Result, worker: Worker, patience: float) -> tuple[float, float]:
    """Kill it in the middle and start it again: when that was, and how long it took to go on."""
    deadline = time.monotonic() + patience
    while result.progress < KILL_AT:
        worker.check()
        if time.monotonic() > deadline:
            raise PeerError(f"at {result.progress:.0%} after {patience:.0f} s, so not killed")
        await asyncio.sleep(AIM_SECONDS)
        await result.look()
    killed = time.monotonic()
    worker.kill()
    worker.start()
    await result.look()  # what was under way when it died is in now
    if result.looks_finished:
        raise PeerError("it had finished before it could be killed; give more --events")
    while not await result.look():
        worker.check()
        if time.monotonic() > killed + patience:
            raise PeerError(f"nothing moved for {patience:.0f} s after the kill")
        await asyncio.sleep(NEAR_SECONDS)
    return killed, time.monotonic() - killed


async def _until_it_stands(
    result: Result, worker: Worker, servers: Sequence[int], patience: float
) -> Spent:
    """What was spent when the result changed for the last time."""
    deadline = time.monotonic() + patience
    spent = Spent.now(worker, servers)
    while not (result.looks_finished and (await result.differences())[0] == 0):
        worker.check()
        now = time.monotonic()
        if now > deadline:
            raise PeerError(f"at {result.progress:.0%} after {patience:.0f} s")
        if now - result.changed_at > QUIET_SECONDS:
            break
        await asyncio.sleep(NEAR_SECONDS if result.progress > NEAR else FAR_SECONDS)
        if await result.look():
            spent = Spent.now(worker, servers)
    return spent
