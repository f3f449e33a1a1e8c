"""The tables of payouts. All are keyed by tenant first."""

from datetime import date, datetime
from decimal import Decimal
from typing import ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    MetaData,
    Numeric,
    UniqueConstraint,
    func,
)
from sqlmodel import Field, SQLModel

from kit.replica import ReplicaEpochRow, ReplicaRow

# This service's own: several services' tables may live in one process without meeting.
METADATA = MetaData()


class Replica(ReplicaRow, table=True):
    """Directory entries, goals and plans as last seen."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "replica"


class ReplicaEpoch(ReplicaEpochRow, table=True):
    """Names the current set of a tenant's replicated states."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "replica_epoch"


class Record(SQLModel, table=True):
    """What is known of a creditable record: enough to credit it again under other plans."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "record"
    __table_args__ = (Index("record_owner", "tenant", "source", "owner_id"),)

    tenant: str = Field(primary_key=True)
    type: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    version: int = Field(sa_type=BigInteger)
    deleted: bool
    source: str
    owner_id: str
    fields: str  # JSON: the known values by name


class Credit(SQLModel, table=True):
    """What a record does in a component, for a payee and period.

    Rows are never removed: an inactive one says which statement the record used to count in, so
    that a redelivered message can publish that statement again. A `reason` makes it a finding.
    """

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "credit"
    __table_args__ = (Index("credit_statement", "tenant", "payee", "plan", "period"),)

    tenant: str = Field(primary_key=True)
    record_type: str = Field(primary_key=True)
    record_id: str = Field(primary_key=True)
    plan: str = Field(primary_key=True)
    component: str = Field(primary_key=True)
    payee: str = Field(primary_key=True)
    period: str = Field(primary_key=True)
    active: bool
    reason: str
    day: date | None
    basis: Decimal | None = Field(sa_type=Numeric)
    amount: Decimal | None = Field(sa_type=Numeric)
    currency: str


class Statement(SQLModel, table=True):
    """A payee's pay for a period of a plan: the sums. `posted` counts its transfers."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "statement"

    tenant: str = Field(primary_key=True)
    payee: str = Field(primary_key=True)
    plan: str = Field(primary_key=True)
    period: str = Field(primary_key=True)
    plan_revision: int
    currency: str
    earned_minor: Decimal = Field(sa_type=Numeric)
    credited: Decimal = Field(sa_type=Numeric)
    quota: Decimal | None = Field(sa_type=Numeric)
    attainment: Decimal | None = Field(sa_type=Numeric)
    tier: int
    lines: int
    components: str  # JSON: the sums and the finding of each component
    posted: int = Field(sa_type=BigInteger)
    version: int = Field(sa_type=BigInteger)


class StatementLine(SQLModel, table=True):
    """One credit's pay, as far as it is posted to the ledger, and how it came about."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "statement_line"

    tenant: str = Field(primary_key=True)
    payee: str = Field(primary_key=True)
    plan: str = Field(primary_key=True)
    period: str = Field(primary_key=True)
    component: str = Field(primary_key=True)
    record_type: str = Field(primary_key=True)
    record_id: str = Field(primary_key=True)
    day: date
    credited: Decimal = Field(sa_type=Numeric)
    currency: str
    posted_minor: int = Field(sa_type=BigInteger)
    explain: str  # JSON


class Transfer(SQLModel, table=True):
    """An amount from one account to another: balanced by construction, and never changed.

    (tenant, statement, number) is the idempotency key: a statement's n-th transfer exists once.
    """

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "transfer"
    __table_args__ = (
        UniqueConstraint("tenant", "statement", "number", name="transfer_once"),
        CheckConstraint("debit <> credit", name="transfer_moves"),
        CheckConstraint("amount_minor > 0", name="transfer_positive"),
    )

    id: int | None = Field(
        default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True)
    )
    tenant: str
    statement: str  # payee/plan/period
    number: int = Field(sa_type=BigInteger)
    line: str  # component/record type/record id
    debit: str
    credit: str
    amount_minor: int = Field(sa_type=BigInteger)
    currency: str
    cause: str
    posted_at: datetime = Field(
        sa_column=Column(
            DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()
        )
    )
