"""Every SQL statement of the notifications service. Values out, never rows.

Rows are locked in one order everywhere, so that workers wait for each other and never in a circle:
the tenant's directory, records, counts, watches (by day), alerts, deliveries. What takes rows out
of that order skips those that are locked.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import msgspec

from kit.clock import real_micros
from kit.database import Transaction, columns
from kit.replica import Derived, Replica
from schemas.crm import ERASED, Field, Instant, Record
from schemas.directory import Directory, Entry
from schemas.spm import Alert
from services.notifications import telemetry
from services.notifications.domain import deliveries, watches
from services.notifications.domain.deliveries import AlertKey, Delivery, Subscription
from services.notifications.domain.findings import Finding, decide, forget
from services.notifications.domain.rules import Rule, Rules

RecordKey = tuple[str, str, str]  # tenant, type, id

_ALERT = "tenant, rule, subject, window_key"
_KEYS = "unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS wanted (t, r, s, w)"
_SAME = "a.tenant = t AND a.rule = r AND a.subject = s AND a.window_key = w"


# ── the directory ────────────────────────────────────────────────────────────────────────────────


class Directories:
    """Each tenant's directory, built again only when it has changed."""

    def __init__(self) -> None:
        self.replica: Replica[Entry] = Replica(Entry)
        self._directory = Derived(self.replica, Directory)

    async def of(self, transaction: Transaction, tenant: str) -> Directory:
        """The tenant's directory as this transaction sees it."""
        return await self._directory.of(transaction, tenant)

    async def lock(
        self, transaction: Transaction, *, change: Collection[str], rely: Collection[str]
    ) -> None:
        """Lock out others from these tenants' directories, or keep them as they are."""
        for tenant in sorted({*change, *rely}):  # one order for both kinds
            if tenant in change:
                await transaction.lock(self.replica.lock_name(tenant))
            else:
                await self.replica.share(transaction, [tenant])


# ── records and counts ───────────────────────────────────────────────────────────────────────────


def slim(record: Record, fields: Collection[str]) -> Record:
    """What rules need of a record: without versions, history and provenance."""
    known = {
        name: Field("value", field.value, 0, "")
        for name, field in sorted(record.fields.items())
        if (name in fields or name == ERASED) and field.state == "value"
    }
    return Record(
        tenant=record.tenant,
        version=0,
        type=record.type,
        id=record.id,
        source=record.source,
        vendor=record.vendor,
        fields=known,
        deleted=record.deleted,
    )


async def keep_records(
    transaction: Transaction, records: Sequence[tuple[int, Record, datetime | None]]
) -> set[RecordKey]:
    """Keep slim records with their versions and places; returns the keys of what was news."""
    rows = sorted(records, key=lambda row: row[1].key)
    found = await transaction.driver.fetch(
        """
        INSERT INTO record_seen AS seen (tenant, type, id, version, body, placed_at)
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bytea[],
                             $6::timestamptz[])
        ON CONFLICT (tenant, type, id) DO UPDATE
        SET version = excluded.version, body = excluded.body, placed_at = excluded.placed_at
        WHERE seen.version < excluded.version
        RETURNING tenant, type, id
        """,
        [record.tenant for _, record, _ in rows],
        [record.type for _, record, _ in rows],
        [record.id for _, record, _ in rows],
        [version for version, _, _ in rows],
        [record.encode() for _, record, _ in rows],
        [placed_at for _, _, placed_at in rows],
    )
    return {(row["tenant"], row["type"], row["id"]) for row in found}


async def records(transaction: Transaction, keys: Collection[RecordKey]) -> list[Record]:
    """The records of these keys, as far as they are known."""
    tenants, types, ids = columns(sorted(keys), 3)
    rows = await transaction.driver.fetch(
        """
        SELECT body FROM record_seen
        JOIN unnest($1::text[], $2::text[], $3::text[]) AS wanted (t, k, i)
            ON tenant = t AND type = k AND id = i
        """,
        tenants,
        types,
        ids,
    )
    return [Record.decode(row["body"]) for row in rows]


async def records_placed_since(
    transaction: Transaction, tenant: str, since: datetime
) -> list[RecordKey]:
    """Which of the tenant's records some rule selects, unless they are older."""
    rows = await transaction.driver.fetch(
        "SELECT type, id FROM record_seen WHERE tenant = $1 AND placed_at >= $2", tenant, since
    )
    return [(tenant, row["type"], row["id"]) for row in rows]


@dataclass(frozen=True, slots=True, order=True)
class Count:
    """A person's number of something on a day."""

    tenant: str
    person: str
    day: date
    metric: str
    version: int
    value: Decimal


