"""Salesforce's objects as records: which type each becomes, and what its fields mean.

A field that isn't there says nothing; None has been emptied. Lookups keep their own names, because
an event never says which record one pointed to before; those that it says are relations too.

Which activity a Task is, only its TaskSubtype says, and an update has it only where the channel is
enriched with it. Without it such an update is kept and the Task is asked for, because a call must
not become a task beside itself. `types: {Task: task}` in the source makes every Task one.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from schemas.crm import CALL, EMAIL, MEETING, OPPORTUNITY, Field, Scalar, StageEntry
from services.ingest.domain import fields, stages, values
from services.ingest.domain.facts import (
    Fact,
    Mark,
    Merge,
    Op,
    Relation,
    Reread,
    stage_of,
)
from services.ingest.domain.sources import Source, Stages

TASK = "task"
FULL = frozenset({"created", "restored", "snapshot"})  # what isn't there is empty or not told
_TYPES = {
    "Opportunity": OPPORTUNITY,
    "Lead": "lead",
    "Contact": "contact",
    "Account": "account",
    "Task": TASK,
    "Event": MEETING,
    "User": "user",
    "OpportunityStage": "stage",
    "Quote": "quote",
    "Product2": "product",
    "OpportunityLineItem": "line_item",
}
_SUBTYPES = {"Call": CALL, "Email": EMAIL}  # of Task; every other is a task
_PEOPLE = frozenset({"lead", "contact", "account", "user"})
_NAME_PARTS = ("FirstName", "MiddleName", "LastName", "Suffix")
_LOOKUPS = {
    "AccountId": "account",
    "ContactId": "contact",
    "OpportunityId": OPPORTUNITY,
    "QuoteId": "quote",
    "Product2Id": "product",
    "ConvertedAccountId": "account",
    "ConvertedContactId": "contact",
    "ConvertedOpportunityId": OPPORTUNITY,
}
_EITHER = ("WhoId", "WhatId")  # what they point to, the id's first characters say
_PREFIXES = {
    "001": "account",
    "003": "contact",
    "006": OPPORTUNITY,
    "00Q": "lead",
    "0Q0": "quote",
}
# Standard names of stages; a source that configures its own replaces them.
_STANDARD = Stages(won=frozenset({"Closed Won"}), lost=frozenset({"Closed Lost"}))
_UNCONFIGURED = Stages()
_NOT_STARTED = frozenset({"Not Started", "In Progress", "Waiting on someone else", "Deferred"})

_ID = re.compile(r"[A-Za-z0-9]{15}")
_CHECK = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"


def eighteen(number: Any) -> Any:
    """A record's id in the form of 18 characters, the last 3 of which say what is a capital.

    The form of 15 differs from another only by case. What is no id of Salesforce's stays as it is.
    """
    if not isinstance(number, str) or not _ID.fullmatch(number):
        return number
    chunks = (number[start : start + 5] for start in (0, 5, 10))
    bits = (sum(char.isupper() << place for place, char in enumerate(chunk)) for chunk in chunks)
    return number + "".join(_CHECK[found] for found in bits)


def type_of(entity: str, source: Source) -> str:
    """Our type of a Salesforce object: the source's choice, the usual one, or one of its own."""
    return fields.type_of(entity, source, _TYPES)


def types_of(entity: str, source: Source) -> tuple[str, ...]:
    """All the types that a record of this object may be, where only its id is known."""
    kind = type_of(entity, source)
    return (kind, *_SUBTYPES.values()) if _is_split(entity, source) else (kind,)


class Told(msgspec.Struct, frozen=True):
    """What an event tells of one record."""

    entity: str
    number: str  # the vendor's id
    stated: Mapping[str, Any]  # a compound field's as Parent.Child
    untold: Mapping[str, Any] = {}  # changed, to what isn't said; and what is said instead


