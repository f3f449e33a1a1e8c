"""Becomes another program, after arranging how that program lives and dies.

Run as `python -I -S launch.py JSON`, never imported: it starts a session of its own, drops
root's privileges, asks the kernel for a signal when the owner dies, and then replaces itself
by the command, so that the process id the parent got is the program's own.

A helper between fork and exec instead of `preexec_fn`, because the stack starts programs from
threads, where Python code between fork and exec can deadlock. Only the death signal is
Linux-only; elsewhere it is skipped, and a killed owner leaves its programs running until the
next `up` or `down` finds them in the state file.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Carry out the JSON order in the first argument; does not return on success."""
    order = json.loads(sys.argv[1])
    os.setsid()
    os.chdir(order["folder"])
    die_with = _death_signal_setter() if order["death_signal"] is not None else None
    if order["user"] is not None:
        _become(order["user"], order["group"])
    # After the change of user, because that change clears the setting.
    if die_with is not None:
        die_with(order["owner"], order["death_signal"])
    command = order["command"]
    try:
        os.execve(command[0], command, order["environment"])  # noqa: S606
    except OSError as problem:
        sys.exit(f"cannot run {command[0]}: {problem}")


def _become(user: int, group: int) -> None:
    os.umask(0o077)
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)


def _death_signal_setter() -> Callable[[int, int], None] | None:
    """Load what is needed as the user who started us: Python may be closed to another one."""
    if sys.platform != "linux":
        return None
    import ctypes  # noqa: PLC0415 - most starts don't need it

    prctl = ctypes.CDLL(None).prctl

    def die_with(owner: int, death_signal: int) -> None:
        prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != owner:
            sys.exit("the owner ended before the program started")

    return die_with


if __name__ == "__main__":
    main()
