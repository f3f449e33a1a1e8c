"""What one event says of its object, by what happened to it."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any

import msgspec
from msgspec.structs import replace

from schemas.crm import OPPORTUNITY, Field, StageEntry
from services.ingest.domain import fields, stages, values
from services.ingest.domain.facts import BadEventError, Fact, Mark, Merge, Op, Relation, Reread
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors.hubspot.names import COMMON, PROPERTIES, record_type

MAX_MERGED = 1000  # records in one merge; each becomes a message, so that more would be a flood
_KIN = re.compile(r"^(parent|child)_")  # PARENT_COMPANY_TO_CHILD_COMPANY

_Id = int | str


class Event(msgspec.Struct, frozen=True, rename="camel"):
    """A webhook's event, or one of the journal: what both call the same is the same.

    A key may be null wherever it may be absent, and says as little.
    """

    portal_id: _Id | None = None
    occurred_at: _Id | None = None
    object_type_id: str | None = None
    object_id: _Id | None = None
    change_source: str | None = None
    source_id: _Id | None = None
    is_sensitive: bool | None = None
    # webhooks
    subscription_type: str | None = None
    event_type: str | None = None
    event_id: _Id | None = None
    property_name: str | None = None
    property_value: Any = None
    from_object_id: _Id | None = None
    from_object_type_id: str | None = None
    to_object_id: _Id | None = None
    to_object_type_id: str | None = None
    association_type: str | None = None
    association_type_id: _Id | None = None
    association_category: str | None = None
    association_removed: bool | None = None
    is_primary_association: bool | None = None
    primary_object_id: _Id | None = None
    new_object_id: _Id | None = None
    merged_object_ids: Annotated[list[_Id], msgspec.Meta(max_length=MAX_MERGED)] | None = None
    number_of_properties_moved: int | None = None
    # the journal
    type: str | None = None
    action: str | None = None
    property_changes: Any = None
    properties: Any = None
    associated_object_id: _Id | None = None
    associated_object_type_id: str | None = None


class About(msgspec.Struct, frozen=True):
    """One event, and the fact that it becomes as far as every event says it."""

    event: Event
    frame: Fact
    mark: Mark
    source: Source

    def fact(self, number: object, op: Op, registers: Mapping[str, Field], **more: Any) -> Fact:
        """The fact about the object of this number."""
        return replace(
            self.frame,
            id=values.record_id(self.source.id, number),
            op=op,
            fields=registers,
            position=self.mark.position,
            **more,
        )


def _property_change(about: About) -> list[Fact]:
    said, before = _changes(about.event)
    if not said:
        raise BadEventError("propertyName is missing")
    registers, entries = _registers(about, said)
    fact = about.fact(
        about.event.object_id,
        "updated",
        registers,
        stages=entries,
        reread=_missing(about.frame.type, registers),
        said=said,
        before=before,
        sensitive=tuple(said) if about.event.is_sensitive else (),
    )
    return [_signalled(fact, registers.keys())]


def _signalled(fact: Fact, changed: Collection[str] = ()) -> Fact:
    """What a stage means is not in the event: only HubSpot's own property says that it is won."""
    fact = fields.signalled(fact, [name for name in changed if name != "status"])
    if fact.said.get("hs_is_closed_won") in ("true", True) and "won" not in fact.signals:
        fact = replace(fact, signals=(*fact.signals, "won"))
    return fact


def _missing(kind: str, registers: Mapping[str, Field]) -> Reread | None:
    """An amount comes without its currency, which is another property."""
    amount = registers.get("amount")
    if kind != OPPORTUNITY or amount is None or amount.state != "value" or "currency" in registers:
        return None
    return Reread("missing_fields", ("currency",))


def _changes(event: Event) -> tuple[dict[str, Any], dict[str, Any]]:
    """New and, where the event has them, old values of properties by name."""
    if event.property_name:
        return {event.property_name: event.property_value}, {}
    given = event.property_changes if event.property_changes is not None else event.properties
    if isinstance(given, list) and all(isinstance(one, dict) for one in given):
        given = {one.get("propertyName", one.get("name")): one for one in given}
    if given is None:
        return {}, {}
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        raise BadEventError("propertyChanges are not properties by name")
    said: dict[str, Any] = {}
    before: dict[str, Any] = {}
    for name, change in given.items():
        if not isinstance(change, dict):
            said[name] = change
            continue
        new = [change[key] for key in ("value", "newValue", "propertyValue") if key in change]
        old = [change[key] for key in ("oldValue", "previousValue") if key in change]
        if not new:
            raise BadEventError(f"the change of property {name!r:.60} has no value")
        said[name] = new[0]
        if old:
            before[name] = old[0]
    return said, before


