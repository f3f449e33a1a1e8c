"""Any order, any repetition, any cut, several workers: the same pay as an own evaluator says."""

import asyncio
import random
from typing import Any

import pytest

from kit.database import is_transient
from schemas.base import State
from services.payouts.jobs import verify
from tests.integration.payouts.world import (
    World,
    a_world,
    deal,
    document,
    expected,
    goal,
    organisation,
    owner,
    person,
    plan,
)


def history() -> list[State]:
    """A year in which everything changes, some of it several times."""
    steep = document()["components"][0] | {
        "rate": {
            "type": "tiers_marginal",
            "measure": "attainment",
            "boundary": "lower",
            "tiers": [{"from": 0, "rate": "0.031"}, {"from": "0.333333", "rate": "0.0777"}],
        }
    }
    chance = random.Random(7)
    deals = [
        deal(
            number,
            f"{chance.randrange(-200, 900)}.{chance.randrange(100):02}",
            version=version,
            by=str(chance.randrange(1, 5)),
            day=f"2026-{chance.randrange(6, 12):02}-{chance.randrange(1, 28):02}",
            status=chance.choice(["won", "won", "won", "open", "lost"]),
            currency=chance.choice(["USD", "USD", "USD", "EUR"]),
            deleted=chance.random() < 0.1,
        )
        for number in range(1, 25)
        for version in range(1, chance.randrange(2, 5))
    ]
    return [
        organisation(),
        *(person(name) for name in ("ann", "bob", "cat")),
        person("cat", version=2, role="manager"),
        *(owner(number, name) for number, name in (("1", "ann"), ("2", "bob"), ("3", "cat"))),
        owner("2", "ann", version=2),
        owner("3", "bob", version=2),
        goal("ann", "1000"),
        goal("ann", "1234.56", version=2),
        goal("bob", "700"),
        goal("bob", "65.01", version=2),
        goal("ann", "512.34", period="quarter:2026-07-01"),
        goal("ann", "99.99", period="quarter:2026-04-01"),
        goal("bob", "80", period="quarter:2026-04-01"),
        goal("bob", "80", version=2, period="quarter:2026-04-01", deleted=True),
        goal("bob", "333.33", period="quarter:2026-07-01"),
        goal("cat", "50"),
        plan(),
        plan(version=2, components=[steep]),
        plan(plan="old"),
        plan(plan="old", version=2, deleted=True),
        *deals,
    ]


def cut(chance: random.Random, states: list[State]) -> list[list[State]]:
    batches: list[list[State]] = [[]]
    for state in states:
        if chance.random() < 0.25:
            batches.append([])
        batches[-1].append(state)
    return [batch for batch in batches if batch]


async def test_any_order_with_any_repetition_gives_the_same_pay(new_database: Any) -> None:
    states = history()
    checksums = set()
    for seed in range(10):
        chance = random.Random(seed)
        shuffled = list(states)
        if seed:
            shuffled += chance.choices(states, k=20)
            chance.shuffle(shuffled)
        async with a_world(await new_database()) as world:
            for batch in cut(chance, shuffled):
                await world.apply(*batch)
            assert await world.earned() == expected(states), f"seed {seed}"
            checksums.add(await world.checksum())

            assert await verify(world.database) == []
    assert len(checksums) == 1


async def test_the_published_states_end_where_the_store_ends(world: World) -> None:
    chance = random.Random(3)
    states = history() * 2
    chance.shuffle(states)
    published: dict[str, Any] = {}
    for batch in cut(chance, states):
        for earnings in await world.apply(*batch):
            known = published.get(earnings.key)
            assert known is None or known.version <= earnings.version
            if known is not None and known.version == earnings.version:
                assert known == earnings
            published[earnings.key] = earnings
    said = {(e.payee, e.plan, e.period): e.earned for e in published.values() if e.earned}
    assert said == {key: value for key, value in expected(states).items() if value}


@pytest.mark.parametrize("seed", [1, 2])
async def test_workers_at_once_lose_and_double_nothing(new_database: Any, seed: int) -> None:
    dsn = await new_database()
    chance = random.Random(seed)
    states = history()
    retried = 0

    async def work(world: World, share: list[State]) -> None:
        nonlocal retried
        for batch in cut(random.Random(seed), share):
            while True:
                try:
                    await world.apply(*batch)
                    break
                except Exception as error:
                    if not is_transient(error):
                        raise
                    retried += 1

    async with a_world(dsn) as one, a_world(dsn) as two, a_world(dsn) as three:
        shares: list[list[State]] = [[], [], []]
        for state in states * 2:
            chance.choice(shares).append(state)
        for share in shares:
            chance.shuffle(share)
        await asyncio.gather(
            *(work(world, share) for world, share in zip((one, two, three), shares, strict=True))
        )
        assert await one.earned() == expected(states)

        assert await verify(one.database) == []
    assert retried == 0