def record(base: Fact, told: Told, mark: Mark, source: Source) -> list[Fact]:
    """The facts about one record; `base` has what they share with others of the event."""
    instead = {name: value for name, value in told.untold.items() if value is not None}
    said = {**told.stated, **instead, **base.said}
    base = msgspec.structs.replace(base, vendor_type=told.entity, said=said)
    survivor = told.stated.get("MasterRecordId")
    if base.op == "deleted" or _is_true(told.stated.get("IsDeleted")) or survivor:
        return _gone(base, told, survivor, mark, source)
    if told.entity == "OpportunityStage":
        return [_stage(base, told, mark, source)]
    kind = _kind(base, told, source)
    number = values.record_id(source.id, told.number)
    if kind is None:
        asked = msgspec.structs.replace(base, type=TASK, id=number, reread=Reread("missing_fields"))
        return [fields.signalled(asked)]
    reading = _Reading(base, told, kind, mark, source)
    return [reading.fact(number)]


def _is_true(value: object) -> bool:
    return value is not None and values.flag(value)


def _is_split(entity: str, source: Source) -> bool:
    return entity == "Task" and entity not in source.types


def _kind(base: Fact, told: Told, source: Source) -> str | None:
    """The record's type; None where only the CRM knows."""
    kind = type_of(told.entity, source)
    if not _is_split(told.entity, source):
        return kind
    if "TaskSubtype" in told.stated:
        return _SUBTYPES.get(told.stated["TaskSubtype"], kind)
    return kind if base.op in ("created", "restored") else None


def _gone(base: Fact, told: Told, survivor: Any, mark: Mark, source: Source) -> list[Fact]:
    """Deleted, or merged where it says into what; of an unknown type, as each that it may be."""
    number = values.record_id(source.id, told.number)
    op: Op = "deleted"
    into, merge = "", None
    if survivor:
        op, into = "merged", values.record_id(source.id, eighteen(survivor))
        merge = Merge("merged", into, (number,))
    return [
        fields.signalled(
            msgspec.structs.replace(
                base, type=kind, id=number, op=op, fields=mark.gone(into), merge=merge
            )
        )
        for kind in types_of(told.entity, source)
    ]


