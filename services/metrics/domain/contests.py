"""Contests: from 30 minutes to a year, by the time of events, with a result that stays.

A contest is *scheduled* until it starts, *running* until it ends, then in *grace*, in which what
happened before the end may still arrive, and *final* for good. Scores are sums over up to ten
metrics: so many points per unit, or weights of the shares of targets that were reached.

* `value`: who has the highest score at the end
* `race`: who first reaches the goal, and is not corrected below it; the others by their scores
* `elimination`: at the end of each round the lowest leave, exactly as many as it says as long as
  one is left. Who has no data in a round is lowest; of equals, who has less from all rounds so far,
  then whose id is the greater. Those who left later are placed before those who left earlier.

Prizes of places that are shared are added and divided by the largest remainder, in the order of
subjects' ids: what is paid is what was promised for the places that were taken.

Standings are a function of what was credited, in no order. A result names the digest of it, so that
anyone can tell later whether the same records would still give the same result.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from schemas.base import valid_id
from schemas.money import apportion, exponent, from_minor, to_minor
from schemas.periods import Calendar
from schemas.spm import Announcement, ContestPhase, ContestRow, ContestState
from services.metrics.domain import numbers, ranking, scores
from services.metrics.domain.catalogue import COUNT, SECONDS, Catalogue, Metric, Mistake
from services.metrics.domain.mistakes import amount_mistakes, metric_mistakes, scope_mistakes
from services.metrics.domain.numbers import Part
from services.metrics.domain.ranking import Moment, Number, Running, Ties, rank
from services.metrics.domain.scopes import Roster, Scope

Mode = Literal["value", "race", "elimination"]
Columns = Mapping[str, Mapping[str, Part]]  # by base metric, then subject
Span = tuple[int, int]  # epoch seconds, half-open
_Known = tuple[bool, Number]
_Key = tuple[_Known, _Known]  # the score of the round, and of all rounds so far

MAX_METRICS = 10
MAX_PRIZES = 100
MAX_ROUNDS = 50
SHORTEST, LONGEST = timedelta(minutes=30), timedelta(days=366)
LONGEST_GRACE = timedelta(days=31)
ALL_WEIGHTS = Decimal(100)
# An announcement that would be made later than this, after an outage, is left out.
LATE = timedelta(days=1)
MAX_ANNOUNCEMENTS = 200  # the first ones are kept: leads change most often at the beginning
_NOTHING: _Known = (False, 0)


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a metric is worth: `points` per unit, or a `weight` for reaching a `target`."""

    metric: str
    points: Decimal | None = None
    weight: Decimal | None = None
    target: Decimal | None = None


class Round(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Until when a round of an elimination goes on, and how many leave at its end."""

    ends: str
    eliminate: int


class Contest(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A contest as boards.yaml has it. Times are local to `zone`, the organisation's if empty."""

    id: str
    title: str
    starts: str  # 2026-11-20T09:00
    ends: str
    zone: str = ""
    grace: str = "PT1H"  # an ISO 8601 duration
    metrics: list[Entry]
    mode: Mode = "value"
    goal: Decimal | None = None  # of a race: the score to reach
    rounds: list[Round] = []
    ties: Ties = "share"
    subjects: Literal["person", "team"] = "person"
    scope: Scope = Scope()
    prizes: list[Decimal] = []  # for the first place, the second, …
    currency: str = ""  # of prizes and of money that is counted; the organisation's when empty
    show_scores: bool = False  # also to those who may not see all of its metrics


@dataclass(frozen=True, slots=True)
class Times:
    """A contest's instants."""

    starts: datetime
    ends: datetime
    grace_ends: datetime
    rounds: tuple[datetime, ...] = ()

    def phase(self, now: datetime) -> ContestPhase:
        """Where the contest is."""
        if now < self.starts:
            return "scheduled"
        if now < self.ends:
            return "running"
        return "grace" if now < self.grace_ends else "final"

    @property
    def span(self) -> Span:
        """What counts: events from the first instant until before the second."""
        return _second(self.starts), _second(self.ends)

    @property
    def halfway(self) -> datetime:
        """The middle between start and end."""
        return self.starts + (self.ends - self.starts) / 2

    def round_spans(self) -> list[Span]:
        """The rounds of an elimination, one after the other."""
        limits = [_second(at) for at in (self.starts, *self.rounds)]
        return list(pairwise(limits))

    def days(self, calendar: Calendar) -> tuple[date, date]:
        """The organisation's first and last day with a part of the contest in it."""
        last = self.ends - timedelta(microseconds=1)
        return calendar.local_day(self.starts), calendar.local_day(last)


def times(contest: Contest, zone: str) -> Times:
    """When the contest is; `zone` is the organisation's. Raises ValueError that explains it."""
    own = ZoneInfo(contest.zone or zone)
    ends = local(contest.ends, own)
    grace: timedelta = msgspec.convert(contest.grace, timedelta)
    rounds = tuple(local(each.ends, own) for each in contest.rounds)
    return Times(local(contest.starts, own), ends, ends + grace, rounds)


def local(text: str, zone: ZoneInfo) -> datetime:
    """The instant of a local time; the first of two, where clocks are set back."""
    try:
        naive = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r}: expected a local time such as 2026-11-20T09:00") from None
    if naive.tzinfo is not None or "T" not in text.replace(" ", "T"):
        raise ValueError(f"{text!r}: expected a local time such as 2026-11-20T09:00; see `zone`")
    instant = naive.replace(tzinfo=zone).astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) != naive:
        raise ValueError(f"{text!r}: clocks are set forward over this time in {zone.key}")
    return instant


