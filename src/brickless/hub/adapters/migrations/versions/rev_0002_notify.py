"""On PostgreSQL, tell every replica at commit which device changed; SQLite has one process and needs nothing."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# A trigger, not the services: it cannot be forgotten, and it speaks exactly when the change becomes visible.
# `last_seen_ms` and `real_ip` are written in batches and are nobody's business here: they do not touch `modified_ms`.
_FORWARD = (
    """
    CREATE FUNCTION hub_tell_device() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      PERFORM pg_notify('hub_changed', 'device ' || NEW.id || ' ' || NEW.owner);
      RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION hub_tell_step() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      PERFORM pg_notify('hub_changed', 'device ' || NEW.trail_id || ' ' || NEW.owner);
      RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION hub_tell_account() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      PERFORM pg_notify('hub_changed', 'account ' || NEW.prn);
      RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER hub_tell_device AFTER UPDATE ON devices FOR EACH ROW
      WHEN (OLD.modified_ms IS DISTINCT FROM NEW.modified_ms) EXECUTE FUNCTION hub_tell_device()
    """,
    """
    CREATE TRIGGER hub_tell_step AFTER INSERT OR UPDATE ON steps FOR EACH ROW EXECUTE FUNCTION hub_tell_step()
    """,
    """
    CREATE TRIGGER hub_tell_account AFTER UPDATE ON accounts FOR EACH ROW
      WHEN (OLD.meta IS DISTINCT FROM NEW.meta) EXECUTE FUNCTION hub_tell_account()
    """,
)
_BACK = (
    "DROP TRIGGER hub_tell_account ON accounts",
    "DROP TRIGGER hub_tell_step ON steps",
    "DROP TRIGGER hub_tell_device ON devices",
    "DROP FUNCTION hub_tell_account()",
    "DROP FUNCTION hub_tell_step()",
    "DROP FUNCTION hub_tell_device()",
)


def _run(statements: tuple[str, ...]) -> None:
    if op.get_bind().dialect.name == "postgresql":
        for statement in statements:
            op.execute(statement)


def upgrade() -> None:
    """Forward."""
    _run(_FORWARD)


def downgrade() -> None:
    """Back."""
    _run(_BACK)
