"""Facts become alerts, each once, and follow every correction."""

import asyncio
import random
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest

from schemas.directory import Membership, OwnerMapping, Person
from tests.integration.notifications.conftest import (
    NewWorld,
    World,
    a_directory,
    a_measure,
    batches,
)
from tests.support import TENANT, a_record

BIG = "acme/big-deal-won/record:opportunity/crm:1/once"
LOW = "acme/activity-below-expectation/person:ann/day:2026-11-02"


def a_deal(version: int = 1, *, number: str = "crm:1", **fields: Any) -> Any:
    known = {
        "status": "won",
        "amount": "60000",
        "currency": "USD",
        "closed_at": "2026-11-02T15:00:00+00:00",
        "owner_id": "7",
        "name": "Big one",
    }
    return a_record(number=number, version=version, **(known | fields))


async def test_a_big_deal_reaches_the_person_and_the_team(world: World) -> None:
    worker = world.worker()
    await worker.everything(*a_directory(), a_deal())

    alert = (await world.alerts())[BIG]
    assert alert.state == "firing"
    assert alert.audience == ["person:ann", "team:north"]
    assert alert.title == "Big deal won: Big one"
    assert alert.text.startswith("Ann won Big one: 60000 USD.")
    assert alert.delivered == ["inbox/person:ann", "inbox/team:north"]


async def test_a_deal_won_again_is_not_announced_again(world: World) -> None:
    worker = world.worker()
    await worker.everything(*a_directory(), a_deal())
    await worker.everything(a_deal(2, status="open"))
    resolved = (await world.alerts())[BIG]
    await worker.everything(a_deal(3, amount="70000"))

    assert (resolved.state, resolved.resolved_at) == ("resolved", world.now)
    again = (await world.alerts())[BIG]
    assert again.state == "firing"
    assert again.evidence["amount"] == "70000"
    rows = await world.all("SELECT attempts, state FROM delivery")
    assert rows == [{"attempts": 1, "state": "sent"}] * 2


@pytest.mark.parametrize(
    "change",
    [
        {"status": "lost"},
        {"amount": "49999.99"},
        {"amount": None},
        {"currency": "EUR"},
        {"closed_at": None},
        {"closed_at": "2026-10-01T00:00:00+00:00"},  # too long ago
        {"owner_id": "9"},  # nobody's
    ],
)
async def test_no_big_deal(world: World, change: dict[str, Any]) -> None:
    await world.worker().everything(*a_directory(), a_deal(**change))
    assert await world.alerts() == {}


@pytest.mark.parametrize("resolved_first", [False, True])
async def test_what_was_erased_is_forgotten(world: World, *, resolved_first: bool) -> None:
    worker = world.worker()
    await worker.everything(*a_directory(), a_deal())
    if resolved_first:
        await worker.everything(a_deal(2, status="open"))
    deal = a_record(number="crm:1", version=3, deleted=True, _redacted=True)
    await worker.everything(deal)

    alert = (await world.alerts())[BIG]
    assert alert.state == "resolved"
    assert "Big one" not in str(alert)
    assert "Big one" not in str(await world.all("SELECT * FROM record_seen"))


async def test_a_deal_counts_as_soon_as_its_owner_is_mapped(world: World) -> None:
    worker = world.worker()
    await worker.everything(*a_directory(), a_deal(owner_id="9"))
    await worker.everything(
        OwnerMapping(tenant=TENANT, version=1, id="o3", source="crm", owner_id="9", person="ben")
    )
    assert (await world.alerts())[BIG].audience == ["person:ben", "team:north"]


async def test_a_message_is_withdrawn_when_it_is_no_longer_true(world: World) -> None:
    worker = world.worker()
    await worker.apply(*a_directory(), a_deal())
    await worker.apply(a_deal(2, status="open"))

    assert await worker.send() == 0
    assert {row["state"] for row in await world.all("SELECT state FROM delivery")} == {"withdrawn"}

    await worker.apply(a_deal(3))
    assert await worker.send() == 2


async def test_low_activity_reaches_the_person_and_the_nearest_manager(world: World) -> None:
    worker = world.worker()
    await worker.everything(
        *a_directory(),
        a_measure("calls_made", 4),
        a_measure("meetings_held", 3),
        a_measure("calls_made", 9, person="ben"),
    )

    alert = (await world.alerts())[LOW]
    assert await world.firing() == {LOW}
    assert alert.audience == ["person:ann", "person:mia"]
    assert alert.evidence == {
        "person": "Ann", "day": "2026-11-02", "total": "7", "expected": "8",
        "calls_made": "4", "meetings_held": "3",
    }  # fmt: skip
    assert alert.delivered == ["inbox/person:ann", "inbox/person:mia"]


