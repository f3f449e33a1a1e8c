"""Prometheus instruments that every service has; each help text says what to do when it moves.

Business *metrics* are a service of their own; these are *telemetry*. Labels are bounded sets:
topics, services, outcomes; never ids.
"""

from prometheus_client import Counter, Gauge, Histogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

CONSUMED = Counter(
    "pacesetter_consumed_messages_total",
    "Messages taken from a topic. Zero while its producer works: the consumer is stuck.",
    ["topic"],
)
BATCH_SECONDS = Histogram(
    "pacesetter_batch_seconds",
    "Time to apply one batch, from decode to acknowledged emits. Rising: look at the database.",
    buckets=SECONDS,
)
BATCH_MESSAGES = Histogram(
    "pacesetter_batch_messages",
    "Messages per batch. At the limit all the time: add a replica.",
    buckets=(1, 5, 10, 50, 100, 500, 1000, 2000, 5000),
)
DELIVERY_AGE_SECONDS = Histogram(
    "pacesetter_delivery_age_seconds",
    "Age of a message when its effects are committed. Rising: this consumer is behind.",
    ["topic"],
    buckets=SECONDS,
)
LAG_SECONDS = Gauge(
    "pacesetter_consumer_lag_seconds",
    "Age of the oldest message known and not yet applied; 0 when there is none. "
    "Alert above a minute: see docs/runbooks/consumer-lag.md.",
)
RETRIES = Counter(
    "pacesetter_batch_retries_total",
    "Batches tried again after a transient error. Some at a restart; steady: fix the database.",
    ["error"],
)
DEAD_LETTERS = Counter(
    "pacesetter_dead_letters_total",
    "Messages that could not be applied and were put aside. "
    "Any: read them (`python -m services dead-letters`), fix, replay.",
    ["topic", "error"],
)
HALTED = Gauge(
    "pacesetter_consumer_halted",
    "1 when too many messages in a row could not be applied and consumption was stopped. "
    "Page: see docs/runbooks/consumer-halted.md.",
    ["lane"],
)
PUBLISHED = Counter(
    "pacesetter_published_messages_total",
    "Messages acknowledged by Kafka.",
    ["topic"],
)
PUBLISH_SECONDS = Histogram(
    "pacesetter_publish_seconds",
    "Time until Kafka has acknowledged a publication. Rising: look at the brokers.",
    buckets=SECONDS,
)
PUBLISH_FAILURES = Counter(
    "pacesetter_publish_failures_total",
    "Publications that Kafka did not acknowledge in time. Callers see 503 or retry.",
)
JOB_SECONDS = Histogram(
    "pacesetter_job_seconds", "Duration of one run of a job.", ["job_name"], buckets=SECONDS
)
JOB_FAILURES = Counter(
    "pacesetter_job_failures_total",
    "Runs of a job that raised. It runs again at its next turn; steady: read the log.",
    ["job_name"],
)
HTTP_SECONDS = Histogram(
    "pacesetter_http_request_seconds",
    "Time to answer a request, by route template and status class.",
    ["route", "status"],
    buckets=SECONDS,
)
CONNECTIONS_REFUSED = Counter(
    "pacesetter_http_connections_refused_total",
    "HTTP connections over PACESETTER_MAX_CONNECTIONS, answered 503. Any: add a replica, or find "
    "who opens so many.",
)
DATABASE_CONNECTIONS = Gauge(
    "pacesetter_database_connections",
    "Connections of the pool in use. At its size all the time: raise it or find what holds them.",
)