def whole_days(span: Span, calendar: Calendar) -> tuple[date, date] | None:
    """The local days that a span is: the first, and the one after the last; None if it isn't."""
    first, last = (calendar.local_day(datetime.fromtimestamp(at, UTC)) for at in span)
    return (first, last) if (midnight(first, calendar), midnight(last, calendar)) == span else None


def midnight(day: date, calendar: Calendar) -> int:
    """The instant at which a local day begins."""
    zone = ZoneInfo(calendar.zone)
    return _second(datetime(day.year, day.month, day.day, tzinfo=zone))


def _second(instant: datetime) -> int:
    return int(instant.timestamp())


# --- what is wrong with one ---------------------------------------------------------------


def mistakes(contest: Contest, catalogue: Catalogue) -> Iterator[Mistake]:
    """What is wrong with a contest whose fields are of their types."""
    if not valid_id(contest.id):
        yield Mistake("id", f"{contest.id!r}: use letters, digits and ._:@-")
    absurd = list(amount_mistakes(_amounts(contest)))
    if absurd:  # which nothing can be compared with
        yield from absurd
        return
    yield from _time_mistakes(contest)
    yield from _metric_mistakes(contest, catalogue)
    yield from scope_mistakes(contest.scope, contest.subjects)
    if contest.mode == "race" and (contest.goal is None or contest.goal <= 0):
        yield Mistake("goal", "a race is to a score above zero")
    if contest.mode != "race" and contest.goal is not None:
        yield Mistake("goal", "only a race has one; write `mode: race` or leave it out")
    if not 0 <= len(contest.prizes) <= MAX_PRIZES or any(prize < 0 for prize in contest.prizes):
        yield Mistake("prizes", f"expected up to {MAX_PRIZES} amounts of zero or more")
    if contest.currency:
        try:
            exponent(contest.currency)
        except ValueError as error:
            yield Mistake("currency", str(error))


def _amounts(contest: Contest) -> Iterator[tuple[str, Decimal | None]]:
    yield "goal", contest.goal
    yield from ((f"prizes[{number}]", prize) for number, prize in enumerate(contest.prizes))
    for number, entry in enumerate(contest.metrics):
        for name in ("points", "weight", "target"):
            yield f"metrics[{number}].{name}", getattr(entry, name)


def _time_mistakes(contest: Contest) -> Iterator[Mistake]:
    try:
        zone = ZoneInfo(contest.zone or "UTC")
    except (ValueError, OSError, KeyError):
        yield Mistake("zone", f"{contest.zone!r} is no time zone such as Europe/Berlin")
        return
    instants: dict[str, datetime] = {}
    texts = {"starts": contest.starts, "ends": contest.ends}
    texts |= {f"rounds[{n}].ends": each.ends for n, each in enumerate(contest.rounds)}
    for name, text in texts.items():
        try:
            instants[name] = local(text, zone)
        except ValueError as error:
            yield Mistake(name, str(error))
    try:
        grace: timedelta = msgspec.convert(contest.grace, timedelta)
    except (msgspec.ValidationError, OverflowError):
        yield Mistake("grace", f"{contest.grace!r} is no ISO 8601 duration such as PT24H")
    else:
        if not timedelta(0) <= grace <= LONGEST_GRACE:
            yield Mistake("grace", f"{contest.grace} is not from none to {LONGEST_GRACE.days} days")
    if len(instants) < len(texts):
        return
    length = instants["ends"] - instants["starts"]
    if not SHORTEST <= length <= LONGEST:
        yield Mistake("ends", f"a contest takes from 30 minutes to a year; this takes {length}")
    yield from _round_mistakes(contest, list(instants.values())[2:], instants)


