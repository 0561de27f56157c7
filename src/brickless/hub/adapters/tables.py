"""The tables. Times are integer milliseconds, JSON is text that the services made; no logic in the database."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("prn", String(200), nullable=False, unique=True),
    Column("nick", String(64), nullable=False),
    # Lower-case copies: names that differ only in case would be mistaken for each other.
    Column("nick_key", String(64), nullable=False, unique=True),
    Column("email", String(320), nullable=False),
    Column("email_key", String(320), nullable=False, unique=True),
    Column("type", String(16), nullable=False),
    Column("role", String(16), nullable=False),
    Column("password_hash", String(400), nullable=False),
    Column("challenge", String(32), nullable=False),
    Column("meta", Text, nullable=False),
    Column("profile", Text, nullable=False, server_default="{}"),
    Column("created_ms", BigInteger, nullable=False),
    Column("modified_ms", BigInteger, nullable=False),
)

devices = Table(
    "devices",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("nick", String(128), nullable=False),
    Column("owner", String(200), nullable=False),
    Column("secret_hash", String(400), nullable=False),
    Column("challenge", String(100), nullable=False),
    Column("public", Boolean, nullable=False),
    Column("user_meta", Text, nullable=False),
    Column("device_meta", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("modified_ms", BigInteger, nullable=False),
    Column("garbage", Boolean, nullable=False),
    Column("last_seen_ms", BigInteger, nullable=False, server_default="0"),
    Column("real_ip", String(64), nullable=False, server_default=""),
    # How the device must prove who owns it, as JSON; empty for nearly all.
    Column("ovmode", Text, nullable=False, server_default=""),
    # A deleted device's nick is free again.
    Index(
        "uq_devices_owner_nick",
        "owner",
        "nick",
        unique=True,
        sqlite_where=text("NOT garbage"),
        postgresql_where=text("NOT garbage"),
    ),
    Index("ix_devices_owner_modified_ms", "owner", "modified_ms"),
)

join_tokens = Table(
    "join_tokens",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("nick", String(128), nullable=False),
    Column("owner", String(200), nullable=False, index=True),
    Column("token_hash", String(100), nullable=False, unique=True),
    Column("default_user_meta", Text, nullable=False),
    Column("ovmode", Text, nullable=False, server_default=""),
    Column("disabled", Boolean, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("modified_ms", BigInteger, nullable=False),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("owner", String(200), nullable=False),
    Column("name", String(128), nullable=False),
    Column("type", String(16), nullable=False),
    Column("secret_hash", String(100), nullable=False),
    Column("scopes", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("modified_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    UniqueConstraint("owner", "name"),
)

members = Table(
    "members",
    metadata,
    Column("org", String(200), nullable=False),
    Column("account", String(200), nullable=False, index=True),
    Column("role", String(32), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("org", "account"),
)

invitations = Table(
    "invitations",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("org", String(200), nullable=False, index=True),
    Column("email", String(320), nullable=False),
    Column("role", String(32), nullable=False),
    Column("token_hash", String(100), nullable=False, unique=True),
    Column("inviter", String(200), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("account", String(200), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("actor_nick", Text, nullable=False),
    Column("address", String(64), nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    PrimaryKeyConstraint("account", "seq"),
)

audit_heads = Table(
    "audit_heads",
    metadata,
    Column("account", String(200), primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    # PostgreSQL: the transaction that wrote the row; SQLite: 0.
    Column("xact", BigInteger, nullable=False, server_default="0"),
    Column("account", String(200), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("subject", String(200), nullable=False),
    Column("data", Text, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Index("ix_events_account_xact_id", "account", "xact", "id"),
    Index("ix_events_time_ms", "time_ms"),
    sqlite_autoincrement=True,
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("account", String(200), nullable=False, index=True),
    Column("url", Text, nullable=False),
    Column("kinds", Text, nullable=False),
    Column("salt", String(32), nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("creator", String(200), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("modified_ms", BigInteger, nullable=False),
    # The place in the account's stream up to which deliveries are queued.
    Column("xact", BigInteger, nullable=False),
    Column("event_id", BigInteger, nullable=False),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("webhook_id", String(24), nullable=False),
    Column("event_id", String(48), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("payload", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_ms", BigInteger, nullable=False),
    Column("status", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("done_ms", BigInteger, nullable=False),
    ForeignKeyConstraint(["webhook_id"], ["webhooks.id"], ondelete="CASCADE"),
    UniqueConstraint("webhook_id", "event_id"),
    Index("ix_deliveries_state_due_ms", "state", "due_ms"),
)

# Which containers a state has: content-addressed, because ten thousand devices share a few states.
state_parts = Table(
    "state_parts",
    metadata,
    Column("state_sha", String(64), nullable=False),
    Column("container", String(128), nullable=False),
    Column("version", String(128), nullable=False),
    PrimaryKeyConstraint("state_sha", "container"),
    Index("ix_state_parts_container_version", "container", "version"),
)

# Who an OpenID provider says that somebody is.
identities = Table(
    "identities",
    metadata,
    Column("issuer", String(400), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("account", String(200), nullable=False, index=True),
    Column("created_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("issuer", "subject"),
)

trails = Table(
    "trails",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("factory_state", LargeBinary, nullable=False),
    Column("used_objects", Text, nullable=False),
    Column("last_insync_ms", BigInteger, nullable=False),
    Column("last_touched_ms", BigInteger, nullable=False),
    # Kept with each step and each report, so that a fleet list needs one statement and no search.
    Column("newest_rev", Integer, nullable=False),
    Column("reported_rev", Integer, nullable=False),
    Column("done_rev", Integer, nullable=False),
    ForeignKeyConstraint(["id"], ["devices.id"], ondelete="CASCADE"),
)

steps = Table(
    "steps",
    metadata,
    Column("trail_id", String(24), nullable=False),
    Column("rev", Integer, nullable=False),
    Column("owner", String(200), nullable=False),
    Column("committer", String(200), nullable=False),
    Column("commit_msg", Text, nullable=False),
    Column("state", LargeBinary, nullable=False),
    Column("state_sha", String(64), nullable=False),
    Column("meta", Text, nullable=False),
    Column("used_objects", Text, nullable=False),
    Column("status", String(64), nullable=False),
    Column("progress", Text, nullable=False),
    Column("progress_ms", BigInteger, nullable=False),
    Column("progress_log", Text, nullable=False, server_default="[]"),
    Column("step_ms", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("modified_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("trail_id", "rev"),
    ForeignKeyConstraint(["trail_id"], ["trails.id"], ondelete="CASCADE"),
    Index("ix_steps_trail_id_status_rev", "trail_id", "status", "rev"),
    Index("ix_steps_owner_modified_ms", "owner", "modified_ms"),
)

step_objects = Table(
    "step_objects",
    metadata,
    Column("sha", String(64), nullable=False),
    Column("trail_id", String(24), nullable=False),
    Column("rev", Integer, nullable=False),
    PrimaryKeyConstraint("sha", "trail_id", "rev"),
    ForeignKeyConstraint(["trail_id", "rev"], ["steps.trail_id", "steps.rev"], ondelete="CASCADE"),
    Index("ix_step_objects_trail_id_rev", "trail_id", "rev"),
)

objects = Table(
    "objects",
    metadata,
    Column("owner", String(200), nullable=False),
    Column("sha", String(64), nullable=False),
    Column("name", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("mime_type", String(255), nullable=False),
    Column("has_bytes", Boolean, nullable=False),
    Column("linked", Boolean, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("modified_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("owner", "sha"),
    Index("ix_objects_sha", "sha"),
)

logs = Table(
    "logs",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("device", String(200), nullable=False),
    Column("owner", String(200), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("tsec", BigInteger, nullable=False),
    Column("tnano", BigInteger, nullable=False),
    Column("rev", Text, nullable=False),
    Column("plat", Text, nullable=False),
    Column("src", Text, nullable=False),
    Column("lvl", String(32), nullable=False),
    Column("msg", Text, nullable=False),
    Index("ix_logs_owner_created_ms_id", "owner", "created_ms", "id"),
    Index("ix_logs_device_created_ms_id", "device", "created_ms", "id"),
)

# What an account sent and received, a month at a time.
traffic = Table(
    "traffic",
    metadata,
    Column("owner", String(200), nullable=False),
    # 2026-11
    Column("month", String(7), nullable=False),
    Column("sent_bytes", BigInteger, nullable=False),
    Column("received_bytes", BigInteger, nullable=False),
    PrimaryKeyConstraint("owner", "month"),
)

__all__ = [
    "accounts",
    "api_tokens",
    "audit",
    "audit_heads",
    "deliveries",
    "devices",
    "events",
    "identities",
    "invitations",
    "join_tokens",
    "logs",
    "members",
    "metadata",
    "objects",
    "state_parts",
    "step_objects",
    "steps",
    "traffic",
    "trails",
    "webhooks",
]