class _Reading:
    """One record's fields while they are read."""

    def __init__(self, base: Fact, told: Told, kind: str, mark: Mark, source: Source) -> None:
        self.base, self.told, self.kind, self.mark, self.source = base, told, kind, mark, source
        self.stated = told.stated
        self.entries: tuple[StageEntry, ...] = ()
        self.op = base.op
        self.asked: set[str] = set()  # canonical fields that must be read from the CRM
        table = {**_COMMON, **_TABLES.get(kind, {})}
        self.fields = fields.read(self.stated, table, mark, apart=_APART)
        self._untold(table)
        if kind in _PEOPLE:
            self._name()
        if kind == OPPORTUNITY:
            self._stage()
        elif kind == "lead":
            self._conversion()
        elif kind == MEETING:
            self._meeting()
        elif told.entity == "Task":
            self._task()

    def fact(self, number: str) -> Fact:
        """What was read."""
        changed = set() if self.base.op in FULL else set(self.fields)
        found = msgspec.structs.replace(
            self.base,
            type=self.kind,
            id=number,
            op=self.op,
            fields=self.fields | self.mark.alive(),
            stages=self.entries,
            relations=_relations(self.stated, self.source),
            reread=Reread("missing_fields", tuple(sorted(self.asked))) if self.asked else None,
        )
        return fields.signalled(found, changed, stage_decides=self.kind == OPPORTUNITY)

    def _untold(self, table: fields.Table) -> None:
        """A field that changed and isn't shown is no longer known."""
        for name in self.told.untold:
            shown = [table[name][0] if name in table else f"x_{name}"]
            if self.kind == OPPORTUNITY and name == "StageName":
                shown = ["stage", "status", "closed_at"]
            self.fields |= {one: self.mark.field("unknown") for one in shown}
            self.asked.update(shown)

    def _name(self) -> None:
        """A person's name, which comes in parts; of some parts no whole can be made."""
        parts = [self.stated.get(f"Name.{part}", self.stated.get(part)) for part in _NAME_PARTS]
        told = any(f"Name.{part}" in self.stated or part in self.stated for part in _NAME_PARTS)
        if not told or "Name" in self.stated:
            return
        if self.base.op in FULL:
            whole = " ".join(values.text(part) for part in parts if not values.empty(part))
            self.fields["name"] = fields.field(whole, values.text, self.mark)
        else:
            self.fields["name"] = self.mark.field("unknown")
            self.asked.add("name")

    def _stage(self) -> None:
        """The stage and what it means. When it began, only an event of its change says."""
        if "StageName" not in self.stated:
            return
        stage = self.stated["StageName"]
        meaning = msgspec.structs.replace(self.source, stages=_meaning(self.stated, self.source))
        found, self.entries = stages.registers(stage, self.mark, meaning)
        self.fields |= found
        if self.base.op not in ("restored", "snapshot") or not self.entries:
            return
        since = self.stated.get("LastStageChangeDate")
        if not values.empty(since):
            at = _micros(since)
            self.entries = (StageEntry(at, self.entries[0].stage),)
            if found["closed_at"].state == "value":
                self.fields["closed_at"] = Mark(self.mark.at, found["closed_at"].by).value(
                    values.written(at)
                )
        elif found["closed_at"].state == "value":
            # Closed by then: whatever knows when is better, and of those that don't the earliest.
            early = f"{values.LATEST_US - self.mark.at:016d}"
            self.fields["closed_at"] = Field("value", values.written(self.mark.at), 0, early)
            self.asked.add("closed_at")

    def _conversion(self) -> None:
        if not _is_true(self.stated.get("IsConverted")):
            return
        if self.base.op in FULL:
            since = self.stated.get("ConvertedDate")  # a day
            if not values.empty(since):
                self.fields["converted_at"] = self.mark.value(_instant(since))
        else:
            self.op = "converted"
            self.fields["converted_at"] = self.mark.value(values.written(self.mark.at))

    def _meeting(self) -> None:
        for name in ("StartDateTime", "ActivityDateTime"):
            if not values.empty(self.stated.get(name)):
                self.fields["occurred_at"] = self.mark.value(_instant(self.stated[name]))
                return
        if not values.empty(self.stated.get("ActivityDate")):
            self.fields["occurred_at"] = self.mark.value(_noon(self.stated["ActivityDate"]))

    def _task(self) -> None:
        """Whether it is done, and when; a task that is logged as done may have been so before."""
        done = _is_done(self.stated)
        if done is not None:
            self.fields["done"] = self.mark.value(done)
        elif not values.empty(self.stated.get("Status")):  # a company's own, open or closed
            self.fields["done"] = self.mark.field("unknown")
            self.asked.add("done")
        completed, day = self.stated.get("CompletedDateTime"), self.stated.get("ActivityDate")
        at = None if values.empty(completed) else _instant(completed)
        if not values.empty(day):
            noon = _noon(day)
            if at is None or (self.base.op == "created" and at[:10] != noon[:10]):
                at = noon
        if at is None and done is True and self.base.op not in ("restored", "snapshot"):
            at = values.written(self.mark.at)
        if at is not None:
            self.fields["occurred_at"] = self.mark.value(at)


def _meaning(stated: Mapping[str, Any], source: Source) -> Stages:
    """What the stage means: by the record itself, the source's configuration, or its usual name."""
    stage = frozenset({stage_of(values.text(stated["StageName"]))})
    won, closed = stated.get("IsWon"), stated.get("IsClosed")
    if _is_true(won):
        return Stages(won=stage, lost=frozenset())
    if won is not None and _is_true(closed):
        return Stages(won=frozenset(), lost=stage)
    if closed is not None and not values.flag(closed):
        return Stages(won=frozenset(), lost=frozenset())
    return _STANDARD if source.stages == _UNCONFIGURED else source.stages


def _is_done(stated: Mapping[str, Any]) -> bool | None:
    closed = stated.get("IsClosed")
    if closed is not None:
        return values.flag(closed)
    status = stated.get("Status")
    if status == "Completed" or not values.empty(stated.get("CompletedDateTime")):
        return True
    if status in _NOT_STARTED or "CompletedDateTime" in stated:
        return False
    return None


def _relations(stated: Mapping[str, Any], source: Source) -> tuple[Relation, ...]:
    found = []
    for name, kind in _LOOKUPS.items():
        if not values.empty(stated.get(name)):
            found.append(Relation(kind, values.record_id(source.id, eighteen(stated[name]))))
    for name in _EITHER:
        number = stated.get(name)
        pointed = _PREFIXES.get(number[:3]) if isinstance(number, str) else None
        if pointed is not None:
            found.append(Relation(pointed, values.record_id(source.id, eighteen(number))))
    return tuple(found)