def _round_mistakes(
    contest: Contest, ends: Sequence[datetime], instants: Mapping[str, datetime]
) -> Iterator[Mistake]:
    if contest.mode != "elimination":
        if contest.rounds:
            yield Mistake("rounds", "only an elimination has rounds; write `mode: elimination`")
        return
    if not 1 <= len(contest.rounds) <= MAX_ROUNDS:
        yield Mistake("rounds", f"an elimination has 1 to {MAX_ROUNDS} rounds")
        return
    if any(each.eliminate < 1 for each in contest.rounds):
        yield Mistake("rounds", "in each round at least one leaves: `eliminate: 1`")
    if any(a >= b for a, b in pairwise([instants["starts"], *ends])):
        yield Mistake("rounds", "each ends after the one before")
    if ends[-1] != instants["ends"]:
        yield Mistake("rounds", f"the last one ends with the contest, {contest.ends}")


def _metric_mistakes(contest: Contest, catalogue: Catalogue) -> Iterator[Mistake]:
    entries = contest.metrics
    if not 1 <= len(entries) <= MAX_METRICS:
        yield Mistake("metrics", f"a contest is about 1 to {MAX_METRICS} metrics")
    names = [entry.metric for entry in entries]
    yield from metric_mistakes(names, "metrics", catalogue)
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Mistake("metrics", f"{name!r} is named twice")
    for name in names:
        if catalogue.find(name) is not None and catalogue.targets(name):
            yield Mistake("metrics", f"{name!r} needs a goal, which a contest doesn't have")
    yield from _worth_mistakes(entries)


def _worth_mistakes(entries: Sequence[Entry]) -> Iterator[Mistake]:
    weighted = [entry for entry in entries if entry.weight is not None]
    for number, entry in enumerate(entries):
        if (entry.points is None) is (entry.weight is None):
            what = "has either `points` per unit, or a `weight` and a `target`"
            yield Mistake(f"metrics[{number}]", what)
        elif (entry.weight is None) is not (entry.target is None):
            yield Mistake(f"metrics[{number}]", "a `weight` is for reaching a `target`")
        elif entry.target is not None and entry.target <= 0:
            yield Mistake(f"metrics[{number}].target", "is above zero")
    if weighted and len(weighted) < len(entries):
        yield Mistake("metrics", "are counted all by points or all by weights")
    elif weighted and sum(e.weight or Decimal(0) for e in weighted) != ALL_WEIGHTS:
        yield Mistake("metrics", f"the weights add up to {ALL_WEIGHTS}")


# --- scores and places --------------------------------------------------------------------


class Scorer:
    """A subject's score from its parts."""

    def __init__(self, contest: Contest, catalogue: Catalogue, currency: str) -> None:
        self._catalogue = catalogue
        self._terms: list[tuple[str, Fraction]] = []  # what a stored unit of each is worth
        self._metrics: dict[str, Metric] = {}
        self.units: dict[str, str] = {}
        for entry in contest.metrics:
            metric = catalogue.find(entry.metric)
            assert metric is not None  # checked where the contest was read
            unit = numbers.unit_of(metric, currency)
            self._metrics[entry.metric] = metric
            self.units[entry.metric] = unit
            worth = Fraction(entry.points if entry.points is not None else entry.weight or 0)
            each = worth / Fraction(entry.target) if entry.target else worth
            self._terms.append((entry.metric, each / scores.scale(unit)))
        self._part_units = units_of(catalogue, self.parts(), currency)

    def parts(self) -> list[str]:
        """The base metrics that scores are made from."""
        return sorted({part for name, _ in self._terms for part in self._catalogue.parts(name)})

    def value(self, metric: str, parts: Mapping[str, Part | None]) -> Number | None:
        """One of the contest's metrics."""
        return numbers.number(self._metrics[metric], parts)

    def score(self, parts: Mapping[str, Part | None]) -> Fraction | None:
        """The score, exactly; None when there is no data."""
        found = [
            value * worth
            for metric, worth in self._terms
            if (value := self.value(metric, parts)) is not None
        ]
        return sum(found, Fraction(0)) if found else None

    def running(self, running: Running) -> Number | None:
        """The score of running sums."""
        parts = {
            metric: Part(value, count, self._part_units[metric])
            for metric, (value, count) in running.items()
        }
        return self.score(parts)

    def scores(self, sums: Columns, subjects: Iterable[str]) -> dict[str, Fraction | None]:
        """Everybody's scores."""
        parts = self.parts()
        return {s: self.score(of_subject(sums, parts, s)) for s in subjects}


