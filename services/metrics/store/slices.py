"""Everybody's numbers of a period, kept in memory and brought up to date by what has changed.

A *slice* is one metric of one stored period in one unit, for all subjects of a kind: its counters,
and what is pending for them. Counters are kept. Small folds say what they have changed; after a
large one, or a longer time, a slice is looked through for what has a version beyond the last seen.
All slices that a board needs, and the instant that they are of, are read by one statement. When
counters start over, that counts as a large fold; for another directory, and now and then in any
case, slices are read anew.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from kit.database import Transaction, columns
from schemas.directory import Directory
from services.metrics.domain.numbers import Part
from services.metrics.store.counters import Instant

MAX_ROWS = 1_000_000  # of all slices: some 200 MB
ANEW_SECONDS = 60.0

_CHANGED = """
WITH state AS MATERIALIZED (
    SELECT sequence, changes_from FROM fold_state WHERE tenant = $1
), wanted AS MATERIALIZED (
    SELECT w.*, coalesce(mark >= (SELECT changes_from FROM state), false) AS follows
    FROM unnest(
        $2::text[], $3::text[], $4::date[], $5::date[], $6::text[], $7::text[], $8::bigint[]
    ) WITH ORDINALITY AS w (metric, grain, start, until, unit, kind, mark, number)
), waiting AS MATERIALIZED (
    -- Grouped by what differs most, as PostgreSQL sorts for it.
    SELECT person, subjects, metric, unit, day, sum(value) AS value, sum(count) AS count
    FROM pending WHERE tenant = $1 AND metric = ANY ($2::text[])
        AND day >= (SELECT min(start) FROM wanted) AND day < (SELECT max(until) FROM wanted)
    GROUP BY person, subjects, metric, unit, day
)
SELECT w.number - 1 AS number, array_agg(s.subject ORDER BY c.version) AS subjects,
    array_agg(s.value ORDER BY c.version) AS values,
    array_agg(s.count ORDER BY c.version) AS counts, NULL::numeric[] AS waiting
FROM wanted w JOIN slice_change c ON c.tenant = $1 AND c.version > w.mark
    AND (c.metric, c.grain, c.start, c.unit) = (w.metric, w.grain, w.start, w.unit)
CROSS JOIN LATERAL unnest(c.subjects, c.values, c.counts) AS s (subject, value, count)
WHERE w.follows AND starts_with(s.subject, w.kind || ':')
GROUP BY w.number
UNION ALL
SELECT w.number - 1, array_agg(c.subject), array_agg(c.value), array_agg(c.count), NULL
FROM wanted w CROSS JOIN LATERAL (
    SELECT subject, value, count FROM counter
    WHERE tenant = $1 AND metric = w.metric AND grain = w.grain AND start = w.start
        AND unit = w.unit AND subject >= w.kind || ':' AND subject < w.kind || ';'
        AND version > w.mark
) AS c
WHERE NOT w.follows GROUP BY w.number
UNION ALL
-- Not as a bigint: what overflows is set aside, and stays here.
SELECT w.number - 1, array_agg(d.subject), NULL, array_agg(d.count), array_agg(d.value)
FROM wanted w CROSS JOIN LATERAL (
    SELECT s.subject, sum(d.value) AS value, sum(d.count)::bigint AS count
    FROM waiting d CROSS JOIN LATERAL (
        SELECT 'person:' || d.person WHERE w.kind = 'person' AND d.person <> ''
        UNION ALL SELECT t FROM unnest(string_to_array(d.subjects, chr(31))) AS t
        WHERE strpos(d.subjects, w.kind || ':') > 0 AND starts_with(t, w.kind || ':')
    ) AS s (subject)
    WHERE d.metric = w.metric AND d.unit = w.unit AND d.day >= w.start AND d.day < w.until
    GROUP BY s.subject
) AS d
GROUP BY w.number
UNION ALL
SELECT -1, NULL, ARRAY[coalesce((SELECT sequence FROM state), 0)],
    ARRAY[(SELECT count(*) FROM pending WHERE tenant = $1)], NULL
"""

Parts = Mapping[str, Part]  # by subject
Changed = tuple[Sequence[str], Iterable[int], Iterable[int]]  # subjects, values, counts
NOTHING: Changed = ((), (), ())


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Which slice."""

    metric: str
    grain: str
    start: date
    end: date
    unit: str
    kind: str  # of subjects: person, team, territory, role


@dataclass(slots=True)
class _Slice:
    parts: dict[str, Part]  # of counters
    hollow: set[str]  # subjects with a value of no record: what it belongs to is still pending
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
    ) -> tuple[Instant, dict[Key, Parts]]:
        """These slices as of one instant.

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
                        (key.metric, key.grain, key.start, key.end, key.unit, key.kind, each.mark)
                        for key, each in zip(wanted, known, strict=True)
                    ],
                    7,
                ),
            )
            instant, waiting = Instant(), {}
            for number, subjects, values, counts, pending in rows:
                if number < 0:  # no slice, but what all of them are of
                    instant = Instant(values[0], counts[0])
                elif pending is not None:
                    waiting[number] = (subjects, map(int, pending), counts)
                else:
                    _apply(known[number], wanted[number].unit, (subjects, values, counts))
            found: dict[Key, Parts] = {}
            for number, (key, each) in enumerate(zip(wanted, known, strict=True)):
                each.mark = instant.sequence
                self._keep((tenant, key), each)
                found[key] = each.parts
                if number in waiting or each.hollow:
                    found[key] = _with(each, key.unit, waiting.get(number, NOTHING))
            return instant, found

    def _known(self, tenant: str, key: Key, directory: Directory) -> _Slice:
        found = self._slices.get((tenant, key))
        now = time.monotonic()
        if found is None or found.directory is not directory or now - found.whole_at > ANEW_SECONDS:
            return _Slice({}, set(), -1, directory, now)
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


def _apply(each: _Slice, unit: str, changed: Changed) -> None:
    parts = dict(each.parts)  # those who have it read on in peace
    for subject, value, count in zip(*changed, strict=True):
        each.hollow.discard(subject)
        if count or value:
            parts[subject] = Part(value, count, unit)
            if not count:
                each.hollow.add(subject)
        else:
            parts.pop(subject, None)
    each.parts = parts


def _with(each: _Slice, unit: str, waiting: Changed) -> Parts:
    """Counters and what is pending for them, of those with records."""
    parts = dict(each.parts)
    none = Part(0, 0, unit)
    for subject, value, count in zip(*waiting, strict=True):
        was = parts.get(subject, none)
        parts[subject] = Part(was.value + value, was.count + count, unit)
    for subject in (*waiting[0], *each.hollow):
        if subject in parts and not parts[subject].count:
            del parts[subject]
    return parts


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
