"""How devices prove who owns them, the history of each revision's progress, and what accounts send and receive.

Columns have defaults, so that the release before goes on writing while this one starts.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0023"
branch_labels = None
depends_on = None

_ADDED = (("devices", "ovmode", ""), ("join_tokens", "ovmode", ""), ("steps", "progress_log", "[]"))


def upgrade() -> None:
    """Forward."""
    for table, name, default in _ADDED:
        op.add_column(table, sa.Column(name, sa.Text(), nullable=False, server_default=default))
    op.create_table(
        "traffic",
        sa.Column("owner", sa.String(length=200), nullable=False),
        sa.Column("month", sa.String(length=7), nullable=False),
        sa.Column("sent_bytes", sa.BigInteger(), nullable=False),
        sa.Column("received_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "month", name="pk_traffic"),
    )


def downgrade() -> None:
    """Back."""
    op.drop_table("traffic")
    for table, name, _ in reversed(_ADDED):
        op.drop_column(table, name)
