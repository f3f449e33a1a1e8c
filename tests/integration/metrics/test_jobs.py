"""Folding, and what is published of it."""

import asyncio
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection
from structlog.testing import capture_logs

from kit.database import Transaction
from kit.publisher import PublishError
from schemas.base import State
from schemas.directory import Directory
from schemas.spm import Goal, Measure
from services.metrics import jobs, tables, telemetry
from services.metrics.domain.numbers import Part
from services.metrics.jobs import Folder
from services.metrics.store import counters, facts
from services.metrics.store.slices import Key, Slices
from tests.integration.metrics.world import World, call, organisation, small_company, won
from tests.support import TENANT


def measures(world: World) -> dict[tuple[str, str, str], Measure]:
    """The newest of each, as a compacted topic keeps them."""
    newest: dict[tuple[str, str, str], Measure] = {}
    for state in world.outbox.states:
        assert isinstance(state, Measure)
        known = newest.get((state.subject, state.metric, state.period))
        assert known is None or known.version < state.version
        newest[state.subject, state.metric, state.period] = state
    return newest


def goal(metric: str = "opportunities_created", version: int = 1) -> Goal:
    return Goal(
        tenant=TENANT,
        version=version,
        subject="person:p1",
        metric=metric,
        period="year:2026-01-01",
        target=Decimal(5),
    )


async def test_daily_drivers_and_what_boards_name_are_published(world: World) -> None:
    await world.apply(*small_company(), won(), call("crm:2"))
    await world.settle()
    await world.publish()
    found = measures(world)

    revenue = found["team:all-sales", "revenue_won", "month:2026-11-01"]
    assert (revenue.value, revenue.unit, revenue.count) == (Decimal("100.00"), "EUR", 1)
    assert found["person:p1", "calls_made", "day:2026-11-03"].value == 1
    assert ("person:p1", "revenue_won", "day:2026-11-02") not in found
    await world.publish()
    assert len(world.outbox.states) == len(found)


async def test_a_goal_has_its_metric_published_before_and_after(world: World) -> None:
    await world.apply(*small_company(), won())
    await world.settle()
    await world.publish()
    key = ("person:p1", "opportunities_created", "year:2026-01-01")
    assert key not in measures(world)
    await world.apply(goal())
    await world.publish()
    assert measures(world)[key].value == 1
    await world.apply(won("crm:2"))
    await world.settle()
    await world.publish()
    assert measures(world)[key].value == 2


async def test_sums_that_overflow_stop_nobody_elses_numbers(world: World) -> None:
    absurd = [("other", "revenue_won", "EUR", "p1", "", date(2026, 11, 2), 2**62, 1, 0)] * 4
    won_in = ("person:p1", "revenue_won", "month:2026-11-01", "EUR")
    async with world.service.database.transaction() as transaction:
        await facts.append(transaction, absurd)
    await world.apply(*small_company(), won("crm:1"))
    with capture_logs() as logs:
        assert (await world.numbers())[won_in] == (10_000, 1)
    assert [log["tenant"] for log in logs if log["event"] == "sums_overflow"] == ["other"]

    await world.apply(won("crm:2"))
    assert (await world.numbers())[won_in] == (20_000, 2)
    kept = "SELECT count(*) FROM pending WHERE tenant = 'other'"
    assert (await world.fetch(kept))[0][0] == len(absurd)
    month = counters.Window(date(2026, 11, 1), date(2026, 12, 1), "month")
    key = Key("revenue_won", "month", month.start, month.end, "EUR", "person")
    nobody = Directory("other", [organisation()])
    async with world.service.database.transaction() as transaction:
        alone = await counters.exact(
            transaction, "other", metrics=["revenue_won"], window=month, subjects=["person:p1"]
        )
        _, slices = await Slices().read(transaction, "other", nobody, [key])
    assert [each.value for each in alone] == [2**64]
    assert slices[key] == {"person:p1": Part(2**64, 4, "EUR")}


async def test_sums_overflow_wherever_they_meet(world: World) -> None:
    def delta(tenant: str, who: str) -> facts.DeltaRow:
        return (tenant, "revenue_won", "EUR", who, "", date(2026, 11, 2), 2**62, 1, 0)

    async def overflowing(*deltas: facts.DeltaRow) -> list[str]:
        async with world.service.database.transaction() as transaction:
            await facts.append(transaction, deltas)
        with capture_logs() as logs:
            await world.settle()
        return [log["tenant"] for log in logs if log["event"] == "sums_overflow"]

    await world.apply(*small_company())
    assert await overflowing(delta("counted", "p1")) == []
    assert await overflowing(delta("two-people", "p1"), delta("two-people", "p2")) == ["two-people"]
    assert await overflowing(delta("counted", "p1")) == ["counted"]


def _calls(tenant: str, count: int) -> list[facts.DeltaRow]:
    when = date(2026, 11, 2)
    return [(tenant, "calls_made", "count", f"p{n}", "", when, 1, 1, 0) for n in range(count)]


async def _waiting_in(world: World, folder: Folder, messages: int) -> int:
    async with folder.room(messages):
        return int((await world.fetch("SELECT count(*) FROM pending"))[0][0])


