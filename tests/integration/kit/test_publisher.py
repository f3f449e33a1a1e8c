"""Publishing means that Kafka has it; anything else is an error in bounded time."""

import asyncio
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer

from deploy.local import Stack
from kit import publisher as publisher_module
from kit.kafka import create_topics, partition_for
from kit.publisher import MAX_BATCH_BYTES, MessageTooLargeError, Publisher, PublishError
from kit.settings import KitSettings
from schemas.spm import Measure
from schemas.topics import BY_NAME


def a_measure(number: int, filling: str = "") -> Measure:
    return Measure(
        tenant="acme",
        version=1,
        subject=f"person:{number}{filling}",
        metric="calls_made",
        period="day:2026-11-02",
        unit="count",
        value=Decimal(1),
        count=1,
    )


async def test_everything_arrives_on_the_partition_of_its_key(kit_settings: KitSettings) -> None:
    await create_topics(kit_settings)
    await create_topics(kit_settings)  # a second service does the same
    publisher = Publisher(kit_settings)
    await publisher.start()
    big = "x" * (MAX_BATCH_BYTES // 3)
    sent = {m.key: m for n in range(200) for m in [a_measure(n, big if n % 50 == 0 else "")]}
    await publisher.publish(sent.values())
    await publisher.stop()

    reader = AIOKafkaConsumer(
        kit_settings.topic_prefix + Measure.topic,
        bootstrap_servers=kit_settings.kafka,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=8 * 1024 * 1024,
    )
    await reader.start()
    async with asyncio.timeout(20):
        found = [await reader.getone() for _ in sent]
    await reader.stop()

    assert {(m.key or b"").decode(): Measure.decode(m.value or b"") for m in found} == sent
    partitions = BY_NAME[Measure.topic].partitions
    assert all(m.partition == partition_for(m.key or b"", partitions) for m in found)


async def test_a_message_that_no_topic_takes_is_refused_at_once(kit_settings: KitSettings) -> None:
    await create_topics(kit_settings)
    publisher = Publisher(kit_settings)
    await publisher.start()
    with pytest.raises(MessageTooLargeError):
        await publisher.publish([a_measure(1, "x" * 4_000_000)])
    await publisher.publish([a_measure(2)])
    await publisher.stop()


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Stack]:
    """A stack of its own: after a kill, a broker reads all its logs, those of other tests too."""
    with Stack(tmp_path / "stack") as stack:
        yield stack


async def test_without_a_broker_it_fails_in_time_and_recovers_with_it(
    mortal: Stack, kit_settings: KitSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit_settings = kit_settings.model_copy(update={"kafka": mortal.kafka})
    monkeypatch.setattr(publisher_module, "TIMEOUT_SECONDS", 3.0)
    monkeypatch.setattr(publisher_module, "STOP_SECONDS", 1.0)
    await create_topics(kit_settings)
    publisher = Publisher(kit_settings)
    await publisher.start()
    await publisher.publish([a_measure(1)])

    await asyncio.to_thread(mortal.kill_kafka)
    began = time.monotonic()
    with pytest.raises(PublishError):
        await publisher.publish([a_measure(2)], within=3.0)
    assert time.monotonic() - began < 5  # replacing the producer is not the caller's to wait for
    await asyncio.to_thread(mortal.start_kafka)

    for _ in range(20):
        try:
            await publisher.publish([a_measure(3)], within=3.0)
            break
        except PublishError:
            await asyncio.sleep(0.5)
    else:
        pytest.fail("the publisher did not recover")
    await publisher.stop()
