"""Known state + fact → known state: a join, so order, repetition and lateness make no difference.

Per field the highest position wins, ties by event id and at last by value. Stage entries are a
set. What the expected close date was before is kept by instant, of each the value that wins.
Deletion and erasure are fields like others; erasure also takes every value up to its position,
those that arrive later included. Limits keep the smallest names and the newest entries: joins too.
"""

from collections.abc import Iterable, Mapping

import msgspec

from schemas.crm import Field, Record, StageEntry
from services.ingest.domain.facts import DELETED, MERGED_INTO, REDACTED, RELATION, Fact

MAX_FIELDS = 600  # then links are left out first, and a vendor's own properties
MAX_STAGES = 200
MAX_EXPECTED = 200  # former values of the expected close date
EXPECTED_CLOSE = "expected_close"
MERGED_FROM = "_merged_from."  # then the id of a record that became this one
_BELOW = 2**53  # more than any instant in µs, and often enough in 64 bits
OVERFLOW = "_overflow"  # set once fields had to be left out
_OWN = frozenset({DELETED, REDACTED, MERGED_INTO, OVERFLOW})  # of a record, and not inherited


class Known(msgspec.Struct, frozen=True):
    """What is known of one record."""

    fields: dict[str, Field]
    stages: list[StageEntry] = []
    expected_before: list[Field] = []

    @property
    def deleted(self) -> bool:
        """Whether the record is gone, as far as is known."""
        field = self.fields.get(DELETED)
        return field is not None and field.value is True


NOTHING = Known({})


def recorded(record: Record) -> Known:
    """What a record says of what is known."""
    return Known(record.fields, record.stages, record.expected_before)


def of(facts: Iterable[Fact]) -> Known:
    """What these facts say together."""
    fields: dict[str, Field] = {}
    stages: set[StageEntry] = set()
    expected: list[Field] = []
    for fact in facts:
        _take(fields, fact.fields)
        stages.update(fact.stages)
        expected += _expected(fact)
    return _within_limits(fields, sorted(stages), expected)


def survivor(fields: Mapping[str, Field]) -> str:
    """The record into which this one was merged; empty when it wasn't."""
    into, gone = fields.get(MERGED_INTO), fields.get(DELETED)
    if into is None or gone is None or gone.value is not True:
        return ""
    return str(into.value or "")


def inheritance(merged: str, known: Known) -> Known:
    """What a record leaves to the one that it was merged into: only what that one doesn't know.

    Positions are shifted below every real one, so that a late fact about the merged record still
    fills a gap of the survivor, and none ever wins over what the survivor says itself. What was
    erased here is erased there too.
    """
    fields = {
        name: Field(field.state, field.value, field.at - _BELOW, field.by)
        for name, field in known.fields.items()
        if field.state in ("value", "redacted") and name not in _OWN
    }
    at = known.fields[MERGED_INTO].at
    fields[f"{MERGED_FROM}{merged}"] = Field("value", value=True, at=at, by=merged)
    return Known(fields)


def merged_from(fields: Mapping[str, Field]) -> list[str]:
    """The records that were merged into this one."""
    return sorted(name.removeprefix(MERGED_FROM) for name in fields if name.startswith(MERGED_FROM))


def all_of(parts: Iterable[Known]) -> Known:
    """What all of these say together."""
    known = NOTHING
    for part in parts:
        known = join(known, part)
    return known


def join(one: Known, other: Known) -> Known:
    """What both say together."""
    fields = dict(one.fields)
    _take(fields, other.fields)
    stages = one.stages
    if other.stages:
        stages = sorted({*one.stages, *other.stages})
    return _within_limits(fields, stages, [*_expected(one), *_expected(other)])


def changed(before: Known, after: Known) -> list[str]:
    """Names of the fields whose state or value differs."""
    names = []
    for name, field in after.fields.items():
        old = before.fields.get(name)
        if old is None or old.state != field.state or old.value != field.value:
            names.append("deleted" if name == DELETED else name)
    return sorted(name for name in names if not name.startswith("_"))


def _take(fields: dict[str, Field], others: Mapping[str, Field]) -> None:
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


def _rank(field: Field) -> tuple[bool, str, str, str]:
    """Any total order will do where one event says two things; but what was erased stays so."""
    return (
        field.state == "redacted",
        field.state,
        type(field.value).__name__,
        str(field.value),
    )


def _expected(said: Fact | Known) -> list[Field]:
    """Every expected close date that is said."""
    field = said.fields.get(EXPECTED_CLOSE)
    return [*said.expected_before] if field is None else [*said.expected_before, field]


def _before(expected: list[Field], last: Field) -> list[Field]:
    """Those before the last, by instant; what merged records have left was never told of this."""
    told: dict[int, Field] = {}
    for field in expected:
        if 0 <= field.at < last.at:
            mine = told.get(field.at)
            if mine is None or _wins(field, mine):
                told[field.at] = field
    return [told[at] for at in sorted(told)]


def _within_limits(
    fields: dict[str, Field], stages: list[StageEntry], expected: list[Field]
) -> Known:
    before = _before(expected, fields[EXPECTED_CLOSE]) if len(expected) > 1 else []
    erased = fields.get(REDACTED)
    if erased is not None:
        fields = {name: _erased(name, field, erased) for name, field in fields.items()}
        stages = [entry for entry in stages if entry.at > erased.at]
        before = [field for field in before if field.position > erased.position]
    if len(fields) > MAX_FIELDS:
        names = (name for name in fields if name != OVERFLOW)
        kept = sorted(names, key=_importance)[: MAX_FIELDS - 1]
        fields = {name: fields[name] for name in kept}
        fields[OVERFLOW] = Field("value", value=True, at=0, by="")
    return Known(fields, stages[-MAX_STAGES:], before[-MAX_EXPECTED:])


def _importance(name: str) -> tuple[int, str]:
    """What is kept first: what we know by name, a vendor's own properties, and links at last."""
    if name.startswith((RELATION, MERGED_FROM)):
        return 2, name
    return (1 if name.startswith("x_") else 0), name


def _erased(name: str, field: Field, erased: Field) -> Field:
    if name.startswith("_") or field.position > erased.position:
        return field
    return Field("redacted", None, field.at, field.by)
