"""What a trace says: the events, their request, the records that they are about; pure."""

from typing import Literal

import msgspec

from services.ingest.domain import values
from services.ingest.store.trace import Wanted

State = Literal["applied", "waiting", "unknown"]


class Duplicate(msgspec.Struct, frozen=True):
    """Another time that the same fact came in: with the same content, or with another."""

    id: str
    kind: Literal["natural", "synthetic"]


class Step(msgspec.Struct, frozen=True):
    """One fact as it came in and was read."""

    id: str
    request: str
    index: int
    number: int  # of the fact within the request
    source: str
    type: str
    record: str
    op: str
    at: int  # µs: its place in the vendor's order
    occurred_at: str
    received_at: str | None  # None: the request's id doesn't say it
    vendor_event: str
    event_uid: str
    duplicates: list[Duplicate]


class Reached(msgspec.Struct, frozen=True):
    """A record that the events are about, as it is now, and how far it has come."""

    type: str
    id: str
    version: int | None = None  # None: nothing is stored of it
    deleted: bool = False
    merged_into: str | None = None
    message: str | None = None  # topic/partition/offset of the version's message, once found
    applied: dict[str, State] = {}
    reread: Wanted | None = None


class Quarantined(msgspec.Struct, frozen=True):
    """An item that could not be read."""

    id: str
    reason: str


class Skipped(msgspec.Struct, frozen=True):
    """An item that says nothing about records."""

    id: str
    ignored: str


class Discarded(msgspec.Struct, frozen=True):
    """An item that could not be read, and was given up."""

    id: str
    reason: str
    by: str  # empty: a machine
    at: str


class Request(msgspec.Struct, frozen=True):
    """The request that was asked about. `waiting`: it is on its topic, and nobody has read it."""

    id: str
    received_at: str | None
    state: Literal["read", "waiting", "unknown"]
    message: str | None  # topic/partition/offset, once found
    quarantined: list[Quarantined]
    discarded: list[Discarded]
    ignored: list[Skipped]


class Trace(msgspec.Struct, frozen=True):
    """What happened to some events: these, and the records and the request that they are about."""

    items: list[Step]
    records: list[Reached]
    request: Request | None = None

    @property
    def nothing(self) -> bool:
        """Whether nothing is known of what was asked about."""
        request = self.request
        return not self.items and (
            request is None or not (request.message or request.quarantined or request.discarded)
        )


def timeline(found: Trace) -> list[tuple[str, str, str, str]]:
    """A trace line by line: when, what, to what, and what else there is to say."""
    lines = []
    if (about := found.request) is not None:
        lines.append((about.received_at or "", f"request {about.state}", about.id, about.message))
        lines += [("", "quarantined", one.id, one.reason) for one in about.quarantined]
        lines += [
            (one.at, f"given up by {one.by or 'a machine'}", one.id, one.reason)
            for one in about.discarded
        ]
        lines += [("", "ignored", one.id, one.ignored) for one in about.ignored]
    for step in sorted(found.items, key=lambda one: (one.received_at or "", one.id)):
        said = f"{step.op} {step.type} {step.record}".rstrip()
        notes = [f"happened {step.occurred_at}"]
        notes += [f"{one.kind} duplicate of {one.id}" for one in step.duplicates]
        lines.append((step.received_at or "", said, step.id, "; ".join(notes)))
    for record in found.records:
        if record.version is not None:
            notes = [f"{service}: {state}" for service, state in record.applied.items()]
            notes += [f"merged into {record.merged_into}"] * bool(record.merged_into)
            said = "deleted record" if record.deleted else "record"
            since = values.written(record.version)
            lines.append((since, said, f"{record.type}/{record.id}", ", ".join(notes)))
        if record.reread is not None:
            since = record.reread.wanted_at.isoformat()
            notes = [record.reread.reason, record.reread.problem]
            what = f"{record.type}/{record.id or 'all'}"
            lines.append((since, "to be read again", what, ": ".join(filter(None, notes))))
    return [(when, what, which, note or "") for when, what, which, note in lines]
