"""A second opinion: every number computed again, plainly, from the changes that were sent.

Nothing of the services, the kit or the schemas is used here, and nothing is incremental: fold each
record to its last state, look at it once, add up. `compare` then fetches what the services say.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from zoneinfo import ZoneInfo

from simulator.client import Client
from simulator.days import Change, Value
from simulator.organisation import CURRENCY, ZONE, Company, Membership

Fields = dict[str, Value]
ValueKey = tuple[str, str, str, str]  # subject, metric, period, unit
EarningKey = tuple[str, str, str]  # payee, plan, period
AlertKey = tuple[str, str, str]  # rule, subject, window
Values = dict[ValueKey, tuple[Decimal, int]]

# The metrics that are computed again here; the services have more.
METRICS = frozenset(
    {
        *("calls_made", "meetings_held", "emails_sent", "opportunities_created", "open_value"),
        *("deals_won", "deals_lost", "revenue_won", "revenue_lost", "sales_cycle_total"),
    }
)
GRAINS = ("day", "week", "month", "quarter", "half", "year")
CENT = Decimal("0.01")
BIG_DEAL = Decimal(50_000)  # these are the shipped rules' numbers
EXPECTED_ACTIVITY = 8
EVENING = time(18, 0)
RAMP = timedelta(days=30)
WORKING = range(5)


@dataclass(frozen=True, slots=True)
class Earning:
    """What somebody has earned in a period."""

    credited: Decimal
    earned: Decimal
    quota: Decimal | None


@dataclass(frozen=True, slots=True)
class Expected:
    """Everything that the services should say; `alerts` are those that are firing."""

    values: Values
    earnings: dict[EarningKey, Earning]
    alerts: set[AlertKey]


@dataclass(frozen=True, slots=True)
class Final:
    """A record's last state."""

    source: str
    type: str
    id: str
    fields: Fields
    deleted: bool


def expected(
    company: Company, changes: Iterable[Change], plan: dict[str, Any], now: datetime
) -> Expected:
    """The whole truth about these changes, as of the business time `now`."""
    records = fold(changes)
    return Expected(
        values=values_of(company, records),
        earnings=earnings_of(company, records, plan),
        alerts=alerts_of(company, records, now),
    )


def fold(changes: Iterable[Change]) -> list[Final]:
    """The last state of every record: later changes win, field by field."""
    fields: dict[tuple[str, str, str], Fields] = defaultdict(dict)
    deleted: dict[tuple[str, str, str], bool] = {}
    for change in sorted(changes, key=lambda change: change.at):
        fields[change.record].update(change.fields)
        deleted[change.record] = change.op == "delete"
    return [Final(*record, fields[record], deleted[record]) for record in sorted(fields)]


# --- who and when ------------------------------------------------------------------------


def local_day(at: datetime) -> date:
    """The organisation's day."""
    return at.astimezone(ZoneInfo(ZONE)).date()


def person_of(company: Company, source: str, owner_id: Value) -> str:
    """Who the CRM account is; empty when nobody knows."""
    for mapping in company.mappings:
        if mapping.source == source and mapping.owner_id == owner_id:
            return mapping.person
    return ""


def teams_of(company: Company, person: str, day: date) -> list[str]:
    """The team whose business the person does on that day, and those above it."""
    own = [m for m in company.memberships if m.person == person and _valid(m, day)]
    own.sort(key=lambda m: (m.manages, m.id))
    parents = {team.id: team.parent for team in company.teams}
    chain: list[str] = []
    team = own[0].team if own else ""
    while team:
        chain.append(team)
        team = parents[team]
    return chain


def _valid(membership: Membership, day: date) -> bool:
    started = membership.valid_from is None or membership.valid_from <= day
    return started and (membership.valid_to is None or day < membership.valid_to)


def periods_of(day: date) -> dict[str, str]:
    """The periods that contain the day, by grain; weeks start on Monday, years in January."""
    starts = {
        "day": day,
        "week": day - timedelta(days=day.weekday()),
        "month": day.replace(day=1),
        "quarter": day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1),
        "half": day.replace(month=(day.month - 1) // 6 * 6 + 1, day=1),
        "year": day.replace(month=1, day=1),
    }
    return {grain: f"{grain}:{start.isoformat()}" for grain, start in starts.items()}


