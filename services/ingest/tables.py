"""Tables of ingest: records, quarantine, and the replica of the directory."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import ARRAY, BigInteger, DateTime, Index, MetaData, String
from sqlmodel import Field, SQLModel

from kit import replica

# This service's own: several services' tables may live in one process without meeting.
METADATA = MetaData()


class RecordRow(SQLModel, table=True):
    """A record's last known state; `owner_id` repeats what the body says, for counting."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "record"
    __table_args__ = (
        Index("record_of_stage", "tenant", "source", "stage", postgresql_where="stage <> ''"),
    )

    tenant: str = Field(primary_key=True)
    type: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    version: int = Field(sa_type=BigInteger)
    source: str
    owner_id: str
    deleted: bool
    body: bytes
    stage: str  # of a deal, so that those in a stage are found when its meaning changes


class QuarantineRow(SQLModel, table=True):
    """An item that could not be read; `request` is the request as if it had carried only this."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "quarantine"

    tenant: str = Field(primary_key=True)
    received: str = Field(primary_key=True)
    index: int = Field(primary_key=True)
    source: str
    vendor: str
    received_at: datetime = Field(sa_type=DateTime(timezone=True))
    reason: str
    raw: bytes
    request: bytes


class EventRow(SQLModel, table=True):
    """A fact as it came in: the trace of an event, and what duplicates are counted from."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "event"
    __table_args__ = (
        Index("event_of_record", "tenant", "id", "type"),
        Index("event_of_vendor", "tenant", "vendor_event"),
    )

    tenant: str = Field(primary_key=True)
    received: str = Field(primary_key=True)
    index: int = Field(primary_key=True)
    number: int = Field(primary_key=True)  # one item may say several things
    source: str
    type: str
    id: str
    op: str
    at: int = Field(sa_type=BigInteger)
    vendor_event: str
    uid: bytes
    digest: bytes


class RereadRow(SQLModel, table=True):
    """Something to be read from the CRM; an empty `id` means the whole type.

    `wanted` names the latest wish, so that a wish that comes while an answer is under way isn't
    taken for answered.
    """

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "reread"
    __table_args__ = (Index("reread_due", "tenant", "source", "next_at"),)

    tenant: str = Field(primary_key=True)
    source: str = Field(primary_key=True)
    type: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    reason: str
    fields: list[str] = Field(sa_type=ARRAY(String))
    wanted_at: datetime = Field(sa_type=DateTime(timezone=True))
    wanted: int = Field(sa_type=BigInteger)
    attempts: int
    refused: int  # in a row: answers that didn't have it
    next_at: datetime = Field(sa_type=DateTime(timezone=True))
    leased_until: datetime | None = Field(sa_type=DateTime(timezone=True))
    problem: str
    place: str  # how far the reading of a whole type has come
    vendor_type: str


class GrantRow(SQLModel, table=True):
    """What a CRM gave for a source's refresh token, sealed; `configured` tells which it began with.

    The only table that can't be made again from topics: in its own schema it outlives a rebuild.
    """

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "crm_grant"
    __table_args__ = {"schema": "credentials"}

    tenant: str = Field(primary_key=True)
    source: str = Field(primary_key=True)
    configured: str
    sealed: str


class ReplicaRow(replica.ReplicaRow, table=True):
    """The directory, as published."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "replica"


class ReplicaEpochRow(replica.ReplicaEpochRow, table=True):
    """Names of the directory's current sets."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "replica_epoch"
