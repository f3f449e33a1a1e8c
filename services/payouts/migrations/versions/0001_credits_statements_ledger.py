"""Credits, statements and a ledger that can only grow, so that pay can be explained and proven."""

from alembic import op

revision = "0001"
down_revision = None

_TABLES = """
CREATE TABLE replica (
    tenant varchar, topic varchar, key varchar,
    version bigint NOT NULL, body bytea NOT NULL,
    PRIMARY KEY (tenant, topic, key)
);
CREATE TABLE replica_epoch (
    tenant varchar, topic varchar, epoch varchar NOT NULL,
    PRIMARY KEY (tenant, topic)
);
CREATE TABLE record (
    tenant varchar, type varchar, id varchar,
    version bigint NOT NULL, deleted boolean NOT NULL,
    source varchar NOT NULL, owner_id varchar NOT NULL, fields varchar NOT NULL,
    PRIMARY KEY (tenant, type, id)
) WITH (fillfactor = 80);
CREATE INDEX record_owner ON record (tenant, source, owner_id);
CREATE TABLE credit (
    tenant varchar, record_type varchar, record_id varchar,
    plan varchar, component varchar, payee varchar, period varchar,
    active boolean NOT NULL, reason varchar NOT NULL, day date,
    basis numeric, amount numeric, currency varchar NOT NULL,
    PRIMARY KEY (tenant, record_type, record_id, plan, component, payee, period)
) WITH (fillfactor = 80);
CREATE INDEX credit_statement ON credit (tenant, payee, plan, period);
CREATE TABLE statement (
    tenant varchar, payee varchar, plan varchar, period varchar,
    plan_revision integer NOT NULL, currency varchar NOT NULL,
    earned_minor numeric NOT NULL, credited numeric NOT NULL, quota numeric, attainment numeric,
    tier integer NOT NULL, lines integer NOT NULL, components varchar NOT NULL,
    posted bigint NOT NULL, version bigint NOT NULL,
    PRIMARY KEY (tenant, payee, plan, period)
) WITH (fillfactor = 70);
CREATE TABLE statement_line (
    tenant varchar, payee varchar, plan varchar, period varchar,
    component varchar, record_type varchar, record_id varchar,
    day date NOT NULL, credited numeric NOT NULL, currency varchar NOT NULL,
    posted_minor bigint NOT NULL, explain varchar NOT NULL,
    PRIMARY KEY (tenant, payee, plan, period, component, record_type, record_id)
) WITH (fillfactor = 80);
CREATE TABLE transfer (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant varchar NOT NULL,
    statement varchar NOT NULL, number bigint NOT NULL, line varchar NOT NULL,
    debit varchar NOT NULL, credit varchar NOT NULL,
    amount_minor bigint NOT NULL, currency varchar NOT NULL,
    cause varchar NOT NULL,
    posted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT transfer_once UNIQUE (tenant, statement, number),
    CONSTRAINT transfer_moves CHECK (debit <> credit),
    CONSTRAINT transfer_positive CHECK (amount_minor > 0)
);
"""

_REFUSE_CHANGES = """
CREATE FUNCTION transfer_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: % on % is refused', TG_OP, TG_TABLE_NAME
        USING HINT = 'Post a new transfer that corrects the old one.',
              ERRCODE = 'restrict_violation';
END $$
"""

_APPEND_ONLY = """
CREATE TRIGGER transfer_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON transfer
    FOR EACH STATEMENT EXECUTE FUNCTION transfer_is_append_only();
ALTER TABLE transfer ENABLE ALWAYS TRIGGER transfer_append_only;
"""

_VIEWS = """
CREATE VIEW entry AS
    SELECT id AS transfer, tenant, statement, line, debit AS account, amount_minor, currency,
           posted_at FROM transfer
    UNION ALL
    SELECT id, tenant, statement, line, credit, -amount_minor, currency, posted_at FROM transfer;
CREATE VIEW balance AS
    SELECT tenant, account, currency, sum(amount_minor) AS minor
    FROM entry GROUP BY tenant, account, currency;
"""


def upgrade() -> None:
    _run(_TABLES)
    op.execute(_REFUSE_CHANGES)
    _run(_APPEND_ONLY)
    _run(_VIEWS)


def _run(statements: str) -> None:
    for statement in statements.split(";"):  # the driver takes one at a time
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    op.execute("DROP VIEW balance, entry")
    op.execute(
        "DROP TABLE transfer, statement_line, statement, credit, record, replica_epoch, replica"
    )
    op.execute("DROP FUNCTION transfer_is_append_only()")
