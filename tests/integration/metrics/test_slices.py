"""Slices over the real store: what boards read is what is folded and what is pending, exactly."""

from datetime import date
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kit.database import Transaction
from schemas.directory import Directory
from services.metrics.domain.numbers import Part
from services.metrics.store import counters, facts
from services.metrics.store.counters import Instant
from services.metrics.store.slices import Key, Slices, added
from tests.integration.metrics.world import (
    World,
    call,
    organisation,
    owner,
    person,
    small_company,
    won,
)
from tests.support import TENANT

# What folds tell: how many changed counters at most, and for how many seconds.
TOLD, FORGOTTEN, LARGE = (counters.MOST_CHANGES, 15.0), (counters.MOST_CHANGES, 0.0), (0, 15.0)
NOVEMBER = date(2026, 11, 1)
DECEMBER = date(2026, 12, 1)
DIRECTORY = Directory(TENANT, [organisation(), *(person(n) for n in (1, 2, 3, 4))])
SUBJECTS = (*(f"person:p{n}" for n in (1, 2, 3, 4)), "team:all-sales", "team:north", "team:south")
KEYS = [
    Key(metric, grain, NOVEMBER, end, unit, kind)
    for metric, unit in (("calls_made", "count"), ("deals_won", "count"), ("revenue_won", "EUR"))
    for grain, end, kind in (
        ("month", DECEMBER, "person"),
        ("month", DECEMBER, "team"),
        ("day", date(2026, 11, 2), "person"),
    )
]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 4),
            st.integers(0, 5),
            st.booleans(),
            st.sampled_from([None, TOLD, FORGOTTEN, LARGE]),
            st.booleans(),
        ),
        max_size=12,
    )
)
@example([(1, 0, False, TOLD, True), (2, 1, False, TOLD, False), (3, 2, False, FORGOTTEN, True)])
@example([(1, 3, False, TOLD, True), (2, 4, False, LARGE, False), (3, 5, False, TOLD, True)])
@example([(1, 0, False, None, True), (1, 1, False, None, True), (1, 0, True, TOLD, True)])
async def test_slices_brought_up_to_date_are_what_a_fresh_reading_gives(
    world: World, changes: list[tuple[int, int, bool, tuple[int, float] | None, bool]]
) -> None:
    """Whatever changed: folded, and told of, too much to tell or forgotten; or still pending.

    Records with an odd number are deals, 40 % of which belong to a second account of person 1.
    """
    await world.apply(*small_company(), owner(5, person="p1"))
    kept = Slices()
    last: tuple[Instant, Any] = (Instant(), {})
    for version, (who, number, deleted, fold, read) in enumerate(changes, start=1):
        about: dict[str, Any] = {"owner_id": who, "version": _next(world) + version}
        record = call(f"crm:{number}", **about, deleted=deleted)
        if number % 2:
            record = won(f"crm:{number}", **about, deleted=deleted, shares=f"{who}=60;5=40")
        await world.apply(record)
        if fold is not None:
            with (
                patch.object(counters, "MOST_CHANGES", fold[0]),
                patch.object(counters, "CHANGES_SECONDS", fold[1]),
            ):
                await world.settle()
        if read:  # else it falls behind
            async with world.service.database.transaction() as transaction:
                one, updated = await kept.read(transaction, TENANT, DIRECTORY, KEYS)
                other, fresh = await Slices().read(transaction, TENANT, DIRECTORY, KEYS)
                exact = {key: await _exactly(transaction, key) for key in KEYS}
            assert (one, updated) == (other, fresh)
            assert updated == exact
            assert one > last[0] or (one, updated) == last
            last = (one, updated)


async def _exactly(transaction: Transaction, key: Key) -> dict[str, Part]:
    """What single numbers are read as."""
    window = counters.Window(key.start, key.end, key.grain)
    subjects = [subject for subject in SUBJECTS if subject.startswith(key.kind)]
    found = await counters.exact(
        transaction, TENANT, metrics=[key.metric], window=window, subjects=subjects
    )
    return {each.subject: Part(each.value, each.count, each.unit) for each in found}


async def test_what_waits_counts_on_its_day(world: World) -> None:
    october, month = date(2026, 10, 1), ("calls_made", "month")
    waiting = {date(2026, 10, 31): 1, NOVEMBER: 2, date(2026, 11, 30): 4, DECEMBER: 8}
    async with world.service.database.transaction() as transaction:
        await facts.append(
            transaction,
            [
                (TENANT, "calls_made", "count", "p1", "", day, value, value, 0)
                for day, value in waiting.items()
            ],
        )
    keys = {
        Key(*month, NOVEMBER, DECEMBER, "count", "person"): 6,
        Key(*month, october, NOVEMBER, "count", "person"): 1,
        Key("calls_made", "day", NOVEMBER, date(2026, 11, 2), "count", "person"): 2,
        Key(*month, DECEMBER, date(2027, 1, 1), "count", "person"): 8,
    }
    async with world.service.database.transaction() as transaction:
        for some in (*([key] for key in keys), list(keys), list(keys)[:2]):
            _, found = await Slices().read(transaction, TENANT, DIRECTORY, some)
            assert {key: parts["person:p1"].value for key, parts in found.items()} == {
                key: keys[key] for key in some
            }


