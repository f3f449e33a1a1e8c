"""Canonical fields: which there are, how a vendor's value becomes one, and the signals they give.

A signal is only given where the event alone shows it: a field that is merely told again, as in a
snapshot, has not changed.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from schemas.crm import CALL, EMAIL, MEETING, OPPORTUNITY, Field, Scalar
from services.ingest.domain import values
from services.ingest.domain.facts import BadEventError, Fact, Mark, Signal
from services.ingest.domain.sources import Source

Convert = Callable[[Any], Scalar]
Table = dict[str, tuple[str, Convert]]  # the vendor's name -> ours, and how it is converted

ACTIVITIES = frozenset({CALL, EMAIL, MEETING, "task", "message", "note"})
RECORD_TYPES = ACTIVITIES | {
    *(OPPORTUNITY, "lead", "contact", "account", "product", "line_item", "quote"),
    *("user", "stage", "pipeline"),
}
_OWN_TYPE = re.compile(r"x_[a-z0-9_]{1,48}")
_NOT_IN_A_TYPE = re.compile(r"[^a-z0-9]+")


def record_type(value: object) -> str:
    """A record type of ours, or the reason why it is none."""
    if isinstance(value, str) and (value in RECORD_TYPES or _OWN_TYPE.fullmatch(value)):
        return value
    raise BadEventError(
        f"{value!r:.60} is not a record type: these are {', '.join(sorted(RECORD_TYPES))}; types "
        "of your own are called x_ and then small letters, digits and _"
    )


def own_type(name: str) -> str:
    """The record type of a vendor's object type that has none of ours."""
    return record_type(f"x_{_NOT_IN_A_TYPE.sub('_', name.lower()).strip('_')[:48]}")


def type_of(named: str, source: Source, types: Mapping[str, str]) -> str:
    """The record type of a vendor's object type: as the source says, the usual one, or its own."""
    if named in source.types:
        return record_type(source.types[named])
    return types.get(named) or own_type(named)


def one_of(name: str, *words: str) -> Convert:
    """A converter that takes these words only."""

    def convert(value: Any) -> str:
        if value not in words:
            raise BadEventError(f"{name} {value!r:.60} is none of {', '.join(words)}")
        return str(value)

    return convert


def whole(value: Any) -> int:
    """A whole number; 5.0 is one too."""
    whole, _, fraction = values.amount(value).partition(".")
    if fraction.strip("0"):
        raise BadEventError(f"{value!r:.60} is not a whole number")
    return int(whole)


_DEAL_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("new", "newbusiness", "new business", "new customer"), "new"),
    **dict.fromkeys(("existing", "existingbusiness", "existing business"), "existing"),
    **dict.fromkeys(("expansion", "existing customer - upgrade"), "expansion"),
    "renewal": "renewal",
}


def deal_type(value: Any) -> str:
    """Our word for what CRMs ship with; a company's own word as it is."""
    found = values.text(value)
    return _DEAL_TYPES.get(found.strip().lower(), found)


def kind(value: Any) -> str:
    """A company's name for a kind of activity, in small letters."""
    return values.text(value).strip().lower()


_STATUS = one_of("status", "open", "won", "lost")
_QUOTE_STATUS = one_of("status", "draft", "sent", "accepted", "declined")
_CONVERTERS: Mapping[str, Convert] = {
    "owner_id": values.text,
    "name": values.text,
    "created_at": values.instant,
    "amount": values.amount,
    "currency": values.currency,
    "amount_period": one_of("amount_period", "one_time", "monthly", "annual"),
    "stage": values.text,
    "pipeline": values.text,
    "closed_at": values.instant,
    "expected_close": values.instant,
    "occurred_at": values.instant,
    "done": values.flag,
    "outcome": values.text,
    "direction": values.text,
    "duration_seconds": values.seconds,
    "converted_at": values.instant,
    "email": values.text,
    "active": values.flag,
    "rank": whole,
    "probability": values.share,
    "deal_type": deal_type,
    "quantity": values.amount,
    "discount": values.amount,
    "cost": values.amount,
    "shares": values.text,
    "kind": kind,
    "due_at": values.instant,
    "completed_at": values.instant,
    "first_response_at": values.instant,
    "lead_source": values.text,
    "sent_at": values.instant,
    "accepted_at": values.instant,
}
NAMES = frozenset(_CONVERTERS) | {"status"}


