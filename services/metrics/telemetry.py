"""Prometheus instruments of the metrics service; each help text says what to do when it moves."""

from prometheus_client import Counter, Gauge, Histogram

from kit.telemetry import SECONDS

FACTS = Counter(
    "pacesetter_metrics_facts_total",
    "Records applied, by type and outcome: new, changed, same (a newer version that moves no "
    "number) or stale (seen before). Only stale: something is replayed, or a producer repeats.",
    ["type", "outcome"],
)
RECREDITED = Counter(
    "pacesetter_metrics_recredited_facts_total",
    "Facts looked at again because the directory changed. Rising without an import: find who "
    "edits people or teams in a loop.",
)
FINDINGS = Counter(
    "pacesetter_metrics_findings_total",
    "Records that count for less than they should, by reason, each time a version arrives. "
    "unmapped_owner: map the CRM owner to a person; others: correct the record in the CRM.",
    ["reason"],
)
RECOUNT_LEFT = Gauge(
    "pacesetter_metrics_recount_messages_left",
    "Messages that a recount of the past has yet to read, when last looked; 0 when none is asked "
    "for. Not falling: look for failures of the job `recount`.",
)
PENDING = Gauge(
    "pacesetter_metrics_pending_deltas",
    "Deltas that waited when last folded here, METRICS_FOLD_ROWS at most. There for long: a "
    "backlog is worked off, or the store is slow.",
)
HELD_UP_SECONDS = Counter(
    "pacesetter_metrics_held_up_seconds_total",
    "Time that batches waited because more deltas than METRICS_WAITING_ROWS did, so that boards "
    "stay quick. Rising for long: folding is what limits this store; look at the fold's time.",
)
FOLDED = Counter(
    "pacesetter_metrics_folded_deltas_total",
    "Deltas folded into counters. Zero while records arrive: look for job failures.",
)
FOLD_SECONDS = Histogram(
    "pacesetter_metrics_fold_seconds",
    "Duration of one fold that had something to do. It bounds how fresh measures, series and "
    "contests are.",
    buckets=SECONDS,
)
EVENT_TO_QUERYABLE = Histogram(
    "pacesetter_metrics_event_to_queryable_seconds",
    "From the receipt of a record to the commit of the fold that shows it in all numbers (boards "
    "have it before); one observation per folded group of deltas, by the oldest record in it. "
    "Rising: compare with lag and fold time.",
    buckets=SECONDS,
)
OVERFLOWING = Gauge(
    "pacesetter_metrics_overflowing_tenants",
    "Tenants whose measures, series and contests stand still because a sum is beyond 64 bits, for "
    "whoever folds. Not 0: the log says who and why (`sums_overflow`); correct the records in the "
    "CRM.",
)
UNPUBLISHED = Gauge(
    "pacesetter_metrics_unpublished_measures",
    "Measures waiting to be published, when last looked. Growing: Kafka is slow, or publish less.",
)
BOARDS = Counter(
    "pacesetter_metrics_boards_computed_total",
    "Boards computed, for a snapshot or because their numbers moved.",
    ["cause"],
)
BOARD_SECONDS = Histogram(
    "pacesetter_metrics_board_seconds",
    "Time to compute one board. Above a tick: fewer boards per replica, or more replicas.",
    buckets=SECONDS,
)
STREAMS = Gauge(
    "pacesetter_metrics_streams",
    "Open event streams. At the limit: viewers get 503 and try again; add replicas.",
)
DISPLAY_EVENTS = Counter(
    "pacesetter_metrics_display_events_total",
    "Attempts to tell a display outside of a new order, by outcome: delivered, failed (tried "
    "again) or given up. Failed or given up: GET /v1/displays says which one and why.",
    ["outcome"],
)
STREAM_EVENTS = Counter(
    "pacesetter_metrics_stream_events_total",
    "Events sent to viewers, by kind. Mostly snapshots: clients are too slow or reconnect a lot.",
    ["kind"],
)