async def test_a_value_without_its_record_is_kept_until_that_comes(world: World) -> None:
    """Deltas are folded in any order: a correction may come before what it corrects."""
    await world.apply(*small_company())
    key = Key("revenue_won", "month", NOVEMBER, DECEMBER, "EUR", "person")
    kept = Slices()
    delta = (TENANT, "revenue_won", "EUR", "p1", "", date(2026, 11, 2))

    async def seen() -> dict[str, Part]:
        async with world.service.database.transaction() as transaction:
            return dict((await kept.read(transaction, TENANT, DIRECTORY, [key]))[1][key])

    await _append(world, (*delta, 50, 0, 0))
    assert await seen() == {}
    await world.settle()
    assert await seen() == {}
    await _append(world, (*delta, 100, 1, 0))
    assert await seen() == {"person:p1": Part(150, 1, "EUR")}
    await world.settle()
    assert await seen() == {"person:p1": Part(150, 1, "EUR")}
    await _append(world, (*delta, -100, -1, 0))
    assert await seen() == {}


async def test_a_fold_of_which_nothing_is_left_is_another_instant(world: World) -> None:
    """Else the next delta would look like those before."""
    await world.apply(*small_company())
    await world.settle()
    delta = (TENANT, "calls_made", "count", "p1", "", date(2026, 11, 2))
    await _append(world, (*delta, 1, 1, 0), (*delta, -1, -1, 0))
    before = await _instant(world)
    await world.settle()
    after = await _instant(world)

    assert (before.pending, after.pending) == (2, 0)
    assert after > before
    told = "SELECT FROM slice_change WHERE version >= $1"
    assert await world.fetch(told, after.sequence) == []


async def test_instants_are_of_each_tenant(world: World) -> None:
    async with world.service.database.transaction() as transaction:
        await facts.append(
            transaction, [("other", "calls_made", "count", "p1", "", NOVEMBER, 1, 1, 0)]
        )
        found = await counters.instants(transaction, ["other", "nobody"])
        alone = {name: await counters.instant(transaction, name) for name in found}
        _, slices = await Slices().read(transaction, "other", DIRECTORY, [])

    assert (found, slices) == ({"other": Instant(0, 1), "nobody": Instant(0, 0)}, {})
    assert alone == found


async def test_who_follows_folds_sees_counters_that_start_over(world: World) -> None:
    """As at the start of a version that counts otherwise, without another directory."""
    await world.apply(*small_company(), call("crm:1", owner_id=1), call("crm:2", owner_id=2))
    await world.settle()
    kept = Slices()
    async with world.service.database.transaction() as transaction:
        before, _ = await kept.read(transaction, TENANT, DIRECTORY, KEYS)
        await counters.forget_counters(transaction, TENANT, version=1, published=[])
        await facts.append(
            transaction, [(TENANT, "calls_made", "count", "p1", "", date(2026, 11, 2), 1, 1, 0)]
        )
    async with world.service.database.transaction() as transaction:
        after, slices = await kept.read(transaction, TENANT, DIRECTORY, KEYS)

    assert after > before
    assert slices[KEYS[0]] == {"person:p1": Part(1, 1)}


async def _append(world: World, *deltas: Any) -> None:
    async with world.service.database.transaction() as transaction:
        await facts.append(transaction, deltas)


async def _instant(world: World) -> Instant:
    async with world.service.database.transaction() as transaction:
        return await counters.instant(transaction, TENANT)


async def test_what_small_folds_tell_is_not_looked_for_among_all_counters(world: World) -> None:
    await world.apply(*small_company())
    key, kept = KEYS[0], Slices()

    async def seen() -> dict[str, int]:
        async with world.service.database.transaction() as transaction:
            _, slices = await kept.read(transaction, TENANT, DIRECTORY, [key])
        return {subject: part.value for subject, part in slices[key].items()}

    async def fold(number: int, telling: tuple[int, float]) -> None:
        await world.apply(call(f"crm:{number}", owner_id=1))
        with patch.object(counters, "MOST_CHANGES", telling[0]):
            await world.settle()

    await fold(1, TOLD)
    assert await seen() == {"person:p1": 1}
    await fold(2, TOLD)
    await world.fetch(
        "UPDATE counter SET value = 99 WHERE metric = 'calls_made' AND subject = 'person:p1'"
        " RETURNING 1"
    )
    assert await seen() == {"person:p1": 2}  # as it was told
    await fold(3, LARGE)
    assert await seen() == {"person:p1": 100}
    assert await world.fetch("SELECT count(DISTINCT version) FROM slice_change") == [(2,)]


def _next(world: World) -> int:
    """Versions beyond those of the examples before."""
    world.versions = getattr(world, "versions", 0) + 100  # type: ignore[attr-defined]
    return int(world.versions)  # type: ignore[attr-defined]


def test_slices_add_up() -> None:
    one, other = {"a": Part(2, 1), "b": Part(1, 1)}, {"a": Part(-2, -1), "b": Part(3, 2)}

    assert added([one, other]) == {"b": Part(4, 3)}
    assert added([one]) is one
    assert added([]) == {}
