"""Alembic's entry into this service's history."""

from alembic import context

from kit.database import run_migrations

run_migrations(context)
