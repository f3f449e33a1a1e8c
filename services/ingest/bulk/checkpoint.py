"""How far the import of a file has come, in a file beside it: `<FILE>.import-state.json`.

It is written after Kafka has acknowledged, so that it never says more than what is there. It names
what was imported as what: going on with another file or mapping would mix two imports into one.
"""

import hashlib
import os
from pathlib import Path

import msgspec

_ENCODE = msgspec.json.Encoder().encode


class CheckpointError(Exception):
    """The import can't go on as asked; the words say why and what to do."""


class State(msgspec.Struct, kw_only=True):
    """An import of a file so far."""

    name: str
    file: str  # digest of its bytes
    identity: str  # of everything else that the messages follow from
    began: int  # µs; the messages' ids begin with it
    rows: int = 0  # published and acknowledged
    finished: bool = False


def path_of(file: Path, name: str, *, default: bool) -> Path:
    """Where the state of the file's import of this name is kept."""
    return file.with_name(f"{file.name}{'' if default else f'.{name}'}.import-state.json")


def load(path: Path) -> State | None:
    """The state as written, None when there is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=State)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise CheckpointError(
            f"{path} can't be read: {error}. Without it the import would begin anew: remove it if "
            "that is what you want"
        ) from error


def save(path: Path, state: State) -> None:
    """Write the state for good: a crash leaves this one or the one before."""
    fresh = path.with_name(f"{path.name}.new")
    try:
        with fresh.open("wb") as file:
            file.write(_ENCODE(state))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise CheckpointError(
            f"the import's state can't be written beside the file ({error}); copy the file to a "
            "folder that can be written to"
        ) from error


def digest(file: Path) -> str:
    """A digest of the file's bytes."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def resumed(known: State | None, fresh: State, *, again: bool) -> State:
    """The state to go on from: the known one, or for a new import and a repeat the fresh one."""
    if known is None:
        return fresh
    same = (known.file, known.identity) == (fresh.file, fresh.identity)
    if again:
        # The same import keeps its messages' ids, so that nothing of it is there twice.
        began = known.began if same else fresh.began
        return msgspec.structs.replace(fresh, began=began)
    if not same:
        what = "The file" if known.file != fresh.file else "The mapping, source or --at"
        raise CheckpointError(
            f"{what} is not what the import {known.name!r} began with. Import it as another with "
            "--as NAME, or all of it with --again."
        )
    return known
