"""What the stack asks of the machine: free ports, disk space, places for files.

Every question has an answer or ends in one clear `StackError`.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import stat
from pathlib import Path

from deploy.local.errors import StackError
from deploy.local.processes import Account, listener_on

LOOPBACK = "127.0.0.1"

# Below the ports that systems hand to outgoing connections: while a part is down for a restart,
# nobody else can be given its port, and no client can end up connected to itself.
LAST_PORT = 65535
PORTS = range(15000, 32000)

# Kafka and PostgreSQL both corrupt nothing when a disk fills, but neither goes on working.
FREE_BYTES_NEEDED = 1 << 30


def require_disk_space(folder: Path) -> None:
    """Refuse to start where the disk is about to fill."""
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES_NEEDED:
        raise StackError(
            f"Only {free >> 20} MiB are free on the disk of {folder}; the stack needs 1 GiB.",
            "Free some space, or choose a folder on another disk.",
        )


def free_port(*taken: int) -> int:
    """A port that is free now and that the system will not hand out by itself."""
    for port in random.sample(PORTS, 200):
        if port not in taken and is_free(port):
            return port
    raise StackError(
        f"No free port found between {PORTS.start} and {PORTS.stop}.",
        "Name ports that are free.",
    )


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of an ended server that linger don't count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def require_port(port: int, part: str, option: str) -> None:
    """Refuse a port that another program listens on, naming that program if it can be seen."""
    if not 1 <= port <= LAST_PORT:
        raise StackError(f"{port} is no port for {part}.", f"Give one between 1 and {LAST_PORT}.")
    if is_free(port):
        return
    raise StackError(
        f"Port {port}, wanted for {part}, is taken{_listener(port)}.",
        f"Stop that program, or give {part} another port with {option}.",
    )


def _listener(port: int) -> str:
    found = listener_on(port)
    return f" by process {found[0]} ({found[1]})" if found else " by another program"


def cache_folder() -> Path:
    """Where downloaded programs are kept between stacks: PACESETTER_CACHE, or the user's cache."""
    given = os.environ.get("PACESETTER_CACHE")
    if given:
        return Path(given).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "pacesetter"


def reachable_for(path: Path, account: Account) -> bool:
    """Whether another user may read this path: every folder above it can be passed."""
    resolved = path.resolve()
    passable = all(_allows(folder, account, 0o1) for folder in resolved.parents)
    return passable and _allows(resolved, account, 0o5)


def _allows(path: Path, account: Account, wanted: int) -> bool:
    facts = path.stat()
    mode = stat.S_IMODE(facts.st_mode)
    if facts.st_uid == account.uid:
        mode >>= 6
    elif facts.st_gid == account.gid:
        mode >>= 3
    return mode & wanted == wanted


def open_place(name: str) -> Path:
    """A folder that users may pass through but only its owner may write to.

    For what an unprivileged user must reach when root's own folders are closed to it. Opening
    those folders instead would show what their owner keeps private.
    """
    base = Path("/var/tmp")  # noqa: S108 - guarded by the check of its owner
    root = base / f"pacesetter-{os.geteuid()}"
    root.mkdir(mode=0o711, exist_ok=True)
    if root.is_symlink() or root.stat().st_uid != os.geteuid():
        raise StackError(f"{root} belongs to someone else.", "Remove it, or use another folder.")
    root.chmod(0o711)
    return root / name
