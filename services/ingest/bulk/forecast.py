"""What an import would change, found out without writing anything anywhere.

Rows are read by the very code that reads imported messages. What all of them say about a record is
gathered in a temporary file, since a record's rows may be far apart, and then joined with what is
known of it now. What records mean for others is not followed: merges for survivors, the meaning
of a stage for the deals in it.
"""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from kit.database import Database
from schemas.crm import OPPORTUNITY
from services.ingest.bulk.importing import Input, Show
from services.ingest.bulk.messages import Import
from services.ingest.domain import merge, readers, stages
from services.ingest.domain.facts import RELATION, Fact, Unreadable
from services.ingest.domain.merge import Known
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import all_vendors
from services.ingest.store import records

MAX_REASONS = 10
MAX_EXAMPLES = 5
AT_ONCE = 1000  # records compared with the store in one query
LINKS = "links"  # how changed relations are told


@dataclass(slots=True)
class Outlook:
    """How many records of one type an import would change, and in what."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    fields: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Example:
    """A record that would change: its type and id, and per field the value before and after."""

    record: str
    fields: dict[str, tuple[str, str]]


@dataclass(slots=True)
class Forecast:
    """What an import would change."""

    rows: int = 0
    ignored: int = 0  # rows for which no rule's conditions hold
    unreadable: int = 0
    reasons: list[str] = field(default_factory=list)  # the first, with their rows
    types: dict[str, Outlook] = field(default_factory=lambda: defaultdict(Outlook))
    examples: list[Example] = field(default_factory=list)


async def forecast(what: Import, given: Input, database: Database, *, show: Show) -> Forecast:
    """Read everything, compare it with the store."""
    found, said = Forecast(), _Gathered()
    async for part, rows in given.batches():
        found.rows += len(rows)
        message = what.message(rows, began=given.began, digest=given.digest, part=part)
        for _, outcome in readers.read(message, what.source):
            if isinstance(outcome, Unreadable):
                found.unreadable += 1
                found.reasons += [outcome.reason] if len(found.reasons) < MAX_REASONS else []
            elif isinstance(outcome, Fact):
                said.add(outcome)
            else:
                found.ignored += 1
        said.write()
        show(found.rows, given.done, given.total)
    await _compare(found, said, what.source, database)
    return found


async def _compare(found: Forecast, said: "_Gathered", source: Source, database: Database) -> None:
    statuses: stages.Statuses = {}
    if all_vendors()[source.vendor].stages_decide:
        async with database.transaction() as transaction:
            pair = (source.tenant, source.id)
            statuses = await records.stage_statuses(transaction, [pair])
    for page in said.pages():
        async with database.transaction() as transaction:
            stored = await records.find_records(
                transaction, [(source.tenant, kind, number) for kind, number, _ in page]
            )
        known = {(one.type, one.id): merge.recorded(one) for one in stored}
        for kind, number, fresh in page:
            before = known.get((kind, number))
            after = fresh if before is None else merge.join(before, fresh)
            if kind == OPPORTUNITY:
                after = stages.by_metadata(after, source.tenant, source.id, statuses)
            _count(found, kind, number, before, after)


def _count(found: Forecast, kind: str, number: str, before: Known | None, after: Known) -> None:
    outlook = found.types[kind]
    if before is None:
        outlook.new += 1
        return
    names = merge.changed(before, after)
    if _links(before) != _links(after):
        names.append(LINKS)
    if not names:
        outlook.unchanged += 1
        return
    outlook.changed += 1
    outlook.fields.update(names)
    if len(found.examples) < MAX_EXAMPLES:
        shown = {name: (_shown(before, name), _shown(after, name)) for name in names}
        found.examples.append(Example(f"{kind} {number}", shown))


def _links(known: Known) -> set[str]:
    return {
        name
        for name, one in known.fields.items()
        if name.startswith(RELATION) and one.state == "value"
    }


def _shown(known: Known, name: str) -> str:
    """A field as people see it."""
    if name == LINKS:
        return ", ".join(sorted(link.removeprefix(RELATION) for link in _links(known)))
    if name == "deleted":
        return "yes" if known.deleted else "no"
    one = known.fields.get(name)
    if one is None:
        return "unknown"
    return str(one.value) if one.state == "value" else one.state


class _Gathered:
    """What all rows say together, per record; on disk as soon as it doesn't fit in a cache."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("")  # a temporary file that goes with the connection
        self._database.execute(
            "CREATE TABLE said (type TEXT, id TEXT, known BLOB, PRIMARY KEY (type, id))"
            " WITHOUT ROWID"
        )
        self._facts: dict[tuple[str, str], list[Fact]] = defaultdict(list)

    def add(self, fact: Fact) -> None:
        """Keep it in mind until the next `write`."""
        self._facts[fact.type, fact.id].append(fact)

    def write(self) -> None:
        """Join what was added with what is there."""
        for key, facts in self._facts.items():
            known = merge.of(facts)
            row = self._database.execute(
                "SELECT known FROM said WHERE type = ? AND id = ?", key
            ).fetchone()
            if row is not None:
                known = merge.join(_decode(row[0]), known)
            self._database.execute("REPLACE INTO said VALUES (?, ?, ?)", (*key, _encode(known)))
        self._facts.clear()

    def pages(self) -> Iterator[list[tuple[str, str, Known]]]:
        """All that was said, some records at a time."""
        rows = self._database.execute("SELECT type, id, known FROM said ORDER BY type, id")
        while some := rows.fetchmany(AT_ONCE):
            yield [(kind, number, _decode(known)) for kind, number, known in some]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Known).decode
