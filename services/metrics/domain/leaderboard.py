"""Leaderboards: who leads in a window, computed from numbers already summed.

Scores are exact, and so are places. A score is the value itself, its share of the effective target
(*attainment*), its change against an own earlier window (*improvement*), a sum of weighted metrics
(*points*, money in whole units of the currency), or the value per active person of a team
(*per head*, by who belongs to it on the board's day). Without data, without a target or without a
past to compare with there is no score, and who has none is listed last, without a place.

*Movement* compares with the ranking without what happened since the beginning of the day, of
yesterday or of the week. That needs no stored snapshot, is the same in every replica, and follows
corrections: places gained, None for who wasn't ranked then.

*Bands* group people with their peers, so that those in the middle have someone to compete with: by
role, by days since joining, or by the quarter of the ranking that they were in in the window
before (1 is the best quarter; the same numbers give the same bands).

What a viewer may see depends on the metrics' visibility alone, so that there is one board for each
of at most three *audiences*. Where the ranked metric is hidden, others' value, target, attainment,
score, gap and number of records are; a place stays if `show_rank` says so, and otherwise rows are
in the order of names. One's own row is whole but for the gap: it would tell the next one's value.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from fractions import Fraction
from functools import cached_property
from math import ceil, lcm
from zoneinfo import ZoneInfo

import msgspec

from schemas.directory import Directory
from services.metrics.domain import numbers, ranking, scores
from services.metrics.domain.boards import Definition
from services.metrics.domain.catalogue import Base, Catalogue, Metric, Visibility
from services.metrics.domain.numbers import Part
from services.metrics.domain.ranking import Moment, Number, Ranking, Running, rank
from services.metrics.domain.scopes import Roster

Audience = Visibility
Sums = Mapping[str, Mapping[str, Part]]  # by base metric, then subject
Targets = Mapping[str, Mapping[str, Fraction]]  # by metric, then subject; effective ones
Moments = Mapping[str, Sequence[Moment]]  # by subject
_Numbers = dict[str, Number | None]  # by subject

AUDIENCES: tuple[Audience, ...] = ("everyone", "managers", "finance")
NO_SUMS: Sums = {}
# Ties are told apart by single records, which costs; beyond, equals share their place.
MOST_EQUALS = 200
MOST_ROWS = 5_000  # that are taken over into the next standings
FEW = 4  # up to a quarter of all: beyond, counting everybody at once costs less than one by one


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """One subject on a board. Decimal numbers are text; None is no data, or `hidden`."""

    rank: int | None
    subject: str
    name: str
    team: str
    value: str | None
    count: int | None
    target: str | None
    attainment: str | None
    gap_to_next: str | None
    movement: int | None
    columns: dict[str, str | None]
    score: str | None = None  # what improvement and per head are ranked by
    reached_at: str | None = None  # which tells equals apart, where the board says so
    band: str | None = None
    band_rank: int | None = None
    hidden: bool = False


class Board(msgspec.Struct, frozen=True, omit_defaults=True):
    """A board as it is shown to an audience."""

    board: str
    title: str
    metric: str
    unit: str
    period: str
    version: str
    as_of: str
    rows: list[Row]
    total: int = 0  # how many take part
    compared_with: str = ""  # the earlier window of improvements
    since: str = ""  # the day at whose beginning the places were that movement compares with


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What a board is computed from: all of one instant."""

    catalogue: Catalogue
    roster: Roster
    period: str
    currency: str
    sums: Sums  # of the board's window
    version: str
    as_of: str
    targets: Targets = field(default_factory=dict)
    snapshot: date | None = None  # None: nothing to move from
    since: Sums = field(default_factory=dict)  # what happened from the snapshot on
    compared_with: str = ""
    past: Sums = field(default_factory=dict)  # what improvements are over
    past_before: Sums = field(default_factory=dict)  # the same, as of the snapshot
    last: Sums = field(default_factory=dict)  # of the window before, for bands by quarter
    moments: Moments = field(default_factory=dict)  # of subjects that `tied` names