def _registers(
    about: About, said: Mapping[str, object]
) -> tuple[dict[str, Field], tuple[StageEntry, ...]]:
    """The canonical fields of properties, and every other property under its own name."""
    registers: dict[str, Field] = {}
    entries: tuple[StageEntry, ...] = ()
    kind, mark = about.frame.type, about.mark
    known = PROPERTIES.get(kind, COMMON)
    for name, value in said.items():
        if kind == OPPORTUNITY and name == "dealstage":
            found, entries = stages.registers(value, mark, about.source)
            registers |= found
            continue
        for field, convert in known.get(name) or ((values.own_name(name), values.text),):
            redacted = value == stages.REDACTED_VALUE
            registers[field] = (
                mark.field("redacted") if redacted else fields.field(value, convert, mark)
            )
    return registers, entries


def _creation(about: About) -> list[Fact]:
    said, before = _changes(about.event)
    registers, entries = _registers(about, said)
    # Position 0: any `createdate` knows better than the instant of the event.
    created = Field("value", values.written(about.mark.at), 0, about.mark.by)
    fact = about.fact(
        about.event.object_id,
        "created",
        {"created_at": created} | registers | about.mark.alive(),
        stages=entries,
        completeness="delta" if said else "id_only",
        reread=_missing(about.frame.type, registers) if said else Reread("id_only"),
        said=said,
        before=before,
    )
    return [_signalled(fact)]


def _snapshot(about: About) -> list[Fact]:
    """The journal's answer to a request for an object as it is."""
    said, _ = _changes(about.event)
    registers, entries = _registers(about, said)
    return [
        about.fact(
            about.event.object_id,
            "snapshot",
            registers | about.mark.alive(),
            stages=entries,
            completeness="snapshot",
            said=said,
        )
    ]


def _deletion(about: About) -> list[Fact]:
    gone = about.mark.gone()
    return [about.fact(about.event.object_id, "deleted", gone, completeness="id_only")]


def _restore(about: About) -> list[Fact]:
    fact = about.fact(
        about.event.object_id,
        "restored",
        about.mark.alive(),
        completeness="id_only",
        reread=Reread("id_only"),
    )
    return [fields.signalled(fact)]


def _merge(about: About) -> list[Fact]:
    """Merged records are gone, not lost; sometimes the survivor is a record of its own."""
    event, mark = about.event, about.mark
    named = (event.new_object_id, event.primary_object_id, event.object_id)
    survivor = next((number for number in named if number is not None), None)
    if survivor is None or not event.merged_object_ids:
        raise BadEventError("the merge names no survivor or no merged records")
    ended = {str(number) for number in (event.primary_object_id, *event.merged_object_ids)}
    ended -= {str(survivor), str(None)}
    kept, *gone = (
        values.record_id(about.source.id, number) for number in (survivor, *sorted(ended))
    )
    merge = Merge("survivor", kept, tuple(gone))
    moved = event.number_of_properties_moved
    survived = about.fact(
        survivor,
        "updated",
        mark.alive(),
        completeness="id_only",
        merge=merge,
        reread=Reread("id_only"),
        said={} if moved is None else {"numberOfPropertiesMoved": moved},
    )
    away = about.fact(
        survivor,
        "merged",
        mark.gone(kept),
        completeness="id_only",
        merge=replace(merge, role="merged"),
    )
    return [fields.signalled(one) for one in (survived, *(replace(away, id=n) for n in gone))]


def _association(about: About) -> list[Fact]:
    """A link made or undone; HubSpot sends one event for each of its sides."""
    event, source = about.event, about.source
    near, _, far = (event.association_type or "").lower().partition("_to_")
    to_type = event.to_object_type_id or event.associated_object_type_id or _KIN.sub("", far)
    removed = bool(event.association_removed) or event.action == "ASSOCIATION_REMOVED"
    to = event.associated_object_id if event.to_object_id is None else event.to_object_id
    relation = Relation(
        record_type(to_type, source),
        values.record_id(source.id, to),
        "removed" if removed else "added",
        primary=bool(event.is_primary_association),
    )
    fact = about.fact(
        event.object_id if event.from_object_id is None else event.from_object_id,
        "unlinked" if removed else "linked",
        about.mark.related([relation]),
        relations=(relation,),
        said=_association_said(event),
    )
    if far and not event.object_type_id and not event.from_object_type_id:
        fact = replace(fact, type=record_type(_KIN.sub("", near), source))
    return [fact]


def _association_said(event: Event) -> dict[str, Any]:
    said = {
        "associationType": event.association_type,
        "associationTypeId": event.association_type_id,
        "associationCategory": event.association_category,
        "associationRemoved": event.association_removed,
        "isPrimaryAssociation": event.is_primary_association,
    }
    return {name: value for name, value in said.items() if value is not None}


def _privacy_deletion(about: About) -> list[Fact]:
    erased = about.mark.erased()
    return [about.fact(about.event.object_id, "erased", erased, completeness="id_only")]


READERS: dict[str, Callable[[About], list[Fact]]] = {
    "propertyChange": _property_change,
    "creation": _creation,
    "snapshot": _snapshot,
    "deletion": _deletion,
    "restore": _restore,
    "merge": _merge,
    "associationChange": _association,
    "privacyDeletion": _privacy_deletion,
}
