"""The last known state of every key of a small topic, kept beside what it is applied to.

Goals, directories and plans are read whole and change rarely. `Replica.store` keeps them by version
in the service's own database; `load` gives a tenant's current states and caches them for as long as
the tenant's epoch, which every change moves, stays the same.

Writers hold `lock` alone and readers share it, so that what is credited with a configuration and
the re-crediting after its change can't miss each other.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import uuid4

from sqlmodel import BigInteger, Field, SQLModel

from kit.database import Transaction
from schemas.base import State

S = TypeVar("S", bound=State)
T = TypeVar("T")

_STORE = """
WITH stored AS (
    INSERT INTO replica AS r (topic, tenant, key, version, body)
    SELECT $1, t, k, v, b FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bytea[])
        AS new (t, k, v, b) ORDER BY t, k
    ON CONFLICT (tenant, topic, key) DO UPDATE SET version = excluded.version, body = excluded.body
    WHERE r.version < excluded.version
    RETURNING r.tenant, r.key
), moved AS (
    INSERT INTO replica_epoch (topic, tenant, epoch)
    SELECT DISTINCT $1, tenant, $6 FROM stored
    ON CONFLICT (tenant, topic) DO UPDATE SET epoch = excluded.epoch
)
SELECT key FROM stored
"""


class ReplicaRow(SQLModel):
    """Columns of the table `replica`; a service with replicas declares it with `table=True`."""

    tenant: str = Field(primary_key=True)
    topic: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    version: int = Field(sa_type=BigInteger)
    body: bytes


class ReplicaEpochRow(SQLModel):
    """Columns of the table `replica_epoch`: a name for the current set of a tenant's states.

    A random name and not a count: a count would be reused after a rollback, and a cache filled
    inside the transaction that was rolled back would then look current.
    """

    tenant: str = Field(primary_key=True)
    topic: str = Field(primary_key=True)
    epoch: str


@dataclass(slots=True)
class _Cached(Generic[S]):
    epoch: str
    states: list[S]


class Replica(Generic[S]):
    """One topic's states in this service's store."""

    def __init__(self, kind: type[S]) -> None:
        self._kind = kind
        self._cache: dict[str, _Cached[S]] = {}

    def lock_name(self, tenant: str) -> str:
        """The lock that changes hold alone and that those who rely on the states share."""
        return f"{self._kind.topic}/{tenant}"

    async def store(self, transaction: Transaction, states: Sequence[S]) -> list[S]:
        """Keep those that are newer than what is known, and return just them.

        Locks out everyone who relies on these tenants' states until the transaction ends.
        """
        if not states:
            return []
        for tenant in sorted({state.tenant for state in states}):
            await transaction.lock(self.lock_name(tenant))
        rows = await transaction.driver.fetch(
            _STORE,
            self._kind.topic,
            [state.tenant for state in states],
            [state.key for state in states],
            [state.version for state in states],
            [state.encode() for state in states],
            uuid4().hex,
        )
        for tenant in {state.tenant for state in states}:
            transaction.epochs.pop(tenant, None)
        newer = {row["key"] for row in rows}
        return [state for state in states if state.key in newer]

    async def share(self, transaction: Transaction, tenants: Iterable[str]) -> None:
        """Keep these tenants' states from changing until the transaction ends."""
        await transaction.lock_shared(self.lock_name(tenant) for tenant in tenants)

    async def epoch(self, transaction: Transaction, tenant: str) -> str:
        """A name that every change of the tenant's states replaces.

        Those of all topics are read together, once in a transaction: what others commit after
        that isn't seen until it takes a lock or stores something.
        """
        found = transaction.epochs.get(tenant)
        if found is None:
            rows = await transaction.driver.fetch(
                "SELECT topic, epoch FROM replica_epoch WHERE tenant = $1", tenant
            )
            found = transaction.epochs[tenant] = dict(rows)
        return found.get(self._kind.topic, "")

    async def load(self, transaction: Transaction, tenant: str) -> list[S]:
        """All current states of a tenant; from memory while none has changed."""
        epoch = await self.epoch(transaction, tenant)
        cached = self._cache.get(tenant)
        if cached is not None and cached.epoch != epoch:
            # Others of this process may be ahead of what the transaction remembers.
            transaction.epochs.pop(tenant, None)
            epoch = await self.epoch(transaction, tenant)
            cached = self._cache.get(tenant)
        if cached is None or cached.epoch != epoch:
            rows = await transaction.driver.fetch(
                "SELECT body FROM replica WHERE tenant = $1 AND topic = $2 ORDER BY key",
                tenant,
                self._kind.topic,
            )
            cached = _Cached(epoch, [self._kind.decode(row["body"]) for row in rows])
            self._cache[tenant] = cached
        return cached.states


class Derived(Generic[S, T]):
    """What is made of a tenant's states: made again only when one of them has changed."""

    def __init__(self, replica: Replica[S], make: Callable[[str, list[S]], T]) -> None:
        self._replica = replica
        self._make = make
        self._made: dict[str, tuple[list[S], T]] = {}

    async def of(self, transaction: Transaction, tenant: str) -> T:
        """What the tenant's states make, as this transaction knows them."""
        states = await self._replica.load(transaction, tenant)
        made = self._made.get(tenant)
        if made is None or made[0] is not states:
            made = self._made[tenant] = (states, self._make(tenant, states))
        return made[1]
