"""Reads what a board is computed from, and says when it may have changed."""

import asyncio
from collections.abc import Iterable
from datetime import date

from kit.clock import Clock
from kit.database import Database, Transaction
from schemas.periods import Grain, written
from services.metrics.domain import leaderboard, numbers
from services.metrics.domain.catalogue import Catalogue
from services.metrics.domain.leaderboard import Board, Definition, Material, Sums
from services.metrics.domain.numbers import Part
from services.metrics.store import counters
from services.metrics.store.context import Context
from services.metrics.store.counters import SubjectSum

MANY_PEOPLE = 1_000  # above, a board takes 10 ms and more: other requests shouldn't wait for it
ATTEMPTS = 5  # to read a board while nothing is committed; only its version's promise depends on it


class Leaderboards:
    """Computes boards of any tenant, for today by the business clock or another day."""

    def __init__(
        self, database: Database, context: Context, catalogue: Catalogue, clock: Clock
    ) -> None:
        self._database = database
        self._context = context
        self._catalogue = catalogue
        self._clock = clock

    async def versions(self, tenants: Iterable[str]) -> dict[str, str]:
        """For each tenant a text that changes whenever one of today's boards may have."""
        async with self._database.transaction() as transaction:
            found = await counters.sequences(transaction, tenants)
            return {
                tenant: await self._version(transaction, tenant, sequence, None)
                for tenant, sequence in found.items()
            }

    async def version(self, tenant: str, day: date | None) -> str:
        """The same for one tenant, and the boards of `day`."""
        async with self._database.transaction() as transaction:
            sequence = (await counters.sequences(transaction, [tenant]))[tenant]
            return await self._version(transaction, tenant, sequence, day)

    async def board(self, tenant: str, definition: Definition, day: date | None) -> Board:
        """The board as it is now, all of one version."""
        for _ in range(ATTEMPTS - 1):
            board = await self._read(tenant, definition, day)
            if board.version == await self.version(tenant, day):
                return board  # nothing was committed while it was read
        return await self._read(tenant, definition, day)

    async def _read(self, tenant: str, definition: Definition, day: date | None) -> Board:
        now = self._clock()
        async with self._database.transaction() as transaction:
            sequence = (await counters.sequences(transaction, [tenant]))[tenant]
            directory = await self._context.directory_of(transaction, tenant)
            on = day or directory.calendar.local_day(now)
            start = directory.calendar.start(definition.grain, on)
            goals = await self._context.goals_of(transaction, tenant)
            currency = definition.unit or directory.organisation.currency
            of_period, of_day = await self._sums(
                transaction, tenant, definition, {definition.grain: start, "day": on}, currency
            )
        unit = numbers.unit_of(self._catalogue.metrics[definition.metric], currency)
        period = written(definition.grain, start)
        targets = {
            goal.subject: goal.target
            for goal in goals.values()
            if (goal.metric, goal.period, goal.unit) == (definition.metric, period, unit)
        }
        material = Material(
            catalogue=self._catalogue,
            directory=directory,
            day=on,
            sums=of_period,
            today=of_day,
            targets=targets,
            version=_written_version(sequence, on),
            as_of=now.isoformat(timespec="seconds"),
        )
        if len(directory.people) > MANY_PEOPLE:
            return await asyncio.to_thread(leaderboard.compute, definition, material)
        return leaderboard.compute(definition, material)

    async def _sums(
        self,
        transaction: Transaction,
        tenant: str,
        definition: Definition,
        starts: dict[Grain, date],
        currency: str,
    ) -> tuple[Sums, Sums]:
        """What the board shows of its period, and what of the ranked metric is of the day alone."""
        ranked = self._catalogue.parts(definition.metric)
        shown = {part for c in definition.columns for part in self._catalogue.parts(c)}
        found = [
            await counters.board_sums(
                transaction,
                tenant,
                metrics=metrics,
                grain=grain,
                start=starts[grain],
                units=["count", currency],
                kind=definition.subjects,
            )
            for grain, metrics in (
                (definition.grain, sorted(shown.union(ranked))),
                ("day", ranked),
            )
        ]
        return _by_subject(found[0]), _by_subject(found[1])

    async def _version(
        self, transaction: Transaction, tenant: str, sequence: int, day: date | None
    ) -> str:
        directory = await self._context.directory_of(transaction, tenant)
        return _written_version(sequence, day or directory.calendar.local_day(self._clock()))


def _written_version(sequence: int, day: date) -> str:
    return f"{sequence}-{day:%Y%m%d}"


def _by_subject(sums: Iterable[SubjectSum]) -> dict[str, dict[str, Part]]:
    found: dict[str, dict[str, Part]] = {}
    for each in sums:
        found.setdefault(each.subject, {})[each.metric] = Part(each.value, each.count)
    return found
