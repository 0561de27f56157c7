"""API tokens in SQL."""

from __future__ import annotations

from sqlalchemy import ColumnElement, delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from brickless.hub.adapters import tables
from brickless.hub.domain.values import ApiToken

_TOKEN = ("id", "owner", "name", "type", "secret_hash", "scopes", "created_ms", "modified_ms", "expires_ms")


class SqlApiTokens:
    """`services.ports.ApiTokens` over one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, token: ApiToken) -> bool:
        """See `services.ports.ApiTokens.add`."""
        row = {name: getattr(token, name) for name in _TOKEN}
        try:
            async with self._connection.begin_nested():
                await self._connection.execute(insert(tables.api_tokens).values(**row))
        except IntegrityError:
            return False
        return True

    async def _find(self, condition: ColumnElement[bool]) -> list[ApiToken]:
        statement = select(tables.api_tokens).where(condition)
        rows = await self._connection.execute(
            statement.order_by(tables.api_tokens.c.created_ms, tables.api_tokens.c.id)
        )
        return [ApiToken(**{name: row[name] for name in _TOKEN}) for row in rows.mappings()]

    async def get(self, record_id: str) -> ApiToken | None:
        """See `services.ports.ApiTokens.get`."""
        return next(iter(await self._find(tables.api_tokens.c.id == record_id)), None)

    async def of(self, owner: str) -> list[ApiToken]:
        """See `services.ports.ApiTokens.of`."""
        return await self._find(tables.api_tokens.c.owner == owner)

    async def remove(self, record_id: str) -> None:
        """See `services.ports.ApiTokens.remove`."""
        await self._connection.execute(delete(tables.api_tokens).where(tables.api_tokens.c.id == record_id))
