"""The rules of a mapping at work: paths are followed, conditions tested, fields converted.

Everything here has been checked when the document was compiled; what can still go wrong is an
item's, and raises BadEventError with the rule's place.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Literal

from schemas.crm import OPPORTUNITY, Field, Received, Scalar, StageEntry
from services.ingest.domain import fields, stages, values
from services.ingest.domain.facts import (
    MAX_BY,
    Actor,
    BadEventError,
    Completeness,
    Fact,
    Mark,
    Merge,
    Moment,
    Op,
    Relation,
    fits,
)
from services.ingest.domain.fields import Convert
from services.ingest.domain.sources import Source

MAX_PATH = 300
MAX_RELATED = 100  # records that one relation names
ActorKind = Literal["user", "system", "integration", "automation", "unknown"]
OTHERWISE = "*"  # in a map: any other value

_STEP = re.compile(
    r"""(?:^|\.)(?P<name>[^.\[\]'"]+)|\[(?P<index>\d{1,4})\]|\[(?P<q>['"])(?P<key>.*?)(?P=q)\]"""
)
OPS: tuple[Op, ...] = (
    *("created", "updated", "deleted", "restored", "erased", "merged", "linked", "unlinked"),
    *("converted", "completed", "snapshot", "tracked"),
)
NEEDS_INTO = "op merged needs into, the path of the survivor's id"
# These say nothing about whether the record is there.
_NO_EXISTENCE = frozenset({"linked", "unlinked", "tracked"})
_ABSENT: Any = object()


@dataclass(frozen=True, slots=True)
class Path:
    """A way to a value inside an item."""

    text: str
    steps: tuple[str | int, ...]

    def find(self, item: Any) -> Any:
        """The value, or `_ABSENT`."""
        for step in self.steps:
            if isinstance(step, str) and isinstance(item, Mapping):
                item = item.get(step, _ABSENT)
            elif isinstance(step, int) and isinstance(item, list) and step < len(item):
                item = item[step]
            else:
                return _ABSENT
        return item

    def get(self, item: Any) -> Any:
        """The value as JSON has it, None where there is none."""
        found = self.find(item)
        return None if found is _ABSENT else _plain(found)

    def need(self, item: Any, place: str) -> Any:
        """The value; raises where there is none."""
        found = self.get(item)
        if values.empty(found):
            raise BadEventError(f"{place}: there is nothing at {self.text}")
        return found


def path(text: object) -> Path | None:
    """A path such as `deal.items[0]['odd key']`, None when it isn't one."""
    if not isinstance(text, str) or len(text) > MAX_PATH or text[:1] in ("", ".", "$"):
        return None
    steps: list[str | int] = []
    at = 0
    while at < len(text):
        step = _STEP.match(text, at)
        if step is None:
            return None
        index = step["index"]
        steps.append(int(index) if index is not None else step["name"] or step["key"] or "")
        at = step.end()
    return Path(text, tuple(steps))


@dataclass(frozen=True, slots=True)
class Map:
    """Values of theirs to values of ours; without one, values stay as they are."""

    of: Mapping[str, Any] | None = None

    def turn(self, value: Any, place: str) -> Any:
        """Ours for theirs; raises for a value that the map doesn't have."""
        if self.of is None:
            return value
        found = self.of.get(values.text(value), self.of.get(OTHERWISE, _ABSENT))
        if found is _ABSENT:
            raise BadEventError(
                f"{place}: {value!r:.60} is not in the map; add it, or * for any other value"
            )
        return found


@dataclass(frozen=True, slots=True)
class Choice:
    """A word: the same for all, or found at a path and turned by a map."""

    place: str
    literal: str = ""
    path: Path | None = None
    map: Map = Map()

    def of(self, item: Any) -> str:
        """The word for this item."""
        if self.path is None:
            return self.literal
        return values.text(self.map.turn(self.path.need(item, self.place), self.place))


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold of the value at a path; all that is given must."""

    path: Path
    equal: frozenset[str] | None = None
    prefix: str | None = None
    exists: bool | None = None
    negated: bool = False

    def holds(self, item: Any) -> bool:
        """Whether it does, for this item; values are compared as text."""
        found = self.path.get(item)
        text = None if found is None else values.text(found)
        true = (
            (self.equal is None or text in self.equal)
            and (self.prefix is None or (text is not None and text.startswith(self.prefix)))
            and (self.exists is None or (text is not None) is self.exists)
        )
        return true is not self.negated


@dataclass(frozen=True, slots=True)
class FieldRule:
    """Where a canonical field stands and how it is read."""

    name: str
    place: str
    convert: Convert
    path: Path | None = None
    literal: Scalar = None
    map: Map = Map()
    since: Path | None = None  # of a stage: when it was entered
    empty_clears: bool = True

    def value(self, item: Any) -> Any:
        """What is there, before it is converted; `_ABSENT` when nothing is said."""
        if self.path is None:
            return self.literal
        found = self.path.find(item)
        if found is _ABSENT or (found == "" and not self.empty_clears):
            return _ABSENT
        found = _plain(found)
        return found if values.empty(found) else self.map.turn(found, self.place)

    def field(self, value: Any, mark: Mark) -> Field:
        """The field; a value that can't be converted is told with its place."""
        try:
            return fields.field(value, self.convert, mark)
        except BadEventError as error:
            raise BadEventError(f"{self.place}: {error}") from error

    def mark(self, item: Any, mark: Mark) -> Mark:
        """A stage that is told again with every change keeps its place in time: its beginning."""
        since = self.since.get(item) if self.since else None
        return mark if values.empty(since) else Mark(values.micros(instant_of(since)), mark.by)


@dataclass(frozen=True, slots=True)
class RelationRule:
    """Where the ids of linked records stand."""

    place: str
    type: str
    path: Path
    change: Literal["added", "removed"] = "added"
    primary: bool = False

    def of(self, item: Any, source: Source, op: Op) -> list[Relation]:
        """The links that this item makes or undoes."""
        found = self.path.get(item)
        if values.empty(found):
            return []
        ids = found if isinstance(found, list) else [found]
        if len(ids) > MAX_RELATED:
            raise BadEventError(f"{self.place}: {len(ids)} ids; at most {MAX_RELATED} are taken")
        change = "removed" if op == "unlinked" else self.change
        return [
            Relation(self.type, values.record_id(source.id, _identity(one)), change, self.primary)
            for one in ids
            if not values.empty(one)
        ]


@dataclass(frozen=True, slots=True)
class Envelope:
    """When, as which event and with which meaning the item came, for rules that don't say."""

    at: Moment | None
    id: str
    op: Op


@dataclass(frozen=True, slots=True)
class _Said:
    """What an item says about a record's fields, and which of them it names."""

    fields: dict[str, Field]
    named: frozenset[str]
    stages: tuple[StageEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """How one fact is made of an item."""

    place: str
    type: Choice
    id: Path
    op: Choice | None = None
    when: tuple[Condition, ...] = ()
    at: Path | None = None
    unit: values.Unit = "auto"
    sequence: Path | None = None
    event_id: Path | None = None
    dedupe: tuple[Path, ...] = ()
    actor: Path | None = None
    actor_kind: ActorKind = "user"
    into: Path | None = None
    completeness: Completeness = "delta"
    fields: tuple[FieldRule, ...] = ()
    relations: tuple[RelationRule, ...] = ()

    def fact(
        self, item: Mapping[str, Any], received: Received, source: Source, envelope: Envelope
    ) -> Fact:
        """The fact; raises BadEventError when the item lacks what the rule needs."""
        kind = fields.record_type(self.type.of(item))
        op = envelope.op if self.op is None else _op(self.op.of(item), self.place)
        record = values.record_id(source.id, _identity(self.id.need(item, f"{self.place}.id")))
        at = self._moment(item, received, envelope)
        event = envelope.id if self.event_id is None else _text(self.event_id.get(item))
        mark = Mark(received.version if at is None else at.at, self._tie(item, event))
        said = self._said(item, kind, op, mark, source)
        related = [one for rule in self.relations for one in rule.of(item, source, op)]
        merge = self._merge(item, op, record, source)
        completeness = self._completeness(op)
        fact = Fact(
            kind,
            record,
            op,
            said.fields | mark.related(related) | _existence(op, mark, merge),
            said.stages,
            completeness=completeness,
            occurred=at,
            position=mark.position,
            sequence="" if self.sequence is None else _text(self.sequence.get(item)),
            actor=self._actor(item),
            relations=tuple(related),
            merge=merge,
            dedupe=self._dedupe(item, event),
            vendor_event=event,
            vendor_type="" if self.type.path is None else _text(self.type.path.get(item)),
            said={} if op == "erased" else item,
        )
        named = said.named if completeness == "delta" else ()
        return fields.signalled(fact, named, stage_decides=not self._has_status())

    def _moment(self, item: Any, received: Received, envelope: Envelope) -> Moment | None:
        if self.at is None:
            return envelope.at
        found = self.at.need(item, f"{self.place}.at")
        return values.moment(instant_of(found), self.at.text, received.version, self.unit)

    def _tie(self, item: Any, event: str) -> str:
        """The same item ties in the same way, whether or not the vendor numbers its events."""
        tie = event or fields.digest(item)
        sequence = self.sequence.get(item) if self.sequence else None
        return tie if sequence is None else fields.sequenced(sequence, tie)

    def _dedupe(self, item: Any, event: str) -> tuple[str, ...]:
        if self.dedupe:
            return tuple(_text(one.get(item)) for one in self.dedupe)
        return (event,) if event else ()

    def _completeness(self, op: Op) -> Completeness:
        if op in ("created", "snapshot"):
            return "snapshot"
        if op in ("deleted", "erased", "merged") or not self.fields:
            return "id_only"
        return self.completeness

    def _actor(self, item: Any) -> Actor | None:
        found = None if self.actor is None else self.actor.get(item)
        return None if values.empty(found) else Actor(_text(found), self.actor_kind)

    def _merge(self, item: Any, op: Op, record: str, source: Source) -> Merge | None:
        if op != "merged":
            return None
        if self.into is None:
            raise BadEventError(f"{self.place}: {NEEDS_INTO}")
        kept = _identity(self.into.need(item, f"{self.place}.into"))
        return Merge("merged", values.record_id(source.id, kept), (record,))

    def _has_status(self) -> bool:
        """Whether the status is told; where it isn't, a deal's stage decides."""
        return any(rule.name == "status" for rule in self.fields)

    def _said(self, item: Any, kind: str, op: Op, mark: Mark, source: Source) -> _Said:
        found: dict[str, Field] = {}
        entries: tuple[StageEntry, ...] = ()
        named: set[str] = set()
        for rule in self.fields if op != "erased" else ():
            value = rule.value(item)
            if value is _ABSENT:
                continue
            named.add(rule.name)
            if rule.name == "stage" and kind == OPPORTUNITY:
                since = rule.mark(item, mark)
                follows, entries = stages.registers(value, since, source)
                found = ({"stage": follows["stage"]} if self._has_status() else follows) | found
            else:
                found[rule.name] = rule.field(value, mark)
        status = found.get("status")
        if kind == OPPORTUNITY and status is not None and status.value == "open":
            # Whatever date a record has there: an open deal has not closed.
            found["closed_at"] = Field("cleared", None, status.at, status.by)
        return _Said(found, frozenset(named), entries)


def _existence(op: Op, mark: Mark, merge: Merge | None) -> dict[str, Field]:
    if merge is not None:
        return mark.gone(merge.survivor)
    if op == "erased":
        return mark.erased()
    if op == "deleted":
        return mark.gone()
    return {} if op in _NO_EXISTENCE else mark.alive()


def _op(word: str, place: str) -> Op:
    if word not in OPS:
        raise BadEventError(f"{place}.op: {word!r:.60} is none of {', '.join(OPS)}")
    return word


def _identity(value: Any) -> Any:
    """An id; tables write whole numbers as decimal ones too."""
    if isinstance(value, Decimal | float):
        text = values.amount(value)
        return text.rstrip("0").rstrip(".") if "." in text else text
    return value


def instant_of(value: Any) -> Any:
    """What may be an instant, as JSON has it."""
    return _identity(_plain(value))


def _text(value: Any) -> str:
    if value is None:
        return ""
    text = values.text(value)
    return text if fits(text, MAX_BY) else fields.digest(text)


def _plain(value: Any) -> Any:
    """A value of a row of a table as JSON has it."""
    return value.isoformat() if isinstance(value, date) else value
