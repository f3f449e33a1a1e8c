"""Credits for territories and roles, shared records, and recounts of the past.

Credits name their subjects with their kind from here on. The next start counts everything anew and
asks for a recount, since no catalogue has been seen by then (`store.recounts.prepare`).
"""

from alembic import op

revision = "0002"
down_revision = "0001"

UP = (
    """
    ALTER TABLE fact
        ADD COLUMN shares text NOT NULL DEFAULT '',
        ADD COLUMN territories text NOT NULL DEFAULT '',
        ADD COLUMN name text NOT NULL DEFAULT ''
    """,
    "ALTER TABLE pending RENAME COLUMN teams TO subjects",
    """
    CREATE TABLE shared_fact (
        tenant text COLLATE "C" NOT NULL,
        source text COLLATE "C" NOT NULL,
        owner_id text COLLATE "C" NOT NULL,
        type text COLLATE "C" NOT NULL,
        id text COLLATE "C" NOT NULL,
        PRIMARY KEY (tenant, source, owner_id, type, id)
    )
    """,
    """
    CREATE TABLE recount (
        tenant text COLLATE "C" PRIMARY KEY,
        types text NOT NULL,
        reason text NOT NULL,
        requested_at timestamptz NOT NULL,
        scan text COLLATE "C" NOT NULL,
        positions text NOT NULL,
        ends text NOT NULL,
        done bigint NOT NULL,
        total bigint NOT NULL,
        finished_at timestamptz
    )
    """,
    """
    CREATE TABLE catalogue_seen (
        type text COLLATE "C" PRIMARY KEY, digest text COLLATE "C" NOT NULL
    )
    """,
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for table in ("catalogue_seen", "recount", "shared_fact"):
        op.execute(f"DROP TABLE {table}")
    op.execute("ALTER TABLE pending RENAME COLUMN subjects TO teams")
    op.execute("ALTER TABLE fact DROP COLUMN shares, DROP COLUMN territories, DROP COLUMN name")