def converter(kind: str, name: str) -> Convert | None:
    """How a canonical field of a record type is read; None: there is no such field."""
    if name == "status":
        return {"lead": values.text, "quote": _QUOTE_STATUS}.get(kind, _STATUS)
    if name == "probability" and kind == "stage":
        return values.amount
    return _CONVERTERS.get(name)


def field(value: object, convert: Convert, mark: Mark) -> Field:
    """A field with a value, or emptied."""
    return mark.field("cleared") if values.empty(value) else mark.value(convert(value))


def read(
    state: Mapping[str, Any], table: Table, mark: Mark, *, apart: Collection[str] = ()
) -> dict[str, Field]:
    """The canonical fields of what is there, and all else under its own name.

    `apart` are those that the caller reads. A name that can't be a field's is left to `Fact.said`.
    """
    fields: dict[str, Field] = {}
    for name, value in state.items():
        target = table.get(name)
        if target is not None:
            fields[target[0]] = field(value, target[1], mark)
        elif name not in apart:
            own = _own_name(name)
            if own is not None:
                fields[own] = field(value, values.text, mark)
    return fields


def _own_name(name: str) -> str | None:
    try:
        return values.own_name(name)
    except BadEventError:
        return None


def digest(value: object) -> str:
    """A short text that differs for different JSON values."""
    return hashlib.blake2b(_JSON.encode(value), digest_size=10).hexdigest()


def sequenced(sequence: object, event: str) -> str:
    """What breaks ties: a whole number in its order, before the event's id."""
    text = values.text(sequence)
    return f"{text:0>20}|{event}" if text.isdecimal() else f"{text}|{event}"


def signalled(fact: Fact, changed: Collection[str] = (), *, stage_decides: bool = False) -> Fact:
    """The fact with its signals; `changed` are the fields that the event says have changed.

    Where the stage decides, the status has not changed by itself, but a deal may be won by it.
    """
    if stage_decides:
        changed = {name for name in changed if name != "status"}
    found: list[Signal] = []
    if fact.op != "created":
        found += [signal for name, signal in _CHANGES.items() if name in changed]
    new = {*changed, "status", "done"} if fact.op == "created" else set(changed)
    if stage_decides and "stage" in changed:
        new.add("status")
    if fact.type == OPPORTUNITY and "status" in new and _value(fact, "status") == "won":
        found.append("won")
    done = "done" in new and _value(fact, "done") is True
    if fact.type in ACTIVITIES and (done or fact.op == "completed"):
        found.append("activity_completed")
    converted = "converted_at" in changed and _value(fact, "converted_at") is not None
    if fact.op == "converted" or (fact.type == "lead" and converted):
        found.append("lead_converted")
    if fact.merge is not None:
        found.append("merge_survivor" if fact.merge.role == "survivor" else "merged_away")
    if not fact.id:
        found.append("resync_entity")
    elif fact.reread is not None and fact.reread.reason != "missing_fields":
        found.append("resync_record")
    return msgspec.structs.replace(fact, signals=tuple(found))


def _value(fact: Fact, name: str) -> Scalar:
    found = fact.fields.get(name)
    return None if found is None or found.state != "value" else found.value


_CHANGES: Mapping[str, Signal] = {
    "stage": "stage_changed",
    "owner_id": "owner_changed",
    "amount": "amount_changed",
    "status": "status_changed",
}
_JSON = msgspec.json.Encoder(decimal_format="string", order="sorted")
