"""Files as rows: CSV, JSON Lines, Parquet; streamed, so that a file may be larger than the memory.

A row that is broken becomes a row with a problem; `FileError` is for files of which nothing can be
taken. Values stay what they are: text in CSV, exact numbers in JSON and Parquet.
"""

import csv
import importlib
import io
from collections.abc import Iterator, Sequence
from decimal import Decimal
from enum import StrEnum
from math import isfinite, isnan
from pathlib import Path
from typing import IO, Any, AnyStr, BinaryIO, Protocol, TextIO

import msgspec

from services.ingest.domain.imports import Row

MAX_LINE = 256 * 1024  # characters, or bytes of JSON; a message has room for two
MAX_SHOWN = 16 * 1024  # characters of a broken row that go along with its problem
DELIMITERS = ",;\t|"
_TYPED = {"tab": "\t", "\\t": "\t"}  # what can't be typed into every shell
BATCH = 500  # rows of a Parquet file in memory at once

_ENCODE = msgspec.json.Encoder(decimal_format="number").encode
_check = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode


class FileError(Exception):
    """The file as a whole can't be imported; the words say why and what to do."""


class Format(StrEnum):
    """Kinds of files."""

    csv = "csv"
    jsonl = "jsonl"
    parquet = "parquet"


class File(Protocol):
    """A file whose rows can be read, from its first or from a later one."""

    total: int  # bytes, or rows
    done: int  # of them, as far as `rows` has come

    def rows(self, *, skip: int = 0) -> Iterator[Row]:
        """The rows after the first `skip`."""


def opened(
    path: Path, form: Format | None = None, *, delimiter: str = "", empty_clears: bool = False
) -> File:
    """The file in its format, by the ending of its name unless it is given.

    An empty cell of a table says nothing about its field, or that it is empty (`empty_clears`).
    """
    if form is None:
        form = _ENDINGS.get(path.suffix.lower())
    if form is None:
        endings = ", ".join(_ENDINGS)
        raise FileError(f"{path.name} ends in none of {endings}; say its format with --format")
    if delimiter and form is not Format.csv:
        raise FileError(f"--delimiter is for CSV; {path.name} is read as {form}")
    delimiter = _TYPED.get(delimiter, delimiter)
    if len(delimiter) > 1 or delimiter in ('"', "\n", "\r"):
        raise FileError(f"--delimiter {delimiter!r:.20}: one character, such as ; or tab")
    if form is Format.csv:
        return CsvFile(path, delimiter, empty_clears=empty_clears)
    if form is Format.jsonl:
        return JsonLines(path)
    return ParquetFile(path, empty_clears=empty_clears)


_ENDINGS = {
    ".csv": Format.csv,
    ".tsv": Format.csv,
    ".jsonl": Format.jsonl,
    ".ndjson": Format.jsonl,
    ".parquet": Format.parquet,
}


def broken(number: int, problem: str, text: str, *, at: int = 0) -> Row:
    """A row that can't be taken, with its text as far as it goes along."""
    return Row(number, msgspec.Raw(_ENCODE(text[:MAX_SHOWN])), at, problem)


def json_row(number: int, line: bytes, *, at: int = 0) -> Row:
    """A row of JSON, as it was written."""
    if len(line) <= MAX_LINE:
        try:
            _check(line)
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            return broken(number, f"not a JSON object: {error}", _text(line), at=at)
    return _row(number, line, at=at)


def _row(number: int, data: bytes, *, at: int = 0) -> Row:
    if len(data) > MAX_LINE:
        return broken(number, f"longer than {MAX_LINE} bytes", _text(data), at=at)
    return Row(number, msgspec.Raw(data), at)


def _text(line: bytes) -> str:
    return line[: 4 * MAX_SHOWN].decode(errors="backslashreplace")


