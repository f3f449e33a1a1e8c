"""Kafka's addresses, and the topics that the registry declares.

Topics are created by us with their settings, never by the broker on first use; a topic that exists
with fewer partitions or other cleanup is reported instead of changed behind someone's back.
"""

import zlib
from typing import Any

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from kit.settings import KitSettings
from schemas.topics import DEAD_LETTER_RETENTION_MS, TOPICS, Topic, dead_letter_name

log = structlog.get_logger(__name__)

REQUEST_TIMEOUT_MS = 10_000
MAX_MESSAGE_BYTES = 1024 * 1024  # Kafka's own default, said so that no broker's differs
COMPACTED_AFTER_MS = 7 * 24 * 3_600_000  # what was erased has left the log by then


def partition_for(key: bytes, partitions: int) -> int:
    """CRC-32 of the key, as librdkafka's `consistent` partitioner has it.

    It is compiled, where aiokafka's murmur2 takes 12 µs a key in Python.
    """
    return zlib.crc32(key) % partitions


def declared(settings: KitSettings) -> list[NewTopic]:
    """Every topic of the registry and every dead-letter topic, as Kafka creates them."""
    topics = [
        _new_topic(settings, topic.name, topic.partitions, _config(topic)) for topic in TOPICS
    ]
    dead = {
        "cleanup.policy": "delete",
        "retention.ms": str(DEAD_LETTER_RETENTION_MS),
        "max.message.bytes": str(MAX_MESSAGE_BYTES + 64 * 1024),  # room for the reason
    }
    for topic in TOPICS:
        for service in topic.consumers:
            config = dead | topic.config
            topics.append(_new_topic(settings, dead_letter_name(topic.name, service), 1, config))
    return topics


async def create_topics(settings: KitSettings) -> None:
    """Create the topics that are missing; raises a KafkaError when the cluster refuses one."""
    admin = AIOKafkaAdminClient(
        bootstrap_servers=settings.kafka, request_timeout_ms=REQUEST_TIMEOUT_MS
    )
    await admin.start()
    try:
        existing = set(await admin.list_topics())
        missing = [topic for topic in declared(settings) if topic.name not in existing]
        if not missing:
            return
        response: Any = await admin.create_topics(missing)
        for name, code, *detail in response.topic_errors:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                raise error(f"topic {name}: {' '.join(str(d) for d in detail if d)}")
        log.info("topics_created", count=len(missing))
    finally:
        await admin.close()


def _new_topic(
    settings: KitSettings, name: str, partitions: int, config: dict[str, str]
) -> NewTopic:
    return NewTopic(
        name=settings.topic_prefix + name,
        num_partitions=partitions,
        replication_factor=settings.replication,
        topic_configs=config,
    )


def _config(topic: Topic) -> dict[str, str]:
    common = {"max.message.bytes": str(MAX_MESSAGE_BYTES), **topic.config}
    if topic.compacted:
        lag = {"max.compaction.lag.ms": str(COMPACTED_AFTER_MS)}
        return {"cleanup.policy": "compact", **lag, **common}
    return {"cleanup.policy": "delete", "retention.ms": str(topic.retention_ms), **common}