def units_of(catalogue: Catalogue, parts: Iterable[str], currency: str) -> dict[str, str]:
    """The units that base metrics are counted in, money being in `currency`."""
    found = {part: catalogue.find(part) for part in parts}
    return {p: numbers.unit_of(m, currency) for p, m in found.items() if m is not None}


def of_subject(sums: Columns, parts: Iterable[str], subject: str) -> dict[str, Part | None]:
    """A subject's parts."""
    return {part: sums[part].get(subject) if part in sums else None for part in parts}


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What standings are computed from."""

    catalogue: Catalogue
    roster: Roster
    currency: str
    sums: Columns  # of the whole contest so far
    rounds: Sequence[Columns] = ()  # of each round that has begun
    ended: int = 0  # how many rounds are over
    moments: Mapping[str, Sequence[Moment]] = field(default_factory=dict)


class Table:
    """Everybody's place in a contest."""

    def __init__(self, contest: Contest, material: Material) -> None:
        self.contest = contest
        self._material = material
        self._scorer = Scorer(contest, material.catalogue, material.currency)
        self.names = material.roster.names(contest.subjects, contest.scope)
        self.scores = self._scorer.scores(material.sums, self.names)
        self.reached: dict[str, int] = {}
        self.left: dict[str, int] = {}  # in which round, from 1
        self.places: dict[str, int] = {}
        self._place()

    @property
    def leaders(self) -> list[str]:
        """Who is first, by id."""
        return sorted(subject for subject, place in self.places.items() if place == 1)

    def wanted(self) -> list[str]:
        """Whose moments decide about places."""
        goal = self.contest.goal
        if self.contest.mode == "race" and goal is not None:
            return sorted(s for s, score in self.scores.items() if _at_least(score, goal))
        if self.contest.mode == "value" and self.contest.ties == "first":
            everyone = len(self.places)
            return ranking.tied(self.places, within=everyone, at_most=everyone)
        return []

    def settle(self, moments: Mapping[str, Sequence[Moment]]) -> None:
        """Place those of whom it is known when they reached what."""
        goal = None if self.contest.goal is None else Fraction(self.contest.goal)
        for subject, of in moments.items():
            if goal is None:
                at = ranking.reached(of, self._scorer.running)
            else:
                at = ranking.reached_at_least(of, self._scorer.running, goal)
            if at is not None:
                self.reached[subject] = at
        self._place()

    def rows(self) -> list[ContestRow]:
        """Everybody, the first first; who has no data comes last, by name."""
        last = len(self.names) + 1
        places, names = self.places, self.names
        order = sorted(names, key=lambda s: (places.get(s, last), names[s], s))
        prizes = self.prizes()
        return [self._row(subject, prizes.get(subject)) for subject in order]

    def prizes(self) -> dict[str, Decimal]:
        """What everyone wins, as it is now."""
        currency = self.contest.currency or self._material.currency
        amounts = [to_minor(prize, currency) for prize in self.contest.prizes]
        shares = share_prizes(self.places, amounts)
        return {subject: from_minor(minor, currency) for subject, minor in shares.items()}

    def _row(self, subject: str, prize: Decimal | None) -> ContestRow:
        material, scorer = self._material, self._scorer
        score = self.scores[subject]
        parts = of_subject(material.sums, scorer.parts(), subject)
        values = {}
        for metric, unit in scorer.units.items():
            value = scorer.value(metric, parts)
            values[metric] = None if value is None else scores.text(value, unit)
        reached = self.reached.get(subject)
        return ContestRow(
            place=self.places.get(subject),
            subject=subject,
            name=self.names[subject],
            score=None if score is None else scores.text(score, scores.POINTS),
            values=values,
            reached_at=None if reached is None else datetime.fromtimestamp(reached, UTC),
            left_in=self.left.get(subject),
            prize=None if prize is None else str(prize),
        )

    def _place(self) -> None:
        if self.contest.mode == "elimination":
            self._eliminate()
        elif self.contest.mode == "race":
            self.places = race(self.scores, self.reached)
        else:
            self.places = rank(self.scores, reached=self.reached or None)

    def _eliminate(self) -> None:
        material, contest = self._material, self.contest
        rounds = [self._scorer.scores(sums, self.names) for sums in material.rounds]
        counts = [each.eliminate for each in contest.rounds]
        self.left, self.places = eliminate(list(self.names), rounds, counts[: material.ended])
        self.places = {s: p for s, p in self.places.items() if self.scores[s] is not None}


