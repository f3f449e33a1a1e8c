"""Known state + fact → known state: a join, so order, repetition and lateness make no difference.

Per field the highest position wins, ties by event id and at last by value. Stage entries are a
set. Deletion and erasure are fields like others; erasure also takes every value up to its position,
those that arrive later included. Limits keep the smallest names and the newest entries: joins too.
"""

from collections.abc import Iterable

import msgspec

from schemas.crm import Field, StageEntry
from services.ingest.domain.facts import DELETED, REDACTED, Fact

MAX_FIELDS = 600  # canonical names sort first, so it is a vendor's own properties that are left out
MAX_STAGES = 200
OVERFLOW = "_overflow"  # set once fields had to be left out


class Known(msgspec.Struct, frozen=True):
    """What is known of one record."""

    fields: dict[str, Field]
    stages: list[StageEntry] = []

    @property
    def deleted(self) -> bool:
        """Whether the record is gone, as far as is known."""
        field = self.fields.get(DELETED)
        return field is not None and field.value is True


NOTHING = Known({})


def of(facts: Iterable[Fact]) -> Known:
    """What these facts say together."""
    fields: dict[str, Field] = {}
    stages: set[StageEntry] = set()
    for fact in facts:
        _take(fields, fact.fields)
        stages.update(fact.stages)
    return _within_limits(fields, sorted(stages))


def join(one: Known, other: Known) -> Known:
    """What both say together."""
    fields = dict(one.fields)
    _take(fields, other.fields)
    stages = one.stages
    if other.stages:
        stages = sorted({*one.stages, *other.stages})
    return _within_limits(fields, stages)


def changed(before: Known, after: Known) -> list[str]:
    """Names of the fields whose state or value differs."""
    names = []
    for name, field in after.fields.items():
        old = before.fields.get(name)
        if old is None or old.state != field.state or old.value != field.value:
            names.append("deleted" if name == DELETED else name)
    return sorted(name for name in names if not name.startswith("_"))


def _take(fields: dict[str, Field], others: dict[str, Field]) -> None:
    for name, field in others.items():
        mine = fields.get(name)
        if mine is None or _wins(field, mine):
            fields[name] = field


def _wins(challenger: Field, holder: Field) -> bool:
    if challenger.at != holder.at:
        return challenger.at > holder.at
    if challenger.by != holder.by:
        return challenger.by > holder.by
    return _rank(challenger) > _rank(holder)


def _rank(field: Field) -> tuple[str, str, str]:
    """Any total order will do where one event says two things about one field."""
    return field.state, type(field.value).__name__, str(field.value)


def _within_limits(fields: dict[str, Field], stages: list[StageEntry]) -> Known:
    erased = fields.get(REDACTED)
    if erased is not None:
        fields = {name: _erased(name, field, erased) for name, field in fields.items()}
        stages = [entry for entry in stages if entry.at > erased.at]
    if len(fields) > MAX_FIELDS:
        kept = sorted(name for name in fields if name != OVERFLOW)[: MAX_FIELDS - 1]
        fields = {name: fields[name] for name in kept}
        fields[OVERFLOW] = Field("value", value=True, at=0, by="")
    return Known(fields, stages[-MAX_STAGES:])


def _erased(name: str, field: Field, erased: Field) -> Field:
    if name.startswith("_") or field.position > erased.position:
        return field
    return Field("redacted", None, field.at, field.by)
