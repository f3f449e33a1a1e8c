"""Goals: what is to be reached by when, and how a goal is divided; pure, and exact.

A target is laid over its period as a curve: `seasonality` weighs the sub-periods, inside of each
all counted days weigh alike. Of that, a person keeps what proration leaves for the days on which
they were there, at the share that their ramp allows: the *effective* target. It is due along the
same curve, over the same days. A day has elapsed when it is over: while today runs it is one of
those that remain, and pace is about the days before it.

Laws, for every goal and directory:

* who is there for the whole period, without a ramp, is to reach the target
* what is expected never falls from day to day, and is the effective target at the end
* what a goal is divided into adds up to it, to the smallest unit
* what each of a person's teams is due, by the days in it, adds up to the effective target

Weights that don't fit the period any more, because the calendar was changed, are left aside as if
there were none; `misfit` tells.
"""

from bisect import bisect_right
from calendar import monthrange
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate, pairwise
from math import lcm

import msgspec

from schemas.business_days import calendar_days
from schemas.directory import Directory
from schemas.money import apportion
from schemas.periods import GRAINS, Calendar, Grain, parse, written
from schemas.spm import ORGANISATION, Goal, GoalChange, Term
from services.metrics.domain import numbers
from services.metrics.domain.catalogue import COUNT, QUANTITY, RATIO, SECONDS

PERSON, TEAM = "person:", "team:"
MAX_CHANGES = 50  # kept with a goal, so that it stays a small message
TERMS = ("target", "unit", "seasonality", "proration", "ramp", "days")

CountDays = Callable[[date, date], int]  # how many days of [start, end) count
Stretch = tuple[date, date]

_DAY = timedelta(days=1)
_NOTHING = Fraction(0)
_WHOLE = Fraction(1)


@lru_cache(maxsize=1024)
def span(period: str, calendar: Calendar) -> Stretch:
    """The first day of a period, and the first day after it."""
    grain, start = parse(period)
    return start, calendar.end(grain, start)


def tiles(calendar: Calendar, grain: Grain, start: date, end: date) -> list[date]:
    """The first days of the periods of this grain that make up `[start, end)`, and `end`.

    Nothing where no whole number of them does.
    """
    if calendar.start(grain, start) != start:
        return []
    days = [start]
    while days[-1] < end:
        days.append(calendar.end(grain, days[-1]))
    return days if days[-1] == end else []


def fitting(calendar: Calendar, start: date, end: date) -> dict[int, Grain]:
    """How many weights a period can have, and of which sub-periods they then are."""
    return {
        parts: grain
        for grain in GRAINS
        if (parts := len(tiles(calendar, grain, start, end)) - 1) > 1
    }


@lru_cache(maxsize=1024)
def _seasons(calendar: Calendar, start: date, end: date, weights: int) -> tuple[date, ...]:
    """The limits of the sub-periods that so many weights are of; of the period when none fit."""
    grain = fitting(calendar, start, end).get(weights)
    return (start, end) if grain is None else tuple(tiles(calendar, grain, start, end))


class Curve:
    """Which share of a target is due before a day: 0 at the start of its period, 1 at its end."""

    def __init__(
        self, limits: Sequence[date], weights: Sequence[Decimal | int], count: CountDays
    ) -> None:
        self.limits = limits
        self._count = count
        exact = [Fraction(weight) for weight in weights]
        whole = lcm(*(weight.denominator for weight in exact))
        self._weights = [int(weight * whole) for weight in exact]  # whole numbers: fast to divide
        self._before = list(accumulate(self._weights, initial=0))

    def before(self, day: date) -> Fraction:
        """The share that is due before `day`."""
        if day <= self.limits[0]:
            return _NOTHING
        if day >= self.limits[-1]:
            return _WHOLE
        index = bisect_right(self.limits, day) - 1
        start, end = self.limits[index], self.limits[index + 1]
        count = self._count if self._count(start, end) else calendar_days  # holidays only
        days = count(start, end)
        due = self._before[index] * days + self._weights[index] * count(start, day)
        return Fraction(due, self._before[-1] * days)

    def between(self, start: date, end: date) -> Fraction:
        """The share that is due on the days of `[start, end)`."""
        return self.before(end) - self.before(start) if start < end else _NOTHING


