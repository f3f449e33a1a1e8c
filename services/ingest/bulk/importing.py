"""From the first row to the last, or on from where a former run ended.

A message counts as imported when Kafka has it and the checkpoint says so. A crash in between
repeats the message with the same id and the same rows, which changes nothing.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

from kit.publisher import Publisher
from services.ingest.bulk import checkpoint
from services.ingest.bulk.checkpoint import State
from services.ingest.bulk.messages import Cutter, Import
from services.ingest.bulk.rows import File, FileError
from services.ingest.domain.imports import Row

Show = Callable[[int, int, int], None]  # rows so far; and how much of how much has been read


class Input(Protocol):
    """Rows from somewhere, and how far they have been imported."""

    began: int  # µs; of the import's first run
    digest: str  # of a file, so that another file's messages have other ids

    @property
    def total(self) -> int:
        """How much there is to read."""

    @property
    def done(self) -> int:
        """How much of it has been read."""

    def batches(self) -> AsyncIterator[tuple[str, list[Row]]]:
        """What goes into one message after the other: which part's, and the rows."""

    async def imported(self, part: str, rows: list[Row]) -> None:
        """Remember that Kafka has these rows."""

    async def finish(self) -> None:
        """Remember that there are no more."""


class FileInput:
    """A file and its checkpoint; without a path for it, all of the file and nothing remembered."""

    def __init__(self, path: Path, file: File, state: State, saved: Path | None = None) -> None:
        self._path = path
        self._file = file
        self._state = state
        self._saved = saved
        self._changed = path.stat().st_mtime_ns
        self.began = state.began
        self.digest = state.file

    @property
    def total(self) -> int:
        """Bytes, or rows."""
        return self._file.total

    @property
    def done(self) -> int:
        """Of them."""
        return self._file.done

    async def batches(self) -> AsyncIterator[tuple[str, list[Row]]]:
        """The rows that have not been imported yet."""
        self._save()
        cutter = Cutter()
        for row in self._file.rows(skip=self._state.rows):
            if full := cutter.add(row):
                yield "", full
        if rest := cutter.rest():
            yield "", rest

    async def imported(self, part: str, rows: list[Row]) -> None:  # noqa: ARG002  # it has no parts
        """Remember that Kafka has these rows."""
        self._state.rows += len(rows)
        self._save()

    async def finish(self) -> None:
        """Remember that there are no more; unless the file has changed under the import."""
        if self._path.stat().st_mtime_ns != self._changed:
            raise FileError(
                f"{self._path.name} was changed while it was read; import it with --again"
            )
        self._state.finished = True
        self._save()

    def _save(self) -> None:
        if self._saved is not None:
            checkpoint.save(self._saved, self._state)


async def run(
    what: Import, given: Input, publisher: Publisher, *, rate: float = 0.0, show: Show
) -> int:
    """Import what has not been imported; returns how many rows that were.

    `rate` is the most rows per second, 0 as many as Kafka takes.
    """
    count, free_at = 0, time.monotonic()
    async for part, rows in given.batches():
        await asyncio.sleep(max(0.0, free_at - time.monotonic()))
        message = what.message(rows, began=given.began, digest=given.digest, part=part)
        await publisher.publish([message])
        await given.imported(part, rows)
        count += len(rows)
        show(count, given.done, given.total)
        if rate:
            free_at = max(free_at, time.monotonic()) + len(rows) / rate
    await given.finish()
    return count