async def keep_counts(transaction: Transaction, counts: Sequence[Count]) -> None:
    """Keep the counts that are newer than what is known, and since when there are any."""
    rows = sorted(counts)
    await transaction.driver.execute(
        """
        INSERT INTO measure_seen AS seen (tenant, person, day, metric, version, value)
        SELECT * FROM unnest($1::text[], $2::text[], $3::date[], $4::text[], $5::bigint[],
                             $6::numeric[])
        ON CONFLICT (tenant, person, day, metric) DO UPDATE
        SET version = excluded.version, value = excluded.value
        WHERE seen.version < excluded.version
        """,
        *columns([(c.tenant, c.person, c.day, c.metric, c.version, c.value) for c in rows], 6),
    )
    first: dict[str, date] = {}
    for count in rows:
        first[count.tenant] = min(first.get(count.tenant, count.day), count.day)
    await transaction.driver.execute(
        # The usual case, nothing earlier, must not lock the tenant's only row.
        """
        INSERT INTO measured_from AS known (tenant, day)
        SELECT t, d FROM unnest($1::text[], $2::date[]) AS new (t, d)
        WHERE NOT EXISTS (SELECT FROM measured_from WHERE tenant = t AND day <= d)
        ORDER BY t
        ON CONFLICT (tenant) DO UPDATE SET day = excluded.day WHERE excluded.day < known.day
        """,
        *columns(sorted(first.items()), 2),
    )


async def counts(
    transaction: Transaction, tenant: str, windows: Collection[tuple[str, date]]
) -> dict[tuple[str, date], dict[str, Decimal]]:
    """The counts of these people and days, by metric."""
    rows = await transaction.driver.fetch(
        """
        SELECT person, day, metric, value FROM measure_seen
        JOIN unnest($2::text[], $3::date[]) AS wanted (p, d) ON person = p AND day = d
        WHERE tenant = $1
        """,
        tenant,
        *columns(list(windows), 2),
    )
    found: dict[tuple[str, date], dict[str, Decimal]] = defaultdict(dict)
    for row in rows:
        found[row["person"], row["day"]][row["metric"]] = row["value"]
    return found


async def measured_from(transaction: Transaction, tenant: str) -> date | None:
    """The first day that the tenant has any count for."""
    day: date | None = await transaction.driver.fetchval(
        "SELECT day FROM measured_from WHERE tenant = $1", tenant
    )
    return day


# ── watches ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, order=True)
class Watched:
    """A window that waits for its due time; with `chain`, the next working day follows it."""

    tenant: str
    day: date
    rule: str
    person: str
    due_at: datetime
    chain: bool


async def watch(transaction: Transaction, watches: Iterable[Watched]) -> None:
    """Have these windows looked at.

    One that is there is locked, so that whoever is looking at it now finishes first and it is
    looked at again, with what this transaction has changed.
    """
    unique = {(w.tenant, w.day, w.rule, w.person): w for w in sorted(watches)}
    await transaction.driver.execute(
        """
        INSERT INTO watch AS known (tenant, day, rule, person, due_at, chain)
        SELECT * FROM unnest($1::text[], $2::date[], $3::text[], $4::text[], $5::timestamptz[],
                             $6::bool[])
        ON CONFLICT (tenant, day, rule, person) DO UPDATE SET chain = true
        WHERE excluded.chain AND NOT known.chain
        """,
        *columns(
            [(w.tenant, w.day, w.rule, w.person, w.due_at, w.chain) for w in unique.values()], 6
        ),
    )


async def rewatch(
    transaction: Transaction,
    directories: Directories,
    rules: Rules,
    tenant: str,
    people: watches.Affected,
    now: datetime,
) -> None:
    """Set people's watches back, so that what may be decided differently is looked at again.

    The caller is alone with the tenant's directory.
    """
    directory = await directories.of(transaction, tenant)
    since = await measured_from(transaction, tenant)
    planned: dict[tuple[str, str, date], Watched] = {}
    for rule in rules.schedules:
        start = watches.first_day(rule, directory, since, now)
        await _unwatch(transaction, tenant, rule.id, people, start)
        for person in watches.concerned(rule, directory, people):
            window = watches.next_window(rule, directory, person, start)
            if window is not None:
                day, due = window
                planned[rule.id, person, day] = Watched(
                    tenant, day, rule.id, person, due, chain=True
                )
        for person, day in await _firing_windows(transaction, tenant, rule.id, people):
            # At once, even if it is due later by the person's new zone: then it resolves till then.
            chain = (rule.id, person, day) in planned
            planned[rule.id, person, day] = Watched(tenant, day, rule.id, person, now, chain=chain)
    await watch(transaction, planned.values())


async def _unwatch(
    transaction: Transaction, tenant: str, rule: str, people: Collection[str] | None, since: date
) -> None:
    """Forget the windows from a day on, of these people or of everyone."""
    await transaction.driver.execute(
        "DELETE FROM watch WHERE tenant = $1 AND rule = $2 AND day >= $3"
        " AND ($4::text[] IS NULL OR person = ANY ($4))",
        tenant,
        rule,
        since,
        None if people is None else sorted(people),
    )


