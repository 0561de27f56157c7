"""Object records and device logs in SQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, delete, func, insert, not_, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from brickless.hub.adapters import tables
from brickless.hub.adapters.fleet_tables import release_objects
from brickless.hub.domain.values import LogEntry, StoredObject
from brickless.hub.services.ports import LogQuery

_OBJECT = (
    "owner", "sha", "name", "size_bytes", "mime_type", "has_bytes", "linked", "created_ms", "modified_ms",
)  # fmt: skip
#: SQLite's default limit of variables in one statement is far above; this keeps statements short.
_BATCH = 500


def _object(row: RowMapping) -> StoredObject:
    return StoredObject(**{name: row[name] for name in _OBJECT})


def _batches(shas: Iterable[str]) -> Iterator[list[str]]:
    wanted = sorted(set(shas))
    for start in range(0, len(wanted), _BATCH):
        yield wanted[start : start + _BATCH]


class SqlObjects:
    """`services.ports.Objects` over one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def get(self, owner: str, sha: str) -> StoredObject | None:
        """See `services.ports.Objects.get`."""
        return (await self.many(owner, [sha])).get(sha)

    async def many(self, owner: str, shas: Iterable[str]) -> dict[str, StoredObject]:
        """See `services.ports.Objects.many`."""
        found: dict[str, StoredObject] = {}
        for batch in _batches(shas):
            where = (tables.objects.c.owner == owner, tables.objects.c.sha.in_(batch))
            rows = await self._connection.execute(select(tables.objects).where(*where))
            found.update((row["sha"], _object(row)) for row in rows.mappings())
        return found

    async def kept(self, owner: str, shas: Iterable[str]) -> dict[str, StoredObject]:
        """See `services.ports.Objects.kept`. SQLite has one writer at a time anyway."""
        found: dict[str, StoredObject] = {}
        for batch in _batches(shas):
            where = (tables.objects.c.owner == owner, tables.objects.c.sha.in_(batch))
            # Weak enough for another upload of the same object, strong enough against its removal.
            statement = select(tables.objects).where(*where).order_by(tables.objects.c.sha)
            rows = await self._connection.execute(statement.with_for_update(read=True, key_share=True))
            found.update((row["sha"], _object(row)) for row in rows.mappings())
        return found

    async def held(self, owner: str, sha: str) -> StoredObject | None:
        """See `services.ports.Objects.held`. SQLite has one writer at a time anyway."""
        where = (tables.objects.c.owner == owner, tables.objects.c.sha == sha)
        rows = await self._connection.execute(select(tables.objects).where(*where).with_for_update())
        row = rows.mappings().first()
        return None if row is None else _object(row)

    async def hold_all(self) -> None:
        """See `services.ports.Objects.hold_all`."""
        if self._connection.dialect.name == "postgresql":
            # Conflicts with every writer and with FOR UPDATE and FOR SHARE, and with no reader.
            await self._connection.execute(text("LOCK TABLE objects IN EXCLUSIVE MODE"))

    async def of(self, owner: str) -> list[StoredObject]:
        """See `services.ports.Objects.of`."""
        statement = select(tables.objects).where(tables.objects.c.owner == owner)
        ordered = statement.order_by(tables.objects.c.created_ms, tables.objects.c.sha)
        return [_object(row) for row in (await self._connection.execute(ordered)).mappings()]

    async def put(self, record: StoredObject) -> None:
        """See `services.ports.Objects.put`."""
        await self.put_many([record])

    async def put_many(self, records: Iterable[StoredObject]) -> None:
        """See `services.ports.Objects.put_many`."""
        rows = [{name: getattr(record, name) for name in _OBJECT} for record in records]
        dialect: Any = postgresql if self._connection.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(tables.objects)
        replaced = {name: statement.excluded[name] for name in _OBJECT if name not in {"owner", "sha", "created_ms"}}
        await self._connection.execute(
            statement.on_conflict_do_update(index_elements=["owner", "sha"], set_=replaced), rows
        )

    async def remove(self, owner: str, sha: str) -> None:
        """See `services.ports.Objects.remove`."""
        await self._connection.execute(
            delete(tables.objects).where(tables.objects.c.owner == owner, tables.objects.c.sha == sha)
        )

    async def in_use(self, owner: str, sha: str) -> bool:
        """See `services.ports.Objects.in_use`."""
        joined = tables.step_objects.join(tables.devices, tables.devices.c.id == tables.step_objects.c.trail_id)
        statement = select(tables.step_objects.c.sha).select_from(joined)
        statement = statement.where(
            tables.step_objects.c.sha == sha, tables.devices.c.owner == owner, tables.devices.c.garbage.is_(False)
        )
        if await self._connection.scalar(statement.limit(1)) is not None:
            return True
        released = select(release_objects.c.sha).where(release_objects.c.owner == owner, release_objects.c.sha == sha)
        return await self._connection.scalar(released.limit(1)) is not None

    async def public_sources(self, shas: Iterable[str]) -> dict[str, StoredObject]:
        """See `services.ports.Objects.public_sources`."""
        found: dict[str, StoredObject] = {}
        joined = tables.step_objects.join(tables.devices, tables.devices.c.id == tables.step_objects.c.trail_id)
        named = (
            select(tables.step_objects.c.sha)
            .select_from(joined)
            .where(
                tables.step_objects.c.sha == tables.objects.c.sha,
                tables.devices.c.owner == tables.objects.c.owner,
                tables.devices.c.public.is_(True),
                tables.devices.c.garbage.is_(False),
            )
        )
        for batch in _batches(shas):
            statement = select(tables.objects).where(
                tables.objects.c.sha.in_(batch), tables.objects.c.has_bytes.is_(True), named.exists()
            )
            # The source stays until the link to it is written.
            rows = await self._connection.execute(statement.with_for_update(read=True))
            found.update((row["sha"], _object(row)) for row in rows.mappings())
        return found

    async def forget_unused(self, before_ms: int) -> int:
        """See `services.ports.Objects.forget_unused`."""
        joined = tables.step_objects.join(tables.devices, tables.devices.c.id == tables.step_objects.c.trail_id)
        named = (
            select(tables.step_objects.c.sha)
            .select_from(joined)
            .where(tables.step_objects.c.sha == tables.objects.c.sha, tables.devices.c.owner == tables.objects.c.owner)
        )
        released = select(release_objects.c.sha).where(
            release_objects.c.sha == tables.objects.c.sha, release_objects.c.owner == tables.objects.c.owner
        )
        done = await self._connection.execute(
            delete(tables.objects).where(
                tables.objects.c.modified_ms < before_ms, not_(named.exists()), not_(released.exists())
            )
        )
        return done.rowcount

    async def possessed(self, shas: Iterable[str]) -> set[str]:
        """See `services.ports.Objects.possessed`."""
        found: set[str] = set()
        for batch in _batches(shas):
            where = (tables.objects.c.sha.in_(batch), tables.objects.c.has_bytes.is_(True))
            found.update(await self._connection.scalars(select(tables.objects.c.sha).where(*where).distinct()))
        return found

    async def all_possessed(self) -> dict[str, int]:
        """See `services.ports.Objects.all_possessed`."""
        columns = tables.objects.c
        statement = select(columns.sha, columns.size_bytes).where(columns.has_bytes.is_(True)).distinct()
        return {row["sha"]: row["size_bytes"] for row in (await self._connection.execute(statement)).mappings()}

    async def usage_bytes(self, owner: str) -> int:
        """See `services.ports.Objects.usage_bytes`."""
        total = await self._connection.scalar(
            select(func.sum(tables.objects.c.size_bytes)).where(tables.objects.c.owner == owner)
        )
        return int(total or 0)


