"""Devices in SQL. Garbage devices are in no answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, and_, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from brickless.hub.adapters import tables
from brickless.hub.adapters.sql_events import emit, emit_of_device
from brickless.hub.adapters.sql_feed import feed
from brickless.hub.domain import prn
from brickless.hub.domain.filters import TextFilter
from brickless.hub.domain.jsontext import Value
from brickless.hub.domain.values import Device

COLUMNS = (
    "id", "nick", "owner", "secret_hash", "challenge", "public", "user_meta", "device_meta", "created_ms",
    "modified_ms", "garbage", "last_seen_ms", "real_ip", "ovmode",
)  # fmt: skip
_LIVE = tables.devices.c.garbage.is_(False)


def device_from(row: RowMapping) -> Device:
    """A device from a row that holds every column of the table under its own name."""
    return Device(**{name: row[name] for name in COLUMNS})


def _row(device: Device) -> dict[str, Any]:
    return {name: getattr(device, name) for name in COLUMNS if name not in {"last_seen_ms", "real_ip"}}


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _condition(wanted: TextFilter) -> ColumnElement[bool]:
    column: ColumnElement[Any] = tables.devices.c.id if wanted.field == "prn" else tables.devices.c[wanted.field]
    value: str | bool = wanted.value
    if wanted.field == "public":
        value = wanted.value.lower() == "true"
        return column.is_(value) if wanted.operator != "!" else column.is_not(value)
    if wanted.operator == "^":
        prefix = wanted.value
        if wanted.field == "prn":
            head = prn.device("")
            prefix = prefix[len(head) :] if prefix.startswith(head) else ("" if head.startswith(prefix) else "!")
        return func.lower(column).like(_escaped(prefix.lower()) + "%", escape="\\")
    if wanted.field == "prn":
        value = prn.device_id(wanted.value) or ""
    return column != value if wanted.operator == "!" else column == value


class SqlDevices:
    """`services.ports.Devices` over one connection; `locking` makes reads hold what a transaction will change."""

    def __init__(self, connection: AsyncConnection, *, locking: bool) -> None:
        self._connection = connection
        self._locking = locking

    async def _one(self, *conditions: ColumnElement[bool]) -> Device | None:
        statement = select(tables.devices).where(_LIVE, *conditions)
        if self._locking:
            statement = statement.with_for_update()
        row = (await self._connection.execute(statement)).mappings().first()
        return None if row is None else device_from(row)

    async def add(self, device: Device) -> bool:
        """See `services.ports.Devices.add`."""
        try:
            async with self._connection.begin_nested():
                await self._connection.execute(insert(tables.devices).values(**_row(device)))
        except IntegrityError:
            return False
        await self._tell(device, "device.created")
        return True

    async def _tell(self, device: Device, kind: str) -> None:
        data: dict[str, Value] = {"nick": device.nick, "public": device.public}
        await emit(self._connection, device.owner, kind, device.id, data, device.modified_ms)

    async def get(self, record_id: str) -> Device | None:
        """See `services.ports.Devices.get`."""
        return await self._one(tables.devices.c.id == record_id)

    async def by_nick(self, owner: str, nick: str) -> Device | None:
        """See `services.ports.Devices.by_nick`."""
        return await self._one(tables.devices.c.owner == owner, tables.devices.c.nick == nick)

    async def find(
        self, owner: str, filters: tuple[TextFilter, ...], *, public_only: bool, offset: int, limit: int | None
    ) -> list[Device]:
        """See `services.ports.Devices.find`."""
        statement = select(tables.devices).where(_LIVE, *map(_condition, filters))
        # A device that nobody claimed has an empty owner: it finds itself by its own name only.
        if owner or public_only:
            statement = statement.where(tables.devices.c.owner == owner)
        if public_only:
            statement = statement.where(tables.devices.c.public.is_(True))
        statement = statement.order_by(tables.devices.c.nick, tables.devices.c.id).offset(offset).limit(limit)
        return [device_from(row) for row in (await self._connection.execute(statement)).mappings()]

    async def update(self, device: Device) -> bool:
        """See `services.ports.Devices.update`."""
        was = select(tables.devices.c.owner).where(tables.devices.c.id == device.id)
        old_owner = await self._connection.scalar(was)
        try:
            async with self._connection.begin_nested():
                await self._connection.execute(
                    update(tables.devices).where(tables.devices.c.id == device.id).values(**_row(device))
                )
        except IntegrityError:
            return False
        if old_owner != device.owner:
            await self._tell(replace(device, owner=old_owner or ""), "device.removed")
            await self._tell(device, "device.created")
        else:
            await self._tell(device, "device.removed" if device.garbage else "device.changed")
        return True

    async def set_meta(self, record_id: str, *, user: str | None, device: str | None, modified_ms: int) -> None:
        """See `services.ports.Devices.set_meta`."""
        values: dict[str, Any] = {"modified_ms": modified_ms}
        if user is not None:
            values["user_meta"] = user
        if device is not None:
            values["device_meta"] = device
        await self._connection.execute(update(tables.devices).where(tables.devices.c.id == record_id).values(**values))
        if user is not None:  # device-meta is telemetry: dashboards see it, nobody is told of each report
            data: dict[str, Value] = {"user-meta": True}
            await emit_of_device(self._connection, record_id, "device.changed", data, modified_ms)

    async def changed(self, owner: str, *, after_ms: int | None, before_ms: int | None, limit: int) -> list[Device]:
        """See `services.ports.Devices.changed`."""
        columns = tables.devices.c
        rows = await feed(
            self._connection, select(tables.devices).where(_LIVE, columns.owner == owner), columns.modified_ms,
            columns.id, after_ms=after_ms, before_ms=before_ms, limit=limit,
        )  # fmt: skip
        return [device_from(row) for row in rows]

    async def ids_of(self, owner: str) -> list[str]:
        """See `services.ports.Devices.ids_of`."""
        found = await self._connection.scalars(
            select(tables.devices.c.id).where(_LIVE, tables.devices.c.owner == owner)
        )
        return list(found)

    async def expire(self, *, unclaimed_before_ms: int, deleted_before_ms: int) -> int:
        """See `services.ports.Devices.expire`."""
        columns = tables.devices.c
        unclaimed = and_(columns.owner == "", columns.created_ms < unclaimed_before_ms)
        deleted = and_(columns.garbage.is_(True), columns.modified_ms < deleted_before_ms)
        done = await self._connection.execute(delete(tables.devices).where(or_(unclaimed, deleted)))
        return done.rowcount

    async def touch(self, seen: Iterable[tuple[str, int, str]]) -> None:
        """See `services.ports.Devices.touch`."""
        rows = [{"key": key, "seen_ms": seen_ms, "address": address} for key, seen_ms, address in seen]
        statement = update(tables.devices).where(tables.devices.c.id == bindparam("key"))
        await self._connection.execute(
            statement.values(last_seen_ms=bindparam("seen_ms"), real_ip=bindparam("address")), rows
        )
