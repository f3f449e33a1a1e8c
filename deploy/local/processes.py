"""Starts programs, recognises them later, and stops them by process id.

A process is known by its id and its start time, so that an id the system has given to someone
else is never signalled. Nothing here ever looks a process up by name.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from signal import SIGKILL, Signals
from typing import Any

import msgspec
import psutil

from deploy.local.errors import StackError

LAUNCHER = Path(__file__).with_name("launch.py")

# psutil derives the start time from the boot time, which moves a little with the clock.
START_TIME_TOLERANCE_SECONDS = 2.0
POLL_SECONDS = 0.02

# psutil carries no types: what is called on it is named here once.
system: Any = psutil
PROCESS_ERRORS = (psutil.NoSuchProcess, psutil.AccessDenied)


class Running(msgspec.Struct, frozen=True):
    """A process as remembered in the state file; `owner` is whose death it follows."""

    pid: int
    started: float
    owner: int | None = None


@dataclass(frozen=True)
class Account:
    """The user a program runs as when the stack itself is run by root."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Order:
    """What to start: absolute program path first, its output going to `log`."""

    command: Sequence[str]
    folder: Path
    log: Path
    environment: Mapping[str, str]
    account: Account | None = None


def start(order: Order, *, dies_by: Signals | None) -> Running:
    """Start a program in a session of its own; with `dies_by`, it gets that at our death."""
    # The kernel ties the death signal to the thread that starts the program, and callers'
    # threads come and go: one thread that lives as long as the process starts them all.
    return _starter().submit(_start, order, dies_by).result()


@cache
def _starter() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="stack-starter")


def _start(order: Order, dies_by: Signals | None) -> Running:
    owner = None if dies_by is None else os.getpid()
    account = order.account
    instructions = json.dumps(
        {
            "command": list(order.command),
            "folder": str(order.folder),
            "environment": dict(order.environment),
            "user": account.uid if account else None,
            "group": account.gid if account else None,
            "death_signal": int(dies_by) if dies_by else None,
            "owner": owner,
        }
    )
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", str(LAUNCHER), instructions],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(order.log), append, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )
    return Running(pid=pid, started=system.Process(pid).create_time(), owner=owner)


def alive(process: Running | None) -> bool:
    """Whether this very process still runs; a dead child of ours is reaped on the way."""
    found = _find(process)
    if found is None:
        return False
    try:
        if found.status() != psutil.STATUS_ZOMBIE:
            return True
        # A killed program with many threads shows as a zombie while they still end, its ports
        # and files still open.
        return not _reaped(found.pid) and found.num_threads() > 1
    except PROCESS_ERRORS:
        return False


def _find(process: Running | None) -> Any:
    if process is None:
        return None
    try:
        found = system.Process(process.pid)
        distance = abs(found.create_time() - process.started)
    except PROCESS_ERRORS:
        return None
    return found if distance < START_TIME_TOLERANCE_SECONDS else None


def _reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False  # someone else's child: its own parent reaps it


def listener_on(port: int) -> tuple[int, str] | None:
    """Which process listens on a TCP port, as id and name, if we may know."""
    try:
        for connection in system.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            if listens and connection.pid:
                return connection.pid, system.Process(connection.pid).name()
    except (psutil.Error, OSError):
        pass  # not allowed to look, or the process has just gone
    return None


def wait_until_gone(process: Running, patience_seconds: float) -> bool:
    """Wait for the end of a process; False when it still runs after that time."""
    deadline = time.monotonic() + patience_seconds
    while alive(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def stop(process: Running, name: str, steps: Sequence[tuple[Signals, float]]) -> None:
    """Send one signal after the other, each with its patience, until the process has ended."""
    for number, patience_seconds in steps:
        _send(process, number)
        if wait_until_gone(process, patience_seconds):
            return
    raise StackError(
        f"{name} (process {process.pid}) does not stop.",
        "Look at its log in the stack's folder, then end that process by its id.",
    )


def kill(process: Running, patience_seconds: float = 10.0) -> None:
    """End a process and those it started at once, as a crash would."""
    children = _children(process)
    _send(process, SIGKILL)
    for one in (process, *children):
        wait_until_gone(one, patience_seconds)


def _children(process: Running) -> list[Running]:
    found = _find(process)
    if found is None:
        return []
    children = []
    for child in found.children(recursive=True):
        try:
            children.append(Running(pid=child.pid, started=child.create_time()))
        except PROCESS_ERRORS:
            continue
    return children


def _send(process: Running, number: Signals) -> None:
    if not alive(process):
        return
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        pass
    except PermissionError as problem:
        raise StackError(
            f"Process {process.pid} belongs to another user and cannot be stopped.",
            "Run this as the user who started the stack, or use another folder.",
        ) from problem


class Said:
    """What a program writes to its logs from now on, to tell why it ended."""

    def __init__(self, logs: Sequence[Path]) -> None:
        self._marks = [(log, log.stat().st_size if log.exists() else 0) for log in logs]

    def last_words(self, *telling: str) -> str:
        """The last line with one of these words, or else the last line."""
        lines = [line for log, mark in self._marks for line in _lines_after(log, mark)]
        hits = [line for line in lines if any(word in line for word in telling)]
        return (hits or lines or ["it said nothing."])[-1][:300]


def _lines_after(log: Path, mark: int) -> list[str]:
    if not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(mark)
        text = file.read().decode(errors="replace")
    return [line for line in text.splitlines() if line.strip()]
