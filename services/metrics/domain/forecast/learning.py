"""What a tenant's own deals teach: how likely and how soon a deal is won from where it stands.

A deal moves through its stages as a semi-Markov chain in days. For each stage and band of ages
(days in the stage) the chance per day to be won, to be lost or to enter another stage is the number
of those events ÷ the days that deals spent there: deals that are still open count with their days,
so that slow deals aren't left out. Thin bands start from one event's worth of their stage's
average, and thin stages from one event's worth of the average of all.

Differences between people and teams are shrunk towards those above (empirical Bayes): a person with
few deals is taken like the team, a team like the organisation; how strongly follows from how much
people really differ, by the method of moments: Morris, "Parametric Empirical Bayes Inference",
J. Am. Stat. Assoc. 78 (1983) 47-55. Two differences are learnt: the odds to win from a stage
(beta-binomial), and the pace, stage ends seen ÷ stage ends expected (gamma-Poisson).

Everything takes the instant `until` up to which facts are known; nothing later is looked at.
"""

import math
from dataclasses import dataclass

import numpy as np

from services.metrics.domain.forecast.deals import (
    DAY,
    EVERYTHING,
    Book,
    Bools,
    Floats,
    Ints,
)

HISTORY_DAYS = 730  # what is older says little about how we sell now
RATE_DAYS = 182  # of new deals: half a year, so that it follows growth
BAND_STARTS = (0, 1, 3, 7, 14, 30, 60, 90, 180)  # days in a stage; the last band is open
OLDEST = BAND_STARTS[-1]
WEAKEST, STRONGEST = 2.0, 200.0  # pseudo-observations of those above; between: as learnt
STAGE_WEIGHT = 2.0  # deals of the overall win rate that a stage starts from
FASTEST = 2.0  # times the organisation's pace; beyond, somebody tidies up rather than sells
SURE = 1e-6  # probabilities stay this far from 0 and 1 where odds are taken


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What is known when: the business clock's `now`, and facts `until` (later ones are hidden)."""

    now: int
    until: int = EVERYTHING


@dataclass(frozen=True, slots=True)
class Rates:
    """Win rates by stage: of all, and of each person and team where they differ.

    `won` and `closed` count deals that were in the stage and are closed; `days` is the median from
    entering the stage to winning, NaN while none was won.
    """

    won: Ints
    closed: Ints
    days: Floats
    overall: Floats
    _team: Floats  # stage, team
    _person: Floats  # stage, person: won
    _person_closed: Floats
    _strength: float

    def of(self, stage: Ints, person: Ints, team: Ints) -> Floats:
        """The win rate of each deal from its stage, its person's differences included."""
        k = self._strength
        won, closed = self._person[stage, person], self._person_closed[stage, person]
        rates: Floats = (won + k * self._team[stage, team]) / (closed + k)
        return rates


@dataclass(frozen=True, slots=True)
class Chances:
    """The chain's chances per day, by stage and band of ages."""

    won: Floats  # stage, band
    moves: Floats  # stage, band, next stage
    ends: Floats  # stage, band: of any kind

    def within(self, days: int) -> "list[Floats]":
        """The probability to be won within 0, 1, … `days`, each by stage and age."""
        band = np.searchsorted(BAND_STARTS, np.arange(OLDEST + 1), side="right") - 1
        older = np.minimum(np.arange(OLDEST + 1) + 1, OLDEST)
        won, stays = self.won[:, band], 1.0 - self.ends[:, band]
        # Several stages may pass on one day, which makes the first day an equation.
        solve = np.linalg.inv(np.eye(len(won)) - self.moves[:, 0, :])
        found = [np.zeros_like(won)]
        for _ in range(days):
            aged = stays * found[-1][:, older]
            entered = solve @ (won[:, 0] + aged[:, 0])
            found.append(won + (self.moves @ entered)[:, band] + aged)
        return found


