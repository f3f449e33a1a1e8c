"""Every fact as it came in, for the trace and for duplicates; what is to be read again; stages.

`event` is only appended to, and looked up by request, by record and by the vendor's id of the
event; a job removes what is old. A record says its stage, so that the deals in one are found when
its meaning changes.
"""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE event (
            tenant varchar NOT NULL,
            received varchar NOT NULL,
            index integer NOT NULL,
            number integer NOT NULL,
            source varchar NOT NULL,
            type varchar NOT NULL,
            id varchar NOT NULL,
            op varchar NOT NULL,
            at bigint NOT NULL,
            vendor_event varchar NOT NULL,
            uid bytea NOT NULL,
            digest bytea NOT NULL,
            PRIMARY KEY (tenant, received, index, number)
        )
    """)
    op.execute("CREATE INDEX event_of_record ON event (tenant, id, type)")
    op.execute("CREATE INDEX event_of_vendor ON event (tenant, vendor_event)")
    op.execute("""
        CREATE TABLE reread (
            tenant varchar NOT NULL,
            source varchar NOT NULL,
            type varchar NOT NULL,
            id varchar NOT NULL,
            reason varchar NOT NULL,
            fields varchar[] NOT NULL,
            wanted_at timestamptz NOT NULL,
            wanted bigint NOT NULL,
            attempts integer NOT NULL DEFAULT 0,
            next_at timestamptz NOT NULL,
            leased_until timestamptz,
            problem varchar NOT NULL DEFAULT '',
            place varchar NOT NULL DEFAULT '',
            vendor_type varchar NOT NULL DEFAULT '',
            PRIMARY KEY (tenant, source, type, id)
        )
    """)
    op.execute("CREATE INDEX reread_due ON reread (tenant, source, next_at)")
    op.execute("ALTER TABLE record ADD COLUMN stage varchar NOT NULL DEFAULT ''")
    op.execute("""
        CREATE INDEX record_of_stage ON record (tenant, source, stage) WHERE stage <> ''
    """)


def downgrade() -> None:
    op.execute("DROP INDEX record_of_stage")
    op.execute("ALTER TABLE record DROP COLUMN stage")
    for table in ("reread", "event"):
        op.execute(f"DROP TABLE {table}")
