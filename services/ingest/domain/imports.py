"""What an imported message holds, and how its rows are read: by the mapping that it carries.

A message is read like a request, behind the same topic, by whoever consumes it and as often as it
takes; so everything that its rows' meaning depends on travels with them. The record types, stages
and currency are the source's, whatever vendor it is of.
"""

from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

import msgspec

from schemas.crm import Received
from services.ingest.domain import items, mapping, values
from services.ingest.domain.facts import BadEventError, Fact, Ignored, Moment
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import Raw, Vendor

AUTH = "import"  # how a message says that it is one; no request is ever received with it
MAPPING = "pacesetter-mapping"  # the document, as JSON
PART = "pacesetter-import"  # the import's name; of a topic with the partition
AT = "pacesetter-at"  # µs: where rows stand in time whose mapping doesn't say
HEADERS = frozenset({MAPPING, PART, AT})

_NOTHING = msgspec.Raw(b"null")


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """One row: the number of its line (its offset on a topic), and what stands there."""

    row: int
    data: msgspec.Raw = _NOTHING  # an object; of a row with a problem the text, as far as it goes
    at: int = 0  # µs: where the row itself says when it was written
    problem: str = ""  # why it is no row

    def called(self, part: str) -> str:
        """The row's name among all events; of two rows of a file, the later one's sorts last."""
        return f"{part}#{self.row:012d}"


def read(raw: Raw, received: Received, source: Source) -> list[Fact | Ignored]:
    """What the mapping makes of one row; what is wrong is told with the row's number."""
    row, part = _decode_row(raw), received.headers.get(PART, "")
    try:
        if row.problem:
            raise BadEventError(row.problem)
        at = values.position(row.at or int(received.headers[AT]), received.version, "us")
        moment = Moment(at, values.written(at), "", "us")
        document = _document(received.headers[MAPPING])
        item = _decode(row.data)
        return mapping.read(document, item, received, source, at=moment, event=row.called(part))
    except (ValueError, msgspec.DecodeError) as error:
        raise BadEventError(f"{part}#{row.row}: {error}") from error


# As many as an import's, its predecessors' and those of quarantined rows that are read again.
@lru_cache(maxsize=32)
def _document(text: str) -> Mapping[str, Any]:
    """Kept, so that the mapping engine compiles a document once."""
    found: Mapping[str, Any] = msgspec.json.decode(text)
    return found


_decode_row = msgspec.json.Decoder(Row).decode
_decode = msgspec.json.Decoder(float_hook=Decimal).decode  # money must not become binary

READER = Vendor(
    name="import",
    title="an import",
    count=items.count_array,
    split=lambda received, _source: items.split(received.body),
    read=read,
)
