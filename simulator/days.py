"""What happens: deals move, calls are made, e-mails sent, meetings held, and things get corrected.

`play(seed, start_day, days)` gives the truth as changes in order of business time: first four weeks
with hardly more than the deals, so that boards aren't empty, then full days. A change names only
the fields that it sets. Two changes of a record are never at the same millisecond.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Literal
from zoneinfo import ZoneInfo

from simulator.organisation import (
    PARTNERS,
    PIPEDRIVE,
    ZONE,
    Company,
    Person,
    Segment,
    make_company,
)

Value = str | int | bool | Decimal | datetime | date | None
Op = Literal["create", "update", "delete"]

_CALL_OUTCOMES = ("connected", "no_answer", "left_voicemail", "busy")
STAGES = ("appointment", "qualified", "presentation", "proposal", "negotiation")
HISTORY_DAYS = 28
HISTORY_SHARE = 0.03  # of the usual e-mails; deals are all there, calls and meetings aren't
FIRST_HOUR, LAST_MINUTE = time(8, 0), time(17, 25)
CLOSE_RATE = 0.13  # of open deals per day
BIG_SHARE = 0.035  # of new deals that are several times the usual


@dataclass(frozen=True, slots=True)
class Change:
    """At this instant, in this CRM, this record was created, changed or deleted by `actor`."""

    at: datetime
    source: str
    type: str
    id: str
    op: Op
    fields: dict[str, Value]
    actor: str

    @property
    def record(self) -> tuple[str, str, str]:
        """Which record: source, type, the vendor's id."""
        return (self.source, self.type, self.id)


@dataclass(slots=True)
class _Deal:
    source: str
    id: str
    owner: Person
    amount: Decimal
    last: datetime  # when it was last changed
    stage: int = 0
    status: str = "open"
    closed_on: date | None = None


@dataclass(slots=True)
class _World:
    company: Company
    rng: random.Random
    next_id: int = 1
    deals: list[_Deal] = field(default_factory=list)
    meetings: list[tuple[date, Change]] = field(default_factory=list)  # booked, not yet held


def play(seed: int, start_day: date, days: int, company: Company | None = None) -> Iterator[Change]:
    """The history before `start_day` and then that many working days, in order of time."""
    company = company or make_company(seed, start_day)
    world = _World(company, random.Random(f"{seed}:days"))  # noqa: S311  # a play, not a secret
    for day in _weekdays(history_start(start_day), start_day):
        yield from _in_order(_day(world, day, history=True))
    for day in working_days(start_day, days):
        yield from _in_order(_day(world, day, history=False))


def history_start(start_day: date) -> date:
    """Where the history begins."""
    return start_day - timedelta(days=HISTORY_DAYS)


def working_days(start_day: date, days: int) -> list[date]:
    """That many days from Monday to Friday, from `start_day` on."""
    found: list[date] = []
    day = start_day
    while len(found) < days:
        if day.weekday() < 5:  # noqa: PLR2004  # Saturday
            found.append(day)
        day += timedelta(days=1)
    return found


def _weekdays(start: date, end: date) -> Iterator[date]:
    for number in range((end - start).days):
        day = start + timedelta(days=number)
        if day.weekday() < 5:  # noqa: PLR2004  # Saturday
            yield day


def _in_order(changes: Iterator[Change]) -> list[Change]:
    return sorted(changes, key=lambda change: (change.at, change.record))


def _day(world: _World, day: date, *, history: bool) -> Iterator[Change]:
    """One working day of everybody, in no order."""
    mood = world.rng.gauss(1.0, 0.06) * (0.95, 1.08, 1.08, 1.02, 0.85)[day.weekday()]
    for person in world.company.people:
        if person.role != "rep" or not _employed(person, day):
            continue
        team = world.company.team_of(person.id, day)
        if team is None or team.segment is None:
            continue
        effort = person.energy * _ramp(person, day) * mood
        yield from _emails(world, person, day, effort * (HISTORY_SHARE if history else 1.0))
        if not history:
            yield from _calls_and_meetings(world, person, day, effort)
        yield from _new_deals(world, person, day, effort, team.segment)
    yield from _held_meetings(world, day)
    yield from _deals_move(world, day)
    yield from _corrections(world, day)


def _employed(person: Person, day: date) -> bool:
    return person.joined <= day and (person.left is None or day < person.left)