# --- values ------------------------------------------------------------------------------


def values_of(company: Company, records: list[Final]) -> Values:
    """Value and number of records of every subject, metric, period and unit that has any."""
    sums: Values = {}
    roles = {person.id: person.role for person in company.people}
    for record in records:
        if record.deleted:
            continue
        for metric, unit, at, value in contributions(record):
            day = local_day(at)
            person = person_of(company, record.source, record.fields.get("owner_id"))
            if not person:
                continue
            teams = teams_of(company, person, day)
            subjects = [
                f"person:{person}",
                f"role:{roles[person]}",
                *(f"team:{team}" for team in teams),
                "org:all",
            ]
            for subject in subjects:
                for period in periods_of(day).values():
                    key = (subject, metric, period, unit)
                    total, count = sums.get(key, (Decimal(0), 0))
                    sums[key] = (total + value, count + 1)
    return sums


def contributions(record: Final) -> list[tuple[str, str, datetime, Decimal]]:
    """What one record adds: metric, unit, the instant that places it, value."""
    fields, one = record.fields, Decimal(1)
    if record.type != "opportunity":
        at, done = fields["occurred_at"], fields["done"] is True
        assert isinstance(at, datetime)
        counts = done and not (record.type == "email" and fields.get("direction") == "inbound")
        metric = {"call": "calls_made", "meeting": "meetings_held", "email": "emails_sent"}
        return [(metric[record.type], "count", at, one)] if counts else []
    created, closed, amount = fields["created_at"], fields.get("closed_at"), fields["amount"]
    assert isinstance(created, datetime)
    assert isinstance(amount, Decimal)
    found = [("opportunities_created", "count", created, one)]
    currency, cents = str(fields["currency"]), amount.quantize(CENT, ROUND_HALF_UP)
    if fields["status"] == "open":
        found.append(("open_value", currency, created, cents))
        return found
    assert isinstance(closed, datetime)
    found.append((f"deals_{fields['status']}", "count", closed, one))
    found.append((f"revenue_{fields['status']}", currency, closed, cents))
    if fields["status"] == "won":
        # Some CRMs cut instants to whole seconds, so that the duration is that between those.
        seconds = Decimal(int(closed.timestamp()) - int(created.timestamp()))
        found.append(("sales_cycle_total", "seconds", closed, seconds))
    return found


# --- earnings ----------------------------------------------------------------------------


def earnings_of(
    company: Company, records: list[Final], plan: dict[str, Any]
) -> dict[EarningKey, Earning]:
    """Marginal tiers by attainment of the quarter's quota, each deal's line rounded by itself."""
    roles = {person.id: person.role for person in company.people}
    quotas = {(goal.subject, goal.metric, goal.period): goal.target for goal in company.goals}
    deals: dict[tuple[str, str], list[tuple[date, str, Decimal]]] = defaultdict(list)
    for record in records:
        fields = record.fields
        if record.type != "opportunity" or record.deleted or fields["status"] != "won":
            continue
        closed, amount = fields["closed_at"], fields["amount"]
        assert isinstance(closed, datetime)
        assert isinstance(amount, Decimal)
        day = local_day(closed)
        payee = person_of(company, record.source, fields.get("owner_id"))
        if fields["currency"] == CURRENCY and roles.get(payee) == "rep":
            period = periods_of(day)["quarter"]
            deals[payee, period].append((day, f"{record.source}:{record.id}", amount))
    tiers = [
        (Decimal(tier["from"]), Decimal(tier["rate"]))
        for tier in plan["components"][0]["rate"]["tiers"]
    ]
    found: dict[EarningKey, Earning] = {}
    for (payee, period), won in deals.items():
        quota = quotas.get((f"person:{payee}", "revenue_won", period))
        credited = earned = Decimal(0)
        for _, _, amount in sorted(won):
            if quota is not None:
                line = _pay(tiers, quota, credited + amount) - _pay(tiers, quota, credited)
                earned += line.quantize(CENT, ROUND_HALF_UP)
            credited += amount
        found[payee, plan["plan"], period] = Earning(credited, earned, quota)
    return found


