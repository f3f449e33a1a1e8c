"""Salesforce: records as REST gives them, in a list or in a page of a query.

A null in a list is a record that doesn't exist or isn't shared with us: it says nothing. What a
query over all rows gives with `IsDeleted` is gone.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from schemas.crm import Received
from services.ingest.domain import answers
from services.ingest.domain.facts import Fact, Ignored
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import Raw

_NULL = b"null"


class _Page(msgspec.Struct, frozen=True):
    records: list[msgspec.Raw]


_decode = msgspec.json.Decoder(_Page | list[msgspec.Raw]).decode
_decode_record = msgspec.json.Decoder(dict[str, Any]).decode


def split(received: Received) -> list[msgspec.Raw]:
    """The records that are there."""
    found = _decode(received.body)
    records = found.records if isinstance(found, _Page) else found
    return [record for record in records if bytes(record) != _NULL]


def join(raws: Sequence[bytes]) -> bytes:
    """A list of these records."""
    return b"[" + b",".join(raws) + b"]"


def read(raw: Raw, received: Received, source: Source) -> Sequence[Fact | Ignored]:
    """What one record says; a webhook reader takes it as it is."""
    record = _decode_record(raw)
    names = ("LastModifiedDate", "SystemModstamp")
    named = next((name for name in names if record.get(name)), names[0])
    occurred = answers.when(record.get(named), named, received)
    return answers.snapshots(answers.told([raw], received, source), occurred, raw, received)


ANSWERS = answers.Answers(split=split, read=read, join=join)