def _at_least(score: Number | None, goal: Decimal) -> bool:
    return score is not None and score >= Fraction(goal)


def race(numbers_of: Mapping[str, Number | None], reached: Mapping[str, int]) -> dict[str, int]:
    """Who reached the goal first, then the others by their scores."""
    places = rank(dict(reached), higher_is_better=False)
    others = {s: score for s, score in numbers_of.items() if s not in reached}
    return places | {s: place + len(places) for s, place in rank(others).items()}


def eliminate(
    subjects: Iterable[str],
    rounds: Sequence[Mapping[str, Number | None]],
    counts: Sequence[int],
) -> tuple[dict[str, int], dict[str, int]]:
    """In which round (from 1) everyone left, and the places of all.

    `rounds` are the scores of each round that has begun, `counts` how many leave at the end of each
    that is over. Those who are left are placed by the last round that has begun.
    """
    remaining = sorted(subjects, reverse=True)  # of equals, the greater id leaves
    totals: dict[str, _Known] = dict.fromkeys(remaining, _NOTHING)
    left: dict[str, int] = {}
    groups: list[list[tuple[_Key, str]]] = []  # by when they left, the earliest first
    standing: list[tuple[_Key, str]] = [((_NOTHING, _NOTHING), s) for s in remaining]
    for number, of_round in enumerate(rounds):
        standing = []
        for subject in remaining:
            own = _known(of_round.get(subject))
            totals[subject] = (own[0] or totals[subject][0], totals[subject][1] + own[1])
            standing.append(((own, totals[subject]), subject))
        if number < len(counts):
            standing.sort(key=lambda pair: pair[0])
            leaving = max(0, min(counts[number], len(standing) - 1))
            groups.append(standing[:leaving])
            left |= {subject: number + 1 for _, subject in standing[:leaving]}
            standing = standing[leaving:]
            remaining = sorted((subject for _, subject in standing), reverse=True)
    places: dict[str, int] = {}
    for group in (standing, *reversed(groups)):
        before, previous = len(places), None
        for number, (key, subject) in enumerate(sorted(group, reverse=True), start=before + 1):
            if key != previous:
                before, previous = number, key
            places[subject] = before
    return left, places


def _known(score: Number | None) -> "_Known":
    """So that no data compares as less than any score."""
    return _NOTHING if score is None else (True, score)


def share_prizes(places: Mapping[str, int], amounts: Sequence[int]) -> dict[str, int]:
    """What everyone wins of amounts in minor units for the first place, and so on."""
    groups: dict[int, list[str]] = {}
    for subject, place in places.items():
        groups.setdefault(place, []).append(subject)
    won: dict[str, int] = {}
    for place, together in groups.items():
        pot = sum(amounts[place - 1 : place - 1 + len(together)])
        if pot:
            winners = sorted(together)
            shares = apportion(pot, [1] * len(winners))
            won |= dict(zip(winners, shares, strict=True))
    return won


# --- evidence and announcements -----------------------------------------------------------


class Credited(msgspec.Struct, frozen=True, array_like=True):
    """A credit of a record that counts, as a result's digest has it."""

    type: str
    id: str
    number: int  # among the record's credits
    metric: str
    unit: str
    at: int
    value: int
    person: str
    subjects: list[str]  # what else it counts for: team:…, territory:…, role:…


_LINE = msgspec.json.Encoder()