class Model:
    """What the book teaches at one moment; the same for all subjects."""

    def __init__(self, book: Book, knowledge: Knowledge, days: int) -> None:
        self.book = book
        self.knowledge = knowledge
        self.since = knowledge.now - HISTORY_DAYS * DAY
        created = (book.created <= knowledge.until) & (book.created >= self.since)
        self.closed: Bools = created & (book.closed <= knowledge.until)
        self._known: Bools = created
        self.rates = self._rates()
        chances, ended, trials = self._chances()
        self.within = chances.within(math.ceil(FASTEST * days) + 1)
        self._pace_person, self._pace_team, self._pace_strength = self._paces(
            chances, ended, trials
        )

    def _stays(self) -> tuple[Ints, Bools]:
        """The stays that are known to have begun, and which of them are known to have ended."""
        book, until = self.book, self.knowledge.until
        stays = np.flatnonzero(self._known[book.stay_row] & (book.entered <= until))
        return stays, book.left[stays] <= until

    def _chances(self) -> tuple[Chances, Bools, Ints]:
        book = self.book
        stays, ended = self._stays()
        stages, bands = len(book.stages), len(BAND_STARTS)
        stage = book.stay_stage[stays]
        end = np.where(ended, book.left[stays], self.knowledge.now)
        age = np.maximum(end - book.entered[stays], 0) // DAY
        trials = age + ended  # days on which it could have ended
        limits = (*BAND_STARTS[1:], np.iinfo(np.int64).max)
        exposed = np.empty((stages, bands))
        for number, (low, high) in enumerate(zip(BAND_STARTS, limits, strict=True)):
            spent = np.clip(np.minimum(trials, high) - low, 0, None)
            exposed[:, number] = np.bincount(stage, spent, stages)
        band = np.searchsorted(BAND_STARTS, age, side="right") - 1
        into = np.where(book.into[stays] < 0, stages - 1 - book.into[stays], book.into[stays])
        place = (stage * bands + band) * (stages + 2) + into
        events = np.bincount(place[ended], minlength=stages * bands * (stages + 2))
        per_day = _smoothed(events.reshape(stages, bands, stages + 2).astype(float), exposed)
        chances = Chances(
            won=per_day[:, :, stages], moves=per_day[:, :, :stages], ends=per_day.sum(axis=2)
        )
        return chances, ended, trials

    def _rates(self) -> Rates:
        book = self.book
        stays, _ = self._stays()
        stays = stays[self.closed[book.stay_row[stays]]]
        stages, people, teams = len(book.stages), len(book.people), len(book.teams)
        # A deal counts once for a stage, even if it went back to it.
        pairs, first = np.unique(
            book.stay_row[stays] * stages + book.stay_stage[stays], return_index=True
        )
        row, stage = pairs // stages, pairs % stages
        won = book.won[row]
        waited = (book.closed[row] - book.entered[stays[first]]) / DAY
        closed_by = _tally(stage, book.person[row], stages, people)
        won_by = _tally(stage[won], book.person[row[won]], stages, people)
        closed_in = _tally(stage, book.team[row], stages, teams)
        won_in = _tally(stage[won], book.team[row[won]], stages, teams)
        closed, wins = closed_by.sum(axis=1), won_by.sum(axis=1)
        ends = np.flatnonzero(self.closed)
        every = (book.won[ends].sum() + 0.5) / (len(ends) + 1.0)
        overall = (wins + STAGE_WEIGHT * every) / (closed + STAGE_WEIGHT)
        team_strength = _binomial_strength(book.team[ends], book.won[ends], teams)
        in_team = (won_in + team_strength * overall[:, None]) / (closed_in + team_strength)
        return Rates(
            won=wins.astype(np.int64),
            closed=closed.astype(np.int64),
            days=np.array([_median(waited[won & (stage == s)]) for s in range(stages)]),
            overall=overall,
            _team=in_team,
            _person=won_by,
            _person_closed=closed_by,
            _strength=_binomial_strength(book.person[ends], book.won[ends], people),
        )

    def _paces(self, chances: Chances, ended: Bools, trials: Ints) -> tuple[Floats, Floats, float]:
        """Stage ends ÷ expected ends: of people (seen and expected), and of teams, shrunk."""
        book = self.book
        stays, _ = self._stays()
        band = np.searchsorted(BAND_STARTS, np.arange(OLDEST + 1), side="right") - 1
        per_day = chances.ends[:, band]
        sums = np.concatenate([np.zeros((len(per_day), 1)), np.cumsum(per_day, axis=1)], axis=1)
        stage = book.stay_stage[stays]
        expected = sums[stage, np.minimum(trials, OLDEST)] + per_day[stage, OLDEST] * np.maximum(
            trials - OLDEST, 0
        )
        row = book.stay_row[stays]
        seen = ended.astype(np.float64)

        def of(who: Ints, size: int) -> Floats:
            counted = [np.bincount(who[row], what, size) for what in (seen, expected)]
            return np.stack(counted).astype(np.float64)

        of_people = of(book.person, len(book.people))
        of_teams = of(book.team, len(book.teams))
        strength = _poisson_strength(*of_teams)
        teams = (of_teams[0] + strength) / (of_teams[1] + strength)
        return of_people, teams, _poisson_strength(*of_people)

    def pace(self, person: Ints, team: Ints) -> Floats:
        """How fast each deal's person ends stages, 1 being as all do."""
        k = self._pace_strength
        seen, expected = self._pace_person[:, person]
        paces: Floats = (seen + k * self._pace_team[team]) / (expected + k)
        return paces

    def standing(self, rows: Ints) -> tuple[Ints, Ints]:
        """The stage that each of these open deals is in, and since when."""
        book, until = self.book, self.knowledge.until
        current = (book.entered <= until) & (book.left > until)
        last = np.full(len(book), -1, np.int64)
        begun = np.flatnonzero(current)
        last[book.stay_row[begun]] = begun
        return book.stay_stage[last[rows]], book.entered[last[rows]]

    def chance(self, stage: Ints, age: Ints, person: Ints, team: Ints, days: float) -> Floats:
        """The probability that a deal in this stage for `age` days is won within `days`."""
        if days <= 0 or not len(stage):
            return np.zeros(len(stage))
        left = days * np.minimum(self.pace(person, team), FASTEST)
        whole = left.astype(np.int64)
        part = left - whole
        age = np.minimum(age, OLDEST)
        found = np.empty(len(stage))
        order = np.argsort(whole, kind="stable")
        steps, starts = np.unique(whole[order], return_index=True)
        for step, mine in zip(steps, np.split(order, starts[1:]), strict=True):
            near, far = self.within[step], self.within[step + 1]
            at = stage[mine], age[mine]
            found[mine] = (1 - part[mine]) * near[at] + part[mine] * far[at]
        odds = _odds(self.rates.of(stage, person, team)) / _odds(self.rates.overall[stage])
        return found * odds / (1 - found + found * odds)


