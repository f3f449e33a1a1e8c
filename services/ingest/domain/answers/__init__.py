"""What CRMs answer when they are asked: one file per vendor, read as snapshots of records.

An answer is a request as received like any other, kept raw and read again by later readers; its
`auth` is "<vendor>.api" and its `url` the question. A record in it is read as the event that would
have said the same, by the vendor's own reader, so that a field means the same wherever it comes
from. Its place in time is the CRM's: a field's own where the CRM keeps one, else that of the
record's last change. So an answer that comes late never wins over an event that is newer.

Every module of this package is a vendor's, of its name, and has a constant `ANSWERS`.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

from schemas.crm import Received
from services.ingest.domain import merge, values
from services.ingest.domain.facts import BadEventError, Fact, Ignored, Moment, Op, Unreadable
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import MalformedError, Raw, Vendor, all_vendors

SUFFIX = ".api"  # of `auth`
# A header of the last answer about a type: the type, and when (µs) the first was asked for.
COMPLETE = "pacesetter-complete"
# A header of an answer about one record: the vendor's id by which it was asked for.
ASKED = "pacesetter-asked"
_JSON = msgspec.json.Encoder(decimal_format="number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """How a vendor's answers are cut and read.

    `split` gives the records in an answer, unread, and `read` what one says; `join` makes an answer
    of some of them, which `split` cuts into the same.
    """

    split: Callable[[Received], list[msgspec.Raw]]
    read: Callable[[Raw, Received, Source], Sequence[Fact | Ignored]]
    join: Callable[[Sequence[bytes]], bytes]


@cache
def all_answers() -> dict[str, Answers]:
    """Every vendor whose answers can be read, by name."""
    found: dict[str, Answers] = {}
    for module in pkgutil.iter_modules(__path__):
        each = importlib.import_module(f"{__name__}.{module.name}")
        found[module.name] = each.ANSWERS
    return found


def is_answer(received: Received) -> bool:
    """Whether it was asked for, and not sent by itself."""
    return received.auth.endswith(SUFFIX)


def split(received: Received) -> list[msgspec.Raw]:
    """The records of an answer, unread; the last may be text: that its type is now complete."""
    items = _of(received).split(received)
    complete = received.headers.get(COMPLETE)
    return items if complete is None else [*items, msgspec.Raw(_JSON.encode(complete))]


def read(raw: Raw, received: Received, source: Source) -> Sequence[Fact | Ignored]:
    """What one record says."""
    if bytes(raw)[:1] == b'"':
        return [_completed(msgspec.json.decode(raw, type=str), received)]
    return _of(received).read(raw, received, source)


def join(received: Received, raws: Sequence[bytes]) -> bytes:
    """The body of an answer with only these records."""
    return _of(received).join([raw for raw in raws if raw[:1] != b'"'])


def _of(received: Received) -> Answers:
    found = all_answers().get(received.vendor)
    if found is None:
        raise BadEventError(f"answers of vendor {received.vendor!r:.60} can't be read")
    return found


def _completed(word: str, received: Received) -> Fact:
    kind, _, since = word.partition(" ")
    at = values.position(since, received.version, "us")
    return Fact(
        kind,
        "",
        "snapshot",
        completeness="none",
        occurred=Moment(at, since, "", "us"),
        position=(at, ""),
        dedupe=("complete", received.id),
    )


def told(event: object, received: Received, source: Source) -> list[Fact | Ignored]:
    """What the vendor's reader says of an event, which may hold parts of the answer unread."""
    vendor = all_vendors()[received.vendor]
    request = msgspec.structs.replace(
        received, body=_JSON.encode(event), headers={"content-type": "application/json"}
    )
    return [
        one
        for raw in vendor.split(request, source)
        for one in vendor.read(raw, request, source)
        if not isinstance(one, Unreadable)
    ]


def snapshots(
    outcomes: Iterable[Fact | Ignored], occurred: Moment, raw: Raw, received: Received
) -> Sequence[Fact | Ignored]:
    """Everything that was read of one record, as a snapshot of it.

    Nothing is asked for again: what the CRM leaves out of its answer, it doesn't have.
    """
    found = list(outcomes)
    by_record: dict[tuple[str, str], list[Fact]] = {}
    for one in found:
        if isinstance(one, Fact) and one.id:
            by_record.setdefault((one.type, one.id), []).append(one)
    if not by_record:
        ignored = [one for one in found if isinstance(one, Ignored)]
        if not ignored:
            raise BadEventError("the answer names no record")
        return ignored[:1]
    said = msgspec.json.decode(raw)
    return [
        _snapshot(key, facts, occurred, said if isinstance(said, dict) else {}, received)
        for key, facts in by_record.items()
    ]


def _snapshot(
    key: tuple[str, str],
    facts: Sequence[Fact],
    occurred: Moment,
    said: dict[str, Any],
    received: Received,
) -> Fact:
    known = merge.of(facts)
    merged = next((fact.merge for fact in facts if fact.merge is not None), None)
    op: Op = "snapshot"
    if known.deleted:
        op = "deleted" if merged is None else "merged"
    return Fact(
        *key,
        op,
        fields=known.fields,
        stages=tuple(known.stages),
        expected_before=tuple(known.expected_before),
        completeness="snapshot",
        occurred=occurred,
        position=(occurred.at, ""),
        relations=tuple(relation for fact in facts for relation in fact.relations),
        merge=merged,
        # Each answer is an event of its own: that two say the same is no mistake of the CRM's.
        dedupe=("answer", received.id, key[1]),
        vendor_type=facts[0].vendor_type,
        said=said,
    )


def when(value: object, field: str, received: Received) -> Moment:
    """When the CRM says that the record was last changed; when it was asked, where it doesn't."""
    if values.empty(value):
        return Moment(received.version, "", "", "us")
    return values.moment(value, field, received.version)


def _count(_headers: Mapping[str, str], _body: bytes) -> int:
    raise MalformedError("An answer is asked for; nobody sends one.")


READER = Vendor(
    name="answer",
    title="an answer",
    count=_count,
    split=lambda received, _source: split(received),
    read=read,
    alone=lambda received, raw: join(received, [raw]),
)
