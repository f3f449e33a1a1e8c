"""Lists as files, written while they are read: CSV, and Parquet where its library is installed."""

import csv
import io
from collections.abc import AsyncIterator, Collection, Sequence
from decimal import Decimal
from importlib import import_module
from typing import Any

from starlette.responses import Response, StreamingResponse

from kit.http import Problem

MEDIA = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
DIGITS, PLACES = 38, 9  # of a decimal column

Rows = AsyncIterator[list[tuple[str, ...]]]


def require(kind: str) -> None:
    """Raise 422 when files of this kind can't be written here."""
    if kind == "parquet":
        try:
            import_module("pyarrow")  # an extra: only who exports needs it
        except ImportError as error:
            detail = "Parquet needs the extra `parquet` (pyarrow) on the server; ask for csv."
            raise Problem(422, "no-parquet", detail) from error


def response(
    rows: Rows, columns: Sequence[str], *, name: str, kind: str, decimals: Collection[str] = ()
) -> Response:
    """The rows as a file to keep; `decimals` are columns of decimal text."""
    content = _csv(rows, columns) if kind == "csv" else _parquet(rows, columns, decimals)
    headers = {"Content-Disposition": f'attachment; filename="{_safe(name)}.{kind}"'}
    return StreamingResponse(content, media_type=MEDIA[kind], headers=headers)


def _safe(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "._@-") else "-" for c in name)[:150]


async def _csv(rows: Rows, columns: Sequence[str]) -> AsyncIterator[bytes]:
    yield _lines([tuple(columns)])
    async for page in rows:
        if page:
            yield _lines([tuple(_harmless(cell) for cell in row) for row in page])


def _lines(rows: list[tuple[str, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _harmless(cell: str) -> str:
    """No spreadsheet shall take a record's name for a formula; numbers stay numbers."""
    if cell[:1] in ("=", "+", "-", "@", "\t", "\r") and not _is_number(cell):
        return f"'{cell}"
    return cell


def _is_number(cell: str) -> bool:
    return cell[1:].replace(".", "", 1).isdigit()


class _Sink(io.RawIOBase):
    """A file that is only written, and taken away piece by piece."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._length = 0

    def writable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        data = bytes(piece)
        self._pieces.append(data)
        self._length += len(data)
        return len(data)

    def tell(self) -> int:
        return self._length

    def taken(self) -> bytes:
        """What was written since the last time."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


async def _parquet(
    rows: Rows, columns: Sequence[str], decimals: Collection[str]
) -> AsyncIterator[bytes]:
    pa: Any = import_module("pyarrow")  # without types, and not always installed
    parquet: Any = import_module("pyarrow.parquet")
    number = pa.decimal128(DIGITS, PLACES)
    schema = pa.schema([(name, number if name in decimals else pa.string()) for name in columns])
    sink = _Sink()
    with parquet.ParquetWriter(pa.PythonFile(sink, "w"), schema, compression="zstd") as writer:
        async for page in rows:
            if not page:
                continue
            by_column = zip(columns, zip(*page, strict=True), strict=True)
            cells: dict[str, list[Any]] = {name: list(column) for name, column in by_column}
            for name in decimals:
                cells[name] = [Decimal(cell) for cell in cells[name]]
            writer.write_table(pa.table(cells, schema=schema))
            yield sink.taken()
    yield sink.taken()