class JsonLines:
    """A file with a JSON object on every line; numbered by lines, of which empty ones are none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.total = path.stat().st_size
        self.done = 0

    def rows(self, *, skip: int = 0) -> Iterator[Row]:
        """The rows after the first `skip`."""
        number = 0
        with self._path.open("rb") as file:
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if not line.endswith(b"\n"):
                    _drain(file, b"\n")
                self.done = file.tell()
                line = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
                if not line:
                    continue
                if skip:
                    skip -= 1
                    continue
                yield json_row(number, line)


def _drain(file: IO[AnyStr], newline: AnyStr) -> None:
    """Read on to the end of the line."""
    while (part := file.readline(MAX_LINE)) and not part.endswith(newline):
        pass


class CsvFile:
    """A table with a header; a row is numbered by the line on which it begins."""

    def __init__(self, path: Path, delimiter: str = "", *, empty_clears: bool = False) -> None:
        self._path = path
        self._empty_clears = empty_clears
        self.total = path.stat().st_size
        self.done = 0
        self._delimiter = delimiter or self._sniffed()

    def rows(self, *, skip: int = 0) -> Iterator[Row]:
        """The rows after the first `skip`."""
        with self._path.open("rb") as file, _text_of(file) as text:
            lines = _Lines(text)
            reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
            names = self._header(reader)
            while True:
                lines.next_row()
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    row = broken(lines.first, f"not CSV: {error}", lines.text())
                else:
                    if cells is None:
                        return
                    if not cells and not lines.too_long:
                        continue  # an empty line
                    row = self._row(names, cells, lines)
                self.done = file.tell()
                if skip:
                    skip -= 1
                    continue
                yield row

    def _row(self, names: Sequence[str], cells: Sequence[str], lines: "_Lines") -> Row:
        if lines.too_long:
            problem = f"a line of more than {MAX_LINE} characters"
            return broken(lines.first, problem, lines.text())
        if len(cells) != len(names):
            problem = f"{len(cells)} values, but the header has {len(names)} columns"
            return broken(lines.first, problem, lines.text())
        try:
            found = _ENCODE(self._object(names, cells))
        except UnicodeEncodeError:
            return broken(lines.first, "not UTF-8: save the file as UTF-8", lines.text())
        return _row(lines.first, found)

    def _object(self, names: Sequence[str], cells: Sequence[str]) -> dict[str, str | None]:
        pairs = zip(names, cells, strict=True)
        if self._empty_clears:
            return {name: cell or None for name, cell in pairs}
        return {name: cell for name, cell in pairs if cell}

    def _sniffed(self) -> str:
        """The delimiter by which the header has the most columns; never a guess between two."""
        with self._path.open("rb") as file, _text_of(file) as text:
            header = text.readline(MAX_LINE)
        counts = {one: _columns(header, one) for one in DELIMITERS}
        most = max(counts.values())
        best = [one for one, count in counts.items() if count == most]
        if len(best) > 1 and most > 1:
            raise FileError(
                f"{self._path.name}: {' and '.join(map(repr, best))} would both make {most} "
                "columns of the header; say which with --delimiter"
            )
        return best[0]

    def _header(self, reader: Iterator[list[str]]) -> list[str]:
        name = self._path.name
        try:
            names = next(reader, [])
        except csv.Error as error:
            raise FileError(f"{name}: the first line is no CSV header: {error}") from error
        if not names:
            raise FileError(f"{name}: the first line must be a header with the columns' names")
        known: set[str] = set()
        for number, column in enumerate(names, 1):
            if not column:
                raise FileError(f"{name}: column {number} has no name in the header")
            if column in known:
                raise FileError(f"{name}: two columns are called {column!r:.80}; rename one")
            if not column.isprintable():
                raise FileError(f"{name}: the header is not UTF-8 text; save the file as UTF-8")
            known.add(column)
        return names


def _text_of(file: BinaryIO) -> TextIO:
    """A byte that is not UTF-8 travels as half a character, so that only its row is broken."""
    return io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _columns(header: str, delimiter: str) -> int:
    try:
        return len(next(csv.reader([header], delimiter=delimiter), []))
    except csv.Error:
        return 0


class _Lines:
    """A file's lines, none longer than the limit; remembers those that make the current row."""

    def __init__(self, text: TextIO) -> None:
        self._file = text
        self._taken: list[str] = []
        self._number = 0
        self.first = 1
        self.too_long = False

    def next_row(self) -> None:
        """From here on, lines belong to another row."""
        self._taken.clear()
        self.first = self._number + 1
        self.too_long = False

    def text(self) -> str:
        """The current row as it stands in the file, with bytes that are not UTF-8 shown."""
        text = "".join(self._taken)[:MAX_SHOWN]
        return text.encode(errors="surrogateescape").decode(errors="backslashreplace")

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_LINE)
        if not line:
            raise StopIteration
        self._number += 1
        self._taken.append(line)
        if len(line) < MAX_LINE or line.endswith("\n"):
            return line
        _drain(self._file, "\n")
        self.too_long = True
        return "\n"