def _ramp(person: Person, day: date) -> float:
    """New people do less: a third at first, everything after three months."""
    return min(1.0, 0.35 + 0.65 * (day - person.joined).days / 90)


# --- calls, e-mails, meetings ------------------------------------------------------------


def _emails(world: _World, person: Person, day: date, effort: float) -> Iterator[Change]:
    rng = world.rng
    for _ in range(_poisson(rng, 14 * effort)):
        # Pipedrive's activities are what people did: no direction, nothing incoming.
        inbound = rng.random() < 0.18 and person.source != PIPEDRIVE  # noqa: PLR2004
        yield from _activity(
            world, person, day, "email", done=True, direction="inbound" if inbound else "outbound"
        )


def _calls_and_meetings(
    world: _World, person: Person, day: date, effort: float
) -> Iterator[Change]:
    rng = world.rng
    for _ in range(_poisson(rng, 12 * effort)):
        outcome = rng.choices(_CALL_OUTCOMES, (38, 34, 20, 8))[0]
        connected = outcome == "connected"
        yield from _activity(
            world,
            person,
            day,
            "call",
            done=rng.random() > 0.04,  # noqa: PLR2004  # logged as planned and never made
            outcome=outcome,
            direction="inbound" if rng.random() < 0.1 else "outbound",  # noqa: PLR2004
            duration_seconds=int(rng.expovariate(1 / 260)) + 20
            if connected
            else rng.randint(5, 40),
        )
    for _ in range(_poisson(rng, 1.7 * effort)):
        yield from _meeting(world, person, day)


def _activity(
    world: _World, person: Person, day: date, kind: str, **fields: Value
) -> Iterator[Change]:
    at = _moment(world.rng, person, day)
    change = Change(
        at=at,
        source=person.source,
        type=kind,
        id=_new_id(world, person.source),
        op="create",
        fields={
            "owner_id": person.owner_id,
            "created_at": at,
            "occurred_at": at - timedelta(seconds=world.rng.randint(0, 600)),
            **fields,
        },
        actor=person.owner_id,
    )
    yield change
    dice = world.rng.random()
    if dice < 0.012:  # noqa: PLR2004  # logged twice or by mistake
        yield _later(world, change, "delete")
    elif dice < 0.03 and kind == "call":  # noqa: PLR2004
        yield _later(world, change, "update", done=not fields["done"])


def _meeting(world: _World, person: Person, day: date) -> Iterator[Change]:
    """Half are logged afterwards, half are booked for one of the next days."""
    if world.rng.random() < 0.5:  # noqa: PLR2004
        yield from _activity(world, person, day, "meeting", done=True, outcome="completed")
        return
    then = working_days(day, world.rng.choice((2, 2, 3, 4)))[-1]
    made = list(_activity(world, person, day, "meeting", done=False, outcome="scheduled"))
    made[0].fields["occurred_at"] = _moment(world.rng, person, then)
    if len(made) == 1:  # else it was deleted
        world.meetings.append((then, made[0]))
    yield from made


def _held_meetings(world: _World, day: date) -> Iterator[Change]:
    due = [(then, booked) for then, booked in world.meetings if then <= day]
    world.meetings = [(then, booked) for then, booked in world.meetings if then > day]
    for _, booked in due:
        held = world.rng.random() < 0.8  # noqa: PLR2004
        planned = booked.fields["occurred_at"]
        assert isinstance(planned, datetime)
        yield Change(
            at=min(planned + timedelta(seconds=world.rng.randint(60, 1200)), _evening(day)),
            source=booked.source,
            type="meeting",
            id=booked.id,
            op="update",
            fields={"done": held, "outcome": "completed" if held else "no_show"},
            actor=booked.actor,
        )


# --- deals -------------------------------------------------------------------------------


