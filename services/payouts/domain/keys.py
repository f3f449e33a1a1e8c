"""What things are called: records and statements, in the order in which they are locked."""

from datetime import date
from typing import NamedTuple

from schemas.crm import Record


class RecordKey(NamedTuple):
    """One record of a tenant."""

    tenant: str
    type: str
    id: str


class StatementKey(NamedTuple):
    """One payee's pay for one period of a plan."""

    tenant: str
    payee: str
    plan: str
    period: str

    def __str__(self) -> str:
        return f"{self.payee}/{self.plan}/{self.period}"


class Position(NamedTuple):
    """Where a credit stands in the order in which credits count."""

    day: date
    record_type: str
    record_id: str


START = Position(date.min, "", "")


class LineKey(NamedTuple):
    """One credit within a statement."""

    component: str
    record_type: str
    record_id: str

    def __str__(self) -> str:
        return f"{self.component}/{self.record_type}/{self.record_id}"


def key_of(record: Record) -> RecordKey:
    """The record's key."""
    return RecordKey(record.tenant, record.type, record.id)
