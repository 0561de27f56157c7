"""The tables of fleets. As in `tables`: times are integer milliseconds, JSON is text that the services made."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    text,
)

from brickless.hub.adapters.tables import metadata

device_labels = Table(
    "device_labels",
    metadata,
    Column("device_id", String(24), primary_key=True),
    Column("labels", Text, nullable=False),
    Column("modified_ms", BigInteger, nullable=False),
    ForeignKeyConstraint(["device_id"], ["devices.id"], ondelete="CASCADE"),
)

device_types = Table(
    "device_types",
    metadata,
    Column("owner", String(200), nullable=False),
    Column("name", String(128), nullable=False),
    Column("description", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("modified_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("owner", "name"),
)

releases = Table(
    "releases",
    metadata,
    Column("owner", String(200), nullable=False),
    Column("id", String(64), nullable=False),
    Column("name", String(128), nullable=False),
    Column("note", Text, nullable=False),
    Column("include", Text, nullable=False),
    Column("remove", Text, nullable=False),
    Column("types", Text, nullable=False),
    Column("state", LargeBinary, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("source", Text, nullable=False),
    Column("creator", String(200), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("owner", "id"),
    Index("uq_releases_owner_name", "owner", "name", unique=True),
)

# What keeps a release's objects from the garbage collection before any device has a step that names them.
release_objects = Table(
    "release_objects",
    metadata,
    Column("owner", String(200), nullable=False),
    Column("sha", String(64), nullable=False),
    Column("release_id", String(64), nullable=False),
    PrimaryKeyConstraint("owner", "sha", "release_id"),
    ForeignKeyConstraint(["owner", "release_id"], ["releases.owner", "releases.id"], ondelete="CASCADE"),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("owner", String(200), nullable=False),
    Column("name", String(128), nullable=False),
    Column("release_id", String(64), nullable=False),
    Column("selector", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("wave", Integer, nullable=False),
    Column("wave_since_ms", BigInteger, nullable=False),
    Column("assigned", Integer, nullable=False),
    Column("frontier", Integer, nullable=False),
    Column("updated", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("silent", Integer, nullable=False),
    Column("sum_nats", Float, nullable=False),
    Column("members", Integer, nullable=False),
    Column("synced_ms", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("modified_ms", BigInteger, nullable=False),
    Column("ends_ms", BigInteger, nullable=False),
    Column("creator", String(200), nullable=False),
    Column("closed", Boolean, nullable=False),
    Index("ix_rollouts_owner_created_ms", "owner", "created_ms"),
    Index("uq_rollouts_owner_name", "owner", "name", unique=True),
    Index("ix_rollouts_closed", "closed"),
)

rollout_members = Table(
    "rollout_members",
    metadata,
    Column("rollout_id", String(24), nullable=False),
    Column("device_id", String(24), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("wave", Integer, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("deadline_ms", BigInteger, nullable=False),
    Column("due_ms", BigInteger, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
    Column("not_before_ms", BigInteger, nullable=False),
    Column("number", Integer, nullable=False),
    Column("rev", Integer, nullable=False),
    Column("base_rev", Integer, nullable=False),
    Column("took_rev", Integer, nullable=False),
    Column("deferrals", Integer, nullable=False),
    Column("undone", Text, nullable=False),
    Column("verdict", String(16), nullable=True),
    Column("seen_ms", BigInteger, nullable=False),
    Column("seen_status", String(64), nullable=False),
    # Derived from the rest, for the two indexes below.
    Column("busy", Boolean, nullable=False),
    Column("watched", Boolean, nullable=False),
    PrimaryKeyConstraint("rollout_id", "device_id"),
    ForeignKeyConstraint(["rollout_id"], ["rollouts.id"], ondelete="CASCADE"),
    ForeignKeyConstraint(["device_id"], ["devices.id"], ondelete="CASCADE"),
    # The lock of a device: the database itself refuses a second rollout's step on its way through the same device.
    Index(
        "uq_rollout_members_busy",
        "device_id",
        unique=True,
        sqlite_where=text("busy"),
        postgresql_where=text("busy"),
    ),
    Index("ix_rollout_members_watched", "rollout_id", sqlite_where=text("watched"), postgresql_where=text("watched")),
    Index("ix_rollout_members_device_id", "device_id"),
    Index("ix_rollout_members_queue", "rollout_id", "state", "wave", "position"),
    Index("ix_rollout_members_due", "rollout_id", "due_ms"),
    Index("ix_rollout_members_number", "rollout_id", "number"),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("until_ms", BigInteger, nullable=False),
)
