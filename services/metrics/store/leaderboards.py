"""Reads what a board is computed from, and says when it may have changed.

What is computed is kept until the tenant's version moves: whoever asks for a board again, from
another place of it or as another audience, costs one look at that version, and is never shown less
than what was applied by then. When it has moved, only those whose numbers have are looked at again.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fractions import Fraction

from kit.clock import Clock
from kit.database import Database, Transaction
from schemas.directory import Directory
from schemas.periods import Calendar
from schemas.spm import Goal
from services.metrics.domain import boards as documents
from services.metrics.domain import contests, goals, numbers, windows
from services.metrics.domain.boards import Boards, Definition
from services.metrics.domain.catalogue import Catalogue
from services.metrics.domain.leaderboard import Material, Standings, Sums
from services.metrics.domain.scopes import Roster
from services.metrics.domain.windows import Piece, Window
from services.metrics.store import counters, evidence
from services.metrics.store.context import Context
from services.metrics.store.counters import Instant
from services.metrics.store.definitions import Definitions
from services.metrics.store.slices import Key, Parts, Slices, added

# Above, a board takes 10 ms and more unless little has changed: other requests shouldn't wait.
MANY_PEOPLE = 1_000
KEPT_STANDINGS = 200
GoalKey = tuple[str, str, str]


class UnknownBoardError(LookupError):
    """There is no board or contest (`kind`) of this name; `known` are those that there are."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        super().__init__(name)
        self.kind = kind
        self.name = name
        self.known = sorted(known)


@dataclass(slots=True)
class _Targets:
    """Effective targets by metric and period, of one set of goals and one directory."""

    goals: Mapping[GoalKey, Goal]
    directory: Directory
    by_period: dict[tuple[str, str], list[Goal]]
    effective: dict[tuple[str, str, str], dict[str, Fraction]]


@dataclass(frozen=True, slots=True)
class _About:
    """The windows of a board on a day."""

    window: Window
    since: Window | None  # from the snapshot on
    past: Window | None
    past_before: Window | None
    last: Window | None


