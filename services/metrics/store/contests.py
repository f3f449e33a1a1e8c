"""Contests: standings as they are now, and results from nothing but the records that count.

Sums of whole days come from counters; everything else, and every result, from the facts of its
instants. That costs the more the more facts there are, so it is done again only when a counter of
those days has moved.
"""

from dataclasses import dataclass
from datetime import datetime

from kit.clock import Clock
from kit.database import Transaction
from schemas.directory import Directory
from schemas.spm import ContestState
from services.metrics.domain import contests
from services.metrics.domain.catalogue import Catalogue
from services.metrics.domain.contests import Contest, Evidence, Material, Scorer, Table, Times
from services.metrics.domain.scopes import Roster
from services.metrics.store import evidence
from services.metrics.store.context import Context
from services.metrics.store.definitions import Definitions

MAX_KEPT = 200


@dataclass(frozen=True, slots=True)
class Held:
    """A contest with its table; `evidence` where it was read from facts."""

    contest: Contest
    when: Times
    table: Table
    currency: str
    evidence: Evidence | None


@dataclass(frozen=True, slots=True)
class _Kept:
    """What a table was made from: while none of it is another, the table is the same."""

    contest: Contest
    catalogue: Catalogue
    directory: Directory
    mark: int
    ended: int
    held: Held


class Contests:
    """Computes contests of any tenant, as of now by the business clock."""

    def __init__(self, context: Context, definitions: Definitions, clock: Clock) -> None:
        self._context = context
        self._definitions = definitions
        self._clock = clock
        self._kept: dict[tuple[str, str], _Kept] = {}

    def now(self) -> datetime:
        """The business time."""
        return self._clock()

    async def all(self, transaction: Transaction, tenant: str) -> dict[str, Contest]:
        """The tenant's contests by id."""
        return dict((await self._definitions.of(transaction, tenant)).contests)

    async def states(self, transaction: Transaction, tenant: str) -> dict[str, ContestState]:
        """What is known of them by id."""
        states = await self._context.contests.load(transaction, tenant)
        return {state.id: state for state in states if not state.deleted}

    async def times(self, transaction: Transaction, tenant: str, contest: Contest) -> Times:
        """When the contest is."""
        directory = await self._context.directory_of(transaction, tenant)
        return contests.times(contest, directory.organisation.zone)

    async def held(self, transaction: Transaction, tenant: str, contest: Contest) -> Held:
        """The contest's standings as they are now."""
        directory = await self._context.directory_of(transaction, tenant)
        catalogue = await self._context.catalogue_of(transaction, tenant)
        when = contests.times(contest, directory.organisation.zone)
        now = self._clock()
        ended = sum(at <= now for at in when.rounds)
        currency = contest.currency or directory.organisation.currency
        asked = _asked(contest, catalogue, currency)
        mark = await evidence.mark(transaction, tenant, list(asked), when.span, directory.calendar)
        kept = self._kept.get((tenant, contest.id))
        if (
            kept is not None
            and kept.contest is contest
            and kept.catalogue is catalogue
            and kept.directory is directory
            and (kept.mark, kept.ended) == (mark, ended)
        ):
            return kept.held
        held = await self._read(transaction, tenant, contest, when, asked, currency, ended)
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        self._kept[tenant, contest.id] = _Kept(contest, catalogue, directory, mark, ended, held)
        return held

    async def result(self, transaction: Transaction, tenant: str, contest: Contest) -> Held:
        """The contest as its records have it, all of one instant."""
        directory = await self._context.directory_of(transaction, tenant)
        catalogue = await self._context.catalogue_of(transaction, tenant)
        when = contests.times(contest, directory.organisation.zone)
        currency = contest.currency or directory.organisation.currency
        asked = _asked(contest, catalogue, currency)
        found = await _evidence(transaction, tenant, contest, when, catalogue, asked)
        ended = len(when.rounds)
        table = _from_evidence(contest, when, directory, catalogue, currency, found, ended)
        return Held(contest, when, table, currency, found)

    async def _read(
        self,
        transaction: Transaction,
        tenant: str,
        contest: Contest,
        when: Times,
        asked: dict[str, str],
        currency: str,
        ended: int,
    ) -> Held:
        directory = await self._context.directory_of(transaction, tenant)
        catalogue = await self._context.catalogue_of(transaction, tenant)
        calendar = directory.calendar
        if contest.mode == "value" and contests.whole_days(when.span, calendar) is not None:
            sums = await evidence.sums(
                transaction, tenant, catalogue, asked, when.span, contest.subjects, calendar
            )
            material = Material(
                catalogue=catalogue,
                roster=_roster(directory, when, self._clock()),
                currency=currency,
                sums=sums,
            )
            table = Table(contest, material)
            wanted = table.wanted()
            if wanted:
                entries = await self._context.directory.load(transaction, tenant)
                table.settle(
                    await evidence.moments(
                        transaction, tenant, catalogue, asked, when.span, wanted, entries
                    )
                )
            return Held(contest, when, table, currency, None)
        found = await _evidence(transaction, tenant, contest, when, catalogue, asked)
        now = self._clock()
        table = _from_evidence(contest, when, directory, catalogue, currency, found, ended, now)
        return Held(contest, when, table, currency, found)


async def _evidence(
    transaction: Transaction,
    tenant: str,
    contest: Contest,
    when: Times,
    catalogue: Catalogue,
    asked: dict[str, str],
) -> Evidence:
    found = Evidence(contest, when.round_spans())
    async for credit in evidence.counting(transaction, tenant, catalogue, asked, when.span):
        found.add(credit)
    return found


def _from_evidence(
    contest: Contest,
    when: Times,
    directory: Directory,
    catalogue: Catalogue,
    currency: str,
    found: Evidence,
    ended: int,
    now: datetime | None = None,
) -> Table:
    material = Material(
        catalogue=catalogue,
        roster=_roster(directory, when, now or when.ends),
        currency=currency,
        sums=found.sums,
        rounds=found.rounds[: ended + 1],  # those that have begun
        ended=ended,
    )
    table = Table(contest, material)
    table.settle({subject: found.moments.get(subject, []) for subject in table.wanted()})
    return table


def _roster(directory: Directory, when: Times, now: datetime) -> Roster:
    """Who takes part: those of today, of the last day once it is over."""
    first, last = when.days(directory.calendar)
    return Roster(directory, max(first, min(last, directory.calendar.local_day(now))))


def _asked(contest: Contest, catalogue: Catalogue, currency: str) -> dict[str, str]:
    """The base metrics that count, and their units."""
    parts = Scorer(contest, catalogue, currency).parts()
    return contests.units_of(catalogue, parts, currency)