async def _firing_windows(
    transaction: Transaction, tenant: str, rule: str, people: Collection[str] | None
) -> list[tuple[str, date]]:
    """Person and day of what a scheduled rule's alerts say now."""
    rows = await transaction.driver.fetch(
        "SELECT subject, window_key FROM alert WHERE tenant = $1 AND rule = $2"
        " AND state = 'firing' AND window_key LIKE 'day:%'"
        " AND ($3::text[] IS NULL OR subject = ANY ($3))",
        tenant,
        rule,
        None if people is None else sorted(f"person:{person}" for person in people),
    )
    return [
        (row["subject"].removeprefix("person:"), date.fromisoformat(row["window_key"][4:]))
        for row in rows
    ]


async def tenants_with_due_watches(transaction: Transaction, now: datetime) -> list[str]:
    """Whose windows are due."""
    rows = await transaction.driver.fetch(
        "SELECT DISTINCT tenant FROM watch WHERE due_at <= $1 ORDER BY tenant", now
    )
    return [row["tenant"] for row in rows]


async def take_due(
    transaction: Transaction, tenant: str, now: datetime, limit: int
) -> list[Watched]:
    """Take due windows of the earliest day; no other worker gets them, now or after the commit."""
    rows = await transaction.driver.fetch(
        # One day at a time: what follows it is then written in the order in which others wait.
        """
        WITH taken AS (
            SELECT tenant, day, rule, person FROM watch
            WHERE tenant = $1 AND due_at <= $2
              AND day = (SELECT min(day) FROM watch WHERE tenant = $1 AND due_at <= $2)
            ORDER BY rule, person LIMIT $3 FOR UPDATE SKIP LOCKED
        )
        DELETE FROM watch AS w USING taken AS t
        WHERE w.tenant = t.tenant AND w.day = t.day AND w.rule = t.rule AND w.person = t.person
        RETURNING w.tenant, w.day, w.rule, w.person, w.due_at, w.chain
        """,
        tenant,
        now,
        limit,
    )
    return sorted(Watched(*row) for row in rows)


async def tenants_measured_earlier(transaction: Transaction) -> list[str]:
    """Tenants with counts of days before those that their watches were set for."""
    rows = await transaction.driver.fetch(
        "SELECT tenant FROM measured_from WHERE watched_from IS NULL OR day < watched_from"
    )
    return [row["tenant"] for row in rows]


async def watched_from(transaction: Transaction, tenant: str, day: date) -> None:
    """Remember that the tenant's watches take all counts since `day` into account."""
    await transaction.driver.execute(
        "UPDATE measured_from SET watched_from = $2 WHERE tenant = $1", tenant, day
    )


# ── alerts ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Looked:
    """What looking at a subject's window has shown: a finding or none."""

    key: AlertKey
    rule: Rule
    placed_at: datetime
    finding: Finding | None
    erased: bool = False  # what the alert says of the record must be forgotten


async def follow(
    transaction: Transaction,
    looked: Iterable[Looked],
    subscriptions: Sequence[Subscription],
    now: datetime,
) -> list[AlertKey]:
    """Make alerts and their deliveries follow what was found; returns the keys of new alerts."""
    by_key = {item.key: item for item in looked}
    known = await _locked_alerts(transaction, by_key)
    changed: dict[AlertKey, Alert] = {}
    raised: list[AlertKey] = []
    due: list[Delivery] = []
    for key, item in sorted(by_key.items()):
        before = known.get(key)
        after = decide(item.rule, before, item.finding, placed_at=item.placed_at, now=now)
        if item.erased and (after or before) is not None:
            after = forget(item.rule, after or before) or after
        if after is not None:
            changed[key] = after
            if before is None:
                raised.append(key)
            if before is None or before.state != after.state:
                telemetry.ALERTS.labels(item.rule.id, _what(before, after)).inc()
        current = after or before
        if current is not None and current.state == "firing":
            due += deliveries.wanted(key, current, item.rule, subscriptions, now)
        elif before is None and item.finding is not None:
            telemetry.SKIPPED.labels(item.rule.id, "old").inc()
    await _write_alerts(transaction, changed)
    await _withdraw(transaction, {key: changed[key] for key in changed.keys() & known.keys()})
    await _add_deliveries(transaction, due)
    return raised


def _what(before: Alert | None, after: Alert) -> str:
    if before is None:
        return "raised"
    return "again" if after.state == "firing" else "resolved"


async def _locked_alerts(
    transaction: Transaction, keys: Iterable[AlertKey]
) -> dict[AlertKey, Alert]:
    rows = await transaction.driver.fetch(
        f"SELECT a.* FROM alert AS a JOIN {_KEYS} ON {_SAME}"  # noqa: S608  # constants
        " ORDER BY a.tenant, a.rule, a.subject, a.window_key FOR UPDATE OF a",
        *columns(sorted(keys), 4),
    )
    return {deliveries.key_of(alert): alert for alert in map(_alert, rows)}


