"""Applications, authorizations, subscriptions and waiting mails in SQL."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import RowMapping, delete, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from brickless.hub.adapters import tables_apps as tables
from brickless.hub.domain.apps import App, Scope
from brickless.hub.domain.plans import Subscription
from brickless.hub.services.ports_apps import Code, Grant, Mail

_APP = (
    "id", "prn", "nick", "owner", "name", "logo", "type", "secret_hash", "created_ms", "modified_ms", "deleted_ms",
)  # fmt: skip
_CODE = ("id", "client", "redirect_uri", "challenge", "scope", "account", "expires_ms")
_GRANT = ("id", "client", "owner", "comment", "scopes", "created_ms")
_SUBSCRIPTION = ("id", "subject", "plan", "issuer", "attrs", "history", "created_ms", "modified_ms")
_MAIL = ("id", "recipient", "subject", "body", "created_ms", "next_ms", "attempts", "failure")


def _row(value: object, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


def _app_row(app: App) -> dict[str, Any]:
    return {
        **_row(app, _APP),
        "redirect_uris": json.dumps(app.redirect_uris),
        "scopes": json.dumps(app.scopes),
        "exposed_scopes": json.dumps(app.exposed_scopes),
    }


def _app(row: RowMapping) -> App:
    return App(
        **{name: row[name] for name in _APP},
        redirect_uris=tuple(json.loads(row["redirect_uris"])),
        scopes=tuple(Scope(*scope) for scope in json.loads(row["scopes"])),
        exposed_scopes=tuple(Scope(*scope) for scope in json.loads(row["exposed_scopes"])),
    )


class SqlApps:
    """`services.ports_apps.Apps` over one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, app: App) -> bool:
        """See `services.ports_apps.Apps.add`."""
        try:
            async with self._connection.begin_nested():
                await self._connection.execute(insert(tables.apps).values(**_app_row(app)))
        except IntegrityError:
            return False
        return True

    async def _select(self, *conditions: Any, limit: int | None = None) -> list[App]:
        columns = tables.apps.c
        statement = select(tables.apps).where(columns.deleted_ms == 0, *conditions)
        rows = await self._connection.execute(statement.order_by(columns.created_ms, columns.id).limit(limit))
        return [_app(row) for row in rows.mappings()]

    async def find(self, name: str) -> App | None:
        """See `services.ports_apps.Apps.find`."""
        columns = tables.apps.c
        found = await self._select(or_(columns.prn == name, columns.id == name, columns.nick == name), limit=1)
        return next(iter(found), None)

    async def of(self, owner: str) -> list[App]:
        """See `services.ports_apps.Apps.of`."""
        return await self._select(tables.apps.c.owner == owner)

    async def update(self, app: App) -> None:
        """See `services.ports_apps.Apps.update`."""
        await self._connection.execute(update(tables.apps).where(tables.apps.c.id == app.id).values(**_app_row(app)))

    async def exposing(self, limit: int) -> list[App]:
        """See `services.ports_apps.Apps.exposing`."""
        return await self._select(tables.apps.c.exposed_scopes != "[]", limit=limit)


class SqlAuthorizations:
    """`services.ports_apps.Authorizations` over one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add_code(self, code: Code) -> None:
        """See `services.ports_apps.Authorizations.add_code`."""
        over = code.expires_ms - 24 * 3600 * 1000
        await self._connection.execute(delete(tables.oauth_codes).where(tables.oauth_codes.c.expires_ms < over))
        await self._connection.execute(insert(tables.oauth_codes).values(**_row(code, _CODE)))

    async def code(self, code_id: str) -> Code | None:
        """See `services.ports_apps.Authorizations.code`."""
        statement = select(tables.oauth_codes).where(tables.oauth_codes.c.id == code_id)
        row = (await self._connection.execute(statement)).mappings().first()
        return None if row is None else Code(**{name: row[name] for name in _CODE})

    async def agree(self, code_id: str, account: str) -> bool:
        """See `services.ports_apps.Authorizations.agree`."""
        columns = tables.oauth_codes.c
        statement = update(tables.oauth_codes).where(columns.id == code_id, columns.account == "")
        return (await self._connection.execute(statement.values(account=account))).rowcount == 1

    async def take_code(self, code_id: str) -> Code | None:
        """See `services.ports_apps.Authorizations.take_code`."""
        statement = delete(tables.oauth_codes).where(tables.oauth_codes.c.id == code_id)
        row = (await self._connection.execute(statement.returning(tables.oauth_codes))).mappings().first()
        return None if row is None else Code(**{name: row[name] for name in _CODE})

    async def add_grant(self, grant: Grant) -> None:
        """See `services.ports_apps.Authorizations.add_grant`."""
        await self._connection.execute(insert(tables.oauth_grants).values(**_row(grant, _GRANT)))

    async def grant(self, grant_id: str) -> Grant | None:
        """See `services.ports_apps.Authorizations.grant`."""
        statement = select(tables.oauth_grants).where(tables.oauth_grants.c.id == grant_id)
        row = (await self._connection.execute(statement)).mappings().first()
        return None if row is None else Grant(**{name: row[name] for name in _GRANT})


class SqlSubscriptions:
    """`services.ports_apps.Subscriptions` over one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def of(self, subject: str) -> Subscription | None:
        """See `services.ports_apps.Subscriptions.of`."""
        statement = select(tables.subscriptions).where(tables.subscriptions.c.subject == subject)
        row = (await self._connection.execute(statement)).mappings().first()
        return None if row is None else Subscription(**{name: row[name] for name in _SUBSCRIPTION})

    async def put(self, subscription: Subscription) -> None:
        """See `services.ports_apps.Subscriptions.put`."""
        dialect: Any = postgresql if self._connection.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(tables.subscriptions).values(**_row(subscription, _SUBSCRIPTION))
        replaced = {name: statement.excluded[name] for name in _SUBSCRIPTION if name not in {"id", "created_ms"}}
        await self._connection.execute(statement.on_conflict_do_update(index_elements=["subject"], set_=replaced))


class SqlMails:
    """`services.ports_apps.Mails` over one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, mail: Mail) -> None:
        """See `services.ports_apps.Mails.add`."""
        await self._connection.execute(insert(tables.mails).values(**_row(mail, _MAIL)))

    async def due(self, now_ms: int, *, lease_ms: int) -> Mail | None:
        """See `services.ports_apps.Mails.due`."""
        columns = tables.mails.c
        oldest = select(tables.mails).where(columns.next_ms <= now_ms).order_by(columns.next_ms, columns.id).limit(1)
        row = (await self._connection.execute(oldest.with_for_update(skip_locked=True))).mappings().first()
        if row is None:
            return None
        leased = update(tables.mails).where(columns.id == row["id"]).values(next_ms=now_ms + lease_ms)
        await self._connection.execute(leased)
        return Mail(**{name: row[name] for name in _MAIL})

    async def again(self, mail: Mail) -> None:
        """See `services.ports_apps.Mails.again`."""
        values = {"next_ms": mail.next_ms, "attempts": mail.attempts, "failure": mail.failure}
        await self._connection.execute(update(tables.mails).where(tables.mails.c.id == mail.id).values(**values))

    async def remove(self, mail_id: str) -> None:
        """See `services.ports_apps.Mails.remove`."""
        await self._connection.execute(delete(tables.mails).where(tables.mails.c.id == mail_id))

    async def waiting(self) -> int:
        """See `services.ports_apps.Mails.waiting`."""
        return int(await self._connection.scalar(select(func.count()).select_from(tables.mails)) or 0)
