"""Tables of ingest: records, quarantine, and the replica of the directory."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import BigInteger, DateTime, MetaData
from sqlmodel import Field, SQLModel

from kit import replica

# This service's own: several services' tables may live in one process without meeting.
METADATA = MetaData()


class RecordRow(SQLModel, table=True):
    """A record's last known state; `owner_id` repeats what the body says, for counting."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "record"

    tenant: str = Field(primary_key=True)
    type: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    version: int = Field(sa_type=BigInteger)
    source: str
    owner_id: str
    deleted: bool
    body: bytes


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


class ReplicaRow(replica.ReplicaRow, table=True):
    """The directory, as published."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "replica"


class ReplicaEpochRow(replica.ReplicaEpochRow, table=True):
    """Names of the directory's current sets."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "replica_epoch"