async def _write_alerts(transaction: Transaction, alerts: dict[AlertKey, Alert]) -> None:
    if not alerts:
        return
    await transaction.driver.execute(
        f"""
        INSERT INTO alert AS known ({_ALERT}, version, state, title, text, evidence, audience,
                                    about, raised_at, resolved_at, unpublished)
        SELECT {_ALERT}, $2, state, title, text, evidence, audience, about, raised_at, resolved_at,
               true
        FROM jsonb_to_recordset($1::jsonb) AS new (tenant text, rule text, subject text,
            window_key text, state text, title text, text text, evidence jsonb, audience text[],
            about text, raised_at timestamptz, resolved_at timestamptz)
        ORDER BY {_ALERT}
        ON CONFLICT ({_ALERT}) DO UPDATE
        SET version = greatest(known.version + 1, excluded.version), state = excluded.state,
            title = excluded.title, text = excluded.text, evidence = excluded.evidence,
            audience = excluded.audience, about = excluded.about,
            resolved_at = excluded.resolved_at, unpublished = true
        """,  # noqa: S608  # constants
        _json_rows(alerts),
        real_micros(),
    )


def _json_rows(alerts: dict[AlertKey, Alert]) -> str:
    rows = [
        {
            "tenant": key[0],
            "rule": key[1],
            "subject": key[2],
            "window_key": key[3],
            "state": alert.state,
            "title": alert.title,
            "text": alert.text,
            "evidence": alert.evidence,
            "audience": alert.audience,
            "about": _about(alert),
            "raised_at": alert.raised_at,
            "resolved_at": alert.resolved_at,
        }
        for key, alert in alerts.items()
    ]
    return msgspec.json.encode(rows).decode()


def _about(alert: Alert) -> str:
    people = [name for name in alert.audience if name.startswith("person:")]
    if alert.subject.startswith("person:"):
        return alert.subject.removeprefix("person:")
    return people[0].removeprefix("person:") if people else ""


async def restore(transaction: Transaction, alerts: Sequence[Alert]) -> None:
    """Learn from the topic which alerts there were, and what of them has been sent or read.

    What the store knows of an alert stays; that something was sent is added to it.
    """
    rows = {deliveries.key_of(alert): alert for alert in alerts}
    await transaction.driver.execute(
        f"""
        INSERT INTO alert ({_ALERT}, version, state, title, text, evidence, audience, about,
                           raised_at, resolved_at, unpublished)
        SELECT {_ALERT}, version, state, title, text, evidence, audience, about, raised_at,
               resolved_at, false
        FROM jsonb_to_recordset($1::jsonb) AS new (tenant text, rule text, subject text,
            window_key text, state text, title text, text text, evidence jsonb, audience text[],
            about text, raised_at timestamptz, resolved_at timestamptz)
        JOIN unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[])
            AS v (t, r, s, w, version) ON tenant = t AND rule = r AND subject = s AND window_key = w
        ORDER BY {_ALERT}
        ON CONFLICT ({_ALERT}) DO NOTHING
        """,  # noqa: S608  # constants
        _json_rows(rows),
        *columns([(*key, alert.version) for key, alert in rows.items()], 5),
    )
    sent = [
        (delivery, alert.raised_at, entry in alert.read)
        for key, alert in sorted(rows.items())
        for entry in alert.delivered
        if (delivery := deliveries.from_entry(key, entry)) is not None
    ]
    sent.sort(key=lambda item: (item[1], item[0]))
    await transaction.driver.execute(
        # An inbox's restored messages are as old as their alerts: nobody's stream repeats them.
        """
        INSERT INTO delivery AS known (tenant, id, rule, subject, window_key, channel, recipient,
                                       state, due_at, created_at, sent_at, read_at, sequence)
        SELECT t, i, r, s, w, c, p, 'sent', at, at, at, CASE WHEN read THEN at END,
               CASE c WHEN 'inbox' THEN (extract(epoch FROM at) * 1000000)::bigint ELSE 0 END
        FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[],
                    $7::text[], $8::timestamptz[], $9::bool[])
            AS new (t, i, r, s, w, c, p, at, read)
        ON CONFLICT (tenant, id) DO UPDATE
        SET state = 'sent', sent_at = excluded.sent_at, sequence = excluded.sequence
        WHERE known.state <> 'sent'
        """,
        *columns([(*_row(delivery), at, read) for delivery, at, read in sent], 9),
    )


async def states(transaction: Transaction, keys: Collection[AlertKey]) -> list[Alert]:
    """The alerts of these keys as they are published."""
    rows = await transaction.driver.fetch(
        f"""
        SELECT a.*, {_sent_entries()} AS delivered, {_sent_entries("read_at IS NOT NULL")} AS read
        FROM alert AS a JOIN {_KEYS} ON {_SAME}
        """,  # noqa: S608  # constants
        *columns(sorted(keys), 4),
    )
    return [_alert(row) for row in rows]


def _sent_entries(condition: str = "true") -> str:
    return f"""
        ARRAY(SELECT d.channel || '/' || d.recipient FROM delivery AS d
              WHERE d.tenant = a.tenant AND d.rule = a.rule AND d.subject = a.subject
                AND d.window_key = a.window_key AND d.state = 'sent' AND {condition}
              ORDER BY 1)"""  # noqa: S608  # constants


