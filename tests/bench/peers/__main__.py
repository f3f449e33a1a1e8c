"""Other ways to do our job, beside ours: `python -m tests.bench.peers --help`."""

import asyncio
import hashlib
import json
import logging
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import jgo
import psutil
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from deploy.local.artifacts import read_lock
from deploy.local.java import find_java
from deploy.local.machine import cache_folder
from schemas.crm import Record
from tests.bench import receive, workload
from tests.bench.__main__ import Bench
from tests.bench.peers import events
from tests.bench.peers.events import Cells
from tests.bench.peers.run import NotInstalledError, Outcome, Peer, PeerError, Place, run
from tests.bench.soak import a_bench
from tests.support import DEV_SECRET

HERE = Path(__file__).parent
INSTALL_SECONDS = 600
FEWEST = 5_000  # events of a peer, so that it can be killed in the middle
JDBC = "org.postgresql:postgresql:42.7.8"
# What boards read of the metrics service; deltas that it has not folded yet don't count.
OURS = f"""(
    SELECT substr(subject, length('person:') + 1) AS person, start AS day,
        coalesce(sum(value) FILTER (WHERE metric = 'deals_won'), 0) AS deals,
        coalesce(sum(value) FILTER (WHERE metric = 'revenue_won'), 0) AS revenue,
        coalesce(sum(value) FILTER (WHERE metric = 'calls_made'), 0) AS calls
    FROM counter WHERE tenant = '{workload.TENANT}' AND grain = 'day'
        AND metric IN ('deals_won', 'revenue_won', 'calls_made') AND starts_with(subject, 'person:')
    GROUP BY 1, 2
)"""
console = Console()


def our_environment(place: Place) -> dict[str, str]:
    """The real service with its default settings."""
    return {
        "PACESETTER_KAFKA": place.kafka.kafka,
        "PACESETTER_TOPIC_PREFIX": place.kafka.topic_prefix,
        "PACESETTER_LOG_LEVEL": "WARNING",
        "PACESETTER_DEV_SECRET": DEV_SECRET,
        "METRICS_DATABASE": place.database,
        "METRICS_PORT": str(receive.a_port()),
    }


def their_environment(place: Place) -> dict[str, str]:
    """What `job` and the Java peer read."""
    return {
        "PEER_KAFKA": place.kafka.kafka,
        "PEER_TOPIC": place.kafka.topic_prefix + Record.topic,
        "PEER_GROUP": f"{place.kafka.topic_prefix}peer",
        "PEER_DATABASE": place.database,
        "PEER_STATE": str(place.folder / "state"),
    }


def own_python(name: str, module: str, *arguments: str) -> Callable[[], list[str]]:
    """A module that runs in a virtual environment of its own, kept in the cache folder."""

    def install() -> list[str]:
        requirements = HERE / "requirements" / f"{name}.txt"
        digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
        folder = cache_folder() / f"peer-{name}-{digest}"
        python, ready = folder / "bin" / "python", folder / "ready"
        if not ready.exists():
            venv.create(folder, clear=True, with_pip=True)
            _call([str(python), "-m", "pip", "install", "--quiet", "-r", str(requirements)])
            ready.touch()
        return [str(python), "-m", f"tests.bench.peers.{module}", *arguments]

    return install


def kafka_streams() -> list[str]:
    """The Java peer, compiled against the Kafka that the broker is."""
    source = HERE / "WithKafkaStreams.java"
    version = read_lock().kafka
    java = str(find_java().program)
    try:
        jars = [
            str(one.resolve())
            for wanted in (f"org.apache.kafka:kafka-streams:{version}", JDBC)
            for one in jgo.resolve(wanted)
        ]
    except Exception as problem:  # whatever the resolver raises, there is no Kafka Streams here
        raise NotInstalledError(f"its artifacts can't be had: {problem}") from problem
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    folder = cache_folder() / f"peer-kafka-streams-{version}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    compiler = [java, "-m", "jdk.compiler/com.sun.tools.javac.Main"]  # of a JDK, not of a JRE
    _call([*compiler, "-cp", ":".join(jars), "-d", str(folder), str(source)])
    return [java, "-cp", ":".join([str(folder), *jars]), "WithKafkaStreams"]


def _call(command: Sequence[str]) -> None:
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=INSTALL_SECONDS
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise NotInstalledError(said[-1] if said else f"{command[0]} failed")


PEERS = [
    Peer(
        "ours",
        "the metrics service, with its whole catalogue: every metric, for person, team, territory, "
        "role and organisation, by day, week, month, quarter, half and year",
        1.0,
        lambda: [sys.executable, "-m", "services", "serve", "metrics"],
        our_environment,
        result=OURS,
        shared_table=False,
        directory=True,
    ),
    Peer(
        "one-message",
        "the tutorial style on aiokafka and asyncpg: one message, one transaction, one commit",
        0.05,
        lambda: [sys.executable, "-m", "tests.bench.peers.one_message"],
        their_environment,
    ),
    Peer(
        "quix",
        "Quix Streams, exactly once, RocksDB, its PostgreSQL sink at checkpoints of a second",
        0.25,
        own_python("quix", "quix"),
        their_environment,
    ),
    Peer(
        "faust",
        "Faust, at least once (its default), RocksDB tables, batches into PostgreSQL",
        0.05,
        own_python("faust", "with_faust", "-L", "uvloop", "worker", "-l", "warn"),
        their_environment,
    ),
    Peer(
        "kafka-streams",
        "Kafka Streams of the broker's version, exactly_once_v2, a thread per core, JDBC upserts",
        1.0,
        kafka_streams,
        their_environment,
    ),
]
NAMES = [peer.name for peer in PEERS]
ROWS = [
    "events",
    "events/s",
    "CPU s per 100 k",
    "… of Kafka, PostgreSQL",
    "off the oracle",
    "killed: moves again after",
    "… and stands after",
    "… off the oracle",
]


