"""The first tables: what ingest can't do without.

Records keep free space per page, so that updates stay on it (no indexed column ever changes).
"""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE record (
            tenant varchar NOT NULL,
            type varchar NOT NULL,
            id varchar NOT NULL,
            version bigint NOT NULL,
            source varchar NOT NULL,
            owner_id varchar NOT NULL,
            deleted boolean NOT NULL,
            body bytea NOT NULL,
            PRIMARY KEY (tenant, type, id)
        ) WITH (fillfactor = 70)
    """)
    op.execute("""
        CREATE TABLE quarantine (
            tenant varchar NOT NULL,
            received varchar NOT NULL,
            index integer NOT NULL,
            source varchar NOT NULL,
            vendor varchar NOT NULL,
            received_at timestamptz NOT NULL,
            reason varchar NOT NULL,
            raw bytea NOT NULL,
            request bytea NOT NULL,
            PRIMARY KEY (tenant, received, index)
        )
    """)
    op.execute("""
        CREATE TABLE replica (
            tenant varchar NOT NULL,
            topic varchar NOT NULL,
            key varchar NOT NULL,
            version bigint NOT NULL,
            body bytea NOT NULL,
            PRIMARY KEY (tenant, topic, key)
        )
    """)
    op.execute("""
        CREATE TABLE replica_epoch (
            tenant varchar NOT NULL,
            topic varchar NOT NULL,
            epoch varchar NOT NULL,
            PRIMARY KEY (tenant, topic)
        )
    """)


def downgrade() -> None:
    for table in ("replica_epoch", "replica", "quarantine", "record"):
        op.execute(f"DROP TABLE {table}")