async def alerts_of(
    transaction: Transaction, subjects: Collection[tuple[str, str, str]]
) -> list[AlertKey]:
    """The keys of all alerts of these tenants, rules and subjects."""
    rows = await transaction.driver.fetch(
        f"""
        SELECT {_ALERT} FROM alert
        JOIN unnest($1::text[], $2::text[], $3::text[]) AS wanted (t, r, s)
            ON tenant = t AND rule = r AND subject = s
        """,  # noqa: S608  # constants
        *columns(sorted(subjects), 3),
    )
    return [tuple(row) for row in rows]


async def unpublished(transaction: Transaction, limit: int) -> list[Alert]:
    """Alerts whose last change has not been published."""
    rows = await transaction.driver.fetch(
        f"SELECT {_ALERT} FROM alert WHERE unpublished LIMIT $1",  # noqa: S608  # constants
        limit,
    )
    return await states(transaction, [tuple(row) for row in rows])


async def published(transaction: Transaction, alerts: Sequence[Alert]) -> None:
    """Note that these versions are on the topic."""
    rows = sorted((*deliveries.key_of(alert), alert.version) for alert in alerts)
    await transaction.driver.execute(
        f"""
        WITH said AS (
            SELECT {_ALERT} FROM alert
            JOIN unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[])
                AS v (t, r, s, w, n) ON tenant = t AND rule = r AND subject = s AND window_key = w
            WHERE version = n ORDER BY {_ALERT} FOR UPDATE OF alert SKIP LOCKED
        )
        UPDATE alert AS a SET unpublished = false FROM said
        WHERE a.tenant = said.tenant AND a.rule = said.rule AND a.subject = said.subject
          AND a.window_key = said.window_key
        """,  # noqa: S608  # constants
        *columns(rows, 5),
    )


# ── deliveries ───────────────────────────────────────────────────────────────────────────────────


async def _add_deliveries(transaction: Transaction, due: Iterable[Delivery]) -> None:
    """Have these sent, unless they have been or are about to be."""
    await transaction.driver.execute(
        """
        INSERT INTO delivery AS known (tenant, id, rule, subject, window_key, channel, recipient,
                                       state, due_at, created_at)
        SELECT t, i, r, s, w, c, p, 'due', clock_timestamp(), clock_timestamp()
        FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[],
                    $7::text[]) AS new (t, i, r, s, w, c, p)
        ON CONFLICT (tenant, id) DO UPDATE SET state = 'due', due_at = excluded.due_at
        WHERE known.state = 'withdrawn'
        """,
        *columns([_row(delivery) for delivery in sorted(set(due))], 7),
    )


async def _withdraw(transaction: Transaction, changed: dict[AlertKey, Alert]) -> None:
    """Take back what has not been sent yet and is no longer true, or no longer theirs."""
    if not changed:
        return
    rows = await transaction.driver.fetch(
        """
        UPDATE delivery AS d SET state = 'withdrawn'
        FROM jsonb_to_recordset($1::jsonb) AS a (tenant text, rule text, subject text,
            window_key text, state text, audience text[])
        WHERE d.tenant = a.tenant AND d.rule = a.rule AND d.subject = a.subject
          AND d.window_key = a.window_key AND d.state = 'due'
          AND (a.state = 'resolved' OR (d.channel = 'inbox' AND d.recipient <> ALL (a.audience)))
        RETURNING d.channel
        """,
        _json_rows(changed),
    )
    for row in rows:
        telemetry.DELIVERIES.labels(row["channel"], "withdrawn").inc()


async def send_inbox(transaction: Transaction, now: datetime, limit: int) -> int:
    """Put due messages into inboxes, in an order that only grows; returns how many.

    One sender at a time: a sequence number becomes visible before any higher one.
    """
    if not await transaction.try_lock("inbox"):
        return 0
    keys = await _lock_alerts_with_due(transaction, limit)
    if not keys:
        return 0
    rows = await transaction.driver.fetch(
        f"""
        WITH due AS (
            SELECT d.tenant, d.id, row_number() OVER (ORDER BY d.created_at, d.id) AS number
            FROM delivery AS d JOIN {_KEYS} ON d.tenant = t AND d.rule = r AND d.subject = s
                AND d.window_key = w
            WHERE d.channel = 'inbox' AND d.state = 'due'
        )
        UPDATE delivery AS d
        SET state = 'sent', attempts = attempts + 1, sent_at = clock_timestamp(),
            sequence = due.number
                + greatest($5, (SELECT coalesce(max(sequence), 0) FROM delivery WHERE sequence > 0))
        FROM due WHERE d.tenant = due.tenant AND d.id = due.id
        RETURNING d.id
        """,  # noqa: S608  # constants
        *columns(keys, 4),
        _microseconds(now),
    )
    await _touch(transaction, keys)
    telemetry.DELIVERIES.labels("inbox", "sent").inc(len(rows))
    return len(rows)