class Leaderboards:
    """Computes boards of any tenant, for today by the business clock or another day."""

    def __init__(
        self, database: Database, context: Context, definitions: Definitions, clock: Clock
    ) -> None:
        self._database = database
        self._context = context
        self._definitions = definitions
        self._clock = clock
        self._slices = Slices()
        self._kept: OrderedDict[tuple[str, str, date | None], Standings] = OrderedDict()
        self._rosters: dict[str, Roster] = {}
        self._targets: dict[str, _Targets] = {}

    async def versions(self, tenants: Iterable[str]) -> dict[str, str]:
        """For each tenant a text that changes whenever one of today's boards may have."""
        async with self._database.transaction() as transaction:
            found = await counters.instants(transaction, tenants)
            return {
                tenant: await self._version(transaction, tenant, instant, None)
                for tenant, instant in found.items()
            }

    async def version(self, tenant: str, day: date | None) -> str:
        """The same for one tenant, and the boards of `day`."""
        return (
            (await self.versions([tenant]))[tenant] if day is None else await self._of(tenant, day)
        )

    async def all(self, tenant: str) -> tuple[Boards, Catalogue]:
        """The tenant's boards and contests, and the catalogue that they were checked against."""
        async with self._database.transaction() as transaction:
            catalogue = await self._context.catalogue_of(transaction, tenant)
            return await self._definitions.of(transaction, tenant), catalogue

    def shipped(self, kind: str, number: str) -> object:
        """The installation's own board or contest of this id; None when it has none."""
        return self._definitions.shipped(kind, number)

    async def standings(self, tenant: str, board: str, day: date | None) -> Standings:
        """The board as it is now, all of one version; raises `UnknownBoardError`."""
        place = (tenant, board, day)
        async with self._database.transaction() as transaction:
            found = None
            while found is None:
                # Before what the board is made of: who changes that moves the sequence with it.
                instant = await counters.instant(transaction, tenant)
                definitions = (await self._definitions.of(transaction, tenant)).definitions
                definition = definitions.get(board)
                if definition is None:
                    raise UnknownBoardError("board", board, definitions)
                if definition.contest:  # its sums are of folded days
                    instant = Instant(instant.sequence)
                version = await self._version(transaction, tenant, instant, day)
                kept = self._kept.get(place)
                if kept is not None and kept.version == version and kept.definition is definition:
                    self._kept.move_to_end(place)
                    return kept
                found = await self._computed(transaction, tenant, definition, day, instant, kept)
        self._kept[place] = found
        while len(self._kept) > KEPT_STANDINGS:
            self._kept.popitem(last=False)
        return found

    async def _of(self, tenant: str, day: date) -> str:
        async with self._database.transaction() as transaction:
            instant = await counters.instant(transaction, tenant)
            return await self._version(transaction, tenant, instant, day)

    async def _computed(
        self,
        transaction: Transaction,
        tenant: str,
        definition: Definition,
        day: date | None,
        instant: Instant,
        former: Standings | None,
    ) -> Standings | None:
        """None when what it is made of has changed since `instant`, and it must begin anew."""
        now = self._clock()
        directory = await self._context.directory_of(transaction, tenant)
        catalogue = await self._context.catalogue_of(transaction, tenant)
        on = day or directory.calendar.local_day(now)
        currency = definition.unit or directory.organisation.currency
        roster = self._roster(tenant, directory, on)
        if definition.contest:
            found = await self._of_contest(
                transaction, tenant, definition, catalogue, roster, currency, now, instant
            )
        else:
            about = _about(definition, directory.calendar, on)
            asked = _asked(definition, catalogue, currency)
            ranked = {part for metric in definition.ranked for part in catalogue.parts(metric)}
            keys = _Keys(asked, ranked, definition.subjects, directory.calendar)
            read, slices = await self._slices.read(transaction, tenant, directory, keys.all(about))
            if read.sequence != instant.sequence:
                transaction.epochs.clear()
                again = await self._definitions.of(transaction, tenant)
                if (
                    again.definitions.get(definition.id) is not definition
                    or await self._context.catalogue_of(transaction, tenant) is not catalogue
                    or await self._context.directory_of(transaction, tenant) is not directory
                ):
                    return None
            targets = await self._targets_of(
                transaction, tenant, definition, catalogue, directory, about.window.text, currency
            )

            def compute() -> Standings:
                material = Material(
                    catalogue=catalogue,
                    roster=roster,
                    period=about.window.text,
                    currency=currency,
                    sums=keys.shown(about.window, slices),
                    version=_written_version(read, on),
                    as_of=now.isoformat(timespec="seconds"),
                    targets=targets,
                    snapshot=about.since.start if about.since is not None else None,
                    since=keys.ranked(about.since, slices),
                    compared_with=about.past.text if about.past is not None else "",
                    past=keys.ranked(about.past, slices),
                    past_before=keys.ranked(about.past_before, slices),
                    last=keys.ranked(about.last, slices),
                )
                return Standings(definition, material, former)

            many = len(directory.people) > MANY_PEOPLE
            found = await asyncio.to_thread(compute) if many else compute()
            span = _seconds(about.window, directory.calendar)
            await self._settle(transaction, tenant, found, asked, span)
        return found

    async def _of_contest(
        self,
        transaction: Transaction,
        tenant: str,
        definition: Definition,
        catalogue: Catalogue,
        roster: Roster,
        currency: str,
        now: datetime,
        instant: Instant,
    ) -> Standings:
        """A board over the instants of a contest, from the records that count in it."""
        boards = await self._definitions.of(transaction, tenant)
        contest = boards.contests.get(definition.contest)
        if contest is None:
            raise UnknownBoardError("contest", definition.contest, boards.contests)
        directory = roster.directory
        when = contests.times(contest, directory.organisation.zone)
        asked = _asked(definition, catalogue, currency)
        sums = await evidence.sums(
            transaction,
            tenant,
            catalogue,
            asked,
            when.span,
            definition.subjects,
            directory.calendar,
        )
        material = Material(
            catalogue=catalogue,
            roster=roster,
            period=f"contest:{contest.id}",
            currency=currency,
            sums=sums,
            version=_written_version(instant, roster.day),
            as_of=now.isoformat(timespec="seconds"),
        )
        found = Standings(definition, material)
        await self._settle(transaction, tenant, found, asked, when.span)
        return found

    async def _settle(
        self,
        transaction: Transaction,
        tenant: str,
        found: Standings,
        asked: Mapping[str, str],
        span: tuple[int, int],
    ) -> None:
        """Read the records of those who are tied, where it matters who was first."""
        tied = found.tied()
        if tied:
            ranked = {part: asked[part] for part in found.parts()}
            entries = await self._context.directory.load(transaction, tenant)
            found.settle(
                await evidence.moments(
                    transaction, tenant, found.catalogue, ranked, span, tied, entries
                )
            )

    def _roster(self, tenant: str, directory: Directory, day: date) -> Roster:
        known = self._rosters.get(tenant)
        if known is None or known.directory is not directory or known.day != day:
            known = self._rosters[tenant] = Roster(directory, day)
        return known

    async def _targets_of(
        self,
        transaction: Transaction,
        tenant: str,
        definition: Definition,
        catalogue: Catalogue,
        directory: Directory,
        period: str,
        currency: str,
    ) -> dict[str, dict[str, Fraction]]:
        """The effective targets that the board needs."""
        goals_now = await self._context.goals_of(transaction, tenant)
        known = self._targets.get(tenant)
        if known is None or known.goals is not goals_now or known.directory is not directory:
            by_period: dict[tuple[str, str], list[Goal]] = {}
            for goal in goals_now.values():
                by_period.setdefault((goal.metric, goal.period), []).append(goal)
            known = self._targets[tenant] = _Targets(goals_now, directory, by_period, {})
        needed = {target for m in definition.shown for target in catalogue.targets(m)}
        needed |= {definition.metric} if definition.metric else set()
        found = {}
        for name in sorted(needed):
            metric = catalogue.find(name)
            if metric is None:
                continue
            unit = numbers.unit_of(metric, currency)
            place = (name, period, unit)
            if place not in known.effective:
                known.effective[place] = {
                    goal.subject: goals.effective(goal, directory)
                    for goal in known.by_period.get((name, period), ())
                    if goal.unit == unit
                }
            found[name] = known.effective[place]
        return found

    async def _version(
        self, transaction: Transaction, tenant: str, instant: Instant, day: date | None
    ) -> str:
        directory = await self._context.directory_of(transaction, tenant)
        return _written_version(instant, day or directory.calendar.local_day(self._clock()))


