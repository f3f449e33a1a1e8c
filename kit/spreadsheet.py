"""CSV as people send it: a header, then rows with a cell for each of its columns."""

import csv
import io
from collections.abc import Collection, Iterator, Mapping

from kit.http import Problem

Row = Mapping[str, str]


def rows(body: bytes, columns: Collection[str] = ()) -> Iterator[tuple[int, Row]]:
    """The rows with their line numbers, without their empty cells, which say nothing.

    Raises a 400 that says where it isn't CSV, or which column isn't one of `columns`, if given.
    """
    try:
        reader = csv.DictReader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
        unknown = sorted(set(reader.fieldnames or ()) - set(columns)) if columns else []
        if unknown or (columns and not reader.fieldnames):
            what = f"unknown columns {', '.join(unknown)[:200]}" if unknown else "no header"
            detail = f"The file has {what}; columns are {', '.join(columns)}."
            raise Problem(400, "malformed", detail)
        for row in reader:
            if None in row or any(value is None for value in row.values()):
                detail = f"Line {reader.line_num} has more or fewer cells than the header."
                raise Problem(400, "malformed", detail)
            yield reader.line_num, {name: value for name, value in row.items() if value != ""}
    except (UnicodeDecodeError, csv.Error) as error:
        raise Problem(400, "malformed", f"The body is not CSV in UTF-8: {error}.") from error
