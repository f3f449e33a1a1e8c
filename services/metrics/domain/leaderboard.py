"""Boards: who leads by a metric in the current period, computed from numbers already summed.

Ranks are over exact numbers. *Movement* compares with the ranking without what happened today,
which needs no stored snapshot, is the same in every replica, and follows corrections: places gained
since the start of the local day, None for who wasn't ranked then.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Literal

import msgspec

from schemas.base import valid_id
from schemas.directory import Directory
from schemas.money import exponent
from schemas.periods import Grain, written
from services.metrics.domain import numbers
from services.metrics.domain.catalogue import Catalogue, CatalogueError
from services.metrics.domain.numbers import Part
from services.metrics.domain.ranking import Number, rank

Sums = Mapping[str, Mapping[str, Part]]  # by subject, then base metric

ROW_LIMIT = 1_000


class Definition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A board, as boards.yaml has it."""

    id: str
    title: str
    metric: str
    grain: Grain
    subjects: Literal["person", "team"] = "person"
    columns: list[str] = []
    rank_by: Literal["value", "attainment"] = "value"
    unit: str = ""  # of money; the organisation's currency when empty
    limit: int = 100


class Published(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A metric and grain whose numbers are published for every subject."""

    metric: str
    grain: Grain


class Row(msgspec.Struct, frozen=True):
    """One subject on a board. Decimal numbers are text; None is no data."""

    rank: int | None
    subject: str
    name: str
    team: str
    value: str | None
    count: int
    target: str | None
    attainment: str | None
    gap_to_next: str | None
    movement: int | None
    columns: dict[str, str | None]


class Board(msgspec.Struct, frozen=True):
    """A board as it is shown."""

    board: str
    title: str
    metric: str
    unit: str
    period: str
    version: str
    as_of: str
    rows: list[Row]


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    boards: list[Definition]
    publish: list[Published] = []


@dataclass(frozen=True, slots=True)
class Boards:
    """All boards of an installation, and what is published for everyone."""

    definitions: dict[str, Definition]
    published: frozenset[tuple[str, str]]


def parse(document: object, catalogue: Catalogue) -> Boards:
    """The boards of a parsed YAML document; raises `CatalogueError` that says where it is wrong."""
    try:
        checked = msgspec.convert(document, _Document)
    except msgspec.ValidationError as error:
        raise CatalogueError(str(error)) from error
    problems = [p for d in checked.boards for p in _problems(d, catalogue)]
    problems += [
        f"publish: {p.metric!r} is not a base metric"
        for p in checked.publish
        if p.metric not in catalogue.base
    ]
    ids = [d.id for d in checked.boards]
    problems += [f"board {i}: the id is used twice" for i in sorted(set(ids)) if ids.count(i) > 1]
    if problems:
        raise CatalogueError("; ".join(problems))
    pairs = {(p.metric, str(p.grain)) for p in checked.publish}
    pairs |= {(m.id, "day") for m in catalogue.base.values() if m.level == "driver"}
    return Boards({d.id: d for d in checked.boards}, frozenset(pairs))


def _problems(board: Definition, catalogue: Catalogue) -> Iterable[str]:
    if not valid_id(board.id):
        yield f"board id {board.id!r}: use letters, digits and ._:@-"
    for metric in (board.metric, *board.columns):
        if metric not in catalogue.metrics:
            yield f"board {board.id}: {metric!r} is not in the catalogue"
    if not 0 < board.limit <= ROW_LIMIT:
        yield f"board {board.id}: limit is from 1 to {ROW_LIMIT}"
    if board.unit:
        try:
            exponent(board.unit)
        except ValueError as error:
            yield f"board {board.id}: {error}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What a board is computed from: all of one instant."""

    catalogue: Catalogue
    directory: Directory
    day: date
    sums: Sums  # of the board's period
    today: Sums  # of `day` alone
    targets: Mapping[str, Decimal]  # by subject, for the board's metric and period
    version: str
    as_of: str


@dataclass(frozen=True, slots=True)
class _Standing:
    """Everybody's numbers and places on one board."""

    unit: str
    names: dict[str, str]
    values: dict[str, Number | None]
    places: dict[str, int]
    before: dict[str, int]  # places without what happened today
    ahead: dict[int, Number]  # the value of the place before each place


def compute(board: Definition, material: Material) -> Board:
    """The board with its ranks, gaps and movement."""
    metric = material.catalogue.metrics[board.metric]
    directory = material.directory
    unit = numbers.unit_of(metric, board.unit or directory.organisation.currency)
    names = _names(board, directory, material.day)
    values = {s: numbers.number(metric, material.sums.get(s, {})) for s in names}
    places = _places(board, values, material, unit)
    before = _places_before(board, names, material, unit)
    standing = _Standing(unit, names, values, places, before, _ahead(values, places))
    order = sorted(names, key=lambda s: (places.get(s, len(names) + 1), names[s], s))
    period = written(board.grain, directory.calendar.start(board.grain, material.day))
    return Board(
        board=board.id,
        title=board.title,
        metric=board.metric,
        unit=unit,
        period=period,
        version=material.version,
        as_of=material.as_of,
        rows=[_row(board, subject, standing, material) for subject in order[: board.limit]],
    )


def _names(board: Definition, directory: Directory, day: date) -> dict[str, str]:
    if board.subjects == "team":
        return {f"team:{team.id}": team.name for team in directory.teams.values()}
    return {
        f"person:{person.id}": person.name
        for person in directory.people.values()
        if directory.active(person.id, day)
    }


def _places(
    board: Definition, values: Mapping[str, Number | None], material: Material, unit: str
) -> dict[str, int]:
    scores: dict[str, Number | None] = dict(values)
    if board.rank_by == "attainment":
        targets = material.targets
        scores = {s: numbers.attainment(v, targets.get(s), unit) for s, v in values.items()}
    direction = material.catalogue.metrics[board.metric].direction
    return rank(scores, higher_is_better=direction == "higher")


def _places_before(
    board: Definition, names: Iterable[str], material: Material, unit: str
) -> dict[str, int]:
    """The ranking without today's contributions."""
    if board.grain == "day":
        return {}
    metric = material.catalogue.metrics[board.metric]
    values: dict[str, Number | None] = {}
    for subject in names:
        today = material.today.get(subject, {})
        sums = material.sums.get(subject, {})
        parts = {name: part.minus(today.get(name)) for name, part in sums.items()}
        values[subject] = numbers.number(metric, parts)
    return _places(board, values, material, unit)


def _ahead(values: Mapping[str, Number | None], places: Mapping[str, int]) -> dict[int, Number]:
    """For every place but the first, the value of the place before it."""
    of_place = {place: values[subject] for subject, place in places.items()}
    ahead: dict[int, Number] = {}
    previous: Number | None = None
    for place in sorted(of_place):
        if previous is not None:
            ahead[place] = previous
        previous = of_place[place]
    return ahead


def _row(board: Definition, subject: str, standing: _Standing, material: Material) -> Row:
    metric, unit = material.catalogue.metrics[board.metric], standing.unit
    parts = material.sums.get(subject, {})
    value, place = standing.values[subject], standing.places.get(subject)
    was, target = standing.before.get(subject), material.targets.get(subject)
    better = None if place is None else standing.ahead.get(place)
    gap = None if better is None or value is None else Fraction(better - value)
    return Row(
        rank=place,
        subject=subject,
        name=standing.names[subject],
        team=_team(board, subject, material),
        value=None if value is None else numbers.text(value, unit),
        count=numbers.count(metric, parts),
        target=None if target is None else numbers.target_text(target, unit),
        attainment=numbers.share_text(numbers.attainment(value, target, unit)),
        gap_to_next=None if gap is None else numbers.text(abs(gap), unit),
        movement=None if was is None or place is None else was - place,
        columns={column: _column(column, board, parts, material) for column in board.columns},
    )


def _column(
    column: str, board: Definition, parts: Mapping[str, Part], material: Material
) -> str | None:
    metric = material.catalogue.metrics[column]
    value = numbers.number(metric, parts)
    currency = board.unit or material.directory.organisation.currency
    return None if value is None else numbers.text(value, numbers.unit_of(metric, currency))


def _team(board: Definition, subject: str, material: Material) -> str:
    """The name of the person's team, or of the team above."""
    directory, name = material.directory, subject.partition(":")[2]
    if board.subjects == "team":
        team = directory.teams[name].parent
    else:
        team = directory.team_of(name, material.day)
    known = directory.teams.get(team)
    return known.name if known else team


def difference(old: Board, new: Board) -> tuple[Sequence[Row], Sequence[str]]:
    """The rows that changed or came, and the subjects that are gone."""
    was = {row.subject: row for row in old.rows}
    now = {row.subject for row in new.rows}
    changed = [row for row in new.rows if was.get(row.subject) != row]
    return changed, [subject for subject in was if subject not in now]
