"""Facts, pending deltas and counters: numbers that can be taken back exactly."""

from alembic import op

revision = "0001"
down_revision = None

TABLES = (
    """
    CREATE TABLE replica (
        tenant varchar NOT NULL, topic varchar NOT NULL, key varchar NOT NULL,
        version bigint NOT NULL, body bytea NOT NULL,
        PRIMARY KEY (tenant, topic, key)
    )
    """,
    """
    CREATE TABLE replica_epoch (
        tenant varchar NOT NULL, topic varchar NOT NULL, epoch varchar NOT NULL,
        PRIMARY KEY (tenant, topic)
    )
    """,
    # Room on each page keeps updates of a fact there, without touching the indexes.
    """
    CREATE TABLE fact (
        tenant text COLLATE "C" NOT NULL,
        type text COLLATE "C" NOT NULL,
        id text COLLATE "C" NOT NULL,
        version bigint NOT NULL,
        source text COLLATE "C" NOT NULL,
        owner_id text COLLATE "C" NOT NULL,
        credits text NOT NULL,
        PRIMARY KEY (tenant, type, id)
    ) WITH (fillfactor = 85)
    """,
    "CREATE INDEX fact_by_owner ON fact (tenant, source, owner_id)",
    # The folder vacuums it by itself, far more often than autovacuum would.
    """
    CREATE TABLE pending (
        tenant text COLLATE "C" NOT NULL,
        metric text COLLATE "C" NOT NULL,
        unit text COLLATE "C" NOT NULL,
        person text COLLATE "C" NOT NULL,
        teams text COLLATE "C" NOT NULL,
        day date NOT NULL,
        value bigint NOT NULL,
        count bigint NOT NULL,
        received bigint NOT NULL
    )
    """,
    # Never an index on what a fold changes: it would end cheap updates within the page.
    """
    CREATE TABLE counter (
        tenant text COLLATE "C" NOT NULL,
        metric text COLLATE "C" NOT NULL,
        grain text COLLATE "C" NOT NULL,
        start date NOT NULL,
        unit text COLLATE "C" NOT NULL,
        subject text COLLATE "C" NOT NULL,
        value bigint NOT NULL,
        count bigint NOT NULL,
        version bigint NOT NULL,
        PRIMARY KEY (tenant, metric, grain, start, unit, subject)
    ) WITH (fillfactor = 70)
    """,
    """
    CREATE TABLE unpublished (
        tenant text COLLATE "C" NOT NULL,
        metric text COLLATE "C" NOT NULL,
        grain text COLLATE "C" NOT NULL,
        start date NOT NULL,
        unit text COLLATE "C" NOT NULL,
        subject text COLLATE "C" NOT NULL,
        version bigint NOT NULL,
        PRIMARY KEY (tenant, metric, grain, start, unit, subject)
    ) WITH (fillfactor = 70)
    """,
    'CREATE TABLE fold_state (tenant text COLLATE "C" PRIMARY KEY, sequence bigint NOT NULL)',
)


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)


def downgrade() -> None:
    for table in (
        "fold_state",
        "unpublished",
        "counter",
        "pending",
        "fact",
        "replica_epoch",
        "replica",
    ):
        op.execute(f"DROP TABLE {table}")
