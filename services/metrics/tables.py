"""The tables of the metrics service; every one keyed by tenant first."""

from datetime import date
from typing import ClassVar

from sqlalchemy import Column, Date, Index, MetaData, Table, Text
from sqlmodel import BigInteger, Field, SQLModel

from kit.replica import ReplicaEpochRow, ReplicaRow

# This service's own: several services' tables may live in one process without meeting.
METADATA = MetaData()

# Ids are compared byte by byte: cheaper than any language's order, and the same on every machine.
ID = Text(collation="C")


class Replica(ReplicaRow, table=True):
    """Directory and goals as last known."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "replica"


class ReplicaEpoch(ReplicaEpochRow, table=True):
    """Which set of directory and goals is current."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "replica_epoch"


class Fact(SQLModel, table=True):
    """What a record contributes, and to whom it is credited (JSON of `domain.credits.Credit`)."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "fact"
    __table_args__ = (Index("fact_by_owner", "tenant", "source", "owner_id"),)

    tenant: str = Field(primary_key=True, sa_type=ID)
    type: str = Field(primary_key=True, sa_type=ID)
    id: str = Field(primary_key=True, sa_type=ID)
    version: int = Field(sa_type=BigInteger)
    source: str = Field(sa_type=ID)
    owner_id: str = Field(sa_type=ID)
    credits: str = Field(sa_type=Text)


# Deltas that wait to be folded. Without key or index, as appending is all that happens to it, and
# therefore a plain table and not a mapped class.
PENDING = Table(
    "pending",
    METADATA,
    Column("tenant", ID, nullable=False),
    Column("metric", ID, nullable=False),
    Column("unit", ID, nullable=False),
    Column("person", ID, nullable=False),
    Column("teams", ID, nullable=False),  # joined with domain.credits.TEAM_SEPARATOR
    Column("day", Date, nullable=False),
    Column("value", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("received", BigInteger, nullable=False),  # µs, 0 when no waiting record caused it
)


class Counter(SQLModel, table=True):
    """The sum of folded deltas; a row with count 0 means that there is no data any more."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "counter"

    tenant: str = Field(primary_key=True, sa_type=ID)
    metric: str = Field(primary_key=True, sa_type=ID)
    grain: str = Field(primary_key=True, sa_type=ID)
    start: date = Field(primary_key=True)
    unit: str = Field(primary_key=True, sa_type=ID)
    subject: str = Field(primary_key=True, sa_type=ID)
    value: int = Field(sa_type=BigInteger)
    count: int = Field(sa_type=BigInteger)
    version: int = Field(sa_type=BigInteger)


class Unpublished(SQLModel, table=True):
    """Counters that changed since they were last published."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "unpublished"

    tenant: str = Field(primary_key=True, sa_type=ID)
    metric: str = Field(primary_key=True, sa_type=ID)
    grain: str = Field(primary_key=True, sa_type=ID)
    start: date = Field(primary_key=True)
    unit: str = Field(primary_key=True, sa_type=ID)
    subject: str = Field(primary_key=True, sa_type=ID)
    version: int = Field(sa_type=BigInteger)


class FoldState(SQLModel, table=True):
    """A number that moves with everything a board of the tenant is made from."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "fold_state"

    tenant: str = Field(primary_key=True, sa_type=ID)
    sequence: int = Field(sa_type=BigInteger)
