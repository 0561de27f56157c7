"""Accounts and join tokens in SQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, RowMapping, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from brickless.hub.adapters import tables
from brickless.hub.domain.values import Account, JoinToken

_ACCOUNT = (
    "id", "prn", "nick", "email", "type", "role", "password_hash", "challenge", "meta", "profile", "created_ms",
    "modified_ms",
)  # fmt: skip


def _account_row(account: Account) -> dict[str, Any]:
    row = {name: getattr(account, name) for name in _ACCOUNT}
    return {**row, "nick_key": account.nick.lower(), "email_key": account.email.lower()}


def _account(row: RowMapping) -> Account:
    return Account(**{name: row[name] for name in _ACCOUNT})


class SqlAccounts:
    """`services.ports.Accounts` over one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def _one(self, condition: ColumnElement[bool]) -> Account | None:
        row = (await self._connection.execute(select(tables.accounts).where(condition))).mappings().first()
        return None if row is None else _account(row)

    async def add(self, account: Account) -> bool:
        """See `services.ports.Accounts.add`."""
        try:
            async with self._connection.begin_nested():
                await self._connection.execute(insert(tables.accounts).values(**_account_row(account)))
        except IntegrityError:
            return False
        return True

    async def by_id(self, record_id: str) -> Account | None:
        """See `services.ports.Accounts.by_id`."""
        return await self._one(tables.accounts.c.id == record_id)

    async def by_prn(self, prn: str) -> Account | None:
        """See `services.ports.Accounts.by_prn`."""
        return await self._one(tables.accounts.c.prn == prn)

    async def by_nick(self, nick: str) -> Account | None:
        """See `services.ports.Accounts.by_nick`."""
        return await self._one(tables.accounts.c.nick_key == nick.lower())

    async def by_email(self, email: str) -> Account | None:
        """See `services.ports.Accounts.by_email`."""
        return await self._one(tables.accounts.c.email_key == email.lower())

    async def everyone(self, limit: int) -> list[Account]:
        """See `services.ports.Accounts.everyone`."""
        statement = select(tables.accounts).order_by(tables.accounts.c.created_ms, tables.accounts.c.id).limit(limit)
        return [_account(row) for row in (await self._connection.execute(statement)).mappings()]

    async def shown(self, caller: str, prefix: str, *, offset: int, limit: int, exact: bool = False) -> list[Account]:
        """See `services.ports.Accounts.shown`."""
        columns = tables.accounts.c
        public = (
            select(tables.devices.c.id)
            .where(tables.devices.c.owner == columns.prn)
            .where(tables.devices.c.public.is_(True), tables.devices.c.garbage.is_(False))
        )
        if exact:
            named = columns.nick_key == prefix.lower()
        else:
            named = columns.nick_key.startswith(prefix.lower(), autoescape=True)
        statement = select(tables.accounts).where(named, or_(columns.prn == caller, public.exists()))
        rows = await self._connection.execute(statement.order_by(columns.nick_key).offset(offset).limit(limit))
        return [_account(row) for row in rows.mappings()]

    async def update(self, account: Account) -> None:
        """See `services.ports.Accounts.update`."""
        await self._connection.execute(
            update(tables.accounts).where(tables.accounts.c.id == account.id).values(**_account_row(account))
        )

    async def meta(self, prn: str) -> str:
        """See `services.ports.Accounts.meta`."""
        found = await self._connection.scalar(select(tables.accounts.c.meta).where(tables.accounts.c.prn == prn))
        return found if isinstance(found, str) else "{}"


_TOKEN = ("id", "nick", "owner", "token_hash", "default_user_meta", "disabled", "created_ms", "modified_ms", "ovmode")


class SqlJoinTokens:
    """`services.ports.JoinTokens` over one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, token: JoinToken) -> None:
        """See `services.ports.JoinTokens.add`."""
        row = {name: getattr(token, name) for name in _TOKEN}
        await self._connection.execute(insert(tables.join_tokens).values(**row))

    async def _find(self, *conditions: ColumnElement[bool]) -> list[JoinToken]:
        statement = select(tables.join_tokens).where(*conditions)
        rows = await self._connection.execute(statement.order_by(tables.join_tokens.c.created_ms.desc()))
        return [JoinToken(**{name: row[name] for name in _TOKEN}) for row in rows.mappings()]

    async def by_hash(self, token_hash: str) -> JoinToken | None:
        """See `services.ports.JoinTokens.by_hash`."""
        return next(iter(await self._find(tables.join_tokens.c.token_hash == token_hash)), None)

    async def of(self, owner: str) -> list[JoinToken]:
        """See `services.ports.JoinTokens.of`."""
        return await self._find(tables.join_tokens.c.owner == owner, tables.join_tokens.c.disabled.is_(False))

    async def get(self, record_id: str, owner: str) -> JoinToken | None:
        """See `services.ports.JoinTokens.get`."""
        found = await self._find(tables.join_tokens.c.id == record_id, tables.join_tokens.c.owner == owner)
        return next(iter(found), None)

    async def disable(self, record_id: str, owner: str, modified_ms: int) -> bool:
        """See `services.ports.JoinTokens.disable`."""
        statement = update(tables.join_tokens).where(
            tables.join_tokens.c.id == record_id, tables.join_tokens.c.owner == owner
        )
        done = await self._connection.execute(statement.values(disabled=True, modified_ms=modified_ms))
        return done.rowcount == 1


class SqlIdentities:
    """`services.ports.Identities` over one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def account(self, issuer: str, subject: str) -> str | None:
        """See `services.ports.Identities.account`."""
        columns = tables.identities.c
        statement = select(columns.account).where(columns.issuer == issuer, columns.subject == subject)
        found = await self._connection.scalar(statement)
        return found if isinstance(found, str) else None

    async def link(self, issuer: str, subject: str, account: str, now_ms: int) -> bool:
        """See `services.ports.Identities.link`."""
        row = {"issuer": issuer, "subject": subject, "account": account, "created_ms": now_ms}
        try:
            async with self._connection.begin_nested():
                await self._connection.execute(insert(tables.identities).values(**row))
        except IntegrityError:
            return False
        return True

    async def of(self, account: str) -> bool:
        """See `services.ports.Identities.of`."""
        columns = tables.identities.c
        return await self._connection.scalar(select(columns.issuer).where(columns.account == account)) is not None
