"""What CRMs gave for refresh tokens; how often a record was asked for and the CRM didn't have it.

Grants are in a schema of their own, so that they outlive a rebuild, which begins with an empty
`public` and runs this again.
"""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("CREATE SCHEMA IF NOT EXISTS credentials")
    op.execute("""
        CREATE TABLE IF NOT EXISTS credentials.crm_grant (
            tenant varchar NOT NULL,
            source varchar NOT NULL,
            configured varchar NOT NULL,
            sealed varchar NOT NULL,
            PRIMARY KEY (tenant, source)
        )
    """)
    op.execute("ALTER TABLE reread ADD COLUMN refused integer NOT NULL DEFAULT 0")


def downgrade() -> None:
    op.execute("ALTER TABLE reread DROP COLUMN refused")
    op.execute("DROP SCHEMA credentials CASCADE")
