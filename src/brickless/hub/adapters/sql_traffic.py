"""What accounts sent and received, in SQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from brickless.hub.adapters import tables
from brickless.hub.services.ports_apps import Moved


class SqlTraffic:
    """`services.ports_apps.TrafficRecords` over one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, owner: str, month: str, moved: Moved) -> None:
        """See `services.ports_apps.TrafficRecords.add`."""
        columns = tables.traffic.c
        dialect: Any = postgresql if self._connection.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(tables.traffic).values(owner=owner, month=month, **moved._asdict())
        summed = {name: columns[name] + statement.excluded[name] for name in moved._fields}
        await self._connection.execute(statement.on_conflict_do_update(index_elements=["owner", "month"], set_=summed))

    async def of(self, owner: str, month: str) -> Moved:
        """See `services.ports_apps.TrafficRecords.of`."""
        columns = tables.traffic.c
        statement = select(columns.sent_bytes, columns.received_bytes)
        rows = await self._connection.execute(statement.where(columns.owner == owner, columns.month == month))
        row = rows.first()
        return Moved(0, 0) if row is None else Moved(*row)
