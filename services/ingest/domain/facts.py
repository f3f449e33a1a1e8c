"""What a reader makes of a request: facts, things ignored by name, things it can't read.

A `Fact` is the canonical event: what one vendor's event says about one record, without loss. The
registers in `fields` are what is merged into the record's state; everything beside them says when,
by whom, how completely and why, for people, for the trace and for finding duplicates.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from schemas.crm import ERASED, Field, FieldState, Scalar, StageEntry

# Registers of the record itself, kept among its fields so that one rule merges everything.
DELETED = "_deleted"
REDACTED = ERASED  # at this position, everything known until then was erased
MERGED_INTO = "_merged_into"
RELATION = "_rel."  # then the other record's type, a dot, and its id; None once unlinked

Op = Literal[
    "created",
    "updated",
    "deleted",
    "restored",
    "erased",
    "merged",
    "linked",
    "unlinked",
    "converted",
    "completed",
    "snapshot",
    "gap",
    "overflow",
    "tracked",
]
Signal = Literal[
    "stage_changed",
    "owner_changed",
    "amount_changed",
    "status_changed",
    "won",
    "activity_completed",
    "lead_converted",
    "merged_away",
    "merge_survivor",
    "resync_record",
    "resync_entity",
]
# How much of the record the event shows: nothing but that something happened, its id, what has
# changed, the whole record, or the whole record and what has changed of it.
Completeness = Literal["none", "id_only", "delta", "snapshot", "snapshot_plus_delta"]
Precision = Literal["us", "ms", "s", "min", "day"]


class Moment(msgspec.Struct, frozen=True, gc=False):
    """When it happened: µs since the epoch, and what the vendor wrote where."""

    at: int
    raw: str
    field: str  # the vendor's name of it; empty: none was given, `at` is when we received it
    precision: Precision


class Actor(msgspec.Struct, frozen=True, gc=False):
    """Who did it in the CRM; not the record's owner."""

    id: str
    kind: Literal["user", "system", "integration", "automation", "unknown"] = "user"


class Relation(msgspec.Struct, frozen=True, gc=False):
    """A link to another record, ours by type and id."""

    type: str
    id: str
    change: Literal["added", "removed"] = "added"
    primary: bool = False


class Merge(msgspec.Struct, frozen=True):
    """The record's part in a merge."""

    role: Literal["survivor", "merged"]
    survivor: str
    merged: tuple[str, ...] = ()


class Reread(msgspec.Struct, frozen=True):
    """What must be read from the CRM because the event doesn't say it."""

    # an expired channel lost events of the whole type
    reason: Literal["gap", "overflow", "id_only", "over_size", "expired", "missing_fields"]
    fields: tuple[str, ...] = ()  # canonical names; empty: all


class Fact(msgspec.Struct, frozen=True):
    """What one event says about one record, or (with an empty id) about all of a type."""

    type: str
    id: str  # "<source>:<the vendor's id>"
    op: Op
    fields: Mapping[str, Field] = {}
    stages: tuple[StageEntry, ...] = ()
    # Earlier values of expected_close, where one event tells several.
    expected_before: tuple[Field, ...] = ()
    signals: tuple[Signal, ...] = ()
    completeness: Completeness = "delta"
    occurred: Moment | None = None
    position: tuple[int, str] = (0, "")  # µs, then what breaks ties: the vendor's order
    sequence: str = ""  # within a transaction of the vendor's, where it has one
    transaction: str = ""
    actor: Actor | None = None
    relations: tuple[Relation, ...] = ()
    merge: Merge | None = None
    reread: Reread | None = None
    # Told apart from other events by these parts of it, attempt counters left out.
    dedupe: tuple[str, ...] = ()
    vendor_event: str = ""  # the vendor's id of the event
    vendor_type: str = ""  # the vendor's name of the record type
    said: Mapping[str, Any] = {}  # the vendor's fields as they came, under their own names
    before: Mapping[str, Any] = {}  # and their old values, where the event has them
    sensitive: tuple[str, ...] = ()  # names among `said` that the vendor calls sensitive


class Ignored(msgspec.Struct, frozen=True):
    """An event that says nothing about records, by a name from a bounded set."""

    kind: str


class Unreadable(msgspec.Struct, frozen=True):
    """An item of a request that can't be read: why, and its bytes."""

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

    @property
    def position(self) -> tuple[int, str]:
        """As a fact has it."""
        return self.at, self.by

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

    def related(self, relations: Iterable[Relation]) -> dict[str, Field]:
        """Links made or undone; True is the primary one."""
        return {
            f"{RELATION}{one.type}.{one.id}": (
                self.field("cleared") if one.change == "removed" else self.value(one.primary)
            )
            for one in relations
        }


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