async def test_a_window_is_not_looked_at_before_it_is_due(world: World) -> None:
    worker = world.worker()
    world.now = datetime(2026, 11, 2, 17, 59, tzinfo=UTC)
    await worker.everything(*a_directory(), a_measure("calls_made", 4))
    before = await world.alerts()
    world.now += timedelta(minutes=1)
    await worker.look()

    assert before == {}
    assert (await world.alerts()).keys() == {LOW, LOW.replace("ann", "ben")}


async def test_a_late_call_resolves_and_a_correction_fires_again_without_a_message(
    world: World,
) -> None:
    worker = world.worker()
    await worker.everything(*a_directory(), a_measure("calls_made", 4))
    await worker.everything(a_measure("calls_made", 8, version=2))
    resolved = (await world.alerts())[LOW].state
    await worker.everything(a_measure("calls_made", 7, version=3))

    assert resolved == "resolved"
    alert = (await world.alerts())[LOW]
    assert (alert.state, alert.evidence["total"]) == ("firing", "7")
    rows = await world.all("SELECT attempts FROM delivery WHERE subject = 'person:ann'")
    assert rows == [{"attempts": 1}] * 2


async def test_windows_missed_while_stopped_are_looked_at_in_order(world: World) -> None:
    worker = world.worker()
    await worker.everything(*a_directory(), a_measure("calls_made", 9))
    world.now += timedelta(days=6)  # Monday the 9th, at noon
    await worker.look()

    windows = sorted(key for key in await world.firing() if "person:ann" in key)
    assert [key[-10:] for key in windows] == [
        "2026-11-03", "2026-11-04", "2026-11-05", "2026-11-06",
    ]  # fmt: skip


async def test_nothing_is_raised_for_days_before_anything_was_counted(world: World) -> None:
    worker = world.worker()
    await worker.everything(*a_directory())
    await worker.everything(a_measure("calls_made", 9), a_measure("calls_made", 9, person="ben"))
    before = await world.alerts()
    await worker.everything(a_measure("calls_made", 9, day="2026-10-29"))

    assert before == {}
    assert await world.firing() == {
        LOW.replace("2026-11-02", "2026-10-30"),
        LOW.replace("ann", "ben").replace("2026-11-02", "2026-10-29"),
        LOW.replace("ann", "ben").replace("2026-11-02", "2026-10-30"),
    }


async def test_who_is_ramping_or_gone_is_left_in_peace(world: World) -> None:
    worker = world.worker()
    await worker.everything(*a_directory(), a_measure("calls_made", 1))
    fired = await world.firing()
    people = [
        Person(tenant=TENANT, version=2, id="ann", name="Ann", joined=date(2026, 10, 10)),
        Person(tenant=TENANT, version=2, id="ben", name="Ben", left=date(2026, 11, 2)),
    ]
    await worker.everything(*people)

    assert len(fired) == 2
    assert await world.firing() == set()
    remaining = await world.all("SELECT DISTINCT person FROM watch")
    assert remaining == [{"person": "ann"}]


async def test_a_person_is_looked_at_by_the_own_clock(world: World) -> None:
    worker = world.worker()
    world.now = datetime(2026, 11, 2, 22, 59, tzinfo=UTC)
    ann = Person(tenant=TENANT, version=2, id="ann", name="Ann", zone="America/New_York")
    await worker.everything(*a_directory(), a_measure("calls_made", 1))
    await worker.everything(ann)
    early = await world.firing()
    world.now += timedelta(minutes=1)  # 18:00 in New York
    await worker.look()

    assert LOW not in early
    assert LOW in await world.firing()


def a_history() -> list[Any]:
    """Corrections, moves, deletions: all that changes minds."""
    deals = [
        a_deal(1), a_deal(2, status="open"), a_deal(3, amount="80000"),
        a_record(number="crm:2", version=1, status="won", amount="90000", currency="USD",
                 closed_at="2026-10-30T15:00:00+00:00", owner_id="8"),
        a_record(number="crm:2", version=2, deleted=True),
        a_record(number="crm:3", version=1, status="won", amount="50000", currency="USD",
                 closed_at="2026-10-30T15:00:00+00:00", owner_id="9"),
        a_record(number="crm:3", version=2, status="won", amount="50000.00", currency="USD",
                 closed_at="2026-10-30T15:00:00+00:00", owner_id="8"),
    ]  # fmt: skip
    measures = [
        a_measure("calls_made", 5, version=1), a_measure("calls_made", 9, version=2),
        a_measure("calls_made", 6, version=3), a_measure("meetings_held", 1, version=1),
        a_measure("calls_made", 9, version=1, person="ben"),
        a_measure("calls_made", 9, version=1, day="2026-10-29"),
        a_measure("calls_made", 3, version=1, day="2026-10-30", person="ben"),
        a_measure("meetings_held", 5, version=1, day="2026-10-30", person="ben"),
    ]  # fmt: skip
    moves = [
        Person(tenant=TENANT, version=2, id="ann", name="Ann B.", zone="Europe/Berlin"),
        Membership(tenant=TENANT, version=2, id="m2", person="ben", team="all"),
        OwnerMapping(tenant=TENANT, version=2, id="o2", source="crm", owner_id="8", person="ann"),
        OwnerMapping(tenant=TENANT, version=3, id="o2", source="crm", owner_id="8", person="ben"),
    ]
    return [*a_directory(), *deals, *measures, *moves]