def _pay(tiers: list[tuple[Decimal, Decimal]], quota: Decimal, amount: Decimal) -> Decimal:
    """What the amount earns in all: each tier's part at its own rate."""
    total = Decimal(0)
    for number, (start, rate) in enumerate(tiers):
        end = tiers[number + 1][0] * quota if number + 1 < len(tiers) else amount
        total += rate * max(Decimal(0), min(amount, end) - start * quota)
    return total


# --- alerts ------------------------------------------------------------------------------


def alerts_of(company: Company, records: list[Final], now: datetime) -> set[AlertKey]:
    """The alerts of the shipped rules that are firing at `now`."""
    return _big_deals(company, records) | _quiet_days(company, records, now)


def _big_deals(company: Company, records: list[Final]) -> set[AlertKey]:
    found: set[AlertKey] = set()
    for record in records:
        fields = record.fields
        if record.type != "opportunity" or record.deleted or fields["status"] != "won":
            continue
        amount = fields["amount"]
        assert isinstance(amount, Decimal)
        big = amount >= BIG_DEAL and fields["currency"] == CURRENCY
        if big and person_of(company, record.source, fields.get("owner_id")):
            subject = f"record:opportunity/{record.source}:{record.id}"
            found.add(("big-deal-won", subject, "once"))
    return found


def _quiet_days(company: Company, records: list[Final], now: datetime) -> set[AlertKey]:
    """Working days on which a rep past the ramp made too few calls and meetings."""
    done: dict[tuple[str, date], int] = defaultdict(int)
    for record in records:
        if record.deleted or record.type not in ("call", "meeting"):
            continue
        for _, _, at, _ in contributions(record):
            person = person_of(company, record.source, record.fields.get("owner_id"))
            done[person, local_day(at)] += 1
    found: set[AlertKey] = set()
    day = min((day for _, day in done), default=local_day(now))
    while day <= local_day(now):
        for one in company.people:
            due = datetime.combine(day, EVENING, ZoneInfo(one.zone or ZONE))
            there = one.joined + RAMP <= day and (one.left is None or day < one.left)
            watched = one.role == "rep" and there and day.weekday() in WORKING and due <= now
            if watched and done[one.id, day] < EXPECTED_ACTIVITY:
                found.add(("activity-below-expectation", f"person:{one.id}", f"day:{day}"))
        day += timedelta(days=1)
    return found


# --- comparing ---------------------------------------------------------------------------


async def compare(wanted: Expected, client: Client) -> list[str]:
    """Every difference between what should be and what the services say, one line each."""
    values = {key: one for key, one in (await client.values()).items() if key[1] in METRICS}
    found = _differences("metrics", _without_zeros(wanted.values), values)
    pay = {key: (one.credited, one.earned) for key, one in wanted.earnings.items()}
    found += _differences("payouts", pay, await client.statements())
    earned = {key: one.earned for key, one in wanted.earnings.items()}
    found += _differences("payouts", earned, await client.earnings())
    listed = await client.firing()
    firing = set(listed)
    if len(listed) > len(firing):
        found.append(f"notifications: {len(listed) - len(firing)} alerts are listed twice")
    found += [f"notifications: missing {' '.join(key)}" for key in wanted.alerts - firing]
    found += [f"notifications: wrong {' '.join(key)}" for key in firing - wanted.alerts]
    return sorted(found)


def _without_zeros(values: Values) -> Values:
    """A number of nothing and no number are the same."""
    return {key: value for key, value in values.items() if value[1]}


def _differences(
    service: str, wanted: Mapping[Any, object], got: Mapping[Any, object]
) -> list[str]:
    return [
        f"{service}: {' '.join(key)}: expected {_said(wanted.get(key))}, "
        f"found {_said(got.get(key))}"
        for key in sorted(wanted.keys() | got.keys())
        if wanted.get(key) != got.get(key)
    ]


def _said(value: object) -> str:
    if isinstance(value, tuple):
        return " of ".join(str(part) for part in value)
    return "nothing" if value is None else str(value)
