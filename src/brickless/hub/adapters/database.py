"""The database: SQLite in a file by default, PostgreSQL by its URL; the services see no difference.

SQLite: write-ahead log with `synchronous=FULL`, so that what was acknowledged is on the disk before the answer leaves,
also across a power cut. One connection writes (SQLite has one writer anyway; waiting here is fair, and never ends in
"database is locked"), a few read beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from brickless.hub.adapters.migrate import upgrade
from brickless.hub.adapters.sql_apps import SqlApps, SqlAuthorizations, SqlMails, SqlSubscriptions
from brickless.hub.adapters.sql_devices import SqlDevices
from brickless.hub.adapters.sql_events import SqlAudit, SqlEvents
from brickless.hub.adapters.sql_fleets import SqlFleets
from brickless.hub.adapters.sql_members import SqlFleetTrails, SqlMembers
from brickless.hub.adapters.sql_objects import SqlLogs, SqlObjects
from brickless.hub.adapters.sql_organisations import SqlOrganisations
from brickless.hub.adapters.sql_overview import SqlOverview
from brickless.hub.adapters.sql_people import SqlAccounts, SqlIdentities, SqlJoinTokens
from brickless.hub.adapters.sql_tokens import SqlApiTokens
from brickless.hub.adapters.sql_traffic import SqlTraffic
from brickless.hub.adapters.sql_trails import SqlTrails
from brickless.hub.adapters.sql_webhooks import SqlWebhooks
from brickless.hub.services.audit import current
from brickless.hub.services.fleet_ports import Fleets, FleetTrails, Members
from brickless.hub.services.ports import (
    Accounts,
    ApiTokens,
    Devices,
    JoinTokens,
    Logs,
    Objects,
    Session,
    Trails,
)
from brickless.hub.services.ports_apps import Apps, Authorizations, Mails, Subscriptions, TrafficRecords
from brickless.hub.services.ports_operators import (
    AuditEntries,
    EventStream,
    Identities,
    Organisations,
    Overview,
    Webhooks,
)

_READERS = 4
_CHANGING = frozenset({"INSERT", "UPDATE", "DELETE"})
_BUSY_TIMEOUT_MS = 10_000


class SqlSession:
    """One unit of work over one connection."""

    def __init__(self, connection: AsyncConnection, *, locking: bool) -> None:
        self.connection = connection
        self.accounts: Accounts = SqlAccounts(connection)
        self.devices: Devices = SqlDevices(connection, locking=locking)
        self.join_tokens: JoinTokens = SqlJoinTokens(connection)
        self.api_tokens: ApiTokens = SqlApiTokens(connection)
        self.apps: Apps = SqlApps(connection)
        self.authorizations: Authorizations = SqlAuthorizations(connection)
        self.subscriptions: Subscriptions = SqlSubscriptions(connection)
        self.traffic: TrafficRecords = SqlTraffic(connection)
        self.mails: Mails = SqlMails(connection)
        self.organisations: Organisations = SqlOrganisations(connection)
        self.events: EventStream = SqlEvents(connection)
        self.audit: AuditEntries = SqlAudit(connection)
        self.overview: Overview = SqlOverview(connection)
        self.identities: Identities = SqlIdentities(connection)
        self.webhooks: Webhooks = SqlWebhooks(connection)
        self.trails: Trails = SqlTrails(connection, locking=locking)
        self.objects: Objects = SqlObjects(connection)
        self.logs: Logs = SqlLogs(connection)
        self.fleets: Fleets = SqlFleets(connection, locking=locking)
        self.members: Members = SqlMembers(connection)
        self.fleet_trails: FleetTrails = SqlFleetTrails(connection, locking=locking)


def _note_changes(engine: AsyncEngine) -> None:
    """Let each connection know whether its transaction changed a row: `info["changed"]`."""

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        connection.info["changed"] = False
        connection.info["told"] = set()

    @event.listens_for(engine.sync_engine, "after_cursor_execute")
    def executed(connection: Connection, cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.lstrip()[:6].upper() in _CHANGING and cursor.rowcount != 0:
            connection.info["changed"] = True


def _configure_sqlite(engine: AsyncEngine, begin: str) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def connect(dbapi_connection: Any, _record: Any) -> None:
        # SQLAlchemy, not the driver, begins transactions: the driver would begin too late for a consistent read.
        dbapi_connection.isolation_level = None
        cursor = dbapi_connection.cursor()
        for pragma in (
            f"busy_timeout={_BUSY_TIMEOUT_MS}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON",
            "temp_store=MEMORY", "cache_size=-16000",
        ):  # fmt: skip
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def do_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


class SqlDatabase:
    """`services.ports.Database`."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if self.is_sqlite:
            self._writer = create_async_engine(parsed, pool_size=1, max_overflow=0, pool_timeout=60)
            self._reader = create_async_engine(parsed, pool_size=_READERS, max_overflow=0, pool_timeout=60)
            _configure_sqlite(self._writer, "BEGIN IMMEDIATE")
            _configure_sqlite(self._reader, "BEGIN DEFERRED")
        else:
            self._writer = create_async_engine(parsed, pool_size=8, max_overflow=8, pool_pre_ping=True)
            self._reader = self._writer
        _note_changes(self._writer)
        self.url: URL = parsed
        #: Called with the accounts whose events a transaction made durable.
        self.on_events: Callable[[str], None] = _nobody
        # Fair turns for writers, instead of each holding a pool's timeout.
        self._turn = asyncio.Lock()

    def on_statement(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with every statement: tests assert how many a request needs."""

        def heard(_conn: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
            listener(statement)

        for engine in self.engines:
            event.listen(engine, "before_cursor_execute", heard)

    @property
    def engines(self) -> set[Engine]:
        """What statements pass through, for whoever counts or traces them."""
        return {self._writer.sync_engine, self._reader.sync_engine}

    async def start(self) -> None:
        """Bring the schema to this release's."""
        async with self._turn, self._writer.connect() as connection:
            await connection.run_sync(upgrade)
            await connection.commit()

    async def stop(self) -> None:
        """Close every connection."""
        await self._writer.dispose()
        await self._reader.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Session]:
        """See `services.ports.Database.read`."""
        async with self._reader.connect() as connection, connection.begin():
            yield SqlSession(connection, locking=False)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Session]:
        """See `services.ports.Database.write`."""
        turn: AbstractAsyncContextManager[object] = self._turn if self.is_sqlite else nullcontext()
        async with turn, self._writer.begin() as connection:
            yield SqlSession(connection, locking=True)
            doing = current()
            recorded = doing is not None and not doing.written and connection.info["changed"]
            if doing is not None and recorded:
                await SqlAudit(connection).append(doing)
            told = connection.info["told"]
        if doing is not None and recorded:
            doing.written = True
        for account in told:
            self.on_events(account)


def _nobody(_account: str) -> None:
    return