async def _lock_alerts_with_due(transaction: Transaction, limit: int) -> list[AlertKey]:
    rows = await transaction.driver.fetch(
        """
        WITH due AS (
            SELECT DISTINCT tenant AS t, rule AS r, subject AS s, window_key AS w
            FROM (SELECT * FROM delivery WHERE channel = 'inbox' AND state = 'due'
                  ORDER BY due_at LIMIT $1) AS oldest
        )
        SELECT tenant, rule, subject, window_key FROM alert
        JOIN due ON tenant = t AND rule = r AND subject = s AND window_key = w
        ORDER BY tenant, rule, subject, window_key FOR UPDATE OF alert SKIP LOCKED
        """,
        limit,
    )
    return [tuple(row) for row in rows]


async def _touch(transaction: Transaction, keys: Sequence[AlertKey]) -> None:
    """Give locked alerts a new version: what has been sent of them has changed."""
    await transaction.driver.execute(
        f"""
        UPDATE alert AS a SET version = greatest(version + 1, $5), unpublished = true
        FROM {_KEYS} WHERE {_SAME}
        """,  # noqa: S608  # constants
        *columns(keys, 4),
        real_micros(),
    )


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A webhook message that this worker has taken, with what it says."""

    tenant: str
    id: UUID
    attempts: int
    alert: Alert


async def take_webhooks(
    transaction: Transaction, tenant: str, endpoint: str, *, lease_seconds: float, limit: int
) -> list[Outgoing]:
    """Take due messages to an endpoint. If we die they are due again when the lease is over."""
    rows = await transaction.driver.fetch(
        """
        WITH taken AS (
            SELECT tenant, id FROM delivery
            WHERE channel = 'webhook' AND state = 'due' AND due_at <= clock_timestamp()
              AND tenant = $1 AND recipient = $2
            ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED
        ), leased AS (
            UPDATE delivery AS d SET attempts = d.attempts + 1,
                due_at = clock_timestamp() + make_interval(secs => $4)
            FROM taken WHERE d.tenant = taken.tenant AND d.id = taken.id
            RETURNING d.id, d.attempts, d.tenant, d.rule, d.subject, d.window_key
        )
        SELECT leased.id, leased.attempts, a.* FROM leased JOIN alert AS a
            USING (tenant, rule, subject, window_key)
        """,
        tenant,
        endpoint,
        limit,
        lease_seconds,
    )
    return [Outgoing(tenant, row["id"], row["attempts"], _alert(row)) for row in rows]


async def webhook_sent(transaction: Transaction, outgoing: Outgoing) -> None:
    """Note that the receiver has the message, whatever has become of its alert meanwhile."""
    key = deliveries.key_of(outgoing.alert)
    await _locked_alerts(transaction, [key])
    await transaction.driver.execute(
        "UPDATE delivery SET state = 'sent', sent_at = clock_timestamp(), last_error = ''"
        " WHERE tenant = $1 AND id = $2",
        outgoing.tenant,
        outgoing.id,
    )
    await _touch(transaction, [key])


async def webhook_failed(
    transaction: Transaction, outgoing: Outgoing, *, error: str, again_at: datetime | None
) -> None:
    """Try again later, or park the message; unless it was withdrawn or somebody else has it."""
    await transaction.driver.execute(
        """
        UPDATE delivery SET last_error = $4, due_at = coalesce($5, due_at),
            state = CASE WHEN $5::timestamptz IS NULL THEN 'parked' ELSE 'due' END
        WHERE tenant = $1 AND id = $2 AND attempts = $3 AND state = 'due'
        """,
        outgoing.tenant,
        outgoing.id,
        outgoing.attempts,
        error,
        again_at,
    )


async def disable_endpoint(transaction: Transaction, tenant: str, endpoint: str, url: str) -> None:
    """Never send to this address again."""
    await transaction.driver.execute(
        "INSERT INTO endpoint_disabled (tenant, endpoint, url, at)"
        " VALUES ($1, $2, $3, clock_timestamp()) ON CONFLICT DO NOTHING",
        tenant,
        endpoint,
        url,
    )


async def endpoint_disabled(transaction: Transaction, tenant: str, endpoint: str, url: str) -> bool:
    """Whether the address has answered that it is gone."""
    return bool(
        await transaction.driver.fetchval(
            "SELECT true FROM endpoint_disabled WHERE tenant = $1 AND endpoint = $2 AND url = $3",
            tenant,
            endpoint,
            url,
        )
    )


async def park_webhooks(transaction: Transaction, tenant: str, endpoint: str, error: str) -> int:
    """Park everything that is due for an endpoint; returns how many."""
    rows = await transaction.driver.fetch(
        "UPDATE delivery SET state = 'parked', last_error = $3 WHERE tenant = $1 AND recipient = $2"
        " AND channel = 'webhook' AND state = 'due' RETURNING id",
        tenant,
        endpoint,
        error,
    )
    return len(rows)


def _row(delivery: Delivery) -> tuple[Any, ...]:
    _, rule, subject, window = delivery.alert
    return (
        delivery.tenant, delivery.id, rule, subject, window, delivery.channel, delivery.recipient,
    )  # fmt: skip


# ── what people read ─────────────────────────────────────────────────────────────────────────────


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A message in an inbox or on a feed, with its alert as it is now."""

    id: str
    sequence: int
    recipient: str
    rule: str
    subject: str
    window: str
    state: str
    title: str
    text: str
    evidence: dict[str, str]
    raised_at: datetime
    resolved_at: datetime | None
    sent_at: datetime
    read_at: datetime | None


