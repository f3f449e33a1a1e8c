"""The tables of the database `notifications`; keyed by tenant first, no behaviour."""

from datetime import date, datetime
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import Column, Date, DateTime, Index, MetaData, Numeric, Text
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import BigInteger, Field, SQLModel

from kit.replica import ReplicaEpochRow, ReplicaRow

# This service's own: several services' tables may live in one process without meeting.
METADATA = MetaData()


class ReplicaTable(ReplicaRow, table=True):
    """The directory, as last published."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "replica"


class ReplicaEpochTable(ReplicaEpochRow, table=True):
    """A name for each tenant's current directory."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "replica_epoch"


class RecordSeen(SQLModel, table=True):
    """The newest version of each record that rules look at, cut down to what they look at.

    `placed_at` is set while some rule selects the record, whatever the directory says.
    """

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "record_seen"
    __table_args__ = (
        Index(
            "record_seen_placed", "tenant", "placed_at", postgresql_where="placed_at IS NOT NULL"
        ),
    )

    tenant: str = Field(primary_key=True)
    type: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    version: int = Field(sa_type=BigInteger)
    body: bytes
    placed_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))


class MeasureSeen(SQLModel, table=True):
    """People's newest counts of a day, for the metrics that rules use."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "measure_seen"

    tenant: str = Field(primary_key=True)
    person: str = Field(primary_key=True)
    day: date = Field(primary_key=True, sa_type=Date)
    metric: str = Field(primary_key=True)
    version: int = Field(sa_type=BigInteger)
    value: Decimal = Field(sa_type=Numeric)


class MeasuredFrom(SQLModel, table=True):
    """The first day for which a tenant has any count: before it, no count means nothing.

    `watched_from` is the first day that the tenant's watches were last set back for.
    """

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "measured_from"

    tenant: str = Field(primary_key=True)
    day: date = Field(sa_type=Date)
    watched_from: date | None = Field(default=None, sa_type=Date)


class Watch(SQLModel, table=True):
    """A person's day to be looked at when it is due. With `chain`, the next day follows it."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "watch"
    __table_args__ = (Index("watch_due", "due_at", "tenant"),)

    tenant: str = Field(primary_key=True)
    day: date = Field(primary_key=True, sa_type=Date)
    rule: str = Field(primary_key=True)
    person: str = Field(primary_key=True)
    due_at: datetime = Field(sa_type=DateTime(timezone=True))
    chain: bool


class AlertTable(SQLModel, table=True):
    """One row per rule, subject and window, ever. `about` is the person whom it is about."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "alert"
    __table_args__ = (
        Index("alert_unpublished", "tenant", postgresql_where="unpublished"),
        Index("alert_listed", "tenant", "raised_at", "rule", "subject", "window_key"),
        Index("alert_about", "tenant", "about"),
    )

    tenant: str = Field(primary_key=True)
    rule: str = Field(primary_key=True)
    subject: str = Field(primary_key=True)
    window_key: str = Field(primary_key=True)
    version: int = Field(sa_type=BigInteger)
    state: str
    title: str
    text: str
    evidence: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    audience: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))
    about: str
    raised_at: datetime = Field(sa_type=DateTime(timezone=True))
    resolved_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    unpublished: bool = Field(sa_column_kwargs={"server_default": sql("true")})


class DeliveryTable(SQLModel, table=True):
    """One message on one channel to one recipient: due, sent, parked or withdrawn.

    `sequence` orders what has been put into inboxes, and only grows.
    """

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "delivery"
    __table_args__ = (
        Index("delivery_due", "channel", "due_at", postgresql_where="state = 'due'"),
        Index("delivery_alert", "tenant", "rule", "subject", "window_key"),
        Index(
            "delivery_inbox",
            "tenant",
            "recipient",
            "sequence",
            "id",
            postgresql_where="sequence > 0",
        ),
        Index("delivery_sequence", "sequence", postgresql_where="sequence > 0"),
        Index("delivery_listed", "tenant", "created_at", "id"),
    )

    tenant: str = Field(primary_key=True)
    id: UUID = Field(primary_key=True)
    rule: str
    subject: str
    window_key: str
    channel: str
    recipient: str
    state: str
    attempts: int = Field(sa_column_kwargs={"server_default": sql("0")})
    due_at: datetime = Field(sa_type=DateTime(timezone=True))
    created_at: datetime = Field(sa_type=DateTime(timezone=True))
    sent_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    read_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    sequence: int = Field(sa_type=BigInteger, sa_column_kwargs={"server_default": sql("0")})
    last_error: str = Field(sa_column_kwargs={"server_default": sql("''")})


class EndpointDisabled(SQLModel, table=True):
    """Webhook addresses that answered 410: nothing more is sent there until the address changes."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "endpoint_disabled"

    tenant: str = Field(primary_key=True)
    endpoint: str = Field(primary_key=True)
    url: str = Field(primary_key=True)
    at: datetime = Field(sa_type=DateTime(timezone=True))
