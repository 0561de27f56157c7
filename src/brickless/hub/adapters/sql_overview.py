"""What the dashboard asks of a fleet, in few statements that stay fast with ten thousand devices."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from brickless.hub.adapters import tables
from brickless.hub.adapters.fleet_tables import device_labels
from brickless.hub.domain.fleet_labels import Selector
from brickless.hub.domain.fleet_lists import ContainerCount, Listed, Page, Search

_DEVICES, _TRAILS = tables.devices.c, tables.trails.c
_NEWEST, _RUNNING = tables.steps.alias("newest"), tables.steps.alias("running")
_PARTS = tables.state_parts.c


def _at(steps: Any, rev: ColumnElement[int]) -> ColumnElement[bool]:
    return and_(steps.c.trail_id == _TRAILS.id, steps.c.rev == rev)


_JOINED = (
    tables.devices.join(tables.trails, _DEVICES.id == _TRAILS.id, isouter=True)
    .join(_NEWEST, _at(_NEWEST, _TRAILS.newest_rev), isouter=True)
    .join(_RUNNING, _at(_RUNNING, _TRAILS.done_rev), isouter=True)
    .join(device_labels, device_labels.c.device_id == _DEVICES.id, isouter=True)
)
_COLUMNS = (
    _DEVICES.id, _DEVICES.nick, _DEVICES.last_seen_ms, _TRAILS.newest_rev, _TRAILS.done_rev, _NEWEST.c.status,
    _NEWEST.c.progress, _NEWEST.c.state_sha, device_labels.c.labels,
)  # fmt: skip


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _mine(owner: str) -> ColumnElement[bool]:
    return and_(_DEVICES.owner == owner, _DEVICES.garbage.is_(False))


def _conditions(search: Search) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if search.text:
        pattern = f"%{_escaped(search.text.lower())}%"
        found.append(or_(func.lower(_DEVICES.nick).like(pattern, escape="\\"), _DEVICES.id == search.text.lower()))
    if search.status == "none":
        found.append(_NEWEST.c.status.is_(None))
    elif search.status:
        found.append(_NEWEST.c.status == search.status)
    if search.revision is not None:
        found.append(_TRAILS.done_rev == search.revision)
    if search.container:
        name, _, version = search.container.partition("=")
        runs = select(_PARTS.container).where(
            _PARTS.state_sha == _RUNNING.c.state_sha, _PARTS.container == name.strip()
        )
        if version.strip():
            runs = runs.where(_PARTS.version == version.strip())
        found.append(runs.exists())
    return found


def _listed(row: Any) -> Listed:
    return Listed(
        row.id, row.nick, row.last_seen_ms, -1 if row.newest_rev is None else row.newest_rev,
        -1 if row.done_rev is None else row.done_rev, row.status or "", row.progress or "{}", row.state_sha or "",
        json.loads(row.labels) if row.labels else {},
    )  # fmt: skip


class SqlOverview:
    """`services.ports.Overview` over one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def page(self, owner: str, search: Search, selector: Selector) -> Page:
        """See `services.ports.Overview.page`."""
        wanted = select(*_COLUMNS).select_from(_JOINED).where(_mine(owner), *_conditions(search))
        if selector.text != "*":
            return await self._selected(wanted, search, selector)
        total = await self._count(owner, search)
        rows = await self._connection.execute(_from(wanted, search).limit(search.limit + 1))
        found = [_listed(row) for row in rows]
        return Page(found[: search.limit], total, more=len(found) > search.limit)

    async def _count(self, owner: str, search: Search) -> int:
        conditions = _conditions(search)
        source = _JOINED if conditions else tables.devices
        statement = select(func.count()).select_from(source).where(_mine(owner), *conditions)
        return int(await self._connection.scalar(statement) or 0)

    async def _selected(self, wanted: Select[Any], search: Search, selector: Selector) -> Page:
        """Labels are matched here, not in the database: a selector is never a part of a statement."""
        rows = await self._connection.execute(wanted.order_by(_DEVICES.nick, _DEVICES.id))
        matching = [row for row in rows if selector.matches(json.loads(row.labels) if row.labels else {})]
        behind = [row for row in matching if (row.nick, row.id) > search.after]
        return Page([_listed(row) for row in behind[: search.limit]], len(matching), more=len(behind) > search.limit)

    async def statuses(self, owner: str) -> dict[str, int]:
        """See `services.ports.Overview.statuses`."""
        joined = tables.devices.join(tables.trails, _DEVICES.id == _TRAILS.id, isouter=True)
        joined = joined.join(_NEWEST, _at(_NEWEST, _TRAILS.newest_rev), isouter=True)
        statement = select(_NEWEST.c.status, func.count()).select_from(joined).where(_mine(owner))
        rows = await self._connection.execute(statement.group_by(_NEWEST.c.status))
        return {row[0] or "": row[1] for row in rows}

    async def seen_since(self, owner: str, since_ms: int) -> int:
        """See `services.ports.Overview.seen_since`."""
        statement = select(func.count()).select_from(tables.devices)
        statement = statement.where(_mine(owner), _DEVICES.last_seen_ms >= since_ms)
        return int(await self._connection.scalar(statement) or 0)

    async def versions(self, owner: str, *, limit: int) -> list[ContainerCount]:
        """See `services.ports.Overview.versions`."""
        joined = (
            tables.devices.join(tables.trails, _DEVICES.id == _TRAILS.id)
            .join(_RUNNING, _at(_RUNNING, _TRAILS.done_rev))
            .join(tables.state_parts, _PARTS.state_sha == _RUNNING.c.state_sha)
        )
        count = func.count().label("devices")
        statement = select(_PARTS.container, _PARTS.version, count).select_from(joined).where(_mine(owner))
        statement = statement.group_by(_PARTS.container, _PARTS.version).order_by(count.desc(), _PARTS.container)
        return [ContainerCount(*row) for row in await self._connection.execute(statement.limit(limit))]


def _from(statement: Select[Any], search: Search) -> Select[Any]:
    if search.after != ("", ""):
        statement = statement.where(tuple_(_DEVICES.nick, _DEVICES.id) > search.after)
    return statement.order_by(_DEVICES.nick, _DEVICES.id)
