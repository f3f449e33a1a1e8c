"""The dashboards, as code: `python -m deploy.grafana.dashboards` writes `dashboards/*.json`.

A dashboard is data here (rows of panels of queries); the SDK makes Grafana's JSON of it. Tests
check that the committed JSON is current, that every instrument named exists, and that every query
returns data from a live scrape.

Labels come from the services' instruments, but for two: `service` is given by the scrape
configuration.
"""

from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    GridPos,
)

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")  # as provisioned
WIDTH, HEIGHT = 24, 8  # of a row; of a panel


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL query and how its series are called."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph: what it shows, and in `about` what to do when it moves."""

    title: str
    about: str
    unit: str
    queries: tuple[Query, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A stage that events pass through."""

    title: str
    panels: tuple[Panel, ...]


def rate(metric: str, by: str, selector: str = "") -> Query:
    """A counter's increase per second, summed over everything but `by`."""
    legend = " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(","))
    return Query(f"sum by ({by}) (rate({metric}{selector}[$__rate_interval]))", legend)


def quantiles(metric: str, *levels: float, by: str = "", selector: str = "") -> tuple[Query, ...]:
    """Quantiles of a histogram, over everything but `by`."""
    labels = f"le, {by}" if by else "le"
    legend = "".join(f"{{{{{label.strip()}}}}} " for label in by.split(",") if label)
    return tuple(
        Query(
            f"histogram_quantile({level}, "
            f"sum by ({labels}) (rate({metric}_bucket{selector}[$__rate_interval])))",
            f"{legend}p{level * 100:g}",
        )
        for level in levels
    )


WAY_OF_AN_EVENT = (
    Row(
        "Receive: a CRM's request is kept",
        (
            Panel(
                "Requests by vendor and outcome",
                "Unauthorised rising: a secret was rotated on one side only. Unavailable: Kafka is "
                "away; the CRM will try again.",
                "reqps",
                (rate("pacesetter_ingest_requests_total", "vendor, outcome"),),
            ),
            Panel(
                "Time to acknowledge",
                "From the request to the answer, Kafka's acknowledgement included. Rising: look at "
                "'Kafka's acknowledgement' below.",
                "s",
                quantiles(
                    "pacesetter_http_request_seconds",
                    0.5,
                    0.99,
                    selector='{service="ingest", route="/v1/sources/{source}/events"}',
                ),
            ),
            Panel(
                "Facts read, by vendor and record type",
                "Zero while requests come in: look at quarantined and ignored.",
                "cps",
                (
                    rate("pacesetter_ingest_facts_total", "vendor, type"),
                    Query(
                        "sum by (vendor) "
                        "(rate(pacesetter_ingest_ignored_events_total[$__rate_interval]))",
                        "{{vendor}} ignored",
                    ),
                ),
            ),
            Panel(
                "Request to record",
                "From a request's arrival until its records are ready to be published.",
                "s",
                quantiles("pacesetter_ingest_received_to_records_seconds", 0.5, 0.99),
            ),
        ),
    ),
    Row(
        "Re-reads: what events don't say is asked of the CRM",
        (
            Panel(
                "Re-reads waiting, by reason",
                "Growing without end: the source has no API credentials, or its rate is too low.",
                "short",
                (Query("max by (reason) (pacesetter_ingest_rereads_waiting)", "{{reason}}"),),
            ),
            Panel(
                "Oldest re-read",
                "For how long the oldest has waited of those that could be asked for. Over an "
                "hour: GET /v1/rereads has the CRM's words on it.",
                "s",
                (Query("max(pacesetter_ingest_rereads_oldest_seconds)", "oldest"),),
            ),
            Panel(
                "Asked, by vendor and outcome",
                "Failed steady: GET /v1/rereads says why. Limited steady: more is wanted than the "
                "CRM lets us ask.",
                "cps",
                (rate("pacesetter_ingest_rereads_total", "vendor, outcome"),),
            ),
        ),
    ),
    Row(
        "Topics: what goes through Kafka",
        (
            Panel(
                "Published, by topic",
                "Messages that Kafka has acknowledged.",
                "cps",
                (rate("pacesetter_published_messages_total", "topic"),),
            ),
            Panel(
                "Consumed, by service and topic",
                "Zero while its producer works: the consumer is stuck.",
                "cps",
                (rate("pacesetter_consumed_messages_total", "service, topic"),),
            ),
            Panel(
                "Kafka's acknowledgement",
                "Time until a publication is acknowledged. Rising: look at the brokers.",
                "s",
                quantiles("pacesetter_publish_seconds", 0.99, by="service"),
            ),
        ),
    ),
    Row(
        "Consumers: what has been applied",
        (
            Panel(
                "Lag in time",
                "Age of the oldest message in hand and not yet applied.",
                "s",
                (Query("max by (service) (pacesetter_consumer_lag_seconds)", "{{service}}"),),
            ),
            Panel(
                "Age when applied",
                "Age of a message when its effects are committed, p99.",
                "s",
                quantiles("pacesetter_delivery_age_seconds", 0.99, by="service, topic"),
            ),
            Panel(
                "Time per batch",
                "From decoding to acknowledged emits. Rising: look at the database.",
                "s",
                quantiles("pacesetter_batch_seconds", 0.5, 0.99, by="service"),
            ),
            Panel(
                "Messages per batch",
                "At the limit all the time: add a replica.",
                "short",
                quantiles("pacesetter_batch_messages", 0.5, 0.99, by="service"),
            ),
        ),
    ),
    Row(
        "Effects: what people see",
        (
            Panel(
                "Event to queryable",
                "From the receipt of a record to the fold that shows it in all numbers; boards "
                "don't wait for that. Above a second: compare lag and fold time.",
                "s",
                (
                    *quantiles("pacesetter_metrics_event_to_queryable_seconds", 0.5, 0.99),
                    *(
                        Query(query.expr, f"fold {query.legend}")
                        for query in quantiles("pacesetter_metrics_fold_seconds", 0.99)
                    ),
                ),
            ),
            Panel(
                "Facts, by record type and outcome",
                "Only stale: something is replayed, or a producer repeats itself.",
                "cps",
                (rate("pacesetter_metrics_facts_total", "type, outcome"),),
            ),
            Panel(
                "Waiting",
                "Deltas to fold, measures and alerts to publish. Growing: the database or Kafka is "
                "slow, or no replica works on them.",
                "short",
                (
                    Query("max(pacesetter_metrics_pending_deltas)", "deltas to fold"),
                    Query("max(pacesetter_metrics_unpublished_measures)", "measures to publish"),
                    Query("max(pacesetter_notifications_unpublished_alerts)", "alerts to publish"),
                ),
            ),
            Panel(
                "Viewers",
                "Open event streams of boards and inboxes. At the limit: add a replica.",
                "short",
                (
                    Query("sum(pacesetter_metrics_streams)", "boards"),
                    Query("sum(pacesetter_notifications_inbox_streams)", "inboxes"),
                ),
            ),
            Panel(
                "Credits and transfers",
                "Decisions about sales, and what they moved in the ledger. Many reversals: "
                "deals are reopened or plans changed.",
                "cps",
                (
                    rate("pacesetter_payouts_credits_total", "outcome"),
                    rate("pacesetter_payouts_transfers_posted_total", "direction"),
                    Query(
                        "sum(rate(pacesetter_payouts_statements_evaluated_total"
                        "[$__rate_interval]))",
                        "statements evaluated",
                    ),
                ),
            ),
            Panel(
                "Alerts and messages to people",
                "A jump of raised: look at the rule, or at what stopped coming in. Parked: talk to "
                "the receiver.",
                "cps",
                (
                    rate("pacesetter_notifications_alerts_total", "rule, what"),
                    rate("pacesetter_notifications_deliveries_total", "channel, outcome"),
                ),
            ),
            Panel(
                "Event to alert",
                "From the receipt of a request to the alert that it raised.",
                "s",
                quantiles("pacesetter_notifications_event_to_alert_seconds", 0.5, 0.99),
            ),
        ),
    ),
    Row(
        "Errors: what needs somebody",
        (
            Panel(
                "Put aside",
                "Dead letters and quarantined items. Any: read the reason, fix, replay.",
                "cps",
                (
                    rate("pacesetter_dead_letters_total", "service, topic, error"),
                    Query(
                        "sum by (vendor) "
                        "(rate(pacesetter_ingest_quarantined_items_total[$__rate_interval]))",
                        "quarantined {{vendor}}",
                    ),
                ),
            ),
            Panel(
                "Halted",
                "1: too many messages in a row could not be applied; nothing is consumed until a "
                "restart with a fix. Sources without secrets: their CRMs get 503.",
                "short",
                (
                    Query("max by (service) (pacesetter_consumer_halted)", "{{service}}"),
                    Query("max(pacesetter_ingest_sources_stale)", "sources file unreadable"),
                    Query("max(pacesetter_ingest_sources_unusable)", "sources without secrets"),
                ),
            ),
            Panel(
                "Tried again",
                "Batches, publications and jobs that failed. Some at a restart; steady: read the "
                "log.",
                "cps",
                (
                    rate("pacesetter_batch_retries_total", "service, error"),
                    Query(
                        "sum by (service) "
                        "(rate(pacesetter_publish_failures_total[$__rate_interval]))",
                        "{{service}} publish",
                    ),
                    rate("pacesetter_job_failures_total", "service, job_name"),
                ),
            ),
            Panel(
                "Errors answered (5xx)",
                "503: Kafka or the database is away. 500: our fault, with its trace in the log.",
                "reqps",
                (
                    rate(
                        "pacesetter_http_request_seconds_count",
                        "service, route",
                        '{status="5xx"}',
                    ),
                ),
            ),
            Panel(
                "Numbers that somebody has to mend",
                "Unbalanced statements must be 0. Findings: records that count for less than they "
                "should until mapping or data is fixed.",
                "short",
                (
                    Query("max(pacesetter_payouts_unbalanced_statements)", "unbalanced statements"),
                    Query(
                        "max by (reason) (pacesetter_payouts_findings)",
                        "payouts {{reason}}",
                    ),
                    Query(
                        "sum by (reason) (increase(pacesetter_metrics_findings_total[1h]))",
                        "metrics {{reason}}, last hour",
                    ),
                ),
            ),
            Panel(
                "Messages not delivered",
                "Overdue above 0 for minutes: the sender doesn't run. Parked: given up.",
                "short",
                (
                    Query("max(pacesetter_notifications_overdue_deliveries)", "overdue"),
                    Query("max(pacesetter_notifications_parked_deliveries)", "parked"),
                ),
            ),
        ),
    ),
    Row(
        "Databases and jobs",
        (
            Panel(
                "Database connections in use",
                "At the pool's size all the time: find what holds them.",
                "short",
                (Query("max by (service) (pacesetter_database_connections)", "{{service}}"),),
            ),
            Panel(
                "Duration of jobs",
                "Work done by the clock, p99 of one run.",
                "s",
                quantiles("pacesetter_job_seconds", 0.99, by="service, job_name"),
            ),
            Panel(
                "Up",
                "1 while a service answers the scrape.",
                "short",
                (Query('min by (service) (up{job="pacesetter"})', "{{service}}"),),
            ),
        ),
    ),
)


def way_of_an_event() -> dashboard.Dashboard:
    """From a CRM's request to what people see, and what went wrong between."""
    board = (
        dashboard.Dashboard("The way of an event")
        .uid("pacesetter-way-of-an-event")
        .description("From a CRM's request to numbers, pay and messages.")
        .tags(["pacesetter"])
        .time("now-30m", "now")
        .refresh("5s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
    )
    top = 0
    number = 0
    for row in WAY_OF_AN_EVENT:
        number += 1
        board.with_row(
            dashboard.Row(row.title).id(number).grid_pos(GridPos(h=1, w=WIDTH, x=0, y=top))
        )
        top += 1
        for line in _lines(row.panels):
            width = WIDTH // len(line)
            for place, panel in enumerate(line):
                number += 1
                position = GridPos(h=HEIGHT, w=width, x=place * width, y=top)
                board.with_panel(_graph(panel).id(number).grid_pos(position))
            top += HEIGHT
    return board


def _lines(panels: tuple[Panel, ...]) -> list[tuple[Panel, ...]]:
    """At most four panels side by side, as evenly as it goes."""
    count = -(-len(panels) // 4)
    each = -(-len(panels) // count)
    return [panels[start : start + each] for start in range(0, len(panels), each)]


def _graph(panel: Panel) -> timeseries.Panel:
    graph = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.about)
        .datasource(SOURCE)
        .unit(panel.unit)
        .min(0)
        .no_value("none")
        .fill_opacity(8)
        .show_points(shapes.VisibilityMode.NEVER)
        .tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI))
        .legend(
            common.VizLegendOptions()
            .display_mode(shapes.LegendDisplayMode.LIST)
            .placement(shapes.LegendPlacement.BOTTOM)
            .show_legend(True)  # noqa: FBT003  # the SDK's way
        )
    )
    for index, query in enumerate(panel.queries):
        graph.with_target(
            prometheus.Dataquery()
            .datasource(SOURCE)
            .ref_id(chr(ord("A") + index))
            .expr(query.expr)
            .legend_format(query.legend)
            .range()
        )
    return graph


def rendered() -> dict[str, str]:
    """Every dashboard's file name and JSON."""
    encoder = JSONEncoder(sort_keys=True, indent=1)
    return {"way-of-an-event.json": encoder.encode(way_of_an_event().build()) + "\n"}


if __name__ == "__main__":
    for name, text in rendered().items():
        (FOLDER / name).write_text(text)
