"""Gets Kafka's programs by their Maven coordinates, and proves that they are the right ones.

`kafka.lock.json` names every artifact with version, size and SHA-256. `installed()` answers
with a folder in the user's cache that holds exactly these, downloading what is missing through
`jgo` or, where that fails, through the system's `mvn`. No address is named here: both tools use
the repositories they are set up for. What doesn't match its hash is never put on a class path.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from deploy.local.errors import StackError
from deploy.local.machine import cache_folder, require_disk_space

LOCK_FILE = Path(__file__).with_name("kafka.lock.json")
VERIFIED = "verified"
REQUEST_SECONDS = 60
MVN_SECONDS = 900


class Artifact(msgspec.Struct, frozen=True):
    """One jar: `group:name:version`, and what its bytes must be."""

    artifact: str
    sha256: str
    size: int

    @property
    def coordinates(self) -> tuple[str, str, str]:
        """Group, name and version."""
        group, name, version = self.artifact.split(":")
        return group, name, version

    @property
    def file_name(self) -> str:
        """How Maven names the file."""
        _, name, version = self.coordinates
        return f"{name}-{version}.jar"


class Lock(msgspec.Struct, frozen=True):
    """The lock file: Kafka's version and every artifact it needs at run time."""

    kafka: str
    artifacts: list[Artifact]


@dataclass(frozen=True)
class Distribution:
    """A verified Kafka: its version, its folder in the cache and its jars."""

    version: str
    folder: Path
    jars: list[Path]

    @property
    def class_path(self) -> str:
        """The jars as Java wants them; always in one order, or shared class data is refused."""
        return ":".join(str(jar) for jar in self.jars)


@cache
def read_lock() -> Lock:
    """The lock file that is part of the source tree."""
    return msgspec.json.decode(LOCK_FILE.read_bytes(), type=Lock)


def installed() -> Distribution:
    """The locked Kafka, from the cache or freshly fetched and verified."""
    lock = read_lock()
    folder = folder_of(lock.kafka)
    jars = folder / "jars"
    found = Distribution(lock.kafka, folder, [jars / one.file_name for one in lock.artifacts])
    if not _is_complete(lock, jars):
        _prepare(folder)
        with _one_at_a_time(folder):
            if not _is_complete(lock, jars):
                _install(lock, jars)
    return found


def folder_of(version: str) -> Path:
    """Where the cache keeps this version."""
    return cache_folder() / f"kafka-{version}"


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise StackError(
            f"The cache folder {folder} cannot be made: {problem.strerror}.",
            "Name another one with PACESETTER_CACHE.",
        ) from problem
    require_disk_space(folder)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _is_complete(lock: Lock, jars: Path) -> bool:
    # Bytes were hashed when the folder was made; sizes tell a folder that was tampered with by
    # accident, and cost nothing at every start.
    try:
        verified = (jars / VERIFIED).read_text()
        sizes = [(jars / one.file_name).stat().st_size for one in lock.artifacts]
    except OSError:
        return False
    return verified == _digest(lock) and sizes == [one.size for one in lock.artifacts]


def _digest(lock: Lock) -> str:
    return hashlib.sha256(msgspec.json.encode(lock)).hexdigest()


def _install(lock: Lock, jars: Path) -> None:
    with TemporaryDirectory(dir=jars.parent, prefix="fetch-") as work:
        fetched = Path(work) / "jars"
        fetched.mkdir()
        _fetch(lock, fetched)
        (fetched / VERIFIED).write_text(_digest(lock))
        shutil.rmtree(jars, ignore_errors=True)
        fetched.rename(jars)


def _fetch(lock: Lock, into: Path) -> None:
    """Fill a folder with the locked jars, by the first way that yields the right bytes."""
    ways: list[tuple[str, Callable[[Lock, Path], None]]] = [
        ("jgo", _fetch_with_jgo),
        ("mvn", _fetch_with_mvn),
    ]
    problems = []
    for name, way in ways:
        try:
            way(lock, into)
        except Exception as problem:  # noqa: BLE001 - whatever a resolver raises, try the next
            problems.append(f"{name}: {_short(problem)}")
            continue
        wrong = _wrong(lock, into)
        if not wrong:
            return
        problems.append(f"{name}: the SHA-256 of {', '.join(wrong)} differs from the lock file")
    raise StackError(
        f"Kafka {lock.kafka} could not be fetched ({'; '.join(problems)}).",
        "Check the network and the Maven settings of this machine, and try again; a differing "
        "hash means that a repository serves other bytes than were locked.",
    )


