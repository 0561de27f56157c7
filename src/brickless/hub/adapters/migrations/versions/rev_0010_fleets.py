"""Labels, device types, releases, rollouts and their members, and the lease of what one replica does at a time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0020"
branch_labels = None
depends_on = None


def _device_types() -> None:
    op.create_table(
        "device_types",
        sa.Column("owner", sa.String(length=200), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("modified_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "name", name=op.f("pk_device_types")),
    )


def _leases() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("holder", sa.String(length=64), nullable=False),
        sa.Column("until_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )


def _releases() -> None:
    op.create_table(
        "releases",
        sa.Column("owner", sa.String(length=200), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("include", sa.Text(), nullable=False),
        sa.Column("remove", sa.Text(), nullable=False),
        sa.Column("types", sa.Text(), nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("creator", sa.String(length=200), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "id", name=op.f("pk_releases")),
    )
    op.create_index("uq_releases_owner_name", "releases", ["owner", "name"], unique=True)


def _rollouts() -> None:
    op.create_table(
        "rollouts",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("owner", sa.String(length=200), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("release_id", sa.String(length=64), nullable=False),
        sa.Column("selector", sa.Text(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("wave_since_ms", sa.BigInteger(), nullable=False),
        sa.Column("assigned", sa.Integer(), nullable=False),
        sa.Column("frontier", sa.Integer(), nullable=False),
        sa.Column("updated", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("silent", sa.Integer(), nullable=False),
        sa.Column("sum_nats", sa.Float(), nullable=False),
        sa.Column("members", sa.Integer(), nullable=False),
        sa.Column("synced_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("modified_ms", sa.BigInteger(), nullable=False),
        sa.Column("ends_ms", sa.BigInteger(), nullable=False),
        sa.Column("creator", sa.String(length=200), nullable=False),
        sa.Column("closed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollouts")),
    )
    op.create_index("ix_rollouts_closed", "rollouts", ["closed"], unique=False)
    op.create_index("ix_rollouts_owner_created_ms", "rollouts", ["owner", "created_ms"], unique=False)
    op.create_index("uq_rollouts_owner_name", "rollouts", ["owner", "name"], unique=True)


def _device_labels() -> None:
    op.create_table(
        "device_labels",
        sa.Column("device_id", sa.String(length=24), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("modified_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.id"], name=op.f("fk_device_labels_device_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("device_id", name=op.f("pk_device_labels")),
    )


def _release_objects() -> None:
    op.create_table(
        "release_objects",
        sa.Column("owner", sa.String(length=200), nullable=False),
        sa.Column("sha", sa.String(length=64), nullable=False),
        sa.Column("release_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["owner", "release_id"],
            ["releases.owner", "releases.id"],
            name=op.f("fk_release_objects_owner_release_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("owner", "sha", "release_id", name=op.f("pk_release_objects")),
    )


def _rollout_members() -> None:
    op.create_table(
        "rollout_members",
        sa.Column("rollout_id", sa.String(length=24), nullable=False),
        sa.Column("device_id", sa.String(length=24), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("deadline_ms", sa.BigInteger(), nullable=False),
        sa.Column("due_ms", sa.BigInteger(), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
        sa.Column("not_before_ms", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("rev", sa.Integer(), nullable=False),
        sa.Column("base_rev", sa.Integer(), nullable=False),
        sa.Column("took_rev", sa.Integer(), nullable=False),
        sa.Column("deferrals", sa.Integer(), nullable=False),
        sa.Column("undone", sa.Text(), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=True),
        sa.Column("seen_ms", sa.BigInteger(), nullable=False),
        sa.Column("seen_status", sa.String(length=64), nullable=False),
        sa.Column("busy", sa.Boolean(), nullable=False),
        sa.Column("watched", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.id"], name=op.f("fk_rollout_members_device_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["rollout_id"], ["rollouts.id"], name=op.f("fk_rollout_members_rollout_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rollout_id", "device_id", name=op.f("pk_rollout_members")),
    )
    op.create_index("ix_rollout_members_device_id", "rollout_members", ["device_id"], unique=False)
    op.create_index("ix_rollout_members_due", "rollout_members", ["rollout_id", "due_ms"], unique=False)
    op.create_index("ix_rollout_members_number", "rollout_members", ["rollout_id", "number"], unique=False)
    op.create_index(
        "ix_rollout_members_queue", "rollout_members", ["rollout_id", "state", "wave", "position"], unique=False
    )
    op.create_index(
        "ix_rollout_members_watched",
        "rollout_members",
        ["rollout_id"],
        unique=False,
        sqlite_where=sa.text("watched"),
        postgresql_where=sa.text("watched"),
    )
    op.create_index(
        "uq_rollout_members_busy",
        "rollout_members",
        ["device_id"],
        unique=True,
        sqlite_where=sa.text("busy"),
        postgresql_where=sa.text("busy"),
    )


def upgrade() -> None:
    """Forward: new tables only, which the previous release does not look at."""
    _device_types()
    _leases()
    _releases()
    _rollouts()
    _device_labels()
    _release_objects()
    _rollout_members()


def downgrade() -> None:
    """Back."""
    op.drop_table("rollout_members")
    op.drop_table("release_objects")
    op.drop_table("device_labels")
    op.drop_table("rollouts")
    op.drop_table("releases")
    op.drop_table("leases")
    op.drop_table("device_types")
