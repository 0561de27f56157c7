"""Schema migrations with Alembic, run by the hub itself at start.

Each one must suit the previous release, which may still run beside this one.
"""

from __future__ import annotations

import os

from alembic import command
from alembic.config import Config
from sqlalchemy import text
from sqlalchemy.engine import Connection

_ADVISORY_LOCK = 0x627269636B  # "brick": replicas that start together migrate one after the other


def config(connection: Connection) -> Config:
    """Alembic's configuration for an open connection; there is no ini file."""
    made = Config()
    made.set_main_option("script_location", os.path.join(os.path.dirname(__file__), "migrations"))
    made.attributes["connection"] = connection
    return made


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the schema up to `revision`, in the connection's transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
    command.upgrade(config(connection), revision)


def downgrade(connection: Connection, revision: str) -> None:
    """Bring the schema back to `revision`; `base` is an empty database."""
    command.downgrade(config(connection), revision)
