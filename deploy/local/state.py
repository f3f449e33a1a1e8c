"""What a stack's folder remembers, and who may change it.

`state.json` keeps ports, the password and the identity of the running processes, so that
another run finds, re-uses or stops what an earlier one started. It is written whole or not at
all. The lock beside it lets one stack at a time act on the folder; an owning stack holds it for
its whole life, a background stack only while it acts. The system releases it when its holder
dies, however it dies.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import msgspec

from deploy.local.errors import StackError
from deploy.local.processes import Running

STATE = "state.json"
LOCK = "lock"
OTHERS_PATIENCE_SECONDS = 120.0


class Part(msgspec.Struct):
    """Kafka or PostgreSQL as remembered: 0 and empty mean not known yet."""

    port: int = 0
    version: str = ""
    data: str = ""
    process: Running | None = None


class State(msgspec.Struct):
    """Everything a stack's folder remembers about its processes."""

    kafka: Part = msgspec.field(default_factory=Part)
    postgres: Part = msgspec.field(default_factory=Part)
    controller_port: int = 0
    password: str = msgspec.field(default_factory=lambda: secrets.token_urlsafe(18))


def read_state(folder: Path) -> State:
    """The folder's state, or a fresh one where there is none."""
    path = folder / STATE
    try:
        return msgspec.json.decode(path.read_bytes(), type=State)
    except FileNotFoundError:
        return State()
    except (msgspec.DecodeError, OSError) as problem:
        raise StackError(
            f"{path} cannot be read ({problem}).",
            "Stop what still runs in that folder by process id, and delete the folder.",
        ) from problem


def write_state(folder: Path, state: State) -> None:
    """Replace the state file; readable for its owner only, because of the password."""
    fresh = folder / f"{STATE}.new"
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(state), indent=1))
    fresh.replace(folder / STATE)


@dataclass
class FolderLock:
    """The right to act on a folder. Waits for someone who acts, gives up on an owner."""

    folder: Path
    _handle: TextIO | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._handle is not None

    def acquire(self, *, owning: bool) -> None:
        """Take the lock, or say who has it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = (self.folder / LOCK).open("a+")
        deadline = time.monotonic() + OTHERS_PATIENCE_SECONDS
        while not _try(handle):
            holder = _holder(handle)
            if holder.get("owning") or time.monotonic() > deadline:
                handle.close()
                raise StackError(
                    f"{self.folder} is in use by process {holder.get('pid', 'unknown')}.",
                    "Let that process end (it stops what it started), or use another folder.",
                )
            time.sleep(0.05)
        handle.truncate(0)
        json.dump({"pid": os.getpid(), "owning": owning}, handle)
        handle.flush()
        self._handle = handle

    def release(self) -> None:
        """Give the lock back; closing the file is what releases it."""
        if self._handle is not None:
            self._handle.truncate(0)
            self._handle.close()
            self._handle = None


def _try(handle: TextIO) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(handle: TextIO) -> dict[str, object]:
    handle.seek(0)
    try:
        found = json.loads(handle.read())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
