"""Displays outside: who is told when the order at the top of a board changes, and what."""

import re
from datetime import datetime, timedelta
from typing import Any

import msgspec

from services.metrics.domain.catalogue import Mistake
from services.metrics.domain.leaderboard import Board

TYPE = "com.pacesetter.board.rank-changed"
MAX_TOP = 50
GIVE_UP_AFTER = timedelta(hours=24)
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 5.0, 600.0
JITTER = 0.2  # so that not all come back to a receiver at one instant
SEQUENCE_DIGITS, PENDING_DIGITS = 20, 9

_ENV_NAME = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Places = list[tuple[int, str]]  # place and subject, in the order shown


class Display(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A display's document: the secret says only where the secret is."""

    id: str
    url: str
    secret: str
    board: str
    top: int = 10


def read_display(document: dict[str, Any]) -> tuple[Display | None, list[Mistake]]:
    """The display that a document describes, and what is wrong with it."""
    try:
        display = msgspec.convert(document, Display)
    except msgspec.ValidationError as error:
        return None, [Mistake("", str(error))]
    if not 1 <= display.top <= MAX_TOP:
        return None, [Mistake("top", f"expected 1 to {MAX_TOP}, not {display.top}")]
    return display, []


def secret_place(secret: str, tenant: str) -> tuple[str, str]:
    """Where a tenant's secret is: `env` and a variable, or `file` and its name; else ValueError."""
    scheme, _, name = secret.partition(":")
    prefix = f"METRICS_SECRET_{tenant}__"
    own = name.startswith(prefix) and _ENV_NAME.fullmatch(name.removeprefix(prefix))
    if (scheme == "env" and own) or (scheme == "file" and _FILE_NAME.fullmatch(name)):
        return scheme, name
    raise ValueError(
        f"a secret is only named here: env:{prefix}NAME (NAME in capitals), or file:NAME of a file "
        f"in the folder {tenant} of METRICS_SECRETS_FOLDER"
    )


def top(board: Board, count: int) -> Board:
    """The first rows of those that have a place which everybody may see."""
    rows = [row for row in board.rows if row.rank is not None]
    return msgspec.structs.replace(board, rows=rows[:count])


def places(board: Board) -> Places:
    """The order on it."""
    return [(row.rank, row.subject) for row in board.rows if row.rank is not None]


def event(tenant: str, display: Display, board: Board, now: datetime) -> bytes:
    """The CloudEvent that shows this board; its id is the board's version.

    Who has several of a display keeps the one with the highest `sequence`, which is ordered as
    text.
    """
    instant, _, _ = board.version.partition("-")
    sequence, _, pending = instant.partition(".")
    return msgspec.json.encode(
        {
            "specversion": "1.0",
            "id": board.version,
            "source": f"/{tenant}/displays/{display.id}",
            "type": TYPE,
            "subject": board.board,
            "time": now.isoformat(timespec="milliseconds"),
            "datacontenttype": "application/json",
            "sequence": f"{sequence.zfill(SEQUENCE_DIGITS)}.{pending.zfill(PENDING_DIGITS)}",
            "data": board,
        }
    )


def retry_at(failures: int, made_at: datetime, now: datetime, *, jitter: float) -> datetime | None:
    """When to try again after so many failures in a row; None when it is time to give up.

    `jitter` is between -1 and 1.
    """
    pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 16), LONGEST_PAUSE_SECONDS)
    again = now + timedelta(seconds=pause * (1 + JITTER * jitter))
    return again if again < made_at + GIVE_UP_AFTER else None
