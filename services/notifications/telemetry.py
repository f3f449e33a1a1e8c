"""Prometheus instruments of the notifications service, each with what to do when it moves."""

from prometheus_client import Counter, Gauge, Histogram

from kit.telemetry import SECONDS

ALERTS = Counter(
    "pacesetter_notifications_alerts_total",
    "Alerts by rule and what happened (raised, firing again, resolved). A jump of `raised`: look "
    "at the rule's threshold, or at what stopped coming in from the CRM.",
    ["rule", "what"],
)
SKIPPED = Counter(
    "pacesetter_notifications_skipped_total",
    "Records that a rule selects and that made no alert, by reason: undated, amount (missing), "
    "currency (not the organisation's), uncredited (owner not mapped to a person), old. Uncredited "
    "rising: map the owners.",
    ["rule", "reason"],
)
IGNORED = Counter(
    "pacesetter_notifications_ignored_messages_total",
    "Messages that no rule looks at, by topic. Normal.",
    ["topic"],
)
ALERT_SECONDS = Histogram(
    "pacesetter_notifications_event_to_alert_seconds",
    "From the receipt of the request that made a record's version to the alert it raised. Rising: "
    "compare with the consumer's lag.",
    buckets=SECONDS,
)
DELIVERIES = Counter(
    "pacesetter_notifications_deliveries_total",
    "Messages by channel and outcome (sent, retried, parked, withdrawn). Parked: read "
    "/v1/deliveries?state=parked and talk to the receiver.",
    ["channel", "outcome"],
)
OVERDUE = Gauge(
    "pacesetter_notifications_overdue_deliveries",
    "Messages that should have been tried over a minute ago. Above 0 for minutes: the sender "
    "doesn't run or can't keep up; read the log and add a replica.",
)
PARKED = Gauge(
    "pacesetter_notifications_parked_deliveries",
    "Messages given up after all attempts. Read /v1/deliveries?state=parked.",
)
OLDEST_WATCH_SECONDS = Gauge(
    "pacesetter_notifications_oldest_due_watch_seconds",
    "Business seconds since the oldest due window should have been looked at. Rising: the consumer "
    "is behind (windows wait for it) or the job fails.",
)
UNPUBLISHED = Gauge(
    "pacesetter_notifications_unpublished_alerts",
    "Alerts whose last change is not on their topic yet. Above 0 for minutes: Kafka refuses.",
)
STREAMS = Gauge(
    "pacesetter_notifications_inbox_streams",
    "Open event streams of inboxes. At the limit: add a replica.",
)
