"""The first schema: accounts, devices, trails, objects, logs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("prn", sa.String(length=200), nullable=False),
        sa.Column("nick", sa.String(length=64), nullable=False),
        sa.Column("nick_key", sa.String(length=64), nullable=False),
        sa.Column("email", sa.String(length=320), nullable=False),
        sa.Column("email_key", sa.String(length=320), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("password_hash", sa.String(length=400), nullable=False),
        sa.Column("challenge", sa.String(length=32), nullable=False),
        sa.Column("meta", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("modified_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("email_key", name=op.f("uq_accounts_email_key")),
        sa.UniqueConstraint("nick_key", name=op.f("uq_accounts_nick_key")),
        sa.UniqueConstraint("prn", name=op.f("uq_accounts_prn")),
    )


def _devices() -> None:
    op.create_table(
        "devices",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("nick", sa.String(length=128), nullable=False),
        sa.Column("owner", sa.String(length=200), nullable=False),
        sa.Column("secret_hash", sa.String(length=400), nullable=False),
        sa.Column("challenge", sa.String(length=100), nullable=False),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.Column("user_meta", sa.Text(), nullable=False),
        sa.Column("device_meta", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("modified_ms", sa.BigInteger(), nullable=False),
        sa.Column("garbage", sa.Boolean(), nullable=False),
        sa.Column("last_seen_ms", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("real_ip", sa.String(length=64), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_devices")),
    )
    op.create_index("ix_devices_owner_modified_ms", "devices", ["owner", "modified_ms"], unique=False)
    op.create_index(
        "uq_devices_owner_nick",
        "devices",
        ["owner", "nick"],
        unique=True,
        sqlite_where=sa.text("NOT garbage"),
        postgresql_where=sa.text("NOT garbage"),
    )


def _join_tokens() -> None:
    op.create_table(
        "join_tokens",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("nick", sa.String(length=128), nullable=False),
        sa.Column("owner", sa.String(length=200), nullable=False),
        sa.Column("token_hash", sa.String(length=100), nullable=False),
        sa.Column("default_user_meta", sa.Text(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("modified_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_join_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_join_tokens_token_hash")),
    )
    op.create_index(op.f("ix_join_tokens_owner"), "join_tokens", ["owner"], unique=False)


def _logs() -> None:
    op.create_table(
        "logs",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("device", sa.String(length=200), nullable=False),
        sa.Column("owner", sa.String(length=200), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("tsec", sa.BigInteger(), nullable=False),
        sa.Column("tnano", sa.BigInteger(), nullable=False),
        sa.Column("rev", sa.Text(), nullable=False),
        sa.Column("plat", sa.Text(), nullable=False),
        sa.Column("src", sa.Text(), nullable=False),
        sa.Column("lvl", sa.String(length=32), nullable=False),
        sa.Column("msg", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_logs")),
    )
    op.create_index("ix_logs_device_created_ms_id", "logs", ["device", "created_ms", "id"], unique=False)
    op.create_index("ix_logs_owner_created_ms_id", "logs", ["owner", "created_ms", "id"], unique=False)


def _objects() -> None:
    op.create_table(
        "objects",
        sa.Column("owner", sa.String(length=200), nullable=False),
        sa.Column("sha", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("mime_type", sa.String(length=255), nullable=False),
        sa.Column("has_bytes", sa.Boolean(), nullable=False),
        sa.Column("linked", sa.Boolean(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("modified_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "sha", name=op.f("pk_objects")),
    )
    op.create_index("ix_objects_sha", "objects", ["sha"], unique=False)


def _trails() -> None:
    op.create_table(
        "trails",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("factory_state", sa.LargeBinary(), nullable=False),
        sa.Column("used_objects", sa.Text(), nullable=False),
        sa.Column("last_insync_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_touched_ms", sa.BigInteger(), nullable=False),
        sa.Column("newest_rev", sa.Integer(), nullable=False),
        sa.Column("reported_rev", sa.Integer(), nullable=False),
        sa.Column("done_rev", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["id"], ["devices.id"], name=op.f("fk_trails_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trails")),
    )


def _steps() -> None:
    op.create_table(
        "steps",
        sa.Column("trail_id", sa.String(length=24), nullable=False),
        sa.Column("rev", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(length=200), nullable=False),
        sa.Column("committer", sa.String(length=200), nullable=False),
        sa.Column("commit_msg", sa.Text(), nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.Column("state_sha", sa.String(length=64), nullable=False),
        sa.Column("meta", sa.Text(), nullable=False),
        sa.Column("used_objects", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=64), nullable=False),
        sa.Column("progress", sa.Text(), nullable=False),
        sa.Column("progress_ms", sa.BigInteger(), nullable=False),
        sa.Column("step_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("modified_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["trail_id"], ["trails.id"], name=op.f("fk_steps_trail_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trail_id", "rev", name=op.f("pk_steps")),
    )
    op.create_index("ix_steps_trail_id_status_rev", "steps", ["trail_id", "status", "rev"], unique=False)


def _step_objects() -> None:
    op.create_table(
        "step_objects",
        sa.Column("sha", sa.String(length=64), nullable=False),
        sa.Column("trail_id", sa.String(length=24), nullable=False),
        sa.Column("rev", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["trail_id", "rev"],
            ["steps.trail_id", "steps.rev"],
            name=op.f("fk_step_objects_trail_id_rev"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("sha", "trail_id", "rev", name=op.f("pk_step_objects")),
    )
    op.create_index("ix_step_objects_trail_id_rev", "step_objects", ["trail_id", "rev"], unique=False)


def upgrade() -> None:
    """Forward."""
    _accounts()
    _devices()
    _join_tokens()
    _logs()
    _objects()
    _trails()
    _steps()
    _step_objects()


def downgrade() -> None:
    """Back."""
    op.drop_index("ix_step_objects_trail_id_rev", table_name="step_objects")
    op.drop_table("step_objects")
    op.drop_index("ix_steps_trail_id_status_rev", table_name="steps")
    op.drop_table("steps")
    op.drop_table("trails")
    op.drop_index("ix_objects_sha", table_name="objects")
    op.drop_table("objects")
    op.drop_index("ix_logs_owner_created_ms_id", table_name="logs")
    op.drop_index("ix_logs_device_created_ms_id", table_name="logs")
    op.drop_table("logs")
    op.drop_index(op.f("ix_join_tokens_owner"), table_name="join_tokens")
    op.drop_table("join_tokens")
    op.drop_index(
        "uq_devices_owner_nick",
        table_name="devices",
        sqlite_where=sa.text("NOT garbage"),
        postgresql_where=sa.text("NOT garbage"),
    )
    op.drop_index("ix_devices_owner_modified_ms", table_name="devices")
    op.drop_table("devices")
    op.drop_table("accounts")
