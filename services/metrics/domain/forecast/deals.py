"""Deals as a forecast needs them, and thousands of them in columns.

A `Deal` is what facts say of one opportunity: when it was created, entered each stage and was
closed, who it counts for, and its amount where one is known. A `Book` holds a tenant's deals as
arrays in the order of their ids, so that the order they were read in changes nothing.

A stay is a deal's time in one stage: from its entry until the next entry or until it is closed. The
time before the first known stage, or all of it when none is known, is a stay in `NO_STAGE`.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

DAY = 86_400  # seconds
NEVER = 2**62  # the instant of what hasn't happened
EVERYTHING = NEVER - 1  # until when facts are known, when none is to be hidden
UNKNOWN = -(2**62)  # an amount that nobody entered

NO_STAGE = ""
OTHER_STAGES = "*"  # all beyond the most used
MAX_STAGES = 60  # each costs 2 MB in a forecast of two years; a CRM has some tens
WON, LOST, STAYING = -1, -2, -3  # how a stay ended, where it wasn't by the next stage

ORGANISATION = "org:all"


class Share(msgspec.Struct, frozen=True, gc=False):
    """What of a deal counts for one person, and for the subjects above."""

    person: str
    subjects: tuple[str, ...]  # team:… with the nearest team first, territory:…, role:…
    amount: int | None  # minor units; None while unknown


class Deal(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One opportunity; instants are epoch seconds. `won` is None for as long as it is open."""

    id: str
    created: int
    stages: tuple[tuple[int, str], ...] = ()
    closed_at: int | None = None
    won: bool | None = None
    shares: tuple[Share, ...]  # the first is whose deal it is
    unit: str = ""  # currency of its amounts
    expected_close: int | None = None


