"""The batch consumer on real Kafka and PostgreSQL: what happens when things go wrong."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord

from kit import consumer as consumer_module
from kit.consumer import AroundBatch, Batch, Consumer, Processor, nothing_around
from kit.database import Database, Transaction
from kit.kafka import create_topics
from kit.publisher import Publisher
from kit.settings import KitSettings
from schemas.base import State
from schemas.spm import Goal
from schemas.topics import dead_letter_name

SERVICE = "payouts"
UPSERT = """
INSERT INTO seen (key, version) SELECT * FROM unnest($1::text[], $2::bigint[]) ORDER BY 1
ON CONFLICT (key) DO UPDATE SET version = excluded.version WHERE seen.version < excluded.version
"""


def a_goal(number: int, version: int = 1) -> Goal:
    return Goal(
        tenant="acme",
        version=version,
        subject=f"person:{number}",
        metric="calls_made",
        period="day:2026-11-02",
        target=Decimal(5),
    )


@dataclass
class Harness:
    settings: KitSettings
    database: Database
    publisher: Publisher
    before: Callable[[Batch], Awaitable[None]] | None = None
    batches: list[int] = field(default_factory=list)

    async def apply(self, transaction: Transaction, batch: Batch) -> Iterable[State]:
        goals = batch.of(Goal)
        if self.before is not None:
            await self.before(batch)
        keys, versions = [g.key for g in goals], [g.version for g in goals]
        await transaction.driver.execute(UPSERT, keys, versions)
        self.batches.append(len(goals))
        return []

    def consumer(self, around_batch: AroundBatch = nothing_around) -> Consumer:
        processor = Processor(
            service=SERVICE,
            prefix=self.settings.topic_prefix,
            database=self.database,
            publisher=self.publisher,
            apply=self.apply,
        )
        return Consumer(
            self.settings, service=SERVICE, processor=processor, around_batch=around_batch
        )

    @asynccontextmanager
    async def consuming(
        self, around_batch: AroundBatch = nothing_around
    ) -> AsyncIterator[Consumer]:
        consumer = self.consumer(around_batch)
        await consumer.start()
        try:
            yield consumer
        finally:
            await consumer.stop()

    async def seen(self) -> dict[str, int]:
        async with self.database.transaction() as transaction:
            rows = await transaction.driver.fetch("SELECT key, version FROM seen")
        return {row["key"]: row["version"] for row in rows}

    async def until_seen(self, count: int) -> dict[str, int]:
        deadline = time.monotonic() + 20
        while len(seen := await self.seen()) < count:
            assert time.monotonic() < deadline, f"{len(seen)} of {count} arrived"
            await asyncio.sleep(0.05)
        return seen

    async def dead_letters(self, count: int) -> list[tuple[bytes, dict[str, bytes]]]:
        reader = AIOKafkaConsumer(
            self.settings.topic_prefix + dead_letter_name(Goal.topic, SERVICE),
            bootstrap_servers=self.settings.kafka,
            auto_offset_reset="earliest",
        )
        await reader.start()
        try:
            async with asyncio.timeout(10):
                found = [await reader.getone() for _ in range(count)]
                return [(message.value or b"", dict(message.headers)) for message in found]
        finally:
            await reader.stop()

    async def send_raw(
        self, *values: bytes, headers: list[tuple[str, bytes]] | None = None
    ) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.settings.kafka)
        await producer.start()
        topic = self.settings.topic_prefix + Goal.topic
        for value in values:
            await producer.send_and_wait(topic, value, key=b"k", partition=0, headers=headers or [])
        await producer.stop()


@pytest.fixture
async def harness(
    kit_settings: KitSettings, new_database: Callable[[], Awaitable[str]]
) -> AsyncIterator[Harness]:
    url = await new_database()
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE seen (key text PRIMARY KEY, version bigint NOT NULL)")
    await connection.close()
    database = Database(url, migrations=Path())
    publisher = Publisher(kit_settings)
    await create_topics(kit_settings)
    await publisher.start()
    yield Harness(kit_settings, database, publisher)
    await publisher.stop()
    await database.close()


async def test_states_arrive_once_and_a_restart_goes_on_where_it_stopped(harness: Harness) -> None:
    async with harness.consuming():
        await harness.publisher.publish(a_goal(n) for n in range(500))
        assert len(await harness.until_seen(500)) == 500
    handled = sum(harness.batches)

    async with harness.consuming():
        await harness.publisher.publish([a_goal(1000)])
        await harness.until_seen(501)

    assert sum(harness.batches) == handled + 1


async def test_a_batch_that_has_to_wait_is_late_but_not_stuck(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "STUCK_SECONDS", 0.0)
    entered, free = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def wait(_messages: int) -> AsyncIterator[None]:
        entered.set()
        await free.wait()
        yield

    await harness.publisher.publish([a_goal(1)])
    async with harness.consuming(wait) as consumer, asyncio.timeout(20):
        await entered.wait()
        late, stuck = consumer.lag_seconds(), consumer.stuck()
        free.set()
        await harness.until_seen(1)
        await consumer.finish_batch()
        after = consumer.lag_seconds()

    assert late > 0
    assert not stuck
    assert after == 0


async def test_what_cannot_be_read_is_put_aside_alone_with_its_bytes_and_reason(
    harness: Harness,
) -> None:
    good = a_goal(1)
    await harness.send_raw(b"not json", headers=[("x", b"\xff\xfe")])
    await harness.send_raw(good.encode(), b'{"tenant": 5}')

    async with harness.consuming():
        assert await harness.until_seen(1) == {good.key: 1}
        dead = await harness.dead_letters(2)

    assert [value for value, _ in dead] == [b"not json", b'{"tenant": 5}']
    assert dead[0][1]["x"] == b"\xff\xfe"
    assert b"malformed" in dead[0][1]["dead.reason"]
    assert dead[1][1]["dead.source"] == b"spm.goals.v1/0/2"
    assert dead[1][1]["dead.attempt"] == b"1"


async def test_states_under_one_foreign_key_stay_apart(harness: Harness) -> None:
    goals = [a_goal(1, version=9), a_goal(2, version=3), a_goal(2, version=4), a_goal(1)]
    await harness.send_raw(*(goal.encode() for goal in goals))  # all with the key "k"

    async with harness.consuming():
        assert await harness.until_seen(2) == {a_goal(1).key: 9, a_goal(2).key: 4}


async def test_what_fails_again_says_where_it_came_from_and_how_often_it_failed(
    harness: Harness,
) -> None:
    await harness.send_raw(b"not json", headers=[("dead.attempt", b"2"), ("dead.reason", b"old")])

    async with harness.consuming():
        ((_, headers),) = await harness.dead_letters(1)

    assert headers["dead.attempt"] == b"3"
    assert b"malformed" in headers["dead.reason"]


async def test_one_message_that_cannot_be_applied_does_not_fail_its_batch(harness: Harness) -> None:
    async def refuse_seven(batch: Batch) -> None:
        if any(goal.subject == "person:7" for goal in batch.of(Goal)):
            raise KeyError("seven")

    harness.before = refuse_seven
    await harness.publisher.publish(a_goal(n) for n in range(100))

    async with harness.consuming():
        seen = await harness.until_seen(99)
        ((value, headers),) = await harness.dead_letters(1)

    assert a_goal(7).key not in seen
    assert Goal.decode(value) == a_goal(7)
    assert headers["dead.error"] == b"KeyError"


async def test_a_transient_error_is_tried_again_and_nothing_is_lost(harness: Harness) -> None:
    failures = iter([ConnectionError("away"), asyncpg.DeadlockDetectedError("again")])

    async def fail_twice(_: Batch) -> None:
        for failure in failures:
            raise failure

    harness.before = fail_twice
    async with harness.consuming():
        await harness.publisher.publish(a_goal(n) for n in range(10))
        assert len(await harness.until_seen(10)) == 10


async def test_a_flood_of_failures_halts_and_puts_nothing_aside(harness: Harness) -> None:
    async def broken(_: Batch) -> None:
        raise KeyError("a bug of ours")

    harness.before = broken
    await harness.publisher.publish(a_goal(n) for n in range(200))
    async with harness.consuming() as consumer:
        deadline = time.monotonic() + 20
        while consumer.halted is None:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert consumer.problem() is not None
        assert not consumer.stuck()
    with pytest.raises(TimeoutError):
        await harness.dead_letters(1)

    harness.before = None
    async with harness.consuming():
        assert len(await harness.until_seen(200)) == 200


async def test_two_members_share_the_work_and_one_takes_over_when_the_other_leaves(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "MAX_RECORDS", 50)

    async def slowly(_: Batch) -> None:
        await asyncio.sleep(0.01)

    harness.before = slowly
    async with harness.consuming():
        other = harness.consumer()
        await other.start()
        await harness.publisher.publish(a_goal(n) for n in range(1000))
        await other.stop()
        assert len(await harness.until_seen(1000)) == 1000


async def test_the_last_message_of_a_key_is_what_the_store_holds(harness: Harness) -> None:
    """Another replica commits and publishes version 11 while we are about to publish 10."""
    newest = a_goal(1, version=11)
    asked: list[list[int]] = []

    async def apply(_: Transaction, __: Batch) -> Iterable[State]:
        return [a_goal(1, version=10), a_goal(2, version=10)]

    async def current(_: Transaction, states: Sequence[State]) -> list[State]:
        asked.append([state.version for state in states])
        return [newest, a_goal(2, version=10)]

    processor = Processor(
        service=SERVICE,
        prefix=harness.settings.topic_prefix,
        database=harness.database,
        publisher=harness.publisher,
        apply=apply,
        current=current,
    )
    raw: ConsumerRecord[bytes | None, bytes | None] = ConsumerRecord(
        topic=harness.settings.topic_prefix + Goal.topic,
        partition=0,
        offset=0,
        timestamp=int(time.time() * 1000),
        timestamp_type=0,
        key=b"k",
        value=newest.encode(),
        checksum=None,
        serialized_key_size=1,
        serialized_value_size=1,
        headers=(),
    )
    await processor.process([raw])

    reader = AIOKafkaConsumer(
        harness.settings.topic_prefix + Goal.topic,
        bootstrap_servers=harness.settings.kafka,
        auto_offset_reset="earliest",
    )
    await reader.start()
    async with asyncio.timeout(10):
        found = [Goal.decode((await reader.getone()).value or b"") for _ in range(3)]
    await reader.stop()
    of_first = [goal.version for goal in found if goal.key == newest.key]
    assert of_first == [10, 11]
    assert asked == [[10, 10], [11]]


@pytest.mark.parametrize("failures", [0, 1])
async def test_what_came_while_a_batch_was_in_hand_comes_together_and_is_handed_back_together(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    monkeypatch.setattr(consumer_module, "PATIENCE_SECONDS", 0.0)  # a failed batch goes back
    monkeypatch.setattr(consumer_module, "BUSY_SECONDS", 5.0)  # however slow the machine is
    monkeypatch.setattr(consumer_module, "MEANWHILE_MS", 5000)
    in_hand, go_on = asyncio.Event(), asyncio.Event()
    left = failures

    async def before(batch: Batch) -> None:
        nonlocal left
        if not in_hand.is_set():
            in_hand.set()
            await go_on.wait()
        elif left:
            left -= 1
            raise ConnectionResetError(f"with {len(batch.states)} states")

    harness.before = before
    async with harness.consuming():
        await harness.send_raw(a_goal(1).encode())
        async with asyncio.timeout(20):
            await in_hand.wait()
        for number in (2, 3):  # of one partition; the second after the first was fetched
            await harness.send_raw(a_goal(number).encode())
            await asyncio.sleep(0.3)
        go_on.set()
        assert len(await harness.until_seen(3)) == 3
    assert harness.batches == [1, 2]
    assert left == 0

    monkeypatch.setattr(consumer_module, "BUSY_SECONDS", 0.0)
    async with harness.consuming():
        await harness.send_raw(a_goal(4).encode())
        await harness.until_seen(4)
    assert harness.batches == [1, 2, 1]  # everything before was committed
