"""What folds have changed, by metric and period: boards read only what is theirs."""

from alembic import op

revision = "0005"
down_revision = "0004"

UP = (
    # A replica of the version before can't fold without it, so that none of its folds goes untold;
    # what its boards fail to read, those of a new one show.
    "DROP TABLE counter_change",
    """
    CREATE TABLE slice_change (
        tenant text COLLATE "C" NOT NULL,
        version bigint NOT NULL,
        metric text COLLATE "C" NOT NULL,
        grain text COLLATE "C" NOT NULL,
        start date NOT NULL,
        unit text COLLATE "C" NOT NULL,
        subjects text[] NOT NULL,
        values bigint[] NOT NULL,
        counts bigint[] NOT NULL,
        PRIMARY KEY (tenant, version, metric, grain, start, unit)
    )
    """,
    "UPDATE fold_state SET changes_from = sequence",
)
DOWN = (
    "DROP TABLE slice_change",
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
    "UPDATE fold_state SET changes_from = sequence",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
