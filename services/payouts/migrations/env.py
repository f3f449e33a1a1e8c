"""Alembic's entry: all of it is in the kit."""

from alembic import context

from kit.database import run_migrations

run_migrations(context)
