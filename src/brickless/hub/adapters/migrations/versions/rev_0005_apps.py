"""Applications, what they were granted, codes on their way, subscriptions, and mails that wait for a server."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0010"
branch_labels = None
depends_on = None


def _text(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=length), nullable=False)


def _long(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _ms(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)


def upgrade() -> None:
    """Forward. Only new tables: the previous release does not know them."""
    op.create_table(
        "apps",
        _text("id", 24), _text("prn", 200), _text("nick", 64), _text("owner", 200), _text("name", 200), _long("logo"),
        _text("type", 16), _text("secret_hash", 400), _long("redirect_uris"), _long("scopes"), _long("exposed_scopes"),
        _ms("created_ms"), _ms("modified_ms"), _ms("deleted_ms"),
        sa.PrimaryKeyConstraint("id", name="pk_apps"),
        sa.UniqueConstraint("prn", name="uq_apps_prn"),
    )  # fmt: skip
    op.create_index("ix_apps_owner", "apps", ["owner"])
    op.create_table(
        "oauth_codes",
        _text("id", 64), _text("client", 200), _long("redirect_uri"), _text("challenge", 128), _long("scope"),
        _text("account", 200), _ms("expires_ms"),
        sa.PrimaryKeyConstraint("id", name="pk_oauth_codes"),
    )  # fmt: skip
    op.create_index("ix_oauth_codes_expires_ms", "oauth_codes", ["expires_ms"])
    op.create_table(
        "oauth_grants",
        _text("id", 24), _text("client", 200), _text("owner", 200), _text("comment", 400), _long("scopes"),
        _ms("created_ms"),
        sa.PrimaryKeyConstraint("id", name="pk_oauth_grants"),
    )  # fmt: skip
    op.create_index("ix_oauth_grants_owner", "oauth_grants", ["owner"])
    op.create_table(
        "subscriptions",
        _text("id", 24), _text("subject", 200), _text("plan", 64), _text("issuer", 200), _long("attrs"),
        _long("history"), _ms("created_ms"), _ms("modified_ms"),
        sa.PrimaryKeyConstraint("id", name="pk_subscriptions"),
        sa.UniqueConstraint("subject", name="uq_subscriptions_subject"),
    )  # fmt: skip
    op.create_table(
        "mails",
        _text("id", 24), _text("recipient", 320), _text("subject", 200), _long("body"), _ms("created_ms"),
        _ms("next_ms"), sa.Column("attempts", sa.Integer(), nullable=False), _text("failure", 400),
        sa.PrimaryKeyConstraint("id", name="pk_mails"),
    )  # fmt: skip
    op.create_index("ix_mails_next_ms", "mails", ["next_ms"])


def downgrade() -> None:
    """Back. Mails that were not sent yet go with their table."""
    for table in ("mails", "subscriptions", "oauth_grants", "oauth_codes", "apps"):
        op.drop_table(table)
