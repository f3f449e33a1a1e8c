"""What each fold has changed, so that boards needn't look for it among all counters."""

from alembic import op

revision = "0004"
down_revision = "0003"

UP = (
    """
    CREATE TABLE counter_change (
        tenant text COLLATE "C" NOT NULL,
        version bigint NOT NULL,
        metrics text[] NOT NULL,
        grains text[] NOT NULL,
        starts date[] NOT NULL,
        units text[] NOT NULL,
        subjects text[] NOT NULL,
        values bigint[] NOT NULL,
        counts bigint[] NOT NULL,
        told_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant, version)
    )
    """,
    # What a replica of the version before folds meanwhile isn't told; slices that are read anew,
    # as all are every minute, have it.
    "ALTER TABLE fold_state ADD COLUMN changes_from bigint NOT NULL DEFAULT 0",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    op.execute("ALTER TABLE fold_state DROP COLUMN changes_from")
    op.execute("DROP TABLE counter_change")