SequenceNumber = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Place = tuple[SequenceNumber, UUID]  # where a page of an inbox ends

_ITEM = """
SELECT d.tenant, d.id, d.sequence, d.recipient, d.rule, d.subject, d.window_key, a.state, a.title,
       a.text, a.evidence, a.raised_at, a.resolved_at, d.sent_at, d.read_at
FROM delivery AS d JOIN alert AS a USING (tenant, rule, subject, window_key)
WHERE d.sequence > 0 AND d.state = 'sent'
"""


async def items(
    transaction: Transaction, tenant: str, recipient: str, *, before: Place | None, limit: int
) -> list[Item]:
    """The newest messages of a recipient, before a place."""
    rows = await transaction.driver.fetch(
        _ITEM + " AND d.tenant = $1 AND d.recipient = $2"
        " AND ($3::bigint IS NULL OR (d.sequence, d.id) < ($3, $4::uuid))"
        " ORDER BY d.sequence DESC, d.id DESC LIMIT $5",
        tenant,
        recipient,
        before[0] if before else None,
        before[1] if before else None,
        limit,
    )
    return [_item(row) for row in rows]


async def items_after(
    transaction: Transaction, sequence: int, limit: int, recipient: tuple[str, str] | None = None
) -> list[tuple[str, Item]]:
    """Tenant and message of what came after a sequence number, oldest first."""
    tenant, name = recipient or (None, None)
    rows = await transaction.driver.fetch(
        _ITEM + " AND d.sequence > $1"
        " AND ($2::text IS NULL OR (d.tenant = $2 AND d.recipient = $3))"
        " ORDER BY d.sequence, d.id LIMIT $4",
        sequence,
        tenant,
        name,
        limit,
    )
    return [(row["tenant"], _item(row)) for row in rows]


async def last_sequence(transaction: Transaction) -> int:
    """The highest sequence number so far."""
    return int(
        await transaction.driver.fetchval(
            "SELECT coalesce(max(sequence), 0) FROM delivery WHERE sequence > 0"
        )
    )


async def unread(transaction: Transaction, tenant: str, recipient: str) -> int:
    """How many of a recipient's messages haven't been read."""
    return int(
        await transaction.driver.fetchval(
            "SELECT count(*) FROM delivery WHERE tenant = $1 AND recipient = $2 AND sequence > 0"
            " AND state = 'sent' AND read_at IS NULL",
            tenant,
            recipient,
        )
    )


async def read(transaction: Transaction, tenant: str, recipient: str, item: UUID) -> Item | None:
    """Note that a message was read, the first time; None when they have no such message."""
    row = await transaction.driver.fetchrow(
        "SELECT rule, subject, window_key FROM delivery WHERE tenant = $1 AND id = $2"
        " AND recipient = $3 AND sequence > 0",
        tenant,
        item,
        recipient,
    )
    if row is None:
        return None
    key = (tenant, row["rule"], row["subject"], row["window_key"])
    await _locked_alerts(transaction, [key])
    done = await transaction.driver.fetchval(
        "UPDATE delivery SET read_at = clock_timestamp() WHERE tenant = $1 AND id = $2"
        " AND read_at IS NULL RETURNING true",
        tenant,
        item,
    )
    if done:
        await _touch(transaction, [key])
    found = await transaction.driver.fetchrow(
        _ITEM + " AND d.tenant = $1 AND d.id = $2", tenant, item
    )
    return _item(found) if found else None


AlertPlace = tuple[Instant, str, str, str]


async def alerts(
    transaction: Transaction,
    tenant: str,
    *,
    state: str | None,
    rule: str | None,
    about: Collection[str] | None,
    before: AlertPlace | None,
    limit: int,
) -> list[Alert]:
    """Alerts, newest first, about anyone or only about these people."""
    rows = await transaction.driver.fetch(
        f"""
        SELECT a.*, {_sent_entries()} AS delivered FROM alert AS a
        WHERE tenant = $1 AND ($2::text IS NULL OR state = $2) AND ($3::text IS NULL OR rule = $3)
          AND ($4::text[] IS NULL OR about = ANY ($4))
          AND ($5::timestamptz IS NULL
               OR (raised_at, rule, subject, window_key) < ($5, $6::text, $7::text, $8::text))
        ORDER BY raised_at DESC, rule DESC, subject DESC, window_key DESC LIMIT $9
        """,  # noqa: S608  # constants
        tenant,
        state,
        rule,
        None if about is None else sorted(about),
        *(before or (None, None, None, None)),
        limit,
    )
    return [_alert(row) for row in rows]