def _fetch_with_jgo(lock: Lock, into: Path) -> None:
    # Imported only when something has to be fetched: it costs a third of a second.
    from jgo.config import GlobalSettings  # noqa: PLC0415
    from jgo.constants import MAVEN_CENTRAL_URL  # noqa: PLC0415
    from jgo.maven import MavenContext  # noqa: PLC0415

    settings = GlobalSettings.load()
    with TemporaryDirectory(dir=into.parent, prefix="repository-") as repository:
        # The user's own Maven repository is only read: jgo writes in place, and a download cut
        # short there would stay behind as a broken file.
        context = MavenContext(
            repo_cache=Path(repository),
            local_repos=[settings.repo_cache],
            remote_repos={"central": MAVEN_CENTRAL_URL, **settings.repositories},
            timeout=REQUEST_SECONDS,
        )
        for one in lock.artifacts:
            group, name, version = one.coordinates
            artifact = context.project(group, name).at_version(version).artifact()
            found = artifact.resolve()
            if _sha256(found) != one.sha256 and not found.is_relative_to(repository):
                found = context.resolver.download(artifact) or found
            shutil.copyfile(found, into / one.file_name)


def _fetch_with_mvn(lock: Lock, into: Path) -> None:
    mvn = shutil.which("mvn")
    if mvn is None:
        raise FileNotFoundError("not on PATH")
    with TemporaryDirectory(dir=into.parent, prefix="project-") as project:
        (Path(project) / "pom.xml").write_text(_project(lock))
        copy = ["dependency:copy-dependencies", f"-DoutputDirectory={into}"]
        done = subprocess.run(  # noqa: S603 - the user's own Maven
            [mvn, "-B", "-q", *copy],
            check=False,
            cwd=project,
            capture_output=True,
            text=True,
            timeout=MVN_SECONDS,
        )
    if done.returncode != 0:
        raise RuntimeError((done.stdout or done.stderr).strip().split("\n")[0])


def _project(lock: Lock) -> str:
    """A project that depends on exactly the locked artifacts and on nothing they ask for."""
    everything = "<groupId>*</groupId><artifactId>*</artifactId>"
    dependencies = "\n".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId>"
        f"<version>{version}</version>"
        f"<exclusions><exclusion>{everything}</exclusion></exclusions></dependency>"
        for group, name, version in (one.coordinates for one in lock.artifacts)
    )
    return (
        "<project><modelVersion>4.0.0</modelVersion><groupId>pacesetter</groupId>"
        "<artifactId>kafka</artifactId><version>1</version>"
        f"<dependencies>\n{dependencies}\n</dependencies></project>\n"
    )


def _wrong(lock: Lock, folder: Path) -> list[str]:
    return [
        one.file_name
        for one in lock.artifacts
        if not (folder / one.file_name).exists() or _sha256(folder / one.file_name) != one.sha256
    ]


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _short(problem: Exception) -> str:
    text = str(problem).strip() or type(problem).__name__
    return text.split("\n")[0][:200]


def relock(version: str, logging_version: str) -> Lock:
    """Resolve another Kafka version with jgo and write the lock file anew; for maintainers.

    Kafka names no logging backend, so one is added: the SLF4J binding of the same Log4j.
    """
    import jgo  # noqa: PLC0415

    found = jgo.resolve(f"org.apache.kafka:kafka_2.13:{version}")
    # Resolved by itself: together, Log4j's managed versions would replace Kafka's own.
    binding = f"org.apache.logging.log4j:log4j-slf4j-impl:{logging_version}"
    found += [one for one in jgo.resolve(binding) if one.artifactId == "log4j-slf4j-impl"]
    artifacts = [
        Artifact(
            artifact=f"{one.groupId}:{one.artifactId}:{one.version}",
            sha256=_sha256(one.resolve()),
            size=one.resolve().stat().st_size,
        )
        for one in found
    ]
    lock = Lock(kafka=version, artifacts=sorted(artifacts, key=lambda one: one.artifact))
    LOCK_FILE.write_bytes(msgspec.json.format(msgspec.json.encode(lock), indent=1) + b"\n")
    read_lock.cache_clear()
    return lock