def _stage(base: Fact, told: Told, mark: Mark, source: Source) -> Fact:
    """What a stage means. Deals name it by its API name, and so does its record."""
    stated = told.stated
    name = stated.get("ApiName") or stated.get("MasterLabel")
    if values.empty(name):
        asked = msgspec.structs.replace(
            base, type="stage", id="", op="gap", reread=Reread("missing_fields")
        )
        return fields.signalled(asked)
    found = fields.read(stated, _STAGE, mark, apart=_APART | {"IsWon", "IsClosed"})
    won, closed = stated.get("IsWon"), stated.get("IsClosed")
    if _is_true(won):
        found["status"] = mark.value("won")
    elif closed is not None:
        if values.flag(closed):
            found["status"] = mark.value("lost") if won is not None else mark.field("unknown")
        else:
            found["status"] = mark.value("open")
    return msgspec.structs.replace(
        base,
        type="stage",
        id=stages.record_id(source.id, stage_of(values.text(name))),
        fields=found | mark.alive(),
    )


def _micros(value: Any) -> int:
    """An instant: ISO text, or ms since the epoch where events come as Avro."""
    return values.micros(value, "ms" if isinstance(value, int) else "auto")


def _instant(value: Any) -> str:
    return values.written(_micros(value))


def _noon(value: Any) -> str:
    return values.written(values.noon(_micros(value)))


def _day_over(value: Any) -> str:
    return values.written(values.noon(_micros(value)) + values.DAY_US)


def _reference(value: Any) -> Scalar:
    return values.text(eighteen(value))


def _minutes(value: Any) -> Scalar:
    return values.seconds(value) * 60


def _direction(value: Any) -> Scalar:
    return values.text(value).lower()


_COMMON: fields.Table = {
    "OwnerId": ("owner_id", _reference),
    "CreatedDate": ("created_at", _instant),
} | {name: (f"x_{name}", _reference) for name in (*_LOOKUPS, *_EITHER)}
_NAMED: fields.Table = {"Name": ("name", values.text)}
_TASK: fields.Table = {
    "Subject": ("name", values.text),
    "CallDurationInSeconds": ("duration_seconds", values.seconds),
    "CallType": ("direction", _direction),
    "CallDisposition": ("outcome", values.text),
}
_TABLES: Mapping[str, fields.Table] = {
    OPPORTUNITY: {
        **_NAMED,
        "Amount": ("amount", values.amount),
        "CurrencyIsoCode": ("currency", values.currency),
        "CloseDate": ("expected_close", _noon),
        "Probability": ("probability", values.percent),
        "Type": ("deal_type", fields.deal_type),
        "TotalOpportunityQuantity": ("quantity", values.amount),
    },
    "lead": {
        **_NAMED,
        "Status": ("status", values.text),
        "LeadSource": ("lead_source", values.text),
    },
    "contact": {**_NAMED, "Email": ("email", values.text)},
    "account": {**_NAMED, "PersonEmail": ("email", values.text)},
    "user": {
        **_NAMED,
        "Email": ("email", values.text),
        "IsActive": ("active", values.flag),
    },
    TASK: {
        **_TASK,
        "ActivityDate": ("due_at", _day_over),
        "CompletedDateTime": ("completed_at", _instant),
    },
    CALL: _TASK,
    EMAIL: _TASK,
    MEETING: {
        "Subject": ("name", values.text),
        "DurationInMinutes": ("duration_seconds", _minutes),
    },
    **dict.fromkeys(("product", "line_item", "quote"), _NAMED),
}
_STAGE: fields.Table = {
    "MasterLabel": ("name", values.text),
    "SortOrder": ("rank", fields.whole),
    "DefaultProbability": ("probability", values.amount),
}
# About the row, or read by functions of their own.
_APART = frozenset(
    {
        *("Id", "IsDeleted", "MasterRecordId", "LastModifiedDate", "SystemModstamp"),
        *("StageName", "LastStageChangeDate", "IsWon", "IsClosed"),
    }
)
