"""What counts between two instants: read from facts, where counters of days can't tell.

Reading facts costs the more the more there are: whole days come from counters wherever the sum is
all that matters.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

import msgspec

from kit.database import Transaction, columns
from schemas.directory import Entry
from schemas.periods import Calendar
from services.metrics.domain import windows
from services.metrics.domain.catalogue import STAGE, Catalogue
from services.metrics.domain.contests import Credited, Once, Span, credited_to, whole_days
from services.metrics.domain.credits import owners_of
from services.metrics.domain.leaderboard import Sums
from services.metrics.domain.numbers import Part
from services.metrics.domain.ranking import Moment

ROWS = 5_000  # in memory at a time
# A fact of another day is told by its text alone as long as there are few days to look for.
FEW_DAYS = 40

_CREDITS = """
SELECT f.type, f.id, c.number - 1, c.value ->> 0, c.value ->> 1, (c.value ->> 2)::bigint,
    (c.value ->> 3)::bigint, c.value ->> 5, c.value ->> 6
FROM fact f CROSS JOIN LATERAL jsonb_array_elements(f.credits::jsonb) WITH ORDINALITY
    AS c (value, number)
WHERE f.tenant = $1 AND f.type = ANY ($2::text[])
    AND ($3::text[] IS NULL
        OR EXISTS (SELECT FROM unnest($3::text[]) AS d (day) WHERE strpos(f.credits, d.day) > 0))
    AND (c.value ->> 0, c.value ->> 1) IN (SELECT * FROM unnest($4::text[], $5::text[]))
    AND (c.value ->> 2)::bigint >= $6 AND (c.value ->> 2)::bigint < $7 AND c.value ->> 5 <> ''
    {owners}
ORDER BY f.type, f.id, c.number
"""
_OF_OWNERS = """
    AND ((f.source, f.owner_id) IN (SELECT * FROM unnest($8::text[], $9::text[]))
        OR f.shares <> '')
"""
_ANYONES = _CREDITS.format(owners="")
_OWNERS = _CREDITS.format(owners=_OF_OWNERS)

# Moves whenever one of these counters does: cheaper than what it saves by a thousand times.
_MARK = """
SELECT coalesce(max(version), 0) FROM counter
JOIN unnest($3::text[], $4::date[]) AS p (grain, start) USING (grain, start)
WHERE tenant = $1 AND metric = ANY ($2::text[])
"""

_COUNTED = """
SELECT metric, unit, subject, sum(value)::bigint, sum(count)::bigint FROM counter
JOIN unnest($2::text[], $3::text[]) AS m (metric, unit) USING (metric, unit)
JOIN unnest($4::text[], $5::date[]) AS p (grain, start) USING (grain, start)
WHERE tenant = $1 AND subject >= $6 || ':' AND subject < $6 || ';'
GROUP BY metric, unit, subject HAVING sum(count) <> 0
"""

_SUBJECTS = msgspec.json.Decoder(list[str])


async def counting(
    transaction: Transaction,
    tenant: str,
    catalogue: Catalogue,
    asked: Mapping[str, str],
    span: Span,
    owners: Sequence[tuple[str, str]] | None = None,
) -> AsyncIterator[Credited]:
    """What counts for the `asked` metrics (with their units), by record and number.

    All of one instant: it is one statement.
    """
    types = {
        metric.record
        for name in asked
        if (metric := catalogue.base.get(name.partition(STAGE)[0])) is not None
    }
    days = _texts_of_days(span)
    arguments = [tenant, sorted(types), days, list(asked), list(asked.values()), *span]
    query = _ANYONES
    if owners is not None:
        query, arguments = _OWNERS, [*arguments, *columns(owners, 2)]
    cursor = await transaction.driver.cursor(query, *arguments)
    while rows := await cursor.fetch(ROWS):
        for row in rows:
            yield msgspec.convert([*row[:-1], _SUBJECTS.decode(row[-1])], Credited)


async def moments(
    transaction: Transaction,
    tenant: str,
    catalogue: Catalogue,
    asked: Mapping[str, str],
    span: Span,
    subjects: Iterable[str],
    entries: Sequence[Entry],
) -> dict[str, list[Moment]]:
    """When what was added to these subjects' metrics; of people, only their records are read."""
    found: dict[str, list[Moment]] = {subject: [] for subject in subjects}
    owners = None
    if all(subject.startswith("person:") for subject in found):
        people = [subject.partition(":")[2] for subject in found]
        owners = sorted({owner for person in people for owner in owners_of(entries, person)})
    async for credit in counting(transaction, tenant, catalogue, asked, span, owners):
        for subject in (f"person:{credit.person}", *credit.subjects):
            if subject in found:
                found[subject].append(Moment(credit.at, credit.metric, credit.value))
    return found


async def sums(
    transaction: Transaction,
    tenant: str,
    catalogue: Catalogue,
    asked: Mapping[str, str],
    span: Span,
    kind: str,
    calendar: Calendar,
) -> Sums:
    """Everybody's numbers between two instants: from counters, if those are whole days."""
    days = whole_days(span, calendar)
    found: dict[str, dict[str, Part]] = {metric: {} for metric in asked}
    if days is not None:
        rows = await transaction.driver.fetch(
            _COUNTED,
            tenant,
            list(asked),
            list(asked.values()),
            *columns(windows.cover(calendar, *days), 2),
            kind,
        )
        for metric, unit, subject, value, count in rows:
            found[metric][subject] = Part(value, count, unit)
        return found
    once = Once()
    async for credit in counting(transaction, tenant, catalogue, asked, span):
        of = found[credit.metric]
        for subject in credited_to(credit, kind):
            was = of.get(subject)
            value, count = (was.value, was.count) if was is not None else (0, 0)
            records = once.counts(credit, subject)
            of[subject] = Part(value + credit.value, count + records, credit.unit)
    return found


async def mark(
    transaction: Transaction,
    tenant: str,
    metrics: Sequence[str],
    span: Span,
    calendar: Calendar,
) -> int:
    """A number that moves with whatever counts between two instants."""
    first, last = (calendar.local_day(datetime.fromtimestamp(at, UTC)) for at in span)
    pieces = windows.cover(calendar, first, last + timedelta(days=1))
    found = await transaction.driver.fetchval(_MARK, tenant, metrics, *columns(pieces, 2))
    return int(found)


def _texts_of_days(span: Span) -> list[str] | None:
    """How the days of a span are written in credits, whatever the zone; None if they are many."""
    first, last = (datetime.fromtimestamp(at, UTC).date() for at in span)
    days = (last - first).days + 3
    if days > FEW_DAYS:
        return None
    before = first - timedelta(days=1)
    return [f'"{_day(before, number)}"' for number in range(days)]


def _day(first: date, number: int) -> str:
    return (first + timedelta(days=number)).isoformat()
