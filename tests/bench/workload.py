"""Believable load for the stages, from a seed: records, directory, goals, a plan, webhook bodies.

Records follow the mix measured in the field: 80 % new activities, 15 % updates of deals, 5 %
duplicates of something earlier.
"""

import base64
import hashlib
import hmac
import json
import random
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

from schemas.crm import Field, Received, Record, Scalar
from schemas.directory import Entry, Membership, Organisation, OwnerMapping, Person, Team
from schemas.spm import Goal, PlanDocument

TENANT = "bench"
SOURCE = "hub"
PEOPLE = 500
TEAMS = 25
START = datetime(2026, 1, 5, 9, tzinfo=UTC)
SPAN = timedelta(days=180)
SECRET = "bench-secret"  # of a benchmark on loopback


def directory() -> list[Entry]:
    """500 people in 25 teams."""
    since = date(2020, 1, 1)
    entries: list[Entry] = [Organisation(tenant=TENANT, version=1, id="all", name="Bench")]
    entries += [
        Team(tenant=TENANT, version=1, id=f"t{number}", name=f"Team {number}")
        for number in range(TEAMS)
    ]
    for number in range(PEOPLE):
        person, team = f"p{number}", f"t{number % TEAMS}"
        entries += [
            Person(tenant=TENANT, version=1, id=person, name=f"Person {number}", joined=since),
            Membership(tenant=TENANT, version=1, id=f"m{number}", person=person, team=team),
            OwnerMapping(
                tenant=TENANT,
                version=1,
                id=f"o{number}",
                source=SOURCE,
                owner_id=str(number),
                person=person,
            ),
        ]
    return entries


def goals() -> list[Goal]:
    """A quota for everybody in both quarters."""
    return [
        Goal(
            tenant=TENANT,
            version=1,
            subject=f"person:p{number}",
            metric="revenue_won",
            period=period,
            target=Decimal(250_000),
            unit="USD",
        )
        for number in range(PEOPLE)
        for period in ("quarter:2026-01-01", "quarter:2026-04-01")
    ]


def records(count: int, *, seed: int = 1) -> list[Record]:
    """The mix for metrics: new activities, updates of deals, duplicates."""
    chance = random.Random(seed)
    made: list[Record] = []
    deals: list[Record] = []
    for number in range(count):
        kind = chance.random()
        if made and kind < 0.05:
            made.append(chance.choice(made))
        elif kind < 0.20:
            deal = _deal(chance, number, chance.choice(deals) if len(deals) > 100 else None)
            deals.append(deal)
            made.append(deal)
        else:
            made.append(_activity(chance, number))
    return made


def deals(count: int, *, seed: int = 1) -> list[Record]:
    """The mix for payouts: deals only, about half of the messages being updates of earlier ones."""
    chance = random.Random(seed)
    made: list[Record] = []
    for number in range(count):
        earlier = chance.choice(made) if made and chance.random() < 0.5 else None
        made.append(_deal(chance, number, earlier))
    return made


def _record(kind: str, number: str, version: int, **fields: Scalar) -> Record:
    known = {name: Field("value", value, version, "e") for name, value in fields.items()}
    return Record(
        tenant=TENANT,
        version=version,
        type=kind,
        id=number,
        source=SOURCE,
        vendor="hubspot",
        fields=known,
        changed=list(fields),
        received_at=datetime.now(UTC),
        received=uuid4().hex,
    )


def _instant(chance: random.Random) -> datetime:
    return START + timedelta(seconds=chance.randrange(int(SPAN.total_seconds())))


def _activity(chance: random.Random, number: int) -> Record:
    kind = chance.choices(("call", "email", "meeting"), (5, 4, 1))[0]
    return _record(
        kind,
        f"{SOURCE}:{number}",
        number + 1,
        owner_id=str(chance.randrange(PEOPLE)),
        name="Follow-up",
        occurred_at=_instant(chance).isoformat(),
        done=True,
        direction="outbound",
        duration_seconds=chance.randrange(600),
    )


def _deal(chance: random.Random, number: int, earlier: Record | None) -> Record:
    status = chance.choices(("open", "won", "lost"), (4, 4, 2))[0]
    created = _instant(chance)
    fields: dict[str, Scalar] = {
        "owner_id": earlier.text("owner_id") if earlier else str(chance.randrange(PEOPLE)),
        "name": "A deal",
        "amount": str(Decimal(chance.randrange(100_000, 9_000_000)) / 100),
        "currency": "USD",
        "status": status,
        "stage": status,
        "created_at": created.isoformat(),
    }
    if status != "open":
        fields["closed_at"] = (created + timedelta(days=chance.randrange(30))).isoformat()
    number_text = earlier.id if earlier else f"{SOURCE}:d{number}"
    return _record("opportunity", number_text, number + 1, **fields)


