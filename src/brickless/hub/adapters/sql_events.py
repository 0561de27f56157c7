"""The stream of events and the audit log in SQL.

Events are rows written in the transaction of what they tell. On PostgreSQL a row also holds its transaction's number,
and readers take only rows of transactions older than the oldest that still runs: nothing can appear later before what
was read already. SQLite has one writer at a time, so the row's number is enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import BigInteger, Select, bindparam, cast, insert, literal, literal_column, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from brickless.hub.adapters import tables
from brickless.hub.domain import audit
from brickless.hub.domain.audit import Entry
from brickless.hub.domain.events import Cursor, Event
from brickless.hub.domain.jsontext import Value, stored
from brickless.hub.services.audit import Doing

_EVENTS, _AUDIT, _HEADS = tables.events.c, tables.audit.c, tables.audit_heads.c
_NAMES = ("account", "kind", "subject", "data", "time_ms")
_BATCH = 500
_OWN_XACT = literal_column("pg_current_xact_id()::text::bigint", BigInteger)
_SETTLED = literal_column("pg_snapshot_xmin(pg_current_snapshot())::text::bigint", BigInteger)


def batches(values: Iterable[Any]) -> Iterable[list[Any]]:
    """The values in lists that a statement can hold."""
    everything = list(values)
    return (everything[start : start + _BATCH] for start in range(0, len(everything), _BATCH))


def _told(connection: AsyncConnection, account: str) -> None:
    connection.info.setdefault("told", set()).add(account)


def _postgresql(connection: AsyncConnection) -> bool:
    return connection.dialect.name == "postgresql"


async def emit(
    connection: AsyncConnection, account: str, kind: str, subject: str, data: dict[str, Value], time_ms: int
) -> None:
    """Append an event; what nobody owns has nobody to tell."""
    if not account:
        return
    row: dict[str, Any] = dict(zip(_NAMES, (account, kind, subject, stored(data), time_ms), strict=True))
    if _postgresql(connection):
        row["xact"] = _OWN_XACT
    await connection.execute(insert(tables.events).values(**row))
    _told(connection, account)


async def emit_of_device(
    connection: AsyncConnection, device_id: str, kind: str, data: dict[str, Value], time_ms: int
) -> None:
    """Append an event for whoever owns the device now."""
    columns = tables.devices.c
    values = [columns.owner, *(literal(value) for value in (kind, device_id, stored(data))), cast(time_ms, BigInteger)]
    names = list(_NAMES)
    if _postgresql(connection):
        values, names = [*values, _OWN_XACT], [*names, "xact"]
    source = select(*values).where(columns.id == device_id, columns.owner != "")
    statement = insert(tables.events).from_select(names, source).returning(_EVENTS.account)
    account = await connection.scalar(statement)
    if isinstance(account, str):
        _told(connection, account)


async def emit_of_devices(
    connection: AsyncConnection, kind: str, data: Mapping[str, dict[str, Value]], time_ms: int
) -> None:
    """Append an event for each of many devices, by id, for whoever owns it now: in two statements a batch."""
    devices = tables.devices.c
    for batch in batches(sorted(data)):
        found = await connection.execute(select(devices.id, devices.owner).where(devices.id.in_(batch)))
        rows = [
            dict(zip(_NAMES, (owner, kind, device_id, stored(data[device_id]), time_ms), strict=True))
            for device_id, owner in found
            if owner
        ]
        if rows:
            bound: dict[str, Any] = {name: bindparam(name) for name in _NAMES}
            if _postgresql(connection):
                bound["xact"] = _OWN_XACT
            await connection.execute(insert(tables.events).values(**bound), rows)
        for account in {row["account"] for row in rows}:
            _told(connection, account)


class SqlEvents:
    """`services.ports.EventStream` over one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, account: str, kind: str, subject: str, data: dict[str, Value], time_ms: int) -> None:
        """See `services.ports.EventStream.add`."""
        await emit(self._connection, account, kind, subject, data, time_ms)

    async def after(self, account: str, cursor: Cursor, *, limit: int) -> list[Event]:
        """See `services.ports.EventStream.after`."""
        place = tuple_(_EVENTS.xact, _EVENTS.id)
        statement = select(tables.events).where(
            _EVENTS.account == account, place > tuple_(literal(cursor.xact), literal(cursor.id))
        )
        return await self._read(self._settled(statement).order_by(_EVENTS.xact, _EVENTS.id).limit(limit))

    async def latest(self, account: str, *, limit: int) -> list[Event]:
        """See `services.ports.EventStream.latest`."""
        statement = self._settled(select(tables.events).where(_EVENTS.account == account))
        return await self._read(statement.order_by(_EVENTS.xact.desc(), _EVENTS.id.desc()).limit(limit))

    def _settled(self, statement: Select[Any]) -> Select[Any]:
        return statement.where(_EVENTS.xact < _SETTLED) if _postgresql(self._connection) else statement

    async def _read(self, statement: Select[Any]) -> list[Event]:
        rows = (await self._connection.execute(statement)).mappings()
        return [
            Event(
                Cursor(row["xact"], row["id"]),
                *(row[name] for name in ("account", "kind", "subject", "data", "time_ms")),
            )
            for row in rows
        ]

    async def end(self) -> Cursor:
        """See `services.ports.EventStream.end`."""
        statement = self._settled(select(_EVENTS.xact, _EVENTS.id)).order_by(_EVENTS.xact.desc(), _EVENTS.id.desc())
        row = (await self._connection.execute(statement.limit(1))).first()
        return Cursor() if row is None else Cursor(row[0], row[1])

    async def forget(self, before_ms: int) -> int:
        """See `services.ports.EventStream.forget`."""
        done = await self._connection.execute(tables.events.delete().where(_EVENTS.time_ms < before_ms))
        return done.rowcount


