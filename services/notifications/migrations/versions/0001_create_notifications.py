"""Keep what rules look at, what waits for its time, what was found, and what was said to whom."""

from alembic import op

revision = "0001"
down_revision = None

_TABLES = """
CREATE TABLE replica (
    tenant varchar NOT NULL, topic varchar NOT NULL, key varchar NOT NULL,
    version bigint NOT NULL, body bytea NOT NULL,
    PRIMARY KEY (tenant, topic, key)
);
CREATE TABLE replica_epoch (
    tenant varchar NOT NULL, topic varchar NOT NULL, epoch varchar NOT NULL,
    PRIMARY KEY (tenant, topic)
);
CREATE TABLE record_seen (
    tenant varchar NOT NULL, type varchar NOT NULL, id varchar NOT NULL,
    version bigint NOT NULL, body bytea NOT NULL, placed_at timestamptz,
    PRIMARY KEY (tenant, type, id)
);
CREATE INDEX record_seen_placed ON record_seen (tenant, placed_at) WHERE placed_at IS NOT NULL;
CREATE TABLE measure_seen (
    tenant varchar NOT NULL, person varchar NOT NULL, day date NOT NULL, metric varchar NOT NULL,
    version bigint NOT NULL, value numeric NOT NULL,
    PRIMARY KEY (tenant, person, day, metric)
) WITH (fillfactor = 70);
CREATE TABLE measured_from (
    tenant varchar PRIMARY KEY, day date NOT NULL, watched_from date
);
CREATE TABLE watch (
    tenant varchar NOT NULL, day date NOT NULL, rule varchar NOT NULL, person varchar NOT NULL,
    due_at timestamptz NOT NULL, chain boolean NOT NULL,
    PRIMARY KEY (tenant, day, rule, person)
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX watch_due ON watch (due_at, tenant);
CREATE TABLE alert (
    tenant varchar NOT NULL, rule varchar NOT NULL,
    subject varchar NOT NULL, window_key varchar NOT NULL,
    version bigint NOT NULL,
    state varchar NOT NULL CHECK (state IN ('firing', 'resolved')),
    title varchar NOT NULL, text varchar NOT NULL,
    evidence jsonb NOT NULL, audience text[] NOT NULL,
    about varchar NOT NULL, raised_at timestamptz NOT NULL, resolved_at timestamptz,
    unpublished boolean NOT NULL DEFAULT true,
    PRIMARY KEY (tenant, rule, subject, window_key)
);
CREATE INDEX alert_unpublished ON alert (tenant) WHERE unpublished;
CREATE INDEX alert_listed ON alert (tenant, raised_at, rule, subject, window_key);
CREATE INDEX alert_about ON alert (tenant, about);
CREATE TABLE delivery (
    tenant varchar NOT NULL, id uuid NOT NULL,
    rule varchar NOT NULL, subject varchar NOT NULL, window_key varchar NOT NULL,
    channel varchar NOT NULL CHECK (channel IN ('inbox', 'webhook')), recipient varchar NOT NULL,
    state varchar NOT NULL CHECK (state IN ('due', 'sent', 'parked', 'withdrawn')),
    attempts integer NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL, created_at timestamptz NOT NULL,
    sent_at timestamptz, read_at timestamptz,
    sequence bigint NOT NULL DEFAULT 0, last_error varchar NOT NULL DEFAULT '',
    PRIMARY KEY (tenant, id)
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX delivery_due ON delivery (channel, due_at) WHERE state = 'due';
CREATE INDEX delivery_alert ON delivery (tenant, rule, subject, window_key);
CREATE INDEX delivery_inbox ON delivery (tenant, recipient, sequence, id) WHERE sequence > 0;
CREATE INDEX delivery_sequence ON delivery (sequence) WHERE sequence > 0;
CREATE INDEX delivery_listed ON delivery (tenant, created_at, id);
CREATE TABLE endpoint_disabled (
    tenant varchar NOT NULL, endpoint varchar NOT NULL, url varchar NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (tenant, endpoint, url)
);
"""


def upgrade() -> None:
    for statement in _TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    for table in (
        "endpoint_disabled",
        "delivery",
        "alert",
        "watch",
        "measured_from",
        "measure_seen",
        "record_seen",
        "replica_epoch",
        "replica",
    ):
        op.execute(f"DROP TABLE {table}")