def _new_deals(
    world: _World, person: Person, day: date, effort: float, segment: Segment
) -> Iterator[Change]:
    rng = world.rng
    for _ in range(_poisson(rng, segment.deals_per_day * effort)):
        source = person.source
        partner = any(
            m.source == PARTNERS and m.person == person.id for m in world.company.mappings
        )
        if partner and rng.random() < 0.3:  # noqa: PLR2004
            source = PARTNERS
        owner_id = person.email if source == PARTNERS else person.owner_id
        amount = _amount(rng, segment)
        at = _moment(rng, person, day)
        deal = _Deal(source, _new_id(world, source), person, amount, last=at)
        world.deals.append(deal)
        euro = source == PIPEDRIVE and rng.random() < segment.euro_share
        yield Change(
            at=at,
            source=source,
            type="opportunity",
            id=deal.id,
            op="create",
            fields={
                "owner_id": owner_id,
                "name": f"{rng.choice(_CUSTOMERS)} - {rng.choice(_PRODUCTS)}",
                "created_at": at,
                "amount": amount,
                "currency": "EUR" if euro else "USD",
                "stage": STAGES[0],
                "status": "open",
                "expected_close": day + timedelta(days=rng.randint(10, 70)),
            },
            actor=owner_id,
        )


def _deals_move(world: _World, day: date) -> Iterator[Change]:
    push = _push(day)
    for deal in list(world.deals):
        if deal.status != "open" or deal.last.date() >= day:
            continue
        dice = world.rng.random()
        if dice < CLOSE_RATE * push:
            yield _close(world, deal, day)
        elif dice < CLOSE_RATE * push + 0.22:
            yield from _step(world, deal, day)
    world.deals = [d for d in world.deals if d.closed_on is None or (day - d.closed_on).days < 12]  # noqa: PLR2004


def _push(day: date) -> float:
    """Deals close towards the end of a month, and more so of a quarter."""
    tomorrow_month = (day + timedelta(days=5)).month
    if tomorrow_month == day.month:
        return 1.0
    return 2.2 if day.month % 3 == 0 else 1.7


def _close(world: _World, deal: _Deal, day: date) -> Change:
    won = world.rng.random() < min(0.75, 0.42 * deal.owner.skill)
    deal.status = "won" if won else "lost"
    deal.closed_on = day
    at = _moment(world.rng, deal.owner, day)
    fields: dict[str, Value] = {
        "stage": deal.status,
        "status": deal.status,
        "closed_at": at,
    }
    if won and world.rng.random() < 0.35:  # noqa: PLR2004  # the price was still argued about
        deal.amount = _rounded(deal.amount * Decimal(str(round(world.rng.uniform(0.8, 1.1), 3))))
        fields["amount"] = deal.amount
    return _deal_change(world, deal, at, "update", fields)


def _step(world: _World, deal: _Deal, day: date) -> Iterator[Change]:
    rng = world.rng
    fields: dict[str, Value] = {}
    if deal.stage < len(STAGES) - 1 and rng.random() < 0.75:  # noqa: PLR2004
        deal.stage += 1
        fields["stage"] = STAGES[deal.stage]
    if rng.random() < 0.3:  # noqa: PLR2004
        deal.amount = _rounded(deal.amount * Decimal(str(round(rng.uniform(0.7, 1.5), 3))))
        fields["amount"] = deal.amount
    if not fields:
        fields["expected_close"] = day + timedelta(days=rng.randint(7, 45))
    yield _deal_change(world, deal, _moment(rng, deal.owner, day), "update", fields)


def _corrections(world: _World, day: date) -> Iterator[Change]:
    """What makes numbers move backwards: cancelled, reopened, re-priced, handed over, deleted."""
    rng = world.rng
    for deal in list(world.deals):
        if deal.last.date() >= day or rng.random() > 0.035:  # noqa: PLR2004
            continue
        at = _moment(rng, deal.owner, day)
        dice = rng.random()
        if deal.status == "won" and dice < 0.3:  # noqa: PLR2004
            deal.status = "lost"
            yield _deal_change(
                world, deal, at, "update", {"stage": "lost", "status": "lost", "closed_at": at}
            )
        elif deal.status != "open" and dice < 0.5:  # noqa: PLR2004
            deal.status, deal.closed_on, deal.stage = "open", None, len(STAGES) - 1
            fields: dict[str, Value] = {"stage": STAGES[-1], "status": "open", "closed_at": None}
            yield _deal_change(world, deal, at, "update", fields)
        elif dice < 0.75:  # noqa: PLR2004
            deal.amount = _rounded(deal.amount * Decimal(str(round(rng.uniform(0.6, 1.4), 3))))
            yield _deal_change(world, deal, at, "update", {"amount": deal.amount})
        elif dice < 0.9:  # noqa: PLR2004
            yield from _hand_over(world, deal, at, day)
        else:
            world.deals.remove(deal)
            yield _deal_change(world, deal, at, "delete", {})


