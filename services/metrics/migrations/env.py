"""Alembic's entry into the metrics store."""

from alembic import context

from kit.database import run_migrations

run_migrations(context)