async def test_any_order_and_repetition_gives_the_same(new_world: NewWorld) -> None:
    history = a_history()
    first: World = await new_world()
    await first.worker().everything(*history[:13])
    for state in history[13:]:
        await first.worker().everything(state)
    expected, firing = await first.checksum(), await first.firing()
    assert firing == {
        BIG,
        BIG.replace("crm:1", "crm:3"),
        LOW,
        LOW.replace("11-02", "10-30"),
        LOW.replace("ann", "ben").replace("11-02", "10-29"),
    }

    for seed in range(6):
        chance = random.Random(seed)
        shuffled = history + chance.choices(history, k=20)
        chance.shuffle(shuffled)
        world: World = await new_world()
        for batch in batches(shuffled, chance):
            await world.worker().apply(*batch)
            if chance.random() < 0.5:
                await world.worker().look()
            if chance.random() < 0.3:
                await world.worker().send()
        await world.worker().everything()
        assert await world.firing() == firing, seed
        assert await world.checksum() == expected, seed


async def test_two_workers_at_once_agree_and_never_send_twice(
    new_world: NewWorld,
) -> None:
    history = a_history()
    alone: World = await new_world()
    await alone.worker().apply(*a_directory())
    for batch in batches(history, random.Random(0)):
        await alone.worker().everything(*batch)
    world: World = await new_world()
    await world.worker().apply(*a_directory())

    async def work(seed: int) -> None:
        chance, worker = random.Random(seed), world.worker()
        shuffled = history * 2
        chance.shuffle(shuffled)
        for batch in batches(shuffled, chance):
            await worker.apply(*batch)
            await worker.look()
            await worker.send()

    await asyncio.gather(*(work(seed) for seed in range(3)))
    await world.worker().everything()

    assert await world.firing() == await alone.firing()
    assert await world.checksum() == await alone.checksum()
    rows = await world.all(
        "SELECT attempts, count(*) FROM delivery WHERE state = 'sent' GROUP BY 1"
    )
    assert [row["attempts"] for row in rows] == [1]
    sequences = await world.all("SELECT sequence FROM delivery WHERE sequence > 0")
    assert len({row["sequence"] for row in sequences}) == len(sequences)


async def test_concurrent_looks_at_due_windows_raise_once(world: World) -> None:
    people = [Person(tenant=TENANT, version=1, id=f"p{n}", name=f"P{n}") for n in range(40)]
    await world.worker().apply(*a_directory(), *people, a_measure("calls_made", 1))

    await asyncio.gather(*(world.worker().look() for _ in range(4)))
    await asyncio.gather(*(world.worker().send() for _ in range(4)))
    await world.worker().send()

    rows = await world.all("SELECT count(*), sum(attempts) AS sent FROM delivery")
    assert len(await world.firing()) == 42
    assert rows == [{"count": 44, "sent": 44}]  # ann's and ben's also to their manager


async def test_a_rebuilt_store_is_the_same_and_sends_nothing(
    new_world: NewWorld,
) -> None:
    history = a_history()
    world: World = await new_world()
    await world.worker().apply(*a_directory())
    for state in history:
        await world.worker().everything(state)
    published = list((await world.alerts()).values())

    rebuilt: World = await new_world(now=world.now + timedelta(minutes=5))
    worker = rebuilt.worker()
    own = [msgspec.structs.replace(alert) for alert in published]
    await worker.apply(*own, *a_directory())
    for state in history:
        await worker.apply(state)
    await worker.look()

    assert await rebuilt.checksum() == await world.checksum()
    assert {a.key: a.state for a in (await rebuilt.alerts()).values()} == {
        a.key: a.state for a in published
    }
    assert await worker.send() == 0
    assert {a.key: a.delivered for a in (await rebuilt.alerts()).values()} == {
        a.key: a.delivered for a in published
    }


async def test_own_alerts_change_nothing_that_is_known(world: World) -> None:
    worker = world.worker()
    await worker.everything(*a_directory(), a_deal(), a_measure("calls_made", 1))
    before = await world.all("SELECT * FROM alert ORDER BY rule, subject")
    deliveries = await world.all("SELECT * FROM delivery ORDER BY id")
    await worker.everything(*(await world.alerts()).values())

    assert await world.all("SELECT * FROM alert ORDER BY rule, subject") == before
    assert await world.all("SELECT * FROM delivery ORDER BY id") == deliveries