@pytest.fixture
def narrow(world: World, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """The service's folder, with room for three deltas, that takes two at a time."""
    folder: Folder = world.service.around[""].__self__  # type: ignore[attr-defined]
    monkeypatch.setattr(folder, "_rows", 2)
    monkeypatch.setattr(folder, "_waiting", 3)
    monkeypatch.setattr(jobs, "LOOK_AFTER", 10)
    monkeypatch.setattr(jobs, "LOOK_SECONDS", 0.01)
    return folder


async def test_a_batch_waits_until_few_enough_deltas_do(world: World, narrow: Folder) -> None:
    async with world.service.database.transaction() as transaction:
        await facts.append(transaction, _calls(TENANT, 8))
    assert await _waiting_in(world, narrow, 9) == 8  # it isn't looked at each batch
    batch = asyncio.create_task(_waiting_in(world, narrow, 1))
    for left in (6, 4, 2):
        await asyncio.sleep(0.1)
        assert not batch.done()
        await world.job("fold")
        assert (await world.fetch("SELECT count(*) FROM pending"))[0][0] == left
    async with asyncio.timeout(5):
        assert await batch == 2
        assert await _waiting_in(world, narrow, 10) == 2  # there is room


async def test_a_batch_does_not_wait_for_ever(
    world: World, narrow: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LONGEST_WAIT_SECONDS", 0.2)
    async with world.service.database.transaction() as transaction:
        await facts.append(transaction, _calls(TENANT, 8))
    before = telemetry.HELD_UP_SECONDS._value.get()

    assert await _waiting_in(world, narrow, 10) == 8
    assert telemetry.HELD_UP_SECONDS._value.get() - before >= 0.2


async def test_a_batch_does_not_wait_for_what_is_set_aside(world: World, narrow: Folder) -> None:
    absurd = ("other", "revenue_won", "EUR", "p1", "", date(2026, 11, 2), 2**62, 1, 0)
    async with world.service.database.transaction() as transaction:
        await facts.append(transaction, [absurd] * 8)
    await world.job("fold")
    async with world.service.database.transaction() as transaction:
        await facts.append(transaction, _calls(TENANT, 3))

    async with asyncio.timeout(jobs.LONGEST_WAIT_SECONDS / 2):
        assert await _waiting_in(world, narrow, 10) == 8 + 3


async def test_a_batch_goes_on_when_nobody_can_say_what_waits(
    world: World, narrow: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*_: Any, **__: Any) -> bool:
        raise ConnectionError("gone")

    monkeypatch.setattr(counters, "waits", lost)
    with capture_logs() as logs:
        assert await _waiting_in(world, narrow, 10) == 0

    assert [log["event"] for log in logs] == ["waiting_deltas_not_counted"]


async def test_they_count_once_they_are_corrected(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many deltas lie between."""
    monkeypatch.setattr(jobs, "OVERFLOWING_SECONDS", 0.0)
    take = counters.take_pending

    async def take_two(transaction: Transaction, limit: int | None, **which: Any) -> list[Any]:
        return await take(transaction, limit and 2, **which)

    monkeypatch.setattr(counters, "take_pending", take_two)
    one = ("other", "revenue_won", "EUR", "p1", "", date(2026, 11, 2))
    async with world.service.database.transaction() as transaction:
        await facts.append(transaction, [(*one, 2**62, 1, 0)] * 2)
    for _ in range(2):
        await world.job("fold")
    assert await world.fetch("SELECT FROM counter WHERE tenant = 'other'") == []

    async with world.service.database.transaction() as transaction:
        await facts.append(transaction, [(*one, -(2**62), -1, 0)])
    found = await world.numbers("other")
    assert found["person:p1", "revenue_won", "month:2026-11-01", "EUR"] == (2**62, 1)


async def test_what_kafka_did_not_take_is_published_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.apply(*small_company(), won())
    await world.settle()

    async def refuse(_: Iterable[State]) -> None:
        raise PublishError

    with monkeypatch.context() as patch:
        patch.setattr(world.outbox, "publish", refuse)
        with pytest.raises(PublishError):
            await world.publish()
    await world.publish()

    assert ("org:all", "revenue_won", "month:2026-11-01") in measures(world)


async def test_a_number_that_moves_while_it_is_published_is_published_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.apply(*small_company(), won())
    await world.settle()
    original = world.outbox.publish

    async def meanwhile(states: Iterable[State]) -> None:
        await original(states)
        await world.apply(won("crm:2"))
        await world.settle()

    with monkeypatch.context() as patch:
        patch.setattr(world.outbox, "publish", meanwhile)
        await world.publish()
    await world.publish()

    assert measures(world)["org:all", "revenue_won", "month:2026-11-01"].count == 2


async def test_numbers_that_vanish_are_published_as_nothing(world: World) -> None:
    late = won(closed_at="2026-11-30T23:30:00Z")  # December in Berlin, November in New York
    await world.apply(*small_company(), late)
    await world.settle()
    await world.publish()
    assert measures(world)["org:all", "revenue_won", "month:2026-12-01"].count == 1
    await world.apply(organisation(version=2, zone="America/New_York"))
    await world.settle()
    await world.publish()

    found = measures(world)
    assert found["org:all", "revenue_won", "month:2026-12-01"].count == 0
    assert found["org:all", "revenue_won", "month:2026-12-01"].value == 0
    assert found["org:all", "revenue_won", "month:2026-11-01"].count == 1


async def test_the_checksum_ignores_versions_and_sees_numbers(world: World) -> None:
    await world.apply(*small_company(), won(version=1), goal())
    first = await world.service.checksum()
    await world.apply(won(version=2), goal(version=2))
    same = await world.service.checksum()
    await world.apply(won(version=3, amount="1"))

    assert first == same
    assert await world.service.checksum() != first


async def test_folded_deltas_leave_their_space(world: World) -> None:
    await world.apply(*small_company(), *(call(f"crm:{n}") for n in range(50)))
    await world.settle()
    await world.job("vacuum")

    assert (await world.fetch("SELECT count(*) FROM pending"))[0][0] == 0


async def test_tables_and_migrations_agree(world: World) -> None:
    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(
            connection, opts={"include_name": lambda name, *_: name != "alembic_version"}
        )
        return list(compare_metadata(context, tables.METADATA))

    async with world.service.database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []
