"""The referee: takes contests from phase to phase, tells what there is to tell, freezes results.

One replica at a time looks after them. A contest's state is published before it is kept; should we
die in between, our own consumer keeps it. Announcements are part of the state, each under its id,
so that whoever passes them on can do so once.

A result is computed once, when the grace is over, from the records that count by then; it names
their digest. `would_differ` says later whether the records give another one by now, which changes
nothing.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import structlog

from kit.clock import real_micros
from kit.database import Database, Transaction
from kit.publisher import Publisher
from schemas.spm import ContestResult, ContestRow, ContestState
from services.metrics.domain import contests
from services.metrics.domain.contests import Contest, Times
from services.metrics.store import digest
from services.metrics.store.contests import Contests, Held
from services.metrics.store.context import Context

LOCK = "metrics/contests"
HEAD = 10  # rows of a running contest that are published
RESULT_ROWS = 1_000  # of a final one: a message of some 200 KB
REST_RATIO = 9.0  # a tenth of the time is for a contest that is expensive to compute

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Difference:
    """What a final contest would be now."""

    differs: bool
    input: str
    outcome: str
    credits: int
    rows: list[ContestRow]  # those of the result's rows that would be others, as they would be


class Referee:
    """Looks after all contests; a job calls `step` again and again."""

    def __init__(
        self, database: Database, publisher: Publisher, context: Context, held: Contests
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._context = context
        self._contests = held
        self._resting: dict[tuple[str, str], float] = {}

    async def step(self) -> None:
        """Bring every contest's state up to date, unless another replica does."""
        async with self._database.transaction() as transaction:
            if not await transaction.try_lock(LOCK):
                return
            tenants = await digest.replicated_tenants(transaction)
        for tenant in tenants:
            async with self._database.transaction() as transaction:
                if await transaction.try_lock(LOCK):
                    await self._tenant(transaction, tenant)

    async def _tenant(self, transaction: Transaction, tenant: str) -> None:
        found = await self._contests.all(transaction, tenant)
        if not found:
            return
        states = await self._contests.states(transaction, tenant)
        changed = []
        for contest in found.values():
            began = time.monotonic()
            former = states.get(contest.id)
            if former is not None and former.result is not None:
                continue  # for good
            if began < self._resting.get((tenant, contest.id), 0.0):
                continue
            try:
                state = await self._state(transaction, tenant, contest, former)
            except (ValueError, LookupError):
                # One contest that can't be computed must not hold up the others.
                log.exception("contest_failed", tenant=tenant, contest=contest.id)
                continue
            ended = time.monotonic()
            self._resting[tenant, contest.id] = ended + REST_RATIO * (ended - began)
            if former is None or not _same(state, former):
                changed.append(state)
        if changed:
            replica = self._context.contests
            await transaction.lock(replica.lock_name(tenant))
            await self._publisher.publish(changed)
            await replica.store(transaction, changed)

    async def _state(
        self, transaction: Transaction, tenant: str, contest: Contest, former: ContestState | None
    ) -> ContestState:
        now = self._contests.now()
        when = await self._contests.times(transaction, tenant, contest)
        phase = when.phase(now)
        result, rows, leaders = None, [], {}
        if phase == "final":
            held = await self._contests.result(transaction, tenant, contest)
            result, rows = _result(held, now), held.table.rows()
        elif phase != "scheduled":
            held = await self._contests.held(transaction, tenant, contest)
            rows = held.table.rows()
        leaders = {row.subject: row.name for row in rows if row.place == 1}
        return _state(tenant, contest, when, now, former, leaders, rows, result)


def _state(
    tenant: str,
    contest: Contest,
    when: Times,
    now: datetime,
    former: ContestState | None,
    leaders: dict[str, str],
    rows: Sequence[ContestRow],
    result: ContestResult | None,
) -> ContestState:
    return ContestState(
        tenant=tenant,
        version=max(real_micros(), former.version + 1 if former is not None else 0),
        id=contest.id,
        title=contest.title,
        phase=when.phase(now),
        starts=when.starts,
        ends=when.ends,
        grace_ends=when.grace_ends,
        leaders=sorted(leaders),
        rows=list(rows[:HEAD]),
        announcements=contests.announcements(contest, when, now, former, leaders),
        result=result,
    )


def _result(held: Held, now: datetime) -> ContestResult:
    rows = held.table.rows()
    assert held.evidence is not None  # results come from records
    return ContestResult(
        at=now,
        document=written(held.contest),
        credits=held.evidence.records,
        input=held.evidence.digest,
        outcome=contests.digest_of(rows),
        currency=held.currency,
        total=len(rows),
        rows=rows[:RESULT_ROWS],
    )


def written(contest: Contest) -> dict[str, Any]:
    """The contest as a document."""
    document: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(contest))
    return document


def _same(state: ContestState, former: ContestState) -> bool:
    return msgspec.structs.replace(state, version=former.version) == former


def difference(result: ContestResult, held: Held) -> Difference:
    """What the records say now, beside what a result says."""
    rows = held.table.rows()
    assert held.evidence is not None  # results come from records
    was = {row.subject: row for row in result.rows}
    outcome = contests.digest_of(rows)
    return Difference(
        differs=outcome != result.outcome,
        input=held.evidence.digest,
        outcome=outcome,
        credits=held.evidence.records,
        rows=[row for row in rows[: len(was)] if was.get(row.subject) != row],
    )
