"""Which containers a state has, for searching; and who an OpenID provider says that somebody is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from brickless.hub.domain.containers import parts_of

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward; what is stored already becomes searchable, one state at a time."""
    parts = op.create_table(
        "state_parts",
        sa.Column("state_sha", sa.String(length=64), nullable=False),
        sa.Column("container", sa.String(length=128), nullable=False),
        sa.Column("version", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("state_sha", "container", name="pk_state_parts"),
    )
    op.create_index("ix_state_parts_container_version", "state_parts", ["container", "version"])
    op.create_table(
        "identities",
        sa.Column("issuer", sa.String(length=400), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("account", sa.String(length=200), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("issuer", "subject", name="pk_identities"),
    )
    op.create_index("ix_identities_account", "identities", ["account"])
    connection = op.get_bind()
    one = sa.text("SELECT state FROM steps WHERE state_sha = :sha LIMIT 1")
    for (sha,) in connection.execute(sa.text("SELECT DISTINCT state_sha FROM steps")).all():
        rows = parts_of(bytes(connection.execute(one, {"sha": sha}).scalar_one()), sha)
        if rows and parts is not None:
            connection.execute(parts.insert(), rows)


def downgrade() -> None:
    """Back."""
    op.drop_table("identities")
    op.drop_table("state_parts")