class Book:
    """A tenant's deals as columns; amounts are those in `currency`, others are kept apart."""

    def __init__(self, deals: Iterable[Deal], currency: str) -> None:
        self.currency = currency
        self.deals = sorted((d for d in deals if d.shares), key=lambda deal: deal.id)
        self.created = _ints(deal.created for deal in self.deals)
        self.closed = _ints(
            NEVER if d.closed_at is None or d.won is None else d.closed_at for d in self.deals
        )
        self.won: Bools = np.array([deal.won is True for deal in self.deals], bool)
        self.expected = _ints(
            NEVER if d.expected_close is None else d.expected_close for d in self.deals
        )
        self.amount = _ints(_total(deal, currency) for deal in self.deals)
        self.foreign: Bools = np.array([_foreign(d, currency) for d in self.deals], bool)
        self._people()
        self._stays()
        self._subjects()
        self._digests: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self.deals)

    def _people(self) -> None:
        """Each deal's person and nearest team, as numbers."""
        people: dict[str, int] = {}
        teams: dict[str, int] = {}
        person, team = [], []
        for deal in self.deals:
            share = deal.shares[0]
            nearest = next((s for s in share.subjects if s.startswith("team:")), "")
            person.append(people.setdefault(share.person, len(people)))
            team.append(teams.setdefault(nearest, len(teams)))
        self.people, self.teams = people, teams
        self.person, self.team = _ints(person), _ints(team)

    def _stays(self) -> None:
        used = Counter(stage for deal in self.deals for _, stage in deal.stages)
        named = sorted(stage for stage, _ in used.most_common(MAX_STAGES))
        kept = [NO_STAGE, OTHER_STAGES, *named]
        self.stages = kept
        number = {stage: index for index, stage in enumerate(kept)}
        row, stage, entered, left, into = [], [], [], [], []
        for index, deal in enumerate(self.deals):
            way = _way(deal)
            end = NEVER if deal.won is None or deal.closed_at is None else deal.closed_at
            outcome = STAYING if end == NEVER else WON if deal.won else LOST
            for (at, name), (until, following) in pairwise([*way, (end, "")]):
                row.append(index)
                stage.append(number.get(name, 1))
                entered.append(at)
                left.append(until)
                into.append(number.get(following, 1))
            into[-1] = outcome
        self.stay_row, self.stay_stage = _ints(row), _ints(stage)
        self.entered, self.left, self.into = _ints(entered), _ints(left), _ints(into)

    def _subjects(self) -> None:
        rows: dict[str, list[int]] = {}
        amounts: dict[str, list[int]] = {}
        mains: dict[str, list[bool]] = {}
        for index, deal in enumerate(self.deals):
            for position, share in enumerate(deal.shares):
                own = 0 if self.foreign[index] else share.amount
                for subject in {f"person:{share.person}", *share.subjects}:
                    rows.setdefault(subject, []).append(index)
                    amounts.setdefault(subject, []).append(UNKNOWN if own is None else own)
                    mains.setdefault(subject, []).append(position == 0)
        self._parts = {
            subject: (_ints(rows[subject]), _ints(amounts[subject]), np.array(mains[subject], bool))
            for subject in rows
        }

    def of(self, subject: str, *, counted: bool) -> tuple[Ints, Ints]:
        """The subject's deals (ascending rows), and of each the amount that is the subject's.

        `counted`: each deal as one, and only those whose first share is the subject's.
        """
        if subject == ORGANISATION:
            rows = np.arange(len(self), dtype=np.int64)
            return rows, np.ones_like(rows) if counted else self.amount
        parts = self._parts.get(subject)
        if parts is None:
            return _ints([]), _ints([])
        rows, amounts, main = parts
        if counted:
            rows = np.unique(rows[main])
            return rows, np.ones_like(rows)
        unique, inverse = np.unique(rows, return_inverse=True)
        total = np.zeros(len(unique), np.int64)
        np.add.at(total, inverse, np.where(amounts == UNKNOWN, 0, amounts))
        total[inverse[amounts == UNKNOWN]] = UNKNOWN
        return unique, total

    def part_of(self, deal: Deal, subject: str) -> int:
        """What of a deal's known amount, in its own currency, is the subject's."""
        return sum(share.amount or 0 for share in deal.shares if _counts_for(share, subject))

    def digest(self, until: int = EVERYTHING) -> bytes:
        """Names what is known of these deals at an instant: equal for equal knowledge."""
        if until not in self._digests:
            self._digests[until] = self._hashed(until)
        return self._digests[until]

    def _hashed(self, until: int) -> bytes:
        known = self.created <= until
        closed = self.closed <= until
        hashed = hashlib.sha256(self.currency.encode())
        for row in np.flatnonzero(known).tolist():
            deal = self.deals[row]
            hashed.update(deal.id.encode() + b"\0")
            for share in deal.shares:
                amount = share.amount if closed[row] or until == EVERYTHING else None
                hashed.update(msgspec.json.encode((share.person, share.subjects, amount)))
        hashed.update("\n".join(self.stages).encode())
        stays = known[self.stay_row] & (self.entered <= until)
        left = self.left <= until
        columns: Sequence[Ints | Bools] = (
            self.created[known],
            np.where(closed, self.closed, NEVER)[known],
            (self.won & closed)[known],
            np.where(closed | (until == EVERYTHING), self.amount, UNKNOWN)[known],
            np.where(until == EVERYTHING, self.expected, NEVER)[known],
            self.stay_stage[stays],
            self.entered[stays],
            np.where(left, self.left, NEVER)[stays],
            np.where(left, self.into, STAYING)[stays],
        )
        for column in columns:
            hashed.update(column.tobytes())
        return hashed.digest()


def _way(deal: Deal) -> list[tuple[int, str]]:
    """The stages that the deal was in while it was open, the first from its creation on."""
    end = NEVER if deal.closed_at is None or deal.won is None else deal.closed_at
    way = [(max(at, deal.created), stage) for at, stage in sorted(deal.stages) if at < end]
    if not way or way[0][0] > deal.created:
        way.insert(0, (min(deal.created, end), NO_STAGE))
    return way


def _counts_for(share: Share, subject: str) -> bool:
    return subject in (ORGANISATION, f"person:{share.person}", *share.subjects)


def _foreign(deal: Deal, currency: str) -> bool:
    return deal.unit not in ("", currency)


def _total(deal: Deal, currency: str) -> int:
    """The whole amount: unknown as soon as a share's is, and 0 in another currency."""
    if _foreign(deal, currency):
        return 0
    amounts = [share.amount for share in deal.shares]
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(amounts) else UNKNOWN


def _ints(values: Iterable[int]) -> Ints:
    return np.array(list(values), np.int64)
