"""Alembic's door: one upgrade function for all services."""

from alembic import context

from kit.database import run_migrations

run_migrations(context)
