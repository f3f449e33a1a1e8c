"""The topic registry: every topic, who publishes it, who reads it, and how long it keeps.

This is the only place where a topic's name, partitions or retention is written. `kit.kafka` creates
the topics from here; the tests check services and documentation against it.
"""

from dataclasses import dataclass, field

from schemas.base import State
from schemas.crm import Backfilled, Discard, Received, Record, SourceState
from schemas.directory import Entry
from schemas.spm import (
    Alert,
    BoardDocument,
    ContestState,
    Earnings,
    Goal,
    Measure,
    MetricDocument,
    PlanDocument,
)

DAY_MS = 24 * 60 * 60 * 1000
SERVICES = ("ingest", "metrics", "payouts", "notifications")


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic. `retention_ms` None means compacted: the last state per key is kept for ever."""

    event: type[State]
    key: str
    producer: str
    consumers: tuple[str, ...]
    about: str
    partitions: int = 8  # the most replicas of one service that can share the work
    lane: str = ""  # who reads it in a lane of its own, beside what is live
    context: bool = False  # what records are applied to; small, and read first by a rebuild
    retention_ms: int | None = None
    config: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The topic's name, without a deployment's prefix."""
        return self.event.topic

    @property
    def compacted(self) -> bool:
        """Whether it is a topic of state."""
        return self.retention_ms is None


TOPICS: tuple[Topic, ...] = (
    Topic(
        event=Received,
        key="tenant/source/request id",
        producer="ingest",
        consumers=("ingest",),
        about="Requests as CRMs sent them: the raw log that everything can be rebuilt from.",
        retention_ms=400 * DAY_MS,  # over a year, so that last year's numbers can be re-read
        config={"max.message.bytes": str(3 * 1024 * 1024)},  # a 2 MiB body in base64, with headers
    ),
    Topic(
        event=Backfilled,
        key="tenant/source/request id",
        producer="ingest",
        consumers=("ingest",),
        about="Imports and answers of CRMs: as above, in a lane that gives way to live requests.",
        retention_ms=400 * DAY_MS,
        lane="backfill",
        config={"max.message.bytes": str(3 * 1024 * 1024)},
    ),
    Topic(
        event=Record,
        key="tenant/record type/record id",
        producer="ingest",
        consumers=("metrics", "payouts", "notifications"),
        about="The last known state of every CRM record.",
    ),
    Topic(
        event=Entry,
        key="tenant/kind/id",
        producer="ingest",
        consumers=("ingest", "metrics", "payouts", "notifications"),
        about="People, teams, memberships and owner mappings.",
        partitions=1,
        context=True,
    ),
    Topic(
        event=SourceState,
        key="tenant/source",
        producer="ingest",
        consumers=("ingest",),
        about="CRM accounts that may send, as configured by API; their secrets are encrypted.",
        partitions=1,
        context=True,
    ),
    Topic(
        event=Discard,
        key="tenant/request id.index",
        producer="ingest",
        consumers=("ingest",),
        about="Items that could not be read and were given up, so that they stay away.",
        partitions=1,
        context=True,
    ),
    Topic(
        event=Goal,
        key="tenant/subject/metric/period",
        producer="metrics",
        consumers=("metrics", "payouts", "notifications"),
        about="Targets and quotas.",
        partitions=1,
        context=True,
    ),
    Topic(
        event=MetricDocument,
        key="tenant/metric",
        producer="metrics",
        consumers=("metrics",),
        about="Metrics that a tenant has added or changed, with their former revisions.",
        partitions=1,
        context=True,
    ),
    Topic(
        event=BoardDocument,
        key="tenant/kind/id",
        producer="metrics",
        consumers=("metrics",),
        about="Boards and contests that a tenant has added or changed.",
        partitions=1,
        context=True,
    ),
    Topic(
        event=ContestState,
        key="tenant/contest",
        producer="metrics",
        consumers=("metrics",),
        about="Contests: phase, who leads, announcements, and the result once it is final.",
        partitions=1,
        context=True,
    ),
    Topic(
        event=Measure,
        key="tenant/subject/metric/period/unit",
        producer="metrics",
        consumers=("notifications",),
        about="Current numbers of people, teams and the organisation.",
    ),
    Topic(
        event=PlanDocument,
        key="tenant/plan",
        producer="payouts",
        consumers=("payouts",),
        about="Incentive plans as published.",
        partitions=1,
        context=True,
    ),
    Topic(
        event=Earnings,
        key="tenant/payee/plan/period",
        producer="payouts",
        consumers=("notifications",),
        about="What payees have earned so far.",
    ),
    Topic(
        event=Alert,
        key="tenant/rule/subject/window",
        producer="notifications",
        consumers=("notifications",),
        about="Alerts and their state.",
        partitions=1,
        context=True,
    ),
)

DEAD_LETTER_RETENTION_MS = 800 * DAY_MS  # longer than any source: a fix may take a while


def topic_of(event: type[State]) -> Topic:
    """The registry entry of a message type (of `Entry` for every directory kind)."""
    return BY_NAME[event.topic]


def consumed_by(service: str) -> tuple[Topic, ...]:
    """The topics that a service reads, in the order in which a rebuild must read them."""
    return tuple(sorted((t for t in TOPICS if service in t.consumers), key=_rebuild_order))


def lanes(service: str) -> tuple[str, ...]:
    """The lanes that a service reads, the live one ("") first."""
    return tuple(sorted({topic.lane for topic in consumed_by(service)}))


def _rebuild_order(topic: Topic) -> tuple[bool, int]:
    return (not topic.context, TOPICS.index(topic))


def dead_letter_name(topic: str, service: str) -> str:
    """Where `service` puts what it can't apply from `topic`."""
    return f"{topic}.{service}.dead.v1"


BY_NAME = {topic.name: topic for topic in TOPICS}