class Evidence:
    """All that counts in a contest, added up, with its digest.

    Credits are added in the order of their record's type and id and of their number.
    """

    def __init__(self, contest: Contest, spans: Sequence[Span]) -> None:
        self._kind = contest.subjects
        self._spans = spans
        self._hash = hashlib.sha256()
        self._once = Once()
        self.records = 0
        self.sums: dict[str, dict[str, Part]] = {}
        self.rounds: list[dict[str, dict[str, Part]]] = [{} for _ in spans]
        self.moments: dict[str, list[Moment]] = {}

    @property
    def digest(self) -> str:
        """What tells one set of credits from another."""
        return self._hash.hexdigest()

    def add(self, credit: Credited) -> None:
        """Count one more."""
        self._hash.update(_LINE.encode(credit) + b"\n")
        self.records += 1
        for subject in credited_to(credit, self._kind):
            count = self._once.counts(credit, subject)
            _add(self.sums, credit, subject, count)
            moment = Moment(credit.at, credit.metric, credit.value)
            self.moments.setdefault(subject, []).append(moment)
            for (begin, end), sums in zip(self._spans, self.rounds, strict=True):
                if begin <= credit.at < end:
                    _add(sums, credit, subject, count)


def credited_to(credit: Credited, kind: str) -> list[str]:
    """The subjects of this kind that a credit counts for."""
    if kind == "person":
        return [f"person:{credit.person}"]
    return [subject for subject in credit.subjects if subject.startswith(f"{kind}:")]


class Once:
    """Counts a shared record once for whatever several of its shares count for.

    As `credits.Deltas` does; for credits in the order of their records.
    """

    def __init__(self) -> None:
        self._record = ("", "")
        self._counted: set[tuple[str, int, str]] = set()

    def counts(self, credit: Credited, subject: str) -> int:
        """How many records the subject has more by this credit: one or none."""
        if credit.unit in (COUNT, SECONDS):
            return 1  # never shared
        if (credit.type, credit.id) != self._record:
            self._record = (credit.type, credit.id)
            self._counted.clear()
        contribution = (credit.metric, credit.at, subject)
        if contribution in self._counted:
            return 0
        self._counted.add(contribution)
        return 1


def _add(sums: dict[str, dict[str, Part]], credit: Credited, subject: str, records: int) -> None:
    of_metric = sums.setdefault(credit.metric, {})
    former = of_metric.get(subject)
    value, count = (former.value, former.count) if former else (0, 0)
    of_metric[subject] = Part(value + credit.value, count + records, credit.unit)


def digest_of(rows: Sequence[ContestRow]) -> str:
    """What tells one outcome from another."""
    return hashlib.sha256(_LINE.encode(rows)).hexdigest()


def announcements(
    contest: Contest,
    when: Times,
    now: datetime,
    former: ContestState | None,
    leaders: Mapping[str, str],
) -> list[Announcement]:
    """Everything announced so far, with what has become due; `leaders` by id, with their names.

    Whatever is announced once stays, under an id of its own. There is a change of the lead when
    someone else is first than was when it was looked at before; being the first to lead is none.
    """
    found = list(former.announcements) if former is not None else []
    known = {announcement.id for announcement in found}

    def due(kind: Literal["start", "halfway", "end"], at: datetime, text: str) -> None:
        if at <= now < at + LATE and kind not in known:
            found.append(Announcement(kind, kind, at, text, sorted(leaders)))

    first = " and ".join(leaders[subject] for subject in sorted(leaders))
    led_by = f"; {first} {'lead' if len(leaders) > 1 else 'leads'}" if leaders else ""
    due("start", when.starts, f"{contest.title} has started.")
    due("halfway", when.halfway, f"{contest.title}: half of the time is over{led_by}.")
    was = former.leaders if former is not None else []
    running = when.phase(now) == "running"
    if running and was and leaders and sorted(leaders) != was and len(found) < MAX_ANNOUNCEMENTS:
        number = 1 + sum(each.kind == "lead" for each in found)
        text = f"{contest.title}: {first} {'have' if len(leaders) > 1 else 'has'} taken the lead."
        found.append(Announcement(f"lead-{number}", "lead", now, text, sorted(leaders)))
    if when.phase(now) == "final":
        text = f"{contest.title} is over" + (
            f": {first} won." if leaders else ", without a winner."
        )
        due("end", when.grace_ends, text)
    return found