class ParquetFile:
    """A Parquet file, by row groups; rows are numbered from 1."""

    def __init__(self, path: Path, *, empty_clears: bool = False) -> None:
        self._name = path.name
        self._empty_clears = empty_clears
        try:
            self._arrow = importlib.import_module("pyarrow")
            parquet = importlib.import_module("pyarrow.parquet")
        except ImportError as error:
            raise FileError(
                "Parquet files need pyarrow, which is not installed: pip install pyarrow"
            ) from error
        try:
            self._file = parquet.ParquetFile(path)
        except (OSError, ValueError) as error:  # Arrow's own errors are among them
            raise FileError(f"{self._name} is not a Parquet file: {error}") from error
        self.total: int = self._file.metadata.num_rows
        self.done = 0

    def rows(self, *, skip: int = 0) -> Iterator[Row]:
        """The rows after the first `skip`."""
        groups, passed = self._groups(skip)
        self.done = passed
        try:
            for batch in self._file.iter_batches(batch_size=BATCH, row_groups=groups):
                for values in self._in_microseconds(batch).to_pylist():
                    self.done += 1
                    if self.done > skip:
                        yield self._row(values)
        except (OSError, ValueError, NotImplementedError) as error:
            raise FileError(f"{self._name}: near row {self.done + 1}: {error}") from error

    def _groups(self, skip: int) -> tuple[list[int], int]:
        """The row groups from the one in which the first wanted row is, and the rows before."""
        passed = 0
        count = self._file.metadata.num_row_groups
        for group in range(count):
            size = self._file.metadata.row_group(group).num_rows
            if passed + size > skip:
                return list(range(group, count)), passed
            passed += size
        return [], passed

    def _in_microseconds(self, batch: Any) -> Any:
        """Instants as Python has them; what is finer than a microsecond is cut off."""
        types = self._arrow.types
        fields = [
            field.with_type(self._arrow.timestamp("us", field.type.tz))
            if types.is_timestamp(field.type) and field.type.unit == "ns"
            else field
            for field in batch.schema
        ]
        return batch.cast(self._arrow.schema(fields), safe=False)

    def _row(self, values: dict[str, Any]) -> Row:
        found: dict[str, Any] = {}
        for name, value in values.items():
            value = _finite(value)  # noqa: PLW2901  # the same value, as JSON can have it
            if value is not None and value != "":
                found[name] = value
            elif self._empty_clears:
                found[name] = None
        try:
            data = _ENCODE(found)
        except (TypeError, ValueError, OverflowError) as error:
            return broken(self.done, f"a value is none that JSON has: {error}", "")
        return _row(self.done, data)


def _finite(value: Any) -> Any:
    """Not-a-number is how tables of numbers write nothing; the infinite is told as text."""
    if not isinstance(value, float) or isfinite(value):
        return value
    return None if isnan(value) else str(value)
