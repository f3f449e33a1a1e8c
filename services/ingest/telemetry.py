"""Prometheus instruments of ingest; labels are bounded, ids never become labels."""

from prometheus_client import Counter, Gauge, Histogram

from kit.telemetry import SECONDS

REQUESTS = Counter(
    "pacesetter_ingest_requests_total",
    "Requests from CRMs by vendor and outcome. `unauthorised` rising: a secret was rotated on one "
    "side only. `unavailable`: Kafka is away, the CRM will try again. `rate-limited`: more came "
    "than the source's `rate` or INGEST_TENANT_RATE; the CRM will try again.",
    ["vendor", "outcome"],
)
FACTS = Counter(
    "pacesetter_ingest_facts_total",
    "Facts read, by vendor, record type and operation. Zero while requests come in: look at "
    "ignored and quarantined.",
    ["vendor", "type", "op"],
)
IGNORED = Counter(
    "pacesetter_ingest_ignored_events_total",
    "Events that say nothing about our records. Many: unsubscribe them in the CRM.",
    ["vendor", "kind"],
)
QUARANTINED = Counter(
    "pacesetter_ingest_quarantined_items_total",
    "Items that could not be read and were put aside. Any: read the reason (GET /v1/quarantine), "
    "fix, replay. See docs/runbooks/quarantine.md.",
    ["vendor"],
)
AGE_SECONDS = Histogram(
    "pacesetter_ingest_received_to_records_seconds",
    "From a request's arrival until its records are ready to be published. Rising: ingest is "
    "behind; add a replica or look at the database.",
    buckets=SECONDS,
)
UNKNOWN_SOURCES = Counter(
    "pacesetter_ingest_unconfigured_source_requests_total",
    "Requests read with default settings because their source is no longer configured. After a "
    "rebuild: put the source back, or its deals' stages are read as the vendor's defaults.",
)
SOURCES_STALE = Gauge(
    "pacesetter_ingest_sources_stale",
    "1 when the sources file changed and can't be read, so that the last good one is in force. "
    "Fix the file; the log says where it is wrong.",
)
SOURCES_UNUSABLE = Gauge(
    "pacesetter_ingest_sources_unusable",
    "Sources set by API whose secrets this process can't have, so that their CRMs get 503. GET "
    "/v1/sources says why: a key is missing in INGEST_SECRETS_KEY, or a reference leads nowhere. "
    "Any for minutes: see docs/runbooks/sources-unusable.md.",
)
REREADS = Counter(
    "pacesetter_ingest_rereads_total",
    "Records and types asked for at CRMs, by vendor and outcome: each is asked, then answered, "
    "limited (the CRM's limit, asked again) or failed; parked, when the CRM doesn't have it after "
    "many tries. Failed steady: GET /v1/rereads says why.",
    ["vendor", "outcome"],
)
REREADS_WAITING = Gauge(
    "pacesetter_ingest_rereads_waiting",
    "Records and types that wait to be read from a CRM, by reason. Growing without end: the "
    "source has no API credentials, or its rate is too low.",
    ["reason"],
)
REREADS_OLDEST_SECONDS = Gauge(
    "pacesetter_ingest_rereads_oldest_seconds",
    "For how long the oldest has waited of those that could be asked for. Over an hour: GET "
    "/v1/rereads has the CRM's words on it. See docs/runbooks/rereads-waiting.md.",
)
