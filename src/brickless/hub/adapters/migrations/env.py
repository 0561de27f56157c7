"""Alembic's entry: runs the migrations over the connection that `adapters.migrate` opened."""

from __future__ import annotations

from alembic import context

from brickless.hub.adapters.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=True)
context.run_migrations()