@dataclass(frozen=True, slots=True)
class RunRate:
    """New deals of a subject: how many come a day, and what becomes of those that do.

    `spread` is the variance of the number over its mean (1: as by chance alone), `seen` how many
    new deals the rate was learnt from, `sellers` how many people they belong to.
    """

    per_day: float
    seen: int
    spread: float
    sellers: int

    def relative_variance(self, days: float) -> float:
        """Of the rate over the coming `days`, beyond chance: what isn't known, and bunching."""
        expected = self.per_day * days
        if not self.seen or not expected:
            return 0.0
        return self.spread / self.seen + (self.spread - 1) / expected


def run_rate(model: Model, subject: str, rows: Ints) -> RunRate:
    """How many new deals the subject gets; a person's rate is shrunk to that of all sellers.

    Who had none in `RATE_DAYS` gets none: those who manage, have left or do something else.
    """
    book, knowledge = model.book, model.knowledge
    known = knowledge.now
    since = known - RATE_DAYS * DAY
    recent = (book.created > since) & (book.created <= known)
    began = max(since, int(book.created.min())) if len(book) else since
    exposed = max((known - began) / DAY, 1.0)
    mine = rows[recent[rows]]
    sellers = len(np.unique(book.person[mine]))
    per_day = len(mine) / exposed
    if subject.startswith("person:") and len(mine):
        each = np.bincount(book.person[recent], minlength=len(book.people)).astype(float)
        started = np.full(len(book.people), known, np.int64)
        np.minimum.at(started, book.person, np.maximum(book.created, began))
        days = np.maximum((known - started) / DAY, 0.0)
        active = each > 0
        if active.any():
            common = each[active].sum() / max(days[active].sum(), 1.0)
            strength = _poisson_strength(each[active], days[active] * common)
            who = book.people.get(subject.removeprefix("person:"), -1)
            own_days = days[who] if who >= 0 else 0.0
            per_day = common * (len(mine) + strength) / (own_days * common + strength)
    return RunRate(float(per_day), len(mine), _spread(book.created[mine], began, known), sellers)