class SqlAudit:
    """`services.ports.AuditEntries` over one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def append(self, doing: Doing) -> None:
        """The next entry of the account's chain; writers of one account take turns from here to their commit."""
        dialect: Any = postgresql if _postgresql(self._connection) else sqlite
        first = dialect.insert(tables.audit_heads).values(account=doing.account, seq=1, hash=audit.GENESIS)
        counted = first.on_conflict_do_update(index_elements=["account"], set_={"seq": _HEADS.seq + 1})
        seq, previous = (await self._connection.execute(counted.returning(_HEADS.seq, _HEADS.hash))).one()
        entry = Entry(
            doing.account, seq, doing.time_ms, doing.actor, doing.actor_nick, doing.address, doing.action,
            doing.target, previous,
        )  # fmt: skip
        entry = replace(entry, hash=audit.digest(entry))
        await self._connection.execute(insert(tables.audit).values(**asdict(entry)))
        moved = update(tables.audit_heads).where(_HEADS.account == doing.account)
        await self._connection.execute(moved.values(hash=entry.hash))

    async def newest(self, account: str, *, before: int | None, limit: int) -> list[Entry]:
        """See `services.ports.AuditEntries.newest`."""
        statement = select(tables.audit).where(_AUDIT.account == account)
        if before is not None:
            statement = statement.where(_AUDIT.seq < before)
        rows = await self._connection.execute(statement.order_by(_AUDIT.seq.desc()).limit(limit))
        return [Entry(**row) for row in rows.mappings()]

    async def after(self, account: str, seq: int, *, limit: int) -> list[Entry]:
        """See `services.ports.AuditEntries.after`."""
        statement = select(tables.audit).where(_AUDIT.account == account, _AUDIT.seq > seq)
        rows = await self._connection.execute(statement.order_by(_AUDIT.seq).limit(limit))
        return [Entry(**row) for row in rows.mappings()]

    async def head(self, account: str) -> tuple[int, str]:
        """See `services.ports.AuditEntries.head`."""
        row = (await self._connection.execute(select(_HEADS.seq, _HEADS.hash).where(_HEADS.account == account))).first()
        return (0, audit.GENESIS) if row is None else (row[0], row[1])