@dataclass(frozen=True, slots=True)
class Course:
    """A goal's effective target and the way to it."""

    start: date
    end: date
    effective: Fraction
    misfit: bool  # the goal's seasonality doesn't fit the calendar
    _curve: Curve
    _count: CountDays
    _there: Sequence[Stretch]
    _paces: Sequence[tuple[date, date, Fraction]]  # stretches with the ramp's share
    _run: Fraction  # what all paces cover of the curve, by their share

    def expected(self, day: date) -> Fraction:
        """What is to be reached by the end of `day`."""
        return self.effective * self._covered(self.start, day + _DAY)

    def due(self, start: date, end: date) -> Fraction:
        """What of the effective target is due on the days of `[start, end)`."""
        return self.effective * self._covered(start, end)

    def remaining_days(self, day: date) -> int:
        """How many counted days are left on which the subject is there, `day` being one of them."""
        return sum(self._count(max(start, day), end) for start, end in self._there)

    def _covered(self, start: date, end: date) -> Fraction:
        if not self._run:  # nobody was there on a counted day: along the plain curve
            return self._curve.between(start, end)
        covered = (
            self._curve.between(max(start, a), min(end, b)) * share for a, b, share in self._paces
        )
        return sum(covered, _NOTHING) / self._run


def course(goal: Goal, directory: Directory) -> Course:
    """How the goal is to be reached by its subject, as far as the directory knows it."""
    start, end = span(goal.period, directory.calendar)
    person = _person(goal, directory)
    there = directory.present(person, start, end) if person else [(start, end)]
    count = _counted(goal.days, directory, person)
    curve, misfit = _curve(goal, directory.calendar, start, end, count)
    steps = _ramp(goal, directory, person, end)
    paces = [
        (max(a, since), min(b, until), share)
        for a, b in there
        for since, until, share in steps
        if a < until and since < b
    ]
    active = sum((curve.between(a, b) for a, b in there), _NOTHING)
    run = sum((curve.between(a, b) * share for a, b, share in paces), _NOTHING)
    effective = Fraction(goal.target)
    if person and goal.proration != "none":
        effective *= _prorated(goal, directory, person, there, start, end)
    if active:
        effective *= run / active
    return Course(start, end, effective, misfit, curve, count, there, paces, run)


def effective(goal: Goal, directory: Directory) -> Fraction:
    """The target after seasonality, then proration, then ramp."""
    person = _person(goal, directory)
    if not person or (goal.proration == "none" and not goal.ramp):
        return Fraction(goal.target)
    start, end = span(goal.period, directory.calendar)
    whole = directory.present(person, start, end) == [(start, end)]
    if whole and not _ramping(goal, directory, person, start):
        return Fraction(goal.target)  # as for most people of a board of thousands
    return course(goal, directory).effective


@dataclass(frozen=True, slots=True)
class Standing:
    """How a number stands to its goal at the beginning of a day."""

    effective: Fraction
    expected: Fraction
    attainment: Fraction | None  # these three are None where nothing can be said
    pace: Fraction | None
    required_per_day: Fraction | None
    misfit: bool = False  # the goal's seasonality doesn't fit the calendar


def standing(
    goal: Goal, directory: Directory, today: date, value: Fraction | None, *, adds_up: bool
) -> Standing:
    """How `value` (in whole units) stands to the goal when `today` is.

    Pace is attainment ÷ expected attainment: 1 is on the way. What is required of each remaining
    day is the gap ÷ those days; nothing recorded yet leaves all of it to do. A rate doesn't
    `add up` from day to day: it is to be as high as the target at any time.
    """
    if not adds_up:
        target = Fraction(goal.target)
        attained = _ratio(value, target)
        return Standing(target, target, attained, attained, None)
    way = course(goal, directory)
    due = way.expected(today - _DAY)
    days = way.remaining_days(today)
    gap = max(_NOTHING, way.effective - (value or _NOTHING))
    return Standing(
        way.effective,
        due,
        _ratio(value, way.effective),
        _ratio(value, due),
        gap / days if days else None,
        way.misfit,
    )


