"""The tables of applications, subscriptions and waiting mails; see `tables`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, String, Table, Text, UniqueConstraint

from brickless.hub.adapters.tables import metadata

apps = Table(
    "apps",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("prn", String(200), nullable=False),
    Column("nick", String(64), nullable=False),
    Column("owner", String(200), nullable=False, index=True),
    Column("name", String(200), nullable=False),
    Column("logo", Text, nullable=False),
    Column("type", String(16), nullable=False),
    Column("secret_hash", String(400), nullable=False),
    Column("redirect_uris", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("exposed_scopes", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("modified_ms", BigInteger, nullable=False),
    Column("deleted_ms", BigInteger, nullable=False),
    UniqueConstraint("prn"),
)

oauth_codes = Table(
    "oauth_codes",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("client", String(200), nullable=False),
    Column("redirect_uri", Text, nullable=False),
    Column("challenge", String(128), nullable=False),
    Column("scope", Text, nullable=False),
    Column("account", String(200), nullable=False),
    Column("expires_ms", BigInteger, nullable=False, index=True),
)

oauth_grants = Table(
    "oauth_grants",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("client", String(200), nullable=False),
    Column("owner", String(200), nullable=False, index=True),
    Column("comment", String(400), nullable=False),
    Column("scopes", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("subject", String(200), nullable=False),
    Column("plan", String(64), nullable=False),
    Column("issuer", String(200), nullable=False),
    Column("attrs", Text, nullable=False),
    Column("history", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("modified_ms", BigInteger, nullable=False),
    UniqueConstraint("subject"),
)

mails = Table(
    "mails",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("recipient", String(320), nullable=False),
    Column("subject", String(200), nullable=False),
    Column("body", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("next_ms", BigInteger, nullable=False, index=True),
    Column("attempts", Integer, nullable=False),
    Column("failure", String(400), nullable=False),
)