def audience_of(board: Definition, catalogue: Catalogue, level: Audience) -> Audience:
    """The lowest audience that sees what this level does: mostly there is one for everybody."""
    names = (*board.ranked, *board.columns)
    seen = {metric.visibility for name in names if (metric := catalogue.find(name)) is not None}
    may_see = AUDIENCES[: AUDIENCES.index(level) + 1]
    return max((v for v in seen if v in may_see), key=AUDIENCES.index, default="everyone")


def hides(metric: Metric, audience: Audience) -> bool:
    """Whether others' numbers of this metric are kept from the audience."""
    return AUDIENCES.index(metric.visibility) > AUDIENCES.index(audience)


def found(catalogue: Catalogue, metric: str) -> Metric:
    """The metric that a checked board names."""
    metric_found = catalogue.find(metric)
    if metric_found is None:
        raise KeyError(metric)
    return metric_found


class Scoring:
    """How a board turns a subject's parts into a value, and that into what it is ranked by."""

    def __init__(self, board: Definition, material: Material, past: Sums) -> None:
        self._board = board
        self._material = material
        self._past = past
        catalogue = material.catalogue
        self._terms = [
            (found(catalogue, name), weight, self.unit_of(name))
            for name, weight in board.points.items()
        ]
        self.higher_is_better = True
        if board.metric:
            self.higher_is_better = found(catalogue, board.metric).direction == "higher"

    def unit_of(self, metric: str) -> str:
        """What a metric is shown in on this board."""
        return numbers.unit_of(found(self._material.catalogue, metric), self._material.currency)

    @property
    def unit(self) -> str:
        """What the board's values are in."""
        return scores.POINTS if self._terms else self.unit_of(self._board.metric)

    def values(self, sums: Sums, subjects: Collection[str]) -> _Numbers:
        """Everybody's values."""
        metric = None if self._terms else found(self._material.catalogue, self._board.metric)
        if isinstance(metric, Base):
            of = sums.get(metric.id, {})
            return {s: part.value if (part := of.get(s)) is not None else None for s in subjects}
        if all(isinstance(term[0], Base) for term in self._terms) and self._terms:
            return self._summed(sums, subjects)
        parts = self.parts()
        return {s: self.value(s, parts_of(sums, parts, s)) for s in subjects}

    def scores(self, values: _Numbers) -> _Numbers:
        """What everybody is ranked by."""
        if self._board.rank_by in ("value", "points"):
            return values
        if self._board.rank_by == "attainment":
            return self._attained(values)
        return {subject: self.score(subject, value) for subject, value in values.items()}

    def _attained(self, values: _Numbers) -> _Numbers:
        """Attainments, as `scores.attainment` has them, without asking anew for each subject."""
        targets = self._material.targets.get(self._board.metric, {})
        each = scores.scale(self.unit)
        found: dict[str, Number | None] = dict.fromkeys(values)
        for subject, value in values.items():
            target = targets.get(subject)
            if value is not None and target:
                over, under = value.as_integer_ratio()
                t_over, t_under = target.as_integer_ratio()
                found[subject] = Fraction(over * t_under, under * t_over * each)
        return found

    def _summed(self, sums: Sums, subjects: Collection[str]) -> _Numbers:
        """Points of base metrics alone, added up as whole numbers over one denominator."""
        worth = {m.id: Fraction(weight) / scores.scale(unit) for m, weight, unit in self._terms}
        under = lcm(*(each.denominator for each in worth.values()))
        totals: dict[str, int] = {}
        for metric, each in worth.items():
            factor = each.numerator * (under // each.denominator)
            of = sums.get(metric, {})
            for subject in subjects:
                part = of.get(subject)
                if part is not None:
                    totals[subject] = totals.get(subject, 0) + part.value * factor
        return {s: Fraction(totals[s], under) if s in totals else None for s in subjects}

    def parts(self) -> list[str]:
        """The base metrics that values are made from."""
        catalogue = self._material.catalogue
        return sorted({part for metric in self._board.ranked for part in catalogue.parts(metric)})

    def value(self, subject: str, parts: Mapping[str, Part | None]) -> Number | None:
        """One subject's value from its parts."""
        if not self._terms:
            return self._number(self._board.metric, subject, parts)
        return scores.points(
            (self._number(metric.id, subject, parts), weight, unit)
            for metric, weight, unit in self._terms
        )

    def score(self, subject: str, value: Number | None) -> Number | None:
        """What the subject is ranked by."""
        if value is None or self._board.rank_by in ("value", "points"):
            return value
        if self._board.rank_by == "attainment":
            return scores.attainment(value, self.target(subject), self.unit)
        if self._board.rank_by == "per_head":
            heads = self._material.roster.heads(subject.partition(":")[2])
            return Fraction(value) / heads if heads else None
        past = self._number(
            self._board.metric, subject, parts_of(self._past, self.parts(), subject)
        )
        return scores.improvement(value, past, self._board.improvement)

    def target(self, subject: str) -> Fraction | None:
        """The subject's effective target for the ranked metric."""
        return self._material.targets.get(self._board.metric, {}).get(subject)

    def missing(self, subject: str, value: Number, score: Number, ahead: Number) -> Fraction | None:
        """How much more value makes up for the difference to the score ahead."""
        more = abs(Fraction(ahead) - Fraction(score))
        if self._board.rank_by == "attainment":
            target = self.target(subject)
            return None if target is None else more * target * scores.scale(self.unit)
        if self._board.rank_by == "per_head":
            return more * self._material.roster.heads(subject.partition(":")[2])
        if self._board.rank_by == "improvement" and self._board.improvement == "share":
            return more * Fraction(value) / (1 + Fraction(score)) if 1 + score else None
        return more

    def _number(self, metric: str, subject: str, parts: Mapping[str, Part | None]) -> Number | None:
        catalogue = self._material.catalogue
        wanted = catalogue.targets(metric)
        targets = {
            name: target
            for name in wanted
            if (target := self._material.targets.get(name, {}).get(subject)) is not None
        }
        return numbers.number(found(catalogue, metric), parts, targets)


def parts_of(sums: Sums, parts: Iterable[str], subject: str) -> dict[str, Part | None]:
    """A subject's parts."""
    return {part: sums[part].get(subject) if part in sums else None for part in parts}


@dataclass(frozen=True, slots=True)
class _Counted:
    """Everybody's numbers and places, those before the snapshot too, where equals share theirs."""

    values: _Numbers
    scores: _Numbers
    before: _Numbers
    places: Ranking
    places_before: Ranking


class Standings:
    """Everybody's numbers and places on one board, and the rows that are asked for.

    From `former` ones of the same board is taken over what hasn't changed since. How far that is,
    the standings find out themselves; they are the same without.
    """

    def __init__(
        self, board: Definition, material: Material, former: "Standings | None" = None
    ) -> None:
        self.definition = board
        self.material = material
        self._scoring = Scoring(board, material, material.past)
        self._scoring_before = Scoring(board, material, material.past_before)
        self.names = material.roster.names(board.subjects, board.scope)
        self._reached: dict[str, int] = {}
        self.rows: dict[tuple[str, Audience, bool], tuple[object, Row]] = {}  # those asked for
        self._boards: dict[Audience, Board] = {}
        changed = None if former is None else self._changed_since(former)
        if former is None or changed is None:
            self.counted = self._compute(None, self.names)
        else:
            self.counted = self._compute(former, changed)
            if len(former.rows) <= MOST_ROWS:
                rows = dict(former.rows)  # at once: others may be asking the former for rows
                self.rows = {key: row for key, row in rows.items() if key[0] not in changed}
        self._ranking, self._ranking_before = self.counted.places, self.counted.places_before

    def _compute(self, former: "Standings | None", changed: Collection[str]) -> _Counted:
        """The numbers and places of those who have changed; the others' are the former ones."""
        values = self._scoring.values(self.material.sums, changed)
        scored = self._scoring.scores(values)
        before: _Numbers = {}
        if self.material.snapshot is not None:
            scoring = self._scoring_before
            before = scoring.scores(scoring.values(self._sums_before(changed), changed))
        if former is None:
            higher = self._scoring.higher_is_better
            now, then = (
                Ranking.of(numbers, self.names, higher_is_better=higher)
                for numbers in (scored, before)
            )
            return _Counted(values, scored, before, now, then)
        was = former.counted
        values, scored, before = was.values | values, was.scores | scored, was.before | before
        return _Counted(
            values,
            scored,
            before,
            was.places.changed(scored, changed),
            was.places_before.changed(before, changed if before else ()),
        )

    def _changed_since(self, former: "Standings") -> set[str] | None:
        """Whose numbers are others than formerly; None where it may be everybody's."""
        old, new = former.material, self.material
        if (
            former.definition is not self.definition
            or old.catalogue is not new.catalogue
            or old.roster is not new.roster
            or (old.period, old.currency, old.snapshot) != (new.period, new.currency, new.snapshot)
            or old.targets != new.targets
        ):
            return None
        found: set[str] = set()
        for was, now in (
            (old.sums, new.sums),
            (old.since, new.since),
            (old.past, new.past),
            (old.past_before, new.past_before),
        ):
            for metric in was.keys() | now.keys():
                found |= _differing(was.get(metric, {}), now.get(metric, {}))
        found &= self.names.keys()
        return found if len(found) <= len(self.names) // FEW else None

    @property
    def version(self) -> str:
        """What changes whenever the board may have."""
        return self.material.version

    @property
    def kind(self) -> tuple[str, str, str, str]:
        """What makes it another board: rows of two kinds can't be compared."""
        material = self.material
        return (material.period, self._scoring.unit, self.definition.title, material.compared_with)

    @property
    def catalogue(self) -> Catalogue:
        """What the board's metrics mean."""
        return self.material.catalogue

    def conceals(self, audience: Audience) -> bool:
        """Whether the audience is kept from some of the numbers."""
        catalogue = self.material.catalogue
        return any(hides(found(catalogue, m), audience) for m in self.definition.shown)

    def parts(self) -> list[str]:
        """The base metrics that places depend on."""
        return self._scoring.parts()

    def tied(self) -> list[str]:
        """Whose moments are needed to tell equals apart; nobody's where equals share."""
        if self.definition.ties == "share":
            return []
        found: set[str] = set()
        for places in (self.counted.places, self.counted.places_before):
            found.update(places.tied(within=self.definition.limit, at_most=MOST_EQUALS))
        return sorted(found)

    def settle(self, moments: Moments) -> None:
        """Tell equals apart by when they reached their score."""
        self._reached = self._instants(moments, self._scoring)
        self._ranking = self.counted.places.told_apart(self._reached)
        if self.material.snapshot is not None:
            limit = self._second(self.material.snapshot)
            earlier = {s: [m for m in of if m.at < limit] for s, of in moments.items()}
            before = self._instants(earlier, self._scoring_before)
            self._ranking_before = self.counted.places_before.told_apart(before)
        self.__dict__.pop("_bands", None)
        self._boards.clear()

    def shown(
        self,
        audience: Audience,
        *,
        own: str = "",
        around: str = "",
        rows: int = 0,
        band: str = "",
    ) -> Board:
        """The board for an audience: its first rows, or those around a subject.

        The row of `own` is whole; this is for a single viewer.
        """
        if own or around or band:
            return self._shown(audience, own, around, rows, band)
        if audience not in self._boards:
            self._boards[audience] = self._shown(audience, "", "", 0, "")
        return self._boards[audience]

    def _shown(self, audience: Audience, own: str, around: str, rows: int, band: str) -> Board:
        order: Sequence[str] = self._ranking.order
        if not self._places_shown(audience):
            order = list(self.names)  # which are in the order of names
            if around:  # the order would tell the place: only the row itself
                rows = 0
        if band:
            order = [s for s in order if self._band(s, audience, own=s == own)[0] == band]
        chosen = ranking.around(order, around, rows) if around else order[: self.definition.limit]
        material, board = self.material, self.definition
        return Board(
            board=board.id,
            title=board.title,
            metric=board.metric,
            unit=self._scoring.unit,
            period=material.period,
            version=material.version,
            as_of=material.as_of,
            rows=[self._row(s, audience, own=s == own) for s in chosen],
            total=len(self.names),
            compared_with=material.compared_with,
            since=material.snapshot.isoformat() if material.snapshot else "",
        )

    def row(self, subject: str, audience: Audience) -> Row | None:
        """A subject's own row; None for who doesn't take part."""
        return self._row(subject, audience, own=True) if subject in self.names else None

    def _instants(self, moments: Moments, scoring: Scoring) -> dict[str, int]:
        found = {}
        for subject, of in moments.items():
            at = ranking.reached(of, _running(subject, scoring))
            if at is not None:
                found[subject] = at
        return found

    def _sums_before(self, subjects: Collection[str]) -> Sums:
        """These subjects' sums without what happened from the snapshot on."""
        found: dict[str, Mapping[str, Part]] = {}
        for metric in self.parts():
            of = self.material.sums.get(metric, {})
            since = self.material.since.get(metric, {})
            if since:
                rest = ((s, of[s].minus(since.get(s))) for s in subjects if s in of)
                of = {s: part for s, part in rest if part is not None}
            found[metric] = of
        return found

    def _second(self, day: date) -> int:
        """The instant at which a local day begins."""
        zone = ZoneInfo(self.material.roster.directory.calendar.zone)
        return int(datetime.combine(day, time(), zone).timestamp())

    @cached_property
    def _bands(self) -> dict[str, tuple[str, int]]:
        """The band and the place in it of everybody who is in one."""
        board, roster = self.definition, self.material.roster
        if not board.bands:
            return {}
        bands: dict[str, str] = {}
        if board.bands == "quarter":
            last = self._scoring.values(self.material.last, self.names)
            then = rank(last, higher_is_better=self._scoring.higher_is_better)
            bands = {s: f"Q{ranking.quarter(p, len(then))}" for s, p in then.items()}
        else:
            for subject in self.names:
                person = subject.partition(":")[2]
                if board.bands == "role":
                    bands[subject] = roster.role(person)
                else:
                    bands[subject] = tenure_band(roster.tenure(person), board.tenure_bands)
        places = self._ranking.places
        within: dict[str, dict[str, Number | None]] = {}
        for subject, band in bands.items():
            within.setdefault(band, {})[subject] = places.get(subject)
        ranks = {
            s: place
            for of in within.values()
            for s, place in rank(of, higher_is_better=False).items()
        }
        return {s: (band, ranks.get(s, 0)) for s, band in bands.items() if band}

    def _places_shown(self, audience: Audience) -> bool:
        return self.definition.show_rank or not self._hidden(audience)

    def _band(
        self, subject: str, audience: Audience, *, own: bool
    ) -> tuple[str, int] | tuple[None, None]:
        """The band and the place in it; a quarter of the ranking is as good as a place."""
        if self.definition.bands == "quarter" and not own and not self._places_shown(audience):
            return None, None
        return self._bands.get(subject, (None, None))

    def _hidden(self, audience: Audience) -> bool:
        catalogue = self.material.catalogue
        return any(hides(found(catalogue, m), audience) for m in self.definition.ranked)

    def _row(self, subject: str, audience: Audience, *, own: bool) -> Row:
        place = self._ranking.place(subject)
        was = self._ranking_before.place(subject)
        ahead = self._ranking.ahead(subject)
        score_ahead = None if ahead is None else self.counted.scores[ahead]
        reached = self._reached.get(subject)
        band = self._band(subject, audience, own=own)
        # All that a row depends on, beside the subject's own numbers.
        about = (place, was, score_ahead, reached, band)
        known = self.rows.get((subject, audience, own))
        if known is None or known[0] != about:
            known = about, self._new_row(subject, audience, *about, own=own)
            self.rows[subject, audience, own] = known
        return known[1]

    def _new_row(
        self,
        subject: str,
        audience: Audience,
        place: int | None,
        was: int | None,
        ahead: Number | None,
        reached: int | None,
        band: tuple[str, int] | tuple[None, None],
        *,
        own: bool,
    ) -> Row:
        board, scoring = self.definition, self._scoring
        concealed = self._hidden(audience)
        hidden = concealed and not own
        if hidden and not board.show_rank:
            place = was = None
        value, score = self.counted.values[subject], self.counted.scores[subject]
        target = scoring.target(subject)
        gap = None
        if ahead is not None and value is not None and score is not None and not concealed:
            gap = scoring.missing(subject, value, score, ahead)
        name, rank = band
        return Row(
            rank=place,
            subject=subject,
            name=self.names[subject],
            team=self._team(subject),
            value=None if hidden or value is None else scores.text(value, scoring.unit),
            count=None if hidden else self._count(subject),
            target=None if hidden or target is None else scores.target_text(target, scoring.unit),
            attainment=None
            if hidden
            else numbers.share_text(scores.attainment(value, target, scoring.unit)),
            gap_to_next=None if gap is None else self._gap_text(gap),
            movement=None if was is None or place is None else was - place,
            columns={c: self._column(c, subject, audience, own=own) for c in board.columns},
            score=None if hidden or score is None else self._score_text(score),
            reached_at=None
            if hidden or reached is None
            else datetime.fromtimestamp(reached, UTC).isoformat(),
            band=name,
            band_rank=rank if rank and place is not None else None,
            hidden=hidden,
        )

    def _count(self, subject: str) -> int:
        """How many records make up the value."""
        catalogue, sums = self.material.catalogue, self.material.sums
        return sum(
            numbers.count(
                found(catalogue, metric), parts_of(sums, catalogue.parts(metric), subject)
            )
            for metric in self.definition.ranked
        )

    def _gap_text(self, gap: Fraction) -> str:
        """Never less than what makes up for the difference."""
        unit = self._scoring.unit
        return scores.text(ceil(gap) if scores.whole(unit) else gap, unit)

    def _score_text(self, score: Number) -> str | None:
        board = self.definition
        if board.rank_by == "improvement" and board.improvement == "share":
            return numbers.share_text(Fraction(score))
        if board.rank_by in ("improvement", "per_head"):
            return scores.text(score, self._scoring.unit)
        return None  # the row has it: the value, or the attainment

    def _column(self, column: str, subject: str, audience: Audience, *, own: bool) -> str | None:
        material = self.material
        metric = found(material.catalogue, column)
        if hides(metric, audience) and not own:
            return None
        parts = parts_of(material.sums, material.catalogue.parts(column), subject)
        value = self._scoring._number(column, subject, parts)  # noqa: SLF001  # the same module
        return None if value is None else scores.text(value, self._scoring.unit_of(column))

    def _team(self, subject: str) -> str:
        """The name of the person's team, or of the team or territory above."""
        directory, name = self.material.roster.directory, subject.partition(":")[2]
        return above(directory, self.definition.subjects, name, self.material.roster.day)


def above(directory: Directory, subjects: str, name: str, day: date) -> str:
    """The name of a person's team, or of what a team or territory is part of."""
    if subjects == "territory":
        territory = directory.territories[name].parent
        part_of = directory.territories.get(territory)
        return part_of.name if part_of else territory
    team = directory.teams[name].parent if subjects == "team" else directory.team_of(name, day)
    known = directory.teams.get(team)
    return known.name if known else team


def tenure_band(days: int | None, limits: Sequence[int]) -> str:
    """`0-89`, `90-364`, `365+` for the limits 90 and 365; empty where it isn't known."""
    if days is None:
        return ""
    edges = [0, *limits]
    index = max((n for n, edge in enumerate(edges) if edge <= days), default=0)
    return f"{edges[index]}-{edges[index + 1] - 1}" if index < len(limits) else f"{edges[index]}+"


def _running(subject: str, scoring: Scoring) -> Callable[[Running], Number | None]:
    units = {part: scoring.unit_of(part) for part in scoring.parts()}

    def score(running: Running) -> Number | None:
        parts = {m: Part(value, count, units[m]) for m, (value, count) in running.items()}
        return scoring.score(subject, scoring.value(subject, parts))

    return score


def _differing(old: Mapping[str, Part], new: Mapping[str, Part]) -> set[str]:
    """Whose parts aren't equal; most are the very same."""
    if old is new:
        return set()
    was = old.get
    other = [s for s, part in new.items() if was(s) is not part]
    found = {s for s in other if was(s) != new[s]}
    if len(old) + sum(s not in old for s in other) > len(new):
        found |= old.keys() - new.keys()
    return found


def difference(old: Board, new: Board) -> tuple[Sequence[Row], Sequence[str]]:
    """The rows that changed or came, and the subjects that are gone."""
    was = {row.subject: row for row in old.rows}
    now = {row.subject for row in new.rows}
    changed = [row for row in new.rows if was.get(row.subject) != row]
    return changed, [subject for subject in was if subject not in now]