class _Keys:
    """Which slices a board is made of."""

    def __init__(
        self, asked: Mapping[str, str], ranked: set[str], kind: str, calendar: Calendar
    ) -> None:
        self._asked = asked
        self._ranked = sorted(ranked)  # what places depend on: all that the past is needed of
        self._kind = kind
        self._calendar = calendar

    def all(self, about: _About) -> list[Key]:
        """Everything that is to be read."""
        found = [key for metric in self._asked for key in self._of(metric, about.window)]
        for window in (about.since, about.past, about.past_before, about.last):
            found += [key for metric in self._ranked for key in self._of(metric, window)]
        return found

    def shown(self, window: Window, slices: Mapping[Key, Parts]) -> Sums:
        """All numbers of a window."""
        return {m: added([slices[key] for key in self._of(m, window)]) for m in self._asked}

    def ranked(self, window: Window | None, slices: Mapping[Key, Parts]) -> Sums:
        """The numbers of a window that places depend on."""
        if window is None:
            return {}
        return {m: added([slices[key] for key in self._of(m, window)]) for m in self._ranked}

    def _of(self, metric: str, window: Window | None) -> list[Key]:
        pieces: tuple[Piece, ...] = () if window is None else window.pieces(self._calendar)
        unit = self._asked[metric]
        return [
            Key(metric, grain, start, self._calendar.end(grain, start), unit, self._kind)
            for grain, start in pieces
        ]


def _asked(definition: Definition, catalogue: Catalogue, currency: str) -> dict[str, str]:
    """The base metrics that a board shows something of, and their units."""
    parts = {part for metric in definition.shown for part in catalogue.parts(metric)}
    return contests.units_of(catalogue, sorted(parts), currency)


def _about(definition: Definition, calendar: Calendar, day: date) -> _About:
    window = _window(definition, calendar, day)
    taken = windows.snapshot(calendar, definition.since, day)
    tomorrow = min(window.end, day + timedelta(days=1))
    since = None
    if window.start < taken < tomorrow:
        since = Window(taken, tomorrow)
    past = past_before = last = None
    if definition.rank_by == "improvement":
        whole = windows.earlier(calendar, window, definition.over)
        if whole is not None:
            past = past_before = whole
            if definition.compare == "to_date":
                past = windows.to_date(window, whole, (tomorrow - window.start).days)
                past_before = windows.to_date(window, whole, (taken - window.start).days)
    if definition.bands == "quarter":
        last = windows.earlier(calendar, window, "previous")
    return _About(window, since, past, past_before if since is not None else None, last)


def _window(definition: Definition, calendar: Calendar, day: date) -> Window:
    if definition.grain is not None:
        return windows.period(calendar, definition.grain, day)
    if definition.rolling_days is not None:
        return windows.rolling(day, definition.rolling_days)
    return Window(*documents.days_of(definition.dates))


def _seconds(window: Window, calendar: Calendar) -> tuple[int, int]:
    """The instants at which a window begins and ends."""
    return contests.midnight(window.start, calendar), contests.midnight(window.end, calendar)


def _written_version(instant: Instant, day: date) -> str:
    return f"{instant.sequence}.{instant.pending}-{day:%Y%m%d}"