def hubspot_events(count: int, *, seed: int = 1, first: int = 0) -> Iterator[dict[str, object]]:
    """HubSpot webhook events, numbered from `first`: calls' properties, and changes of deals."""
    chance = random.Random(seed)
    base = int(START.timestamp() * 1000)
    number, count = first, first + count
    while number < count:
        at = base + number * 1000
        owner = str(chance.randrange(PEOPLE))
        if chance.random() < 0.5:
            events = [
                ("deal", chance.randrange(20_000), n, v) for n, v in _deal_change(chance, owner)
            ]
        else:
            call = 1_000_000 + number
            events = [
                ("call", call, "hubspot_owner_id", owner),
                ("call", call, "hs_timestamp", str(at)),
                ("call", call, "hs_call_status", "COMPLETED"),
            ]
        for kind, object_id, name, value in events[: count - number]:
            number += 1
            event: dict[str, object] = {
                "eventId": number,
                "subscriptionId": 9,
                "portalId": 62515,
                "appId": 54321,
                "occurredAt": at,
                "attemptNumber": 0,
                "objectId": object_id,
                "changeSource": "CRM_UI",
                "propertyName": name,
                "propertyValue": value,
            }
            if kind == "deal":
                event["subscriptionType"] = "deal.propertyChange"
            else:
                event |= {"subscriptionType": "object.propertyChange", "objectTypeId": "0-48"}
            yield event


def _deal_change(chance: random.Random, owner: str) -> list[tuple[str, str]]:
    return [
        ("dealstage", chance.choice(("qualified", "proposal", "closedwon"))),
        ("amount", str(chance.randrange(1_000, 90_000))),
        ("hubspot_owner_id", owner),
    ]


def hubspot_bodies(events: int, *, per_request: int, seed: int = 1, first: int = 0) -> list[bytes]:
    """Request bodies with so many events each."""
    found = list(hubspot_events(events, seed=seed, first=first))
    cut = [found[start : start + per_request] for start in range(0, events, per_request)]
    return [json.dumps(part, separators=(",", ":")).encode() for part in cut]


def received(events: int, *, per_request: int) -> list[Received]:
    """The raw messages that such requests become."""
    return [a_request(body) for body in hubspot_bodies(events, per_request=per_request)]


def a_request(body: bytes) -> Received:
    """The raw message of a request received now."""
    return Received(
        tenant=TENANT,
        version=time.time_ns() // 1000,
        source=SOURCE,
        vendor="hubspot",
        id=uuid4().hex,
        received_at=datetime.now(UTC),
        method="POST",
        url="http://127.0.0.1/v1/sources/hub/events",
        headers={"content-type": "application/json"},
        body=body,
        auth="hubspot.v3",
    )


def signed(body: bytes, url: str) -> dict[str, str]:
    """HubSpot's v3 headers for a body posted now."""
    timestamp = str(time.time_ns() // 1_000_000)
    content = b"POST" + url.encode() + body + timestamp.encode()
    digest = hmac.new(SECRET.encode(), content, hashlib.sha256).digest()
    return {
        "Content-Type": "application/json",
        "X-HubSpot-Request-Timestamp": timestamp,
        "X-HubSpot-Signature-v3": base64.b64encode(digest).decode(),
    }


# What payouts writes while it applies; its replica and configuration are not part of a stage.
PAYOUT_TABLES: list[str] = ["record", "credit", "statement", "statement_line", "transfer"]


def plan() -> PlanDocument:
    """Marginal tiers by attainment of a quarter's quota."""
    tiers = [
        {"from": 0, "rate": "0.05"},
        {"from": 1, "rate": "0.08"},
        {"from": "1.5", "rate": "0.1"},
    ]
    component = {
        "id": "new-business",
        "credit": {
            "record": "opportunity",
            "when": {"status": "won"},
            "basis": "amount",
            "date": "closed_at",
            "share": 100,
        },
        "rate": {
            "type": "tiers_marginal",
            "measure": "attainment",
            "boundary": "upper",
            "tiers": tiers,
        },
        "quota": {"goal": "revenue_won"},
    }
    document = {
        "plan": "bench",
        "name": "Bench",
        "currency": "USD",
        "period": "quarter",
        "effective": {"from": "2026-01-01", "to": "2027-01-01"},
        "payees": {"role": "rep"},
        "rounding": "half_up_per_line",
        "components": [component],
    }
    return PlanDocument(tenant=TENANT, version=1, id="bench", revision=1, document=document)