class Figures:
    """The clean and the killed run of a peer, or why there are none."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.runs: dict[str, Outcome] = {}
        self.problem = ""

    def as_dict(self) -> dict[str, object]:
        """Everything, for a file."""
        runs = {name: asdict(outcome) for name, outcome in self.runs.items()}
        return {"peer": self.peer.name, "about": self.peer.about, "problem": self.problem, **runs}

    def column(self) -> list[str]:
        """What the table shows."""
        clean, killed = self.runs.get("clean"), self.runs.get("killed")
        cells = ["-"] * len(ROWS)
        if clean:
            per_100k = 100_000 / clean.events
            cells[:5] = [
                f"{clean.events:,}",
                f"{clean.rate:,.0f}",
                f"{clean.cpu * per_100k:.1f}",
                f"{clean.servers_cpu * per_100k:.1f}",
                difference(clean),
            ]
        if killed:
            cells[5:] = [f"{killed.again:.1f} s", f"{killed.seconds:.1f} s", difference(killed)]
        return cells


def difference(outcome: Outcome) -> str:
    """What is wrong with a result."""
    if outcome.exact:
        return "0"
    return (
        f"{outcome.wrong_cells:,} of {outcome.cells:,} cells\n"
        f"{outcome.wrong_counts:,} deals, calls\n{outcome.wrong_minor / 100:,.2f} USD"
    )


def table(figures: Sequence[Figures]) -> Table:
    """A column per peer."""
    shown = Table(title="per person and day: deals won, revenue won, calls made")
    shown.add_column()
    for one in figures:
        shown.add_column(one.peer.name, justify="right")
    for name, *values in zip(ROWS, *(one.column() for one in figures), strict=True):
        shown.add_row(name, *values)
    return shown


async def measure(
    bench: Bench, peers: Sequence[Peer], *, count: int, same: bool, kill: bool, patience: float
) -> list[Figures]:
    """All runs, one after the other; what fails is said and doesn't end the others."""
    records = events.messages(count)
    oracles: dict[int, Cells] = {}
    made = []
    for peer in peers:
        figures = Figures(peer)
        made.append(figures)
        given = records if same else records[: max(FEWEST, round(count * peer.share))]
        if len(given) not in oracles:
            oracles[len(given)] = await events.expected(await bench.database(), given)
        try:
            command = await asyncio.to_thread(peer.install)
            for name in ("clean", "killed") if kill else ("clean",):
                console.print(f"[dim]{peer.name}, {name}: {len(given):,} events")
                figures.runs[name] = await run(
                    bench,
                    peer,
                    command,
                    records=given,
                    expected=oracles[len(given)],
                    kill=name == "killed",
                    patience=patience,
                )
        except (NotInstalledError, PeerError) as problem:
            figures.problem = str(problem)
            console.print(f"[red]{peer.name}:[/red] {problem}", markup=True, highlight=False)
    return made


def main(
    *,
    events_: Annotated[
        int, typer.Option("--events", min=FEWEST, help="On the topic, of which 5 % warm up.")
    ] = 200_000,
    only: Annotated[str, typer.Option(help=f"Comma separated: {', '.join(NAMES)}.")] = "",
    same: Annotated[
        bool,
        typer.Option(
            help="All events for everybody. Otherwise slow peers get the first part of them: "
            + ", ".join(f"{peer.name} {peer.share:.0%}" for peer in PEERS if peer.share < 1)
            + "."
        ),
    ] = False,
    kill: Annotated[bool, typer.Option(help="A second run each, with a SIGKILL in it.")] = True,
    patience: Annotated[float, typer.Option(min=1, help="Seconds that a run may take.")] = 180,
    output: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
) -> None:
    """Do one small job in several ways, in one run, on one Kafka and one PostgreSQL.

    The job: per person and day in the organisation's zone, deals won, revenue won and calls made,
    from states of records that come twice, late and corrected; queryable in PostgreSQL.

    Each peer is one process, warm when the clock starts, with a topic and a database of its own.
    events/s is until the last result can be queried. CPU is of its processes; what it makes Kafka
    and PostgreSQL do stands beside it. Then it is killed (SIGKILL) with half of the calls counted,
    and started again at once: until its result moves again, and until it stands. A member that was
    killed keeps its partitions for 10 s, for everybody.

    What can't be installed is skipped with its reason. Peers are kept in PACESETTER_CACHE.
    """
    chosen = only.split(",") if only else NAMES
    unknown = sorted(set(chosen) - set(NAMES))
    if unknown:
        raise typer.BadParameter(
            f"unknown peers: {', '.join(unknown)}; there are {', '.join(NAMES)}"
        )
    peers = [peer for peer in PEERS if peer.name in chosen]
    with a_bench() as bench, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        # It complains of topics so new that they have no leader yet, and tries again.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        figures = runner.run(
            measure(bench, peers, count=events_, same=same, kill=kill, patience=patience)
        )
    console.print(table(figures))
    for one in figures:
        console.print(f"[bold]{one.peer.name}[/bold]: {one.problem or one.peer.about}")
    console.print(f"{psutil.cpu_count()} cores for the peer, Kafka and PostgreSQL.")
    if output:
        output.write_text(json.dumps([one.as_dict() for one in figures], indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
