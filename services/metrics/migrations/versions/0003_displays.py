"""What displays outside were last told, or are to be told."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE display (
            tenant text COLLATE "C" NOT NULL,
            id text COLLATE "C" NOT NULL,
            document bigint NOT NULL,
            places text NOT NULL,
            event text COLLATE "C" NOT NULL,
            body bytea NOT NULL,
            made_at timestamptz NOT NULL,
            due_at timestamptz,
            failures bigint NOT NULL,
            delivered text COLLATE "C" NOT NULL DEFAULT '',
            delivered_at timestamptz,
            status text NOT NULL,
            PRIMARY KEY (tenant, id)
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE display")