def _spread(created: Ints, began: int, known: int) -> float:
    """Variance ÷ mean of the number of deals per week, at least 1."""
    weeks = (known - began) // (7 * DAY)
    if weeks < 4 or not len(created):  # noqa: PLR2004  # fewer say nothing of a variance
        return 1.0
    back = (known - created) // (7 * DAY)
    counts = np.bincount(back[back < weeks], minlength=weeks)
    mean = counts.mean()
    return max(1.0, float(counts.var(ddof=1) / mean)) if mean else 1.0


def _smoothed(events: Floats, exposed: Floats) -> Floats:
    """Chances per day by stage, band and event, thin ones from the average above them."""
    stages = events.shape[0]
    ends = events[:, :, stages:].sum(axis=(0, 1))
    days = exposed.sum()
    common = ends / days if days and ends.sum() else np.zeros(2)
    of_stage, lived = events.sum(axis=1), exposed.sum(axis=1)
    if common.sum():
        of_stage[:, stages:] += common / common.sum()
        lived = lived + 1 / common.sum()
    average = np.divide(of_stage, lived[:, None], where=lived[:, None] > 0, out=of_stage * 0)
    total = average.sum(axis=1)[:, None, None]
    prior = np.divide(average[:, None, :], total, where=total > 0, out=average[:, None, :] * 0)
    weight = np.divide(1, total, where=total > 0, out=total * 0)
    lived_in_band = exposed[:, :, None] + weight
    per_day: Floats = np.divide(
        events + prior, lived_in_band, where=lived_in_band > 0, out=events * 0
    )
    return per_day * (1 - SURE)  # never certain, so that stages in a circle come to an end


def _tally(stage: Ints, who: Ints, stages: int, size: int) -> Floats:
    counted = np.bincount(stage * size + who, minlength=stages * size)
    return counted.reshape(stages, size).astype(float)


def _binomial_strength(group: Ints, won: Bools, groups: int) -> float:
    """How many deals of those above a group starts from: few, where groups really differ."""
    n = np.bincount(group, minlength=groups).astype(float)
    w = np.bincount(group, won, groups)[n > 0]
    n = n[n > 0]
    total = n.sum()
    rate = w.sum() / total if total else 0.0
    chance = rate * (1 - rate)
    room = total - (n**2).sum() / total if total else 0.0
    if len(n) <= 1 or not chance or room <= 0:
        return STRONGEST
    between = ((n * (w / n - rate) ** 2).sum() - (len(n) - 1) * chance) / room
    return _strength(chance / between - 1) if between > 0 else STRONGEST


def _poisson_strength(seen: Floats, expected: Floats) -> float:
    """How many expected events of those above a group starts from."""
    seen, expected = seen[expected > 0], expected[expected > 0]
    total = expected.sum()
    room = total - (expected**2).sum() / total if total else 0.0
    if len(expected) <= 1 or room <= 0:
        return STRONGEST
    between = ((expected * (seen / expected - 1) ** 2).sum() - (len(expected) - 1)) / room
    return _strength(1 / between) if between > 0 else STRONGEST


def _strength(value: float) -> float:
    return float(min(max(value, WEAKEST), STRONGEST))


def _odds(rate: Floats) -> Floats:
    sure: Floats = np.clip(rate, SURE, 1 - SURE)
    return sure / (1 - sure)


def _median(values: Floats) -> float:
    return float(np.median(values)) if len(values) else float("nan")