def _ratio(value: Fraction | None, whole: Fraction) -> Fraction | None:
    return None if value is None or not whole else value / whole


def _person(goal: Goal, directory: Directory) -> str:
    """Whose goal it is, as far as the directory knows them; "" for all else."""
    name = goal.subject.removeprefix(PERSON)
    return name if name != goal.subject and name in directory.people else ""


def _counted(days: str, directory: Directory, person: str) -> CountDays:
    if days == "calendar":
        return calendar_days
    return lambda start, end: directory.business_days(person, start, end)


def _curve(
    goal: Goal, calendar: Calendar, start: date, end: date, count: CountDays
) -> tuple[Curve, bool]:
    """The goal's curve over its period, and whether its weights don't fit."""
    if not goal.seasonality:
        return Curve((start, end), (1,), count), False
    limits = _seasons(calendar, start, end, len(goal.seasonality))
    if len(limits) - 1 != len(goal.seasonality) or not any(goal.seasonality):
        return Curve((start, end), (1,), count), True
    return Curve(limits, goal.seasonality, count), False


def _prorated(
    goal: Goal,
    directory: Directory,
    person: str,
    there: Sequence[Stretch],
    start: date,
    end: date,
) -> Fraction:
    """The share of the curve that is kept by who was there on these days.

    A month (or half of one) is kept whole by who was there on at least half of its days, and not at
    all by others.
    """
    calendar = directory.calendar
    if goal.proration in ("days", "business_days"):
        days = "business" if goal.proration == "business_days" else "calendar"
        curve, _ = _curve(goal, calendar, start, end, _counted(days, directory, person))
        return sum((curve.between(a, b) for a, b in there), _NOTHING)
    curve, _ = _curve(goal, calendar, start, end, _counted(goal.days, directory, person))
    kept = _NOTHING
    for a, b in pairwise(_months(calendar, start, end, halves=goal.proration == "half_months")):
        if 2 * sum(_shared_days((a, b), stretch) for stretch in there) >= calendar_days(a, b):
            kept += curve.between(a, b)
    return kept


