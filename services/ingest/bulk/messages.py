"""Rows → messages of the backfill lane, each as if a CRM had sent some of the rows at once."""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

import msgspec
import yaml

from schemas.base import valid_id
from schemas.crm import Backfilled
from services.ingest.domain import imports, mapping, values
from services.ingest.domain.imports import Row
from services.ingest.domain.sources import Source

MAX_ROWS = 500
MAX_BYTES = 512 * 1024  # of a body; in base64 and with the mapping well within what topics take
MAX_MAPPING = 64 * 1024  # it goes along with every message
MAX_NAME = 60  # characters, so that a row's name fits into a position
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._@-]+")


class MappingError(ValueError):
    """The mapping can't be used; the words are everything that is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """What is imported as what."""

    name: str
    source: Source
    mapping: str  # the document as JSON
    at: int  # µs: where rows stand in time that don't say
    empty_clears: bool = False  # what an empty cell of a table says about its field

    @property
    def identity(self) -> str:
        """Differs from that of every import whose messages would be others."""
        parts = [self.source.tenant, self.source.id, self.name, self.mapping, self.at]
        return hashlib.sha256(_JSON.encode(parts)).hexdigest()

    def message(
        self, rows: list[Row], *, began: int, digest: str = "", part: str = ""
    ) -> Backfilled:
        """A message of these rows.

        Its id begins, as all do, with an instant (when the import began), then sorts by the rows,
        and is the same whenever the same input (by its digest) is imported as the same. `part` is
        a topic's partition.
        """
        named = [self.identity, digest, part]
        number = hashlib.blake2b(_JSON.encode(named), digest_size=8).hexdigest()
        return Backfilled(
            tenant=self.source.tenant,
            version=began,
            source=self.source.id,
            vendor=self.source.vendor,
            id=f"{began:014x}{rows[0].row:010x}{number}",
            received_at=values.aware(began),
            method="",
            url="",
            headers={
                "content-type": "application/json",
                imports.MAPPING: self.mapping,
                imports.PART: f"{self.name}/{part}" if part else self.name,
                imports.AT: str(self.at),
            },
            body=_JSON.encode(rows),
            auth=imports.AUTH,
        )


class Cutter:
    """Cuts rows into what goes into one message: at the same places whenever they are read."""

    def __init__(self, *, max_rows: int = MAX_ROWS, max_bytes: int = MAX_BYTES) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._rows: list[Row] = []
        self._size = 0

    def add(self, row: Row) -> list[Row]:
        """The rows that are full, now that there is one more; none while there is room."""
        full: list[Row] = []
        length = len(_JSON.encode(row)) + 1
        if len(self._rows) == self._max_rows or self._size + length > self._max_bytes:
            full = self.rest()
        self._rows.append(row)
        self._size += length
        return full

    def rest(self) -> list[Row]:
        """The rows that are left."""
        rows, self._rows, self._size = self._rows, [], 0
        return rows


def document(text: str) -> dict[str, Any]:
    """A mapping as written in YAML or JSON; raises MappingError that says all that is wrong."""
    try:
        # As it will be read behind the topic: with keys that are texts, and days as texts.
        found = json.loads(json.dumps(yaml.safe_load(text), default=str))
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise MappingError(f"not YAML: {error}") from error
    wrong = mapping.problems(found)
    if isinstance(found, dict) and "items" in found:
        wrong.append("items: is for bodies that have many items; here, every row is one")
    if len(encoded(found)) > MAX_MAPPING:
        wrong.append(f"is longer than {MAX_MAPPING} bytes")
    if wrong:
        raise MappingError("\n".join(wrong))
    return dict(found)


def encoded(document: object) -> str:
    """A mapping as it goes along with a message."""
    return _JSON.encode(document).decode()


def default_name(text: str) -> str:
    """An import's name by that of its file or topic."""
    return _NOT_IN_A_NAME.sub("-", text).strip("-._@")[:MAX_NAME] or "import"


def is_name(text: str) -> bool:
    """Whether this may be an import's name."""
    return valid_id(text) and len(text) <= MAX_NAME


_JSON = msgspec.json.Encoder(order="sorted")
