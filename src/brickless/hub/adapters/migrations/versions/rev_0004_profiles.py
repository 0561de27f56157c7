"""Profiles of accounts, and an index for the feed of changed steps."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward. The default lets the previous release, which knows no profiles, go on inserting accounts."""
    op.add_column("accounts", sa.Column("profile", sa.Text(), nullable=False, server_default="{}"))
    op.create_index("ix_steps_owner_modified_ms", "steps", ["owner", "modified_ms"])


def downgrade() -> None:
    """Back."""
    op.drop_index("ix_steps_owner_modified_ms", "steps")
    op.drop_column("accounts", "profile")