_LOG = ("id", "device", "owner", "created_ms", "tsec", "tnano", "rev", "plat", "src", "lvl", "msg")
_SORTABLE = {
    "dev": "device", "rev": "rev", "plat": "plat", "lvl": "lvl", "tsec": "tsec", "tnano": "tnano",
    "time-created": "created_ms", "src": "src", "id": "id",
}  # fmt: skip
_HOLD_AND_TELL = text("SELECT pg_advisory_xact_lock(hashtextextended(:device, 0)), pg_notify('hub_logs', :device)")


class SqlLogs:
    """`services.ports.Logs` over one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, entries: Iterable[LogEntry]) -> None:
        """See `services.ports.Logs.add`."""
        rows = [{name: getattr(entry, name) for name in _LOG if name != "id"} for entry in entries]
        if self._connection.dialect.name == "postgresql":
            # One writer a device at a time: whoever tails by id misses no line. Other replicas hear of it at commit.
            await self._connection.execute(_HOLD_AND_TELL, {"device": rows[0]["device"]})
        await self._connection.execute(insert(tables.logs), rows)

    @staticmethod
    def _conditions(query: LogQuery) -> list[ColumnElement[bool]]:
        columns = tables.logs.c
        conditions: list[ColumnElement[bool]] = [columns.owner == query.owner]
        listed = (
            (columns.device, query.devices), (columns.rev, query.revs), (columns.plat, query.plats),
            (columns.src, query.sources), (columns.lvl, query.levels),
        )  # fmt: skip
        conditions.extend(column.in_(words) for column, words in listed if words)
        if query.before_ms is not None:
            conditions.append(columns.created_ms < query.before_ms)
        if query.after_ms is not None:
            conditions.append(columns.created_ms > query.after_ms)
        if query.after_id is not None:
            conditions.append(columns.id > query.after_id)
        return conditions

    @staticmethod
    def _ordered(statement: Select[Any], query: LogQuery) -> Select[Any]:
        wanted = [(_SORTABLE[name], down) for name, down in query.sort if name in _SORTABLE] or [("created_ms", True)]
        columns = [tables.logs.c[name].desc() if down else tables.logs.c[name] for name, down in wanted]
        last = tables.logs.c.id.desc() if wanted[0][1] else tables.logs.c.id
        return statement.order_by(*columns, last)

    async def end(self) -> int:
        """See `services.ports.Logs.end`."""
        return int(await self._connection.scalar(select(func.max(tables.logs.c.id))) or 0)

    async def find(self, query: LogQuery) -> list[LogEntry]:
        """See `services.ports.Logs.find`."""
        statement = self._ordered(select(tables.logs).where(*self._conditions(query)), query)
        rows = await self._connection.execute(statement.offset(query.start).limit(query.page))
        return [LogEntry(**{name: row[name] for name in _LOG}) for row in rows.mappings()]

    async def count(self, query: LogQuery) -> int:
        """See `services.ports.Logs.count`."""
        statement = select(func.count()).select_from(tables.logs).where(*self._conditions(query))
        return int(await self._connection.scalar(statement) or 0)
