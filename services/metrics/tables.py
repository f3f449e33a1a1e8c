"""The tables of the metrics service; every one keyed by tenant first."""

from datetime import date, datetime
from typing import ClassVar

from sqlalchemy import ARRAY, Column, Date, DateTime, Index, MetaData, Table, Text
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
    shares: str = Field(sa_type=Text)  # of a shared record, as its field says
    territories: str = Field(sa_type=Text)  # whose rules it meets, joined with SEPARATOR
    name: str = Field(sa_type=Text)  # what people call the record
    credits: str = Field(sa_type=Text)


class SharedFact(SQLModel, table=True):
    """Which facts have shares of which owner; rows may be left over from former shares."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "shared_fact"

    tenant: str = Field(primary_key=True, sa_type=ID)
    source: str = Field(primary_key=True, sa_type=ID)
    owner_id: str = Field(primary_key=True, sa_type=ID)
    type: str = Field(primary_key=True, sa_type=ID)
    id: str = Field(primary_key=True, sa_type=ID)


# Deltas that wait to be folded. Without key or index, as appending is all that happens to it, and
# therefore a plain table and not a mapped class.
PENDING = Table(
    "pending",
    METADATA,
    Column("tenant", ID, nullable=False),
    Column("metric", ID, nullable=False),
    Column("unit", ID, nullable=False),
    Column("person", ID, nullable=False),
    Column("subjects", ID, nullable=False),  # joined with domain.credits.SEPARATOR
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
    """`sequence` moves with everything a board of the tenant is made from.

    From `changes_from` on, `slice_change` says all that has happened to counters.
    """

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "fold_state"

    tenant: str = Field(primary_key=True, sa_type=ID)
    sequence: int = Field(sa_type=BigInteger)
    changes_from: int = Field(
        default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"}
    )


# The counters that a fold has changed, as they were then: a row for each metric, period and unit,
# kept until a fold some seconds later. Its lists go together, so that it is no mapped class either.
SLICE_CHANGE = Table(
    "slice_change",
    METADATA,
    Column("tenant", ID, primary_key=True),
    Column("version", BigInteger, primary_key=True),  # the sequence that the fold has set
    Column("metric", ID, primary_key=True),
    Column("grain", ID, primary_key=True),
    Column("start", Date, primary_key=True),
    Column("unit", ID, primary_key=True),
    Column("subjects", ARRAY(Text), nullable=False),
    Column("values", ARRAY(BigInteger), nullable=False),
    Column("counts", ARRAY(BigInteger), nullable=False),
)


class Recount(SQLModel, table=True):
    """A tenant's last recount of the past: what for, and how far it is.

    `scan` names the reading of the topic that it takes part in, empty before it has begun.
    """

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "recount"

    tenant: str = Field(primary_key=True, sa_type=ID)
    types: str = Field(sa_type=Text)  # record types, separated by spaces
    reason: str = Field(sa_type=Text)
    requested_at: datetime = Field(sa_type=DateTime(timezone=True))
    scan: str = Field(sa_type=ID)
    positions: str = Field(sa_type=Text)  # JSON: offset by partition
    ends: str = Field(sa_type=Text)
    done: int = Field(sa_type=BigInteger)  # messages read, of `total`
    total: int = Field(sa_type=BigInteger)
    finished_at: datetime | None = Field(sa_type=DateTime(timezone=True), nullable=True)


class Display(SQLModel, table=True):
    """What a display outside was last told, or is to be told.

    `event` is its id, `document` the version of the configuration that it was made for. `due_at` is
    null when nothing is to be sent; while it is being sent, it is when somebody else may.
    """

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "display"

    tenant: str = Field(primary_key=True, sa_type=ID)
    id: str = Field(primary_key=True, sa_type=ID)
    document: int = Field(sa_type=BigInteger)
    places: str = Field(sa_type=Text)  # JSON: the order that the event shows
    event: str = Field(sa_type=ID)
    body: bytes
    made_at: datetime = Field(sa_type=DateTime(timezone=True))
    due_at: datetime | None = Field(sa_type=DateTime(timezone=True), nullable=True)
    failures: int = Field(sa_type=BigInteger)  # in a row
    delivered: str = Field(default="", sa_type=ID, sa_column_kwargs={"server_default": ""})
    delivered_at: datetime | None = Field(sa_type=DateTime(timezone=True), nullable=True)
    status: str = Field(sa_type=Text)


class CatalogueSeen(SQLModel, table=True):
    """What the shipped catalogue made of each record type when this store was last served."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "catalogue_seen"

    type: str = Field(primary_key=True, sa_type=ID)
    digest: str = Field(sa_type=ID)
