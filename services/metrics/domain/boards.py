"""Boards as data: what a document may say, and what is wrong with one that says something else.

An installation ships boards in a file, a tenant adds its own or replaces a shipped one by its id.
All mistakes of a document are found at once, each with its place and what to write instead.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from difflib import get_close_matches
from typing import Any, Literal, TypeVar

import msgspec

from schemas.base import valid_id
from schemas.money import exponent
from schemas.periods import Grain, Range, parse
from services.metrics.domain.catalogue import Catalogue, CatalogueError, Mistake
from services.metrics.domain.contests import MAX_METRICS, Contest
from services.metrics.domain.contests import mistakes as contest_mistakes
from services.metrics.domain.mistakes import (
    amount_mistakes,
    metric_mistakes,
    plain,
    scope_mistakes,
    under,
)
from services.metrics.domain.ranking import Ties
from services.metrics.domain.scopes import Scope
from services.metrics.domain.windows import Over, Since

T = TypeVar("T")

RankBy = Literal["value", "attainment", "improvement", "points", "per_head"]
Bands = Literal["", "role", "tenure", "quarter"]

ROW_LIMIT = 1_000
MAX_ROLLING_DAYS = 366


class Definition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A board, as boards.yaml has it."""

    id: str
    title: str
    metric: str = ""  # what is ranked; with rank_by points there is none
    # The window: exactly one of these.
    grain: Grain | None = None
    rolling_days: int | None = None  # today is the last of them
    dates: str = ""  # 2026-11-01..2026-11-15, both included
    contest: str = ""  # the contest's instants
    subjects: Literal["person", "team", "territory"] = "person"
    scope: Scope = Scope()
    columns: list[str] = []
    rank_by: RankBy = "value"
    points: dict[str, Decimal] = {}  # per unit of each metric: one call, one unit of money
    # With rank_by improvement: over which own past, up to the same day of it or as a whole.
    over: Over = "previous"
    improvement: Literal["share", "difference"] = "share"
    compare: Literal["to_date", "whole"] = "to_date"
    ties: Ties = "share"
    bands: Bands = ""
    tenure_bands: tuple[int, ...] = (90, 365)  # days since joining, where the next band begins
    since: Since = "day"  # what movement is compared with: the beginning of
    show_rank: bool = True  # also to those who may not see the numbers
    unit: str = ""  # of money; the organisation's currency when empty
    limit: int = 100

    @property
    def ranked(self) -> list[str]:
        """The metrics that places depend on."""
        return list(self.points) if self.rank_by == "points" else [self.metric]

    @property
    def shown(self) -> list[str]:
        """All metrics that something is shown of."""
        return sorted({*self.ranked, *self.columns})


