"""Webhooks and their deliveries in SQL."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import and_, delete, func, insert, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from brickless.hub.adapters import tables
from brickless.hub.domain.events import Cursor
from brickless.hub.domain.webhooks import PENDING, Delivery, Webhook

_HOOKS, _DELIVERIES = tables.webhooks.c, tables.deliveries.c
_WEBHOOK = tuple(field.name for field in fields(Webhook))


def _webhook(row: Any) -> Webhook:
    return Webhook(**{name: row[name] for name in _WEBHOOK})


class SqlWebhooks:
    """`services.ports.Webhooks` over one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, webhook: Webhook, cursor: Cursor) -> None:
        """See `services.ports.Webhooks.add`."""
        row = {**asdict(webhook), "xact": cursor.xact, "event_id": cursor.id}
        await self._connection.execute(insert(tables.webhooks).values(**row))

    async def update(self, webhook: Webhook) -> None:
        """See `services.ports.Webhooks.update`."""
        await self._connection.execute(update(tables.webhooks).where(_HOOKS.id == webhook.id).values(**asdict(webhook)))

    async def remove(self, record_id: str) -> None:
        """See `services.ports.Webhooks.remove`."""
        await self._connection.execute(delete(tables.webhooks).where(_HOOKS.id == record_id))

    async def get(self, account: str, record_id: str) -> Webhook | None:
        """See `services.ports.Webhooks.get`."""
        statement = select(tables.webhooks).where(_HOOKS.id == record_id, _HOOKS.account == account)
        row = (await self._connection.execute(statement)).mappings().first()
        return None if row is None else _webhook(row)

    async def by_id(self, record_id: str) -> Webhook | None:
        """See `services.ports.Webhooks.by_id`."""
        row = (await self._connection.execute(select(tables.webhooks).where(_HOOKS.id == record_id))).mappings().first()
        return None if row is None else _webhook(row)

    async def of(self, account: str) -> list[Webhook]:
        """See `services.ports.Webhooks.of`."""
        statement = select(tables.webhooks).where(_HOOKS.account == account).order_by(_HOOKS.created_ms, _HOOKS.id)
        return [_webhook(row) for row in (await self._connection.execute(statement)).mappings()]

    async def behind(self) -> list[str]:
        """See `services.ports.Webhooks.behind`."""
        events = tables.events.c
        newer = select(events.id).where(
            events.account == _HOOKS.account,
            tuple_(events.xact, events.id) > tuple_(_HOOKS.xact, _HOOKS.event_id),
        )
        statement = select(_HOOKS.id).where(_HOOKS.enabled.is_(True), newer.exists())
        return list(await self._connection.scalars(statement))

    async def take(self, record_id: str) -> tuple[Webhook, Cursor] | None:
        """See `services.ports.Webhooks.take`."""
        statement = select(tables.webhooks).where(_HOOKS.id == record_id).with_for_update(skip_locked=True)
        row = (await self._connection.execute(statement)).mappings().first()
        return None if row is None else (_webhook(row), Cursor(row["xact"], row["event_id"]))

    async def move(self, record_id: str, cursor: Cursor) -> None:
        """See `services.ports.Webhooks.move`."""
        values = {"xact": cursor.xact, "event_id": cursor.id}
        await self._connection.execute(update(tables.webhooks).where(_HOOKS.id == record_id).values(**values))

    async def queue(self, deliveries: Iterable[Delivery]) -> None:
        """See `services.ports.Webhooks.queue`."""
        rows = [asdict(delivery) for delivery in deliveries]
        if rows:
            dialect: Any = postgresql if self._connection.dialect.name == "postgresql" else sqlite
            await self._connection.execute(dialect.insert(tables.deliveries).on_conflict_do_nothing(), rows)

    async def due(self, now_ms: int, lease_ms: int, *, limit: int) -> list[Delivery]:
        """See `services.ports.Webhooks.due`."""
        ripe = and_(_DELIVERIES.state == PENDING, _DELIVERIES.due_ms <= now_ms)
        statement = select(_DELIVERIES.id).where(ripe).order_by(_DELIVERIES.due_ms, _DELIVERIES.id).limit(limit)
        ids = list(await self._connection.scalars(statement.with_for_update(skip_locked=True)))
        if not ids:
            return []
        leased = update(tables.deliveries).where(_DELIVERIES.id.in_(ids))
        leased = leased.values(due_ms=now_ms + lease_ms, attempts=_DELIVERIES.attempts + 1)
        rows = await self._connection.execute(leased.returning(tables.deliveries))
        return [Delivery(**row) for row in rows.mappings()]

    async def next_due_ms(self) -> int | None:
        """See `services.ports.Webhooks.next_due_ms`."""
        found = await self._connection.scalar(select(func.min(_DELIVERIES.due_ms)).where(_DELIVERIES.state == PENDING))
        return found if isinstance(found, int) else None

    async def settle(self, delivery: Delivery) -> None:
        """See `services.ports.Webhooks.settle`."""
        await self._connection.execute(
            update(tables.deliveries).where(_DELIVERIES.id == delivery.id).values(**asdict(delivery))
        )

    async def deliveries(self, webhook_id: str, *, limit: int) -> list[Delivery]:
        """See `services.ports.Webhooks.deliveries`."""
        statement = select(tables.deliveries).where(_DELIVERIES.webhook_id == webhook_id)
        statement = statement.order_by(_DELIVERIES.created_ms.desc(), _DELIVERIES.id.desc()).limit(limit)
        return [Delivery(**row) for row in (await self._connection.execute(statement)).mappings()]

    async def delivery(self, webhook_id: str, record_id: str) -> Delivery | None:
        """See `services.ports.Webhooks.delivery`."""
        statement = select(tables.deliveries).where(_DELIVERIES.webhook_id == webhook_id, _DELIVERIES.id == record_id)
        row = (await self._connection.execute(statement)).mappings().first()
        return None if row is None else Delivery(**row)

    async def forget(self, before_ms: int) -> None:
        """See `services.ports.Webhooks.forget`."""
        old = and_(_DELIVERIES.state != PENDING, _DELIVERIES.created_ms < before_ms)
        await self._connection.execute(delete(tables.deliveries).where(old))
