"""Runs the migrations of the registry over the connection that `open_registry` hands in."""

from __future__ import annotations

from alembic import context

from headrace.trainer.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table="trainer_version",
)
with context.begin_transaction():
    context.run_migrations()