class Published(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A metric and grain whose numbers are published for every subject."""

    metric: str
    grain: Grain


@dataclass(frozen=True, slots=True)
class Boards:
    """All boards and contests of an installation or tenant, and what is published for everyone."""

    definitions: Mapping[str, Definition]
    contests: Mapping[str, Contest]
    published: frozenset[tuple[str, str]]


def parse_file(document: object, catalogue: Catalogue) -> Boards:
    """The boards of a parsed YAML file; raises `CatalogueError` with everything that is wrong."""
    found, problems = _read(document, catalogue)
    if problems:
        raise CatalogueError("; ".join(map(str, problems)))
    return found


def lint(document: object, catalogue: Catalogue) -> list[Mistake]:
    """Everything that is wrong with a file of boards."""
    return _read(document, catalogue)[1]


def read_board(document: object, catalogue: Catalogue) -> tuple[Definition | None, list[Mistake]]:
    """One board, and what is wrong with it."""
    return _checked(document, Definition, "", lambda board: mistakes(board, catalogue))


def read_contest(document: object, catalogue: Catalogue) -> tuple[Contest | None, list[Mistake]]:
    """One contest, and what is wrong with it."""
    return _checked(document, Contest, "", lambda contest: contest_mistakes(contest, catalogue))


def _read(document: object, catalogue: Catalogue) -> tuple[Boards, list[Mistake]]:
    problems: list[Mistake] = []
    if not isinstance(document, dict):
        return Boards({}, {}, frozenset()), [Mistake("", "expected boards, contests and publish")]
    problems += [
        Mistake(str(key), "expected boards, contests or publish")
        for key in sorted(map(str, document.keys() - {"boards", "contests", "publish"}))
    ]
    boards = list(_listed(document, "boards", Definition, problems))
    contests = list(_listed(document, "contests", Contest, problems))
    published = list(_listed(document, "publish", Published, problems))
    for place, board in boards:
        problems += [under(place, mistake) for mistake in mistakes(board, catalogue)]
        if board.contest and board.contest not in {c.id for _, c in contests}:
            what = f"there is no contest {board.contest!r}"
            problems.append(Mistake(f"{place}.contest", what))
    for place, contest in contests:
        problems += [under(place, mistake) for mistake in contest_mistakes(contest, catalogue)]
    for place, pair in published:
        if pair.metric not in catalogue.base:
            what = f"{pair.metric!r} is not a base metric"
            problems.append(Mistake(f"{place}.metric", what))
    problems += _twice("boards", [board.id for _, board in boards])
    problems += _twice("contests", [contest.id for _, contest in contests])
    pairs = {(p.metric, str(p.grain)) for _, p in published}
    pairs |= {(m.id, "day") for m in catalogue.base.values() if m.level == "driver"}
    found = Boards({b.id: b for _, b in boards}, {c.id: c for _, c in contests}, frozenset(pairs))
    return found, problems


def _twice(kind: str, ids: list[str]) -> Iterator[Mistake]:
    for each in sorted(set(ids)):
        if ids.count(each) > 1:
            yield Mistake(kind, f"the id {each!r} is used twice")


def _listed(
    document: Mapping[str, object], key: str, kind: type[T], problems: list[Mistake]
) -> Iterator[tuple[str, T]]:
    """The entries of a list that are of their kind, each with its place."""
    entries = document.get(key)
    if entries is None:
        return
    if not isinstance(entries, list):
        problems.append(Mistake(key, "expected a list"))
        return
    for number, entry in enumerate(entries):
        place = f"{key}[{number}]"
        found, wrong = _checked(entry, kind, place, lambda _: ())
        problems += wrong
        if found is not None:
            yield place, found


def _checked(
    document: object, kind: type[T], place: str, further: Callable[[T], Iterable[Mistake]]
) -> tuple[T | None, list[Mistake]]:
    try:
        found = msgspec.convert(plain(document), kind)
    except msgspec.ValidationError as error:
        return None, [under(place, _explained(str(error), kind))]
    wrong = list(further(found))
    return (None if wrong else found), wrong


def _explained(message: str, kind: type[Any]) -> Mistake:
    """The mistake in a message of msgspec: its path, and a near name for an unknown field."""
    what, _, path = message.partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    if not path and "unknown field `" in what:
        name = what.partition("unknown field `")[2].partition("`")[0]
        near = get_close_matches(name, [f.encode_name for f in msgspec.structs.fields(kind)], 1)
        return Mistake(
            name, "there is no such field" + (f"; did you mean {near[0]}?" if near else "")
        )
    return Mistake(path, what[:1].lower() + what[1:])


def mistakes(board: Definition, catalogue: Catalogue) -> Iterator[Mistake]:
    """What is wrong with a board whose fields are of their types."""
    if not valid_id(board.id):
        yield Mistake("id", f"{board.id!r}: use letters, digits and ._:@-")
    yield from _window_mistakes(board)
    yield from _ranking_mistakes(board, catalogue)
    yield from metric_mistakes(board.columns, "columns", catalogue)
    yield from scope_mistakes(board.scope, board.subjects)
    if board.bands and board.subjects != "person":
        yield Mistake("bands", "are bands of people; leave them out or use `subjects: person`")
    bands = board.tenure_bands
    if list(bands) != sorted(set(bands)) or min(bands, default=0) < 1:
        yield Mistake("tenure_bands", "expected ascending numbers of days from 1 on")
    if not 0 < board.limit <= ROW_LIMIT:
        yield Mistake("limit", f"{board.limit} is not from 1 to {ROW_LIMIT}")
    if board.unit:
        try:
            exponent(board.unit)
        except ValueError as error:
            yield Mistake("unit", str(error))


def _window_mistakes(board: Definition) -> Iterator[Mistake]:
    given = {
        "grain": board.grain is not None,
        "rolling_days": board.rolling_days is not None,
        "dates": bool(board.dates),
        "contest": bool(board.contest),
    }
    if sum(given.values()) != 1:
        said = " and ".join(name for name, there in given.items() if there) or "none"
        yield Mistake("grain", f"a board has one of {', '.join(given)}; this has {said}")
    if board.rolling_days is not None and not 1 <= board.rolling_days <= MAX_ROLLING_DAYS:
        yield Mistake("rolling_days", f"{board.rolling_days} is not from 1 to {MAX_ROLLING_DAYS}")
    if board.dates:
        try:
            days_of(board.dates)
        except ValueError as error:
            yield Mistake("dates", str(error).replace("range:", ""))
    if board.contest and board.rank_by == "improvement":
        yield Mistake("rank_by", "a contest has no past to improve on; use a window of days")
    if board.contest and board.bands == "quarter":
        yield Mistake("bands", "a contest has no last period; use role or tenure")


def _ranking_mistakes(board: Definition, catalogue: Catalogue) -> Iterator[Mistake]:
    if board.rank_by == "per_head" and board.subjects != "team":
        yield Mistake("rank_by", "per_head is for `subjects: team`")
    if board.rank_by != "points":
        yield from metric_mistakes([board.metric], "metric", catalogue)
        if board.points:
            yield Mistake("points", "are counted with `rank_by: points` only")
        return
    yield from metric_mistakes(board.points, "points", catalogue)
    yield from amount_mistakes((f"points.{name}", each) for name, each in board.points.items())
    if not 1 <= len(board.points) <= MAX_METRICS:
        yield Mistake("points", f"name 1 to {MAX_METRICS} metrics, e.g. {{calls_made: 1}}")
    if board.metric:
        yield Mistake("metric", "with rank_by: points the metrics are those of `points`")


def days_of(dates: str) -> tuple[date, date]:
    """The first day of `A..B` and the day after the last; raises ValueError that explains it."""
    grain, start = parse(f"range:{dates}")
    assert isinstance(grain, Range)
    return start, date.fromordinal(start.toordinal() + grain.days)