def _months(calendar: Calendar, start: date, end: date, *, halves: bool) -> list[date]:
    """The limits of the months in `[start, end)`; of their halves, the first being the shorter."""
    limits = {start, end}
    first = calendar.start("month", start)
    while first < end:
        following = calendar.end("month", first)
        limits.add(first)
        if halves:
            limits.add(first + timedelta(days=calendar_days(first, following) // 2))
        first = following
    return sorted(day for day in limits if start <= day <= end)


def _ramp(
    goal: Goal, directory: Directory, person: str, end: date
) -> list[tuple[date, date, Fraction]]:
    """The ramp's share from day to day; a month of service begins on the day of month of joining.

    Nobody is new without a known day of joining.
    """
    joined = directory.people[person].joined if person else None
    if not goal.ramp or joined is None or joined >= end:
        return [(date.min, date.max, _WHOLE)]
    limits = [joined]
    for month in range(1, len(goal.ramp) + 1):
        if limits[-1] >= end:
            break
        limits.append(_months_after(joined, month))
    months = zip(pairwise(limits), goal.ramp, strict=False)  # up to the period's end
    steps = [(a, b, Fraction(share)) for (a, b), share in months]
    return [*steps, (limits[-1], date.max, _WHOLE)]


def _ramping(goal: Goal, directory: Directory, person: str, start: date) -> bool:
    joined = directory.people[person].joined
    return joined is not None and _months_after(joined, len(goal.ramp)) > start


def _months_after(day: date, months: int) -> date:
    """The same day of a later month, or its last where it is shorter."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))


def places(unit: str) -> int:
    """How many decimal places the smallest part of a unit has: USD 2, a quantity 3, counts 0."""
    return len(str(numbers.scale(unit))) - 1


def amount_text(amount: Fraction, unit: str) -> str:
    """An amount in whole units as decimal text, rounded: money to the minor unit, else to 1/10000.

    Shares of a target aren't whole where the target is: 10 calls in three days are 3.3333 a day.
    """
    if unit in (COUNT, QUANTITY, RATIO, SECONDS):
        text = str(numbers.decimal(amount, RATIO))
        return text.rstrip("0").rstrip(".") if unit != RATIO else text
    return numbers.text(amount * numbers.scale(unit), unit)


def allocate(
    total: Decimal, weights: Sequence[Fraction | Decimal | int], unit: str
) -> list[Decimal]:
    """Parts of `total` in proportion to `weights`, in the unit's smallest parts, that add up to it.

    By the largest remainder, so that none is a whole such part away from its exact share. A total
    with more decimal places keeps them. Raises ValueError unless a weight is positive and none is
    negative.
    """
    digits = max(places(unit), -int(total.as_tuple().exponent))
    parts = apportion(int(total.scaleb(digits)), weights)
    return [Decimal(part).scaleb(-digits) for part in parts]


def over_periods(goal: Goal, directory: Directory, grain: Grain) -> list[Goal]:
    """The goal as goals of its sub-periods, along its curve; they keep its other terms.

    Where the weights are of smaller periods still, each part keeps its own, so that the way to the
    parts is the way to the whole. Raises ValueError when none or one of this grain make up the
    period.
    """
    calendar = directory.calendar
    start, end = span(goal.period, calendar)
    limits = tiles(calendar, grain, start, end)
    if len(limits) - 1 <= 1:
        raise ValueError(f"{goal.period} isn't made up of several periods of the grain {grain}")
    count = _counted(goal.days, directory, _person(goal, directory))
    curve, misfit = _curve(goal, calendar, start, end, count)
    parts = allocate(goal.target, [curve.between(a, b) for a, b in pairwise(limits)], goal.unit)
    weights = {} if misfit else dict(zip(curve.limits, goal.seasonality, strict=False))
    return [
        msgspec.structs.replace(
            goal,
            period=written(grain, a),
            target=part,
            seasonality=_own_weights(weights, a, b),
        )
        for (a, b), part in zip(pairwise(limits), parts, strict=True)
    ]


def _own_weights(weights: Mapping[date, Decimal], start: date, end: date) -> list[Decimal]:
    own = [weight for day, weight in weights.items() if start <= day < end]
    return own if len(own) > 1 and any(own) and start in weights else []


def by_team(goal: Goal, directory: Directory) -> dict[str, Fraction]:
    """What of a person's effective target each team is due, by the days in it; "" without one."""
    start, end = span(goal.period, directory.calendar)
    stretches = directory.teams_between(goal.subject.removeprefix(PERSON), start, end)
    if len(stretches) == 1:
        return {stretches[0][2]: effective(goal, directory)}
    found: dict[str, Fraction] = defaultdict(Fraction)
    way = course(goal, directory)
    for a, b, team in stretches:
        found[team] += way.due(a, b)
    return dict(found)


@dataclass(frozen=True, slots=True)
class RollUp:
    """The parts of a goal beside the whole; `whole` is None where no goal is set for it."""

    whole: Fraction | None
    assigned: Fraction

    @property
    def covered(self) -> Fraction | None:
        """The share of the whole that is assigned; None of nothing."""
        return self.assigned / self.whole if self.whole else None

    @property
    def over_assigned(self) -> Fraction | None:
        """What the parts are more than the whole."""
        return None if self.whole is None else max(_NOTHING, self.assigned - self.whole)

    @property
    def gap(self) -> Fraction | None:
        """What of the whole nobody has."""
        return None if self.whole is None else max(_NOTHING, self.whole - self.assigned)


def roll_up(parts: Iterable[Fraction], whole: Fraction | None) -> RollUp:
    """Hold the parts against the whole: assigned - whole = over-assigned - gap."""
    return RollUp(whole, sum(parts, _NOTHING))


def members(goals: Mapping[str, Goal], directory: Directory, subject: str) -> dict[str, Fraction]:
    """What of a team's (or the organisation's) target is assigned to whom directly below it.

    `goals` are those of one metric, period and unit, by subject. A team below that has no goal of
    its own counts what is assigned in it; a person counts for each team by the days in it.
    """
    parts: dict[str, dict[str, Fraction]] = defaultdict(dict)  # by team; "" for those in none
    for name in sorted(goals):
        if name.startswith(PERSON):
            for team, part in by_team(goals[name], directory).items():
                place = parts[team if team in directory.teams else ""]
                place[name] = place.get(name, _NOTHING) + part
    below: dict[str, list[str]] = defaultdict(list)
    for team in sorted(directory.teams):
        below[above(directory, team)].append(team)
    downwards = [""]
    for team in downwards:  # grows while it is walked
        downwards += below[team]
    for team in reversed(downwards[1:]):
        own, inside = goals.get(TEAM + team), parts.get(team)
        if own is not None or inside:
            whole = sum((inside or {}).values(), _NOTHING)
            parts[above(directory, team)][TEAM + team] = (
                whole if own is None else Fraction(own.target)
            )
    return dict(sorted(parts[_team(subject)].items()))


def above(directory: Directory, team: str) -> str:
    """The team right above; "" where there is none, or where going up leads back to the team."""
    parent = directory.teams[team].parent
    chain = directory.teams_above(team)
    circle = chain[-1] in directory.teams and directory.teams[chain[-1]].parent == team
    return parent if parent in directory.teams and not circle else ""


@dataclass(frozen=True, slots=True)
class Service:
    """On how many days of a period someone was there, and on how many of them in the team."""

    inside: int
    there: int


def people_below(directory: Directory, subject: str, start: date, end: date) -> dict[str, Service]:
    """Who counts for a team, or those below it, on some day of `[start, end)`, by person's id."""
    team = _team(subject)
    found = {}
    for person in sorted(directory.people):
        there = directory.present(person, start, end)
        inside = sum(
            _shared_days(stretch, (since, until))
            for since, until, own in directory.teams_between(person, start, end)
            if not team or team in directory.teams_above(own)
            for stretch in there
        )
        if inside:
            found[person] = Service(inside, sum(calendar_days(a, b) for a, b in there))
    return found


def _team(subject: str) -> str:
    return "" if subject == ORGANISATION else subject.removeprefix(TEAM)


def _shared_days(one: Stretch, other: Stretch) -> int:
    return calendar_days(max(one[0], other[0]), min(one[1], other[1]))


def changed(goal: Goal, known: Goal | None, *, by: str, at: datetime) -> Goal:
    """The goal with its history: `known` itself when it stays as it is.

    Saying nothing about why keeps the former reason, where nothing else changes either.
    """
    was, now = _terms(known), _terms(goal)
    different = {
        name: (was.get(name), now.get(name)) for name in TERMS if was.get(name) != now.get(name)
    }
    if known is not None and not different and goal.reason in ("", known.reason):
        return known
    entry = GoalChange(at, by, goal.reason, different)
    history = known.history if known is not None else []
    return msgspec.structs.replace(goal, history=[entry, *history][:MAX_CHANGES])


def _terms(goal: Goal | None) -> dict[str, Term]:
    if goal is None or goal.deleted:
        return {}
    terms: dict[str, Term] = {
        "target": _plain(goal.target),
        "unit": goal.unit,
        "proration": goal.proration,
        "days": goal.days,
    }
    # Lists that say nothing are left out, as they are in the message.
    terms |= {
        name: [_plain(each) for each in weights]
        for name in ("seasonality", "ramp")
        if (weights := getattr(goal, name))
    }
    return terms


def _plain(number: Decimal) -> str:
    return format(number, "f")
