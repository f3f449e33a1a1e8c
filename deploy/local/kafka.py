"""One real Apache Kafka broker, its own KRaft controller, as a local process.

Promises: listens on the loopback address only; keeps its log and its cluster id in the folder it
is given; creates no topic by itself; when `wait_until_ready` returns, it lists itself as a broker,
so topics can be created at once.
"""

from __future__ import annotations

import base64
import os
import shutil
import socket
import struct
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals

from deploy.local.artifacts import Distribution
from deploy.local.errors import StackError
from deploy.local.java import Java
from deploy.local.machine import LOOPBACK
from deploy.local.processes import POLL_SECONDS, Order, Running, Said, alive

READY_SECONDS = 90.0
FORMAT_SECONDS = 90.0

# SIGKILL only after a minute: the log survives it, but the next start has to recover.
STOP_STEPS: list[tuple[Signals, float]] = [(SIGTERM, 60.0), (SIGKILL, 10.0)]
DIES_BY = SIGTERM

LOG = "kafka.log"
OUTPUT = "java.log"
CLASS_DATA = "classes-{}.jsa"

# A small heap, one collector thread: the machine's cores belong to the services. With shared
# class data from an earlier run a start takes 2.3 s instead of 3.4 s (2 cores, Java 17).
JVM = (
    "-Xms128m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
)
# For programs that live a second, the optimising compiler only costs.
SHORT_LIVED = ("-XX:TieredStopAtLevel=1",)

SETTINGS = """\
# Written anew at every start.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
controller.listener.names=CONTROLLER
listeners=BROKER://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=BROKER://{host}:{port}
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=BROKER
log.dirs={data}

# Topics come from the registry in schemas/, never from a client's typing error.
auto.create.topics.enable=false

# One broker can keep one copy.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1

# A group of one machine has nobody to wait for.
group.initial.rebalance.delay.ms=0

# After a crash the controller takes the broker back only when the old session has run out:
# 9 s by default. Three seconds are still far above any pause of a small heap.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500

# Sized for two cores and a small heap (the cleaner's buffer alone takes 128 MiB by default).
num.network.threads=2
num.io.threads=4
background.threads=2
log.cleaner.dedupe.buffer.size=16777216
"""

LOGGING = """\
status=error
appenders=file
appender.file.type=RollingFile
appender.file.name=file
appender.file.fileName={log}
appender.file.filePattern={log}.%i
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d{{ISO8601}} %-5p %c{{1}}: %m%n
appender.file.policies.type=Policies
appender.file.policies.size.type=SizeBasedTriggeringPolicy
appender.file.policies.size.size=10MB
appender.file.strategy.type=DefaultRolloverStrategy
appender.file.strategy.max=2
rootLogger.level=warn
rootLogger.appenderRefs=file
rootLogger.appenderRef.file.ref=file
logger.server.name=kafka.server.KafkaRaftServer
logger.server.level=info
logger.cleaner.name=org.apache.kafka.storage.internals.log.LogLoader
logger.cleaner.level=info
"""


@dataclass(frozen=True)
class Kafka:
    """A broker in a folder: formats its storage and says how to start it."""

    folder: Path
    distribution: Distribution
    java: Java
    port: int
    controller_port: int

    @property
    def data(self) -> Path:
        """Where the log is kept."""
        return self.folder / "data"

    def prepare(self) -> None:
        """Write the settings, and format the storage of a new folder with a new cluster id."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._properties.write_text(
            SETTINGS.format(
                host=LOOPBACK,
                port=self.port,
                controller_port=self.controller_port,
                data=self.data,
            )
        )
        self._logging.write_text(LOGGING.format(log=self.folder / LOG))
        if not (self.data / "meta.properties").exists():
            self._format()

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    @property
    def _logging(self) -> Path:
        return self.folder / "log4j2.properties"

    def _format(self) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        # "=" in one word, since an id may begin with a dash and be taken for an option.
        order = ["format", f"--config={self._properties}", f"--cluster-id={cluster}"]
        done = subprocess.run(  # noqa: S603 - a program of ours
            [*self._java(SHORT_LIVED), "kafka.tools.StorageTool", *order],
            check=False,
            capture_output=True,
            text=True,
            timeout=FORMAT_SECONDS,
        )
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().split("\n")[-1]
            raise StackError(
                f"Kafka's storage in {self.data} could not be formatted: {said}",
                "Delete that folder and try again.",
            )

    def order(self) -> Order:
        """How to start the broker."""
        command = [*self._java(self._training()), "kafka.Kafka", str(self._properties)]
        return Order(command, self.folder, self.folder / OUTPUT, dict(os.environ))

    def _java(self, options: tuple[str, ...]) -> list[str]:
        shared = self._class_data
        return [
            str(self.java.program),
            *JVM,
            *options,
            *([f"-XX:SharedArchiveFile={shared}", "-Xlog:disable"] if shared.exists() else []),
            f"-Dlog4j2.configurationFile={self._logging}",
            "-cp",
            self.distribution.class_path,
        ]

    @property
    def _class_data(self) -> Path:
        return self.distribution.folder / CLASS_DATA.format(self.java.identity)

    def _training(self) -> tuple[str, ...]:
        """The first run of a Java build records the classes it loaded when it stops."""
        for old in self.folder.glob(CLASS_DATA.format("*")):
            old.unlink()
        if self._class_data.exists():
            return ()
        fresh = self.folder / self._class_data.name
        return (f"-XX:ArchiveClassesAtExit={fresh}", "-Xlog:disable")


def wait_until_ready(folder: Path, port: int, process: Running, said: Said) -> None:
    """Return when the broker serves, or say why it does not."""
    deadline = time.monotonic() + READY_SECONDS
    remedy = f"Its log is {folder / LOG}."
    while not serves(port):
        if not alive(process):
            words = said.last_words("ERROR", "FATAL", "Error")
            raise StackError(f"Kafka ended while starting: {words}", remedy)
        if time.monotonic() > deadline:
            raise StackError(f"Kafka is not ready after {READY_SECONDS:.0f} s.", remedy)
        time.sleep(POLL_SECONDS)


def logs(folder: Path) -> list[Path]:
    """The broker's log, and what Java itself prints, which is usually nothing."""
    return [folder / LOG, folder / OUTPUT]


def keep_class_data(folder: Path, distribution_folder: Path) -> None:
    """After a clean stop, keep what a training run recorded, for every later start."""
    for fresh in folder.glob(CLASS_DATA.format("*")):
        # Copied under a name of its own first: the cache may be on another file system.
        partial = distribution_folder / f"{fresh.name}.{os.getpid()}"
        shutil.copyfile(fresh, partial)
        partial.replace(distribution_folder / fresh.name)
        fresh.unlink()


def serves(port: int) -> bool:
    """Whether a broker answers here and lists at least one unfenced broker."""
    try:
        return _brokers_listed(port) > 0
    except (OSError, struct.error):
        return False


def _brokers_listed(port: int) -> int:
    """Ask for the metadata of no topic (request 3, version 4) and count the brokers named."""
    client = b"pacesetter"
    header = struct.pack(">hhih", 3, 4, 1, len(client)) + client
    request = header + struct.pack(">ib", 0, 0)
    with socket.create_connection((LOOPBACK, port), timeout=1.0) as connection:
        connection.settimeout(2.0)
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = connection.recv(4096)
    # size, correlation id, throttle time, number of brokers
    return int(struct.unpack_from(">iiii", answer)[3])
