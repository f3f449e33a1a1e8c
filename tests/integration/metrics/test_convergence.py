"""Whatever order, repetition and batching a history comes in, the numbers are the same."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import date
from typing import Any

import pytest

from schemas.crm import Record
from tests.integration.metrics.world import (
    World,
    a_history,
    call,
    member,
    organisation,
    small_company,
    won,
)

NewWorld = Callable[..., Awaitable[World]]


@pytest.mark.parametrize("seed", range(6))
async def test_any_permutation_with_repetition_gives_the_same_numbers(
    new_world: NewWorld, seed: int
) -> None:
    history = a_history(seed)
    in_order, shuffled = await new_world(), await new_world()
    await in_order.apply(*history)
    dice = random.Random(seed + 1000)
    deck = history + dice.choices(history, k=len(history) // 2)
    dice.shuffle(deck)
    while deck:
        size = dice.randint(1, 25)
        batch, deck = deck[:size], deck[size:]
        await shuffled.apply(*batch)
        if dice.random() < 0.3:
            await shuffled.job("fold")

    assert await shuffled.numbers() == await shuffled.expected(history)
    assert await in_order.numbers() == await in_order.expected(history)
    assert await shuffled.service.checksum() == await in_order.service.checksum()


async def test_two_workers_at_once_lose_nothing(new_world: NewWorld) -> None:
    history = a_history(99, records=150)
    world = await new_world()
    calm = [s for s in history if not isinstance(s, Record)]
    await world.apply(*calm[: len(calm) // 2])

    async def work(seed: int) -> None:
        dice = random.Random(seed)
        deck = history[:]
        dice.shuffle(deck)
        while deck:
            batch, deck = deck[:20], deck[20:]
            await world.patiently(*batch)

    async def fold(stop: asyncio.Event) -> None:
        while not stop.is_set():
            await world.job("fold")
            await asyncio.sleep(0.01)

    stop = asyncio.Event()
    folder = asyncio.create_task(fold(stop))
    await asyncio.gather(work(1), work(2), work(3))
    stop.set()
    await folder

    assert await world.numbers() == await world.expected(history)


async def test_records_count_as_soon_as_their_owner_is_known(world: World) -> None:
    records = [won("crm:1"), call("crm:2")]
    await world.apply(*records)
    assert await world.numbers() == {}
    await world.apply(*small_company())

    assert await world.numbers() == await world.expected([*records, *small_company()])


async def test_a_backdated_move_takes_the_work_along(world: World) -> None:
    history = [*small_company(), won("crm:1"), won("crm:2", closed_at="2026-11-05T10:00:00Z")]
    await world.apply(*history)
    before = await world.numbers()
    moves = [
        member(1, "north", version=2, valid_to=date(2026, 11, 4)),
        member(1, "south", id="m1b", valid_from=date(2026, 11, 4)),
    ]
    await world.apply(*moves)
    after = await world.numbers()

    key = ("revenue_won", "month:2026-11-01", "EUR")
    assert (before["team:north", *key], after["team:north", *key]) == ((20000, 2), (10000, 1))
    assert after["team:south", *key] == (10000, 1)
    assert after["team:all-sales", *key] == (20000, 2)
    assert after == await world.expected([*history, *moves])


async def test_each_version_replaces_what_the_one_before_contributed(world: World) -> None:
    steps = [
        won("crm:1", version=1),
        won("crm:1", version=2, amount="250"),
        won("crm:1", version=3, status="open"),
        won("crm:1", version=4, closed_at="2026-12-31T23:30:00Z"),  # next year in Berlin
        won("crm:1", version=5, owner_id=3),
        won("crm:1", version=6, deleted=True),
        won("crm:1", version=7),
    ]
    await world.apply(*small_company())
    for done in range(1, len(steps) + 1):
        await world.apply(steps[done - 1])
        await world.apply(*steps[:done])
        assert await world.numbers() == await world.expected([*small_company(), *steps[:done]])


async def test_a_new_calendar_counts_everything_again(world: World) -> None:
    history = [*small_company(), won("crm:1"), won("crm:2", closed_at="2026-11-01T23:30:00Z")]
    await world.apply(*history)
    await world.settle()
    change = organisation(version=2, zone="America/New_York", week_start=6, fiscal_year_start=2)
    await world.apply(change, call("crm:3"))

    assert await world.numbers() == await world.expected([*history, change, call("crm:3")])


async def test_an_impossible_entry_changes_nothing(world: World) -> None:
    await world.apply(*small_company(), won("crm:1"))
    with pytest.raises(KeyError):
        await world.apply(organisation(version=2, zone="Mars/Olympus"))

    await world.apply(won("crm:1", version=2, amount="5"))
    assert await world.numbers() == await world.expected(
        [*small_company(), won("crm:1", version=2, amount="5")]
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"amount": "1e999999"},
        {"amount": "9" * 400},
        {"amount": "NaN"},
        {"amount": True},
        {"closed_at": "0001-01-01T00:00:00+14:00"},
        {"closed_at": "9999-12-31T23:59:59-14:00"},
        {"closed_at": "tomorrow"},
        {"closed_at": "2026-11-02T10:00:00"},
        {"currency": "usd"},
        {"currency": None},
    ],
)
async def test_hostile_fields_are_findings_and_never_failures(
    world: World, fields: dict[str, Any]
) -> None:
    await world.apply(*small_company(), won("crm:1", **fields), won("crm:2"))
    numbers = await world.numbers()

    assert numbers["person:p1", "revenue_won", "month:2026-11-01", "EUR"] == (10000, 1)
