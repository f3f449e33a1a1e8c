"""What a reader makes of a request: facts, things ignored by name, things it can't read."""

import hashlib
from collections.abc import Iterable

import msgspec

from schemas.crm import Field, FieldState, Scalar, StageEntry

# Registers of the record itself, kept among its fields so that one rule merges everything.
DELETED = "_deleted"
REDACTED = "_redacted"  # at this position, everything known until then was erased
MERGED_INTO = "_merged_into"


class Fact(msgspec.Struct, frozen=True):
    """What one event says about one record."""

    type: str
    id: str  # "<source>:<the vendor's id>"
    op: str  # created | updated | deleted | restored | merged | erased
    fields: dict[str, Field]
    stages: tuple[StageEntry, ...] = ()


class Ignored(msgspec.Struct, frozen=True):
    """An event that says nothing about our records, by a name from a bounded set."""

    kind: str


class Unreadable(msgspec.Struct, frozen=True):
    """An item of a request that can't be read: its place, why, and its bytes."""

    index: int
    reason: str
    raw: bytes


Outcome = Fact | Ignored | Unreadable


class BadEventError(ValueError):
    """Why an item can't be read, in words that say what is wrong with which value."""


class Mark:
    """Makes fields that all carry one event's position: its instant in µs, then its id.

    An id that is too long to be kept with every field is told apart by its digest.
    """

    __slots__ = ("at", "by")

    def __init__(self, at: int, by: str) -> None:
        self.at = at
        self.by = by if fits(by, MAX_BY) else hashlib.sha256(by.encode()).hexdigest()

    def field(self, state: FieldState, value: Scalar = None) -> Field:
        """A field that this event set."""
        return Field(state, value, self.at, self.by)

    def value(self, value: Scalar) -> Field:
        """A field with a value; text that is too long to keep becomes `unknown`."""
        if isinstance(value, str) and not fits(value, MAX_TEXT):
            return Field("unknown", None, self.at, self.by)
        return Field("value", value, self.at, self.by)

    def alive(self) -> dict[str, Field]:
        """The record is there."""
        return {DELETED: Field("value", value=False, at=self.at, by=self.by)}

    def gone(self, into: str = "") -> dict[str, Field]:
        """The record is deleted, or was merged into another."""
        fields = {DELETED: Field("value", value=True, at=self.at, by=self.by)}
        if into:
            fields[MERGED_INTO] = self.value(into)
        return fields

    def erased(self) -> dict[str, Field]:
        """The record is deleted and what was known of it must be forgotten."""
        return self.gone() | {REDACTED: Field("value", value=True, at=self.at, by=self.by)}

    def cleared(self, names: Iterable[str]) -> dict[str, Field]:
        """Each of these fields emptied."""
        return {name: Field("cleared", None, self.at, self.by) for name in names}


# In bytes as they are on the topic, where a character takes up to six. The raw log keeps the whole;
# a record at every limit must fit in a message that any broker takes, and an owner in an index.
MAX_TEXT = 1000
MAX_BY = 128
MAX_STAGE = 200


def fits(text: str, limit: int) -> bool:
    """Whether the text takes at most so many bytes in a message."""
    if len(text) * _MOST_BYTES <= limit:
        return True
    return len(text) <= limit and len(_JSON.encode(text)) - len('""') <= limit


def stage_of(text: str) -> str:
    """A stage as it is kept: its beginning, when it is too long."""
    stage = text[:MAX_STAGE]
    return stage if fits(stage, MAX_STAGE) else stage[: MAX_STAGE // _MOST_BYTES]


_MOST_BYTES = 6  # of a character: a control character as \u0001
_JSON = msgspec.json.Encoder()