class Sending(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery, for those who look after them."""

    id: str
    rule: str
    subject: str
    window: str
    channel: str
    recipient: str
    state: str
    attempts: int
    due_at: datetime
    created_at: datetime
    sent_at: datetime | None
    last_error: str


DeliveryPlace = tuple[Instant, UUID]


async def sendings(
    transaction: Transaction,
    tenant: str,
    *,
    state: str | None,
    before: DeliveryPlace | None,
    limit: int,
) -> list[Sending]:
    """Deliveries, newest first."""
    rows = await transaction.driver.fetch(
        """
        SELECT id, rule, subject, window_key, channel, recipient, state, attempts, due_at,
               created_at, sent_at, last_error
        FROM delivery WHERE tenant = $1 AND ($2::text IS NULL OR state = $2)
          AND ($3::timestamptz IS NULL OR (created_at, id) < ($3, $4::uuid))
        ORDER BY created_at DESC, id DESC LIMIT $5
        """,
        tenant,
        state,
        *(before or (None, None)),
        limit,
    )
    return [
        Sending(
            id=str(row["id"]),
            window=row["window_key"],
            **{
                name: row[name]
                for name in Sending.__struct_fields__
                if name not in ("id", "window")
            },
        )
        for row in rows
    ]


# ── looking after the store ──────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits."""

    overdue: int
    parked: int
    unpublished: int
    oldest_due_watch: datetime | None


async def backlog(transaction: Transaction) -> Backlog:
    """What waits, for telemetry."""
    row = await transaction.driver.fetchrow(
        """
        SELECT
            (SELECT count(*) FROM delivery
             WHERE state = 'due' AND due_at < clock_timestamp() - interval '1 minute'),
            (SELECT count(*) FROM delivery WHERE state = 'parked'),
            (SELECT count(*) FROM alert WHERE unpublished),
            (SELECT min(due_at) FROM watch)
        """
    )
    assert row is not None
    return Backlog(*row)


async def checksum(transaction: Transaction) -> str:
    """Digest what follows from the facts alone.

    That is the directory, records, counts, firing alerts and the messages that they call for. That
    an alert once fired and no longer does is history: it comes back from the topic, but depends on
    which versions were ever seen.
    """
    digest = hashlib.sha256()
    for row in await transaction.driver.fetch(
        'SELECT body FROM replica ORDER BY tenant COLLATE "C", topic COLLATE "C", key COLLATE "C"'
    ):
        digest.update(msgspec.structs.replace(Entry.decode(row["body"]), version=0).encode())
    for statement in _DIGESTED:
        for row in await transaction.driver.fetch(statement):
            digest.update(row["line"].encode() + b"\n")
    return digest.hexdigest()


_DIGESTED = (
    """SELECT encode(sha256(body), 'hex') AS line FROM record_seen
       ORDER BY tenant COLLATE "C", type COLLATE "C", id COLLATE "C" """,
    """SELECT jsonb_build_array(tenant, person, day, metric, trim_scale(value)::text)::text AS line
       FROM measure_seen ORDER BY 1""",
    """SELECT jsonb_build_array(tenant, rule, subject, window_key, title, text, evidence,
                                audience)::text AS line
       FROM alert WHERE state = 'firing' ORDER BY 1""",
    """SELECT jsonb_build_array(d.tenant, d.id, d.channel, d.recipient)::text AS line
       FROM delivery AS d JOIN alert AS a USING (tenant, rule, subject, window_key)
       WHERE a.state = 'firing' AND d.state <> 'withdrawn'
         AND (d.channel <> 'inbox' OR d.recipient = ANY (a.audience)) ORDER BY 1""",
)


def _alert(row: Any) -> Alert:
    return Alert(
        tenant=row["tenant"],
        version=row["version"],
        rule=row["rule"],
        subject=row["subject"],
        window=row["window_key"],
        state=row["state"],
        title=row["title"],
        text=row["text"],
        evidence=row["evidence"],
        audience=row["audience"],
        raised_at=row["raised_at"],
        resolved_at=row["resolved_at"],
        delivered=row["delivered"] if "delivered" in row else [],  # noqa: SIM401  # a Record
        read=row["read"] if "read" in row else [],  # noqa: SIM401
    )


def _item(row: Any) -> Item:
    return Item(
        id=str(row["id"]),
        sequence=row["sequence"],
        recipient=row["recipient"],
        rule=row["rule"],
        subject=row["subject"],
        window=row["window_key"],
        state=row["state"],
        title=row["title"],
        text=row["text"],
        evidence=row["evidence"],
        raised_at=row["raised_at"],
        resolved_at=row["resolved_at"],
        sent_at=row["sent_at"],
        read_at=row["read_at"],
    )


def _microseconds(instant: datetime) -> int:
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
