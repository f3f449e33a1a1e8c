"""Everybody's counters of a period, kept in memory and brought up to date by what has changed.

A *slice* is one metric of one stored period in one unit, for all subjects of a kind. Small folds
say what they have changed; after a large one, or a longer time, a slice is looked through for what
has a version beyond the last seen. All slices that a board needs, and the tenant's sequence, are
read by one statement, and so are of one instant. What starts counters over comes with another
directory, for which slices are read anew, as they are now and then in any case.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from kit.database import Transaction, columns
from schemas.directory import Directory
from services.metrics.domain.numbers import Part

MAX_ROWS = 1_000_000  # of all slices: some 200 MB
ANEW_SECONDS = 60.0

_CHANGED = """
WITH state AS MATERIALIZED (
    SELECT sequence, changes_from FROM fold_state WHERE tenant = $1
), wanted AS MATERIALIZED (
    SELECT w.*, coalesce(mark >= (SELECT changes_from FROM state), false) AS follows
    FROM unnest($2::text[], $3::text[], $4::date[], $5::text[], $6::text[], $7::bigint[])
        WITH ORDINALITY AS w (metric, grain, start, unit, kind, mark, number)
), change AS (
    SELECT c.version, e.*
    FROM counter_change c CROSS JOIN LATERAL unnest(
        c.metrics, c.grains, c.starts, c.units, c.subjects, c.values, c.counts
    ) AS e (metric, grain, start, unit, subject, value, count)
    WHERE c.tenant = $1 AND c.version > (SELECT min(mark) FROM wanted WHERE follows)
)
SELECT w.number - 1, array_agg(c.subject ORDER BY c.version),
    array_agg(c.value ORDER BY c.version), array_agg(c.count ORDER BY c.version), NULL::bigint
FROM wanted w JOIN change c USING (metric, grain, start, unit)
WHERE w.follows AND c.version > w.mark AND starts_with(c.subject, w.kind || ':')
GROUP BY w.number
UNION ALL
SELECT w.number - 1, array_agg(c.subject), array_agg(c.value), array_agg(c.count), NULL::bigint
FROM wanted w CROSS JOIN LATERAL (
    SELECT subject, value, count FROM counter
    WHERE tenant = $1 AND metric = w.metric AND grain = w.grain AND start = w.start
        AND unit = w.unit AND subject >= w.kind || ':' AND subject < w.kind || ';'
        AND version > w.mark
) AS c
WHERE NOT w.follows GROUP BY w.number
UNION ALL SELECT -1, NULL, NULL, NULL, sequence FROM state
"""

Parts = Mapping[str, Part]  # by subject


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Which slice."""

    metric: str
    grain: str
    start: date
    unit: str
    kind: str  # of subjects: person, team, territory, role


@dataclass(slots=True)
class _Slice:
    parts: dict[str, Part]
    mark: int  # the tenant's sequence when it was read; -1 before
    directory: Directory
    whole_at: float  # when it was last read as a whole
    kept: int = 0  # rows that count towards the most that are kept


class Slices:
    """The slices of all tenants that were asked for lately."""

    def __init__(self) -> None:
        self._slices: OrderedDict[tuple[str, Key], _Slice] = OrderedDict()
        self._rows = 0
        self._reading: dict[str, asyncio.Lock] = {}

    async def read(
        self, transaction: Transaction, tenant: str, directory: Directory, keys: Sequence[Key]
    ) -> tuple[int, dict[Key, Parts]]:
        """These slices as of one instant, and the tenant's sequence then.

        What is returned stays as it is; later readings make others.
        """
        async with self._reading.setdefault(tenant, asyncio.Lock()):
            wanted = sorted(set(keys))
            known = [self._known(tenant, key, directory) for key in wanted]
            rows = await transaction.driver.fetch(
                _CHANGED,
                tenant,
                *columns(
                    [
                        (key.metric, key.grain, key.start, key.unit, key.kind, each.mark)
                        for key, each in zip(wanted, known, strict=True)
                    ],
                    6,
                ),
            )
            sequence = 0
            for number, subjects, values, counts, found in rows:
                if number < 0:
                    sequence = found
                else:
                    _apply(known[number], wanted[number].unit, (subjects, values, counts))
            for key, each in zip(wanted, known, strict=True):
                each.mark = sequence
                self._keep((tenant, key), each)
            return sequence, {k: each.parts for k, each in zip(wanted, known, strict=True)}

    def _known(self, tenant: str, key: Key, directory: Directory) -> _Slice:
        found = self._slices.get((tenant, key))
        now = time.monotonic()
        if found is None or found.directory is not directory or now - found.whole_at > ANEW_SECONDS:
            return _Slice({}, -1, directory, now)
        return found

    def _keep(self, place: tuple[str, Key], each: _Slice) -> None:
        former = self._slices.pop(place, None)
        if former is not None:
            self._rows -= former.kept
        each.kept = len(each.parts)
        self._rows += each.kept
        self._slices[place] = each
        while self._rows > MAX_ROWS and len(self._slices) > 1:
            _, dropped = self._slices.popitem(last=False)
            self._rows -= dropped.kept


def _apply(each: _Slice, unit: str, changed: tuple[list[str], list[int], list[int]]) -> None:
    parts = dict(each.parts)  # those who have it read on in peace
    for subject, value, count in zip(*changed, strict=True):
        if count:
            parts[subject] = Part(value, count, unit)
        else:
            parts.pop(subject, None)
    each.parts = parts


def added(slices: Sequence[Parts]) -> Parts:
    """The sum of slices."""
    if len(slices) == 1:
        return slices[0]
    found: dict[str, Part] = {}
    for parts in slices:
        for subject, part in parts.items():
            was = found.get(subject)
            if was is None:
                found[subject] = part
            else:
                found[subject] = Part(was.value + part.value, was.count + part.count, part.unit)
    return {subject: part for subject, part in found.items() if part.count}