def _hand_over(world: _World, deal: _Deal, at: datetime, day: date) -> Iterator[Change]:
    colleagues = [
        person
        for person in world.company.people
        if person.source == deal.source
        and person.role == "rep"
        and person.id != deal.owner.id
        and _employed(person, day)
    ]
    if colleagues:
        deal.owner = world.rng.choice(colleagues)
        yield _deal_change(world, deal, at, "update", {"owner_id": deal.owner.owner_id})


def _deal_change(
    world: _World, deal: _Deal, at: datetime, op: Op, fields: dict[str, Value]
) -> Change:
    deal.last = at = max(at, deal.last + timedelta(seconds=world.rng.randint(30, 300)))
    actor = deal.owner.email if deal.source == PARTNERS else deal.owner.owner_id
    if "closed_at" in fields and fields["closed_at"] is not None:
        fields["closed_at"] = at
    return Change(at, deal.source, "opportunity", deal.id, op, fields, actor)


# --- dice --------------------------------------------------------------------------------


def _later(world: _World, change: Change, op: Op, **fields: Value) -> Change:
    evening = _evening(change.at.astimezone(ZoneInfo(ZONE)).date())
    at = min(change.at + timedelta(seconds=world.rng.randint(60, 5400)), evening)
    at = max(at, change.at + timedelta(seconds=1))
    return Change(at, change.source, change.type, change.id, op, fields, change.actor)


def _evening(day: date) -> datetime:
    return datetime.combine(day, LAST_MINUTE, ZoneInfo(ZONE)).astimezone(UTC)


def _moment(rng: random.Random, person: Person, day: date) -> datetime:
    """A moment in the hours when both the person and the organisation work, whole milliseconds."""
    zone = ZoneInfo(person.zone or ZONE)
    first = max(
        datetime.combine(day, FIRST_HOUR, zone), datetime.combine(day, FIRST_HOUR, ZoneInfo(ZONE))
    ).astimezone(UTC)
    last = min(
        datetime.combine(day, LAST_MINUTE, zone), datetime.combine(day, LAST_MINUTE, ZoneInfo(ZONE))
    ).astimezone(UTC)
    span = (last - first).total_seconds()
    # Mornings and early afternoons are busy, lunch isn't.
    part = rng.betavariate(1.6, 2.2) * 0.45
    if rng.random() < 0.5:  # noqa: PLR2004
        part = 0.5 + rng.betavariate(1.8, 2) / 2
    return first + timedelta(milliseconds=int(span * min(part, 1.0) * 1000))


def _amount(rng: random.Random, segment: Segment) -> Decimal:
    usual = math.exp(rng.gauss(math.log(segment.median_amount), segment.spread))
    if rng.random() < BIG_SHARE:
        usual *= rng.uniform(4, 9)
    return _rounded(Decimal(str(round(usual, 2))))


def _rounded(amount: Decimal) -> Decimal:
    """As prices look: round ones mostly, cents sometimes."""
    step = Decimal(50) if amount > 2000 and int(amount * 100) % 10 < 7 else Decimal("0.01")  # noqa: PLR2004
    return max((amount / step).quantize(Decimal(1)) * step, Decimal(100))


def _poisson(rng: random.Random, mean: float) -> int:
    limit, product, count = math.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count


def _new_id(world: _World, source: str) -> str:
    number = world.next_id
    world.next_id += 1
    if source == PARTNERS:
        return f"ref-{number:06d}"
    return str(number + 5_000 if source == PIPEDRIVE else 21_678_000_000 + number * 7)


_CUSTOMERS = [
    "Alder Foods",
    "Baltic Freight",
    "Corvid Labs",
    "Dunmore Hotels",
    "Ember Energy",
    "Fable Press",
    "Granite Bank",
    "Harbour Clinics",
    "Iris Optics",
    "Juniper Schools",
    "Kestrel Air",
    "Lumen Studios",
    "Meridian Steel",
    "Northlake Farms",
    "Orchard Retail",
    "Pioneer Rail",
    "Quill Insurance",
    "Redwood Homes",
    "Summit Outdoors",
    "Tidewater Marine",
    "Umbra Security",
    "Vantage Motors",
    "Willow Care",
    "Zephyr Wind",
]
_PRODUCTS = ("Platform", "Analytics", "Renewal", "Expansion", "Onboarding", "Service plan", "Seats")
