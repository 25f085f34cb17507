"""Alembic's entry: runs the versions on the connection that the caller opened."""

from alembic import context
from sqlmodel import SQLModel

from engine.db import tables  # noqa: F401  (registers the tables)

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
