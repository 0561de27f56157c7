"""Labels, device types, releases and rollouts in SQL."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import RowMapping, and_, bindparam, delete, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from brickless.hub.adapters import fleet_tables as tables
from brickless.hub.adapters.sql_events import batches, emit, emit_of_devices
from brickless.hub.adapters.tables import devices
from brickless.hub.domain import fleet_spec
from brickless.hub.domain.fleet import DeviceType, Release, Rollout, RolloutState
from brickless.hub.domain.jsontext import Value
from brickless.hub.domain.rollout_rule import Evidence
from brickless.hub.services.fleet_ports import Labelled

_TYPE = ("owner", "name", "description", "created_ms", "modified_ms")
_LISTS = ("include", "remove", "types")
_RELEASE = ("id", "owner", "name", "note", "state", "size_bytes", "source", "creator", "created_ms")
_ROLLOUT = (
    "id", "owner", "name", "release_id", "selector", "reason", "wave", "wave_since_ms", "assigned", "frontier",
    "members", "synced_ms", "created_ms", "modified_ms", "ends_ms", "creator", "closed",
)  # fmt: skip
_EVIDENCE = ("updated", "failed", "silent", "sum_nats")


def upsert(connection: AsyncConnection, table: Any) -> Any:
    """The database's own insert, which knows conflicts."""
    dialect: Any = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(table)


def _release(row: RowMapping) -> Release:
    members: dict[str, Any] = {name: row[name] for name in _RELEASE}
    members.update({name: tuple(json.loads(row[name])) for name in _LISTS})
    return Release(**members)


def _rollout(row: RowMapping) -> Rollout:
    return Rollout(
        **{name: row[name] for name in _ROLLOUT},
        spec=fleet_spec.load(row["spec"]),
        state=RolloutState(row["state"]),
        evidence=Evidence(*(row[name] for name in _EVIDENCE)),
    )


def _row(rollout: Rollout) -> dict[str, Any]:
    return {
        **{name: getattr(rollout, name) for name in _ROLLOUT},
        "spec": fleet_spec.dump(rollout.spec),
        "state": rollout.state.value,
        **{name: getattr(rollout.evidence, name) for name in _EVIDENCE},
    }


class SqlFleets:
    """`services.fleet_ports.Fleets` over one connection; `locking` makes reads hold what a transaction will change."""

    def __init__(self, connection: AsyncConnection, *, locking: bool) -> None:
        self._connection = connection
        self._locking = locking

    # -- labels ------------------------------------------------------------------------------------------------------

    async def labelled(
        self, owner: str, *, since_ms: int = 0, after: str = "", limit: int | None = None, gone: bool = False
    ) -> list[Labelled]:
        """See `services.fleet_ports.Fleets.labelled`."""
        columns = devices.c
        joined = devices.join(tables.device_labels, tables.device_labels.c.device_id == columns.id, isouter=True)
        statement = select(
            columns.id, columns.nick, columns.modified_ms, columns.garbage, tables.device_labels.c.labels
        ).select_from(joined)
        statement = statement.where(columns.owner == owner, columns.modified_ms >= since_ms, columns.nick > after)
        if not gone:
            statement = statement.where(columns.garbage.is_(False))
        rows = await self._connection.execute(statement.order_by(columns.nick, columns.id).limit(limit))
        return [
            Labelled(row.id, row.nick, json.loads(row.labels) if row.labels else {}, row.modified_ms, row.garbage)
            for row in rows
        ]

    async def labels(self, device_ids: Iterable[str]) -> dict[str, dict[str, str]]:
        """See `services.fleet_ports.Fleets.labels`."""
        found: dict[str, dict[str, str]] = {}
        columns = tables.device_labels.c
        for batch in batches(device_ids):
            rows = await self._connection.execute(
                select(columns.device_id, columns.labels).where(columns.device_id.in_(batch))
            )
            found.update((row.device_id, json.loads(row.labels)) for row in rows)
        return found

    async def put_labels(self, labels: Mapping[str, Mapping[str, str]], now_ms: int) -> None:
        """See `services.fleet_ports.Fleets.put_labels`."""
        if not labels:
            return
        statement = upsert(self._connection, tables.device_labels)
        replaced = {name: statement.excluded[name] for name in ("labels", "modified_ms")}
        rows = [
            {"device_id": device_id, "labels": json.dumps(dict(sorted(one.items()))), "modified_ms": now_ms}
            for device_id, one in labels.items()
        ]
        await self._connection.execute(
            statement.on_conflict_do_update(index_elements=["device_id"], set_=replaced), rows
        )
        touched = update(devices).where(devices.c.id == bindparam("key")).values(modified_ms=now_ms)
        await self._connection.execute(touched, [{"key": device_id} for device_id in labels])
        told: dict[str, Value] = {"labels": True}
        await emit_of_devices(self._connection, "device.changed", dict.fromkeys(labels, told), now_ms)

    # -- device types ------------------------------------------------------------------------------------------------

    async def types(self, owner: str) -> list[DeviceType]:
        """See `services.fleet_ports.Fleets.types`."""
        table = tables.device_types
        rows = await self._connection.execute(select(table).where(table.c.owner == owner).order_by(table.c.name))
        return [DeviceType(**{name: row[name] for name in _TYPE}) for row in rows.mappings()]

    async def put_type(self, value: DeviceType) -> None:
        """See `services.fleet_ports.Fleets.put_type`."""
        statement = upsert(self._connection, tables.device_types).values(
            **{name: getattr(value, name) for name in _TYPE}
        )
        replaced = {name: statement.excluded[name] for name in ("description", "modified_ms")}
        await self._connection.execute(statement.on_conflict_do_update(index_elements=["owner", "name"], set_=replaced))

    async def remove_type(self, owner: str, name: str) -> bool:
        """See `services.fleet_ports.Fleets.remove_type`."""
        columns = tables.device_types.c
        done = await self._connection.execute(
            delete(tables.device_types).where(columns.owner == owner, columns.name == name)
        )
        return done.rowcount == 1

    # -- releases ----------------------------------------------------------------------------------------------------

    async def add_release(self, release: Release, objects: Iterable[str]) -> bool:
        """See `services.fleet_ports.Fleets.add_release`."""
        row: dict[str, Any] = {name: getattr(release, name) for name in _RELEASE}
        row.update({name: json.dumps(list(getattr(release, name))) for name in _LISTS})
        try:
            async with self._connection.begin_nested():
                await self._connection.execute(insert(tables.releases).values(**row))
        except IntegrityError:
            return False
        rows = [{"owner": release.owner, "sha": sha, "release_id": release.id} for sha in objects]
        if rows:
            await self._connection.execute(insert(tables.release_objects), rows)
        told: dict[str, Value] = {"name": release.name, "fragment": release.fragment, "source": release.source}
        await emit(self._connection, release.owner, "release.created", release.id, told, release.created_ms)
        return True

    async def release(self, owner: str, name: str) -> Release | None:
        """See `services.fleet_ports.Fleets.release`."""
        columns = tables.releases.c
        statement = select(tables.releases).where(columns.owner == owner, or_(columns.id == name, columns.name == name))
        row = (await self._connection.execute(statement)).mappings().first()
        return None if row is None else _release(row)

    async def releases(self, owner: str, *, offset: int, limit: int) -> list[Release]:
        """See `services.fleet_ports.Fleets.releases`."""
        columns = tables.releases.c
        statement = select(tables.releases).where(columns.owner == owner)
        statement = statement.order_by(columns.created_ms.desc(), columns.id).offset(offset).limit(limit)
        return [_release(row) for row in (await self._connection.execute(statement)).mappings()]

    async def remove_release(self, owner: str, record_id: str) -> None:
        """See `services.fleet_ports.Fleets.remove_release`."""
        columns = tables.releases.c
        await self._connection.execute(delete(tables.releases).where(columns.owner == owner, columns.id == record_id))

    async def release_in_use(self, owner: str, record_id: str) -> bool:
        """See `services.fleet_ports.Fleets.release_in_use`."""
        columns = tables.rollouts.c
        statement = select(columns.id).where(columns.owner == owner, columns.release_id == record_id).limit(1)
        return await self._connection.scalar(statement) is not None

    # -- rollouts ----------------------------------------------------------------------------------------------------

    async def add_rollout(self, rollout: Rollout) -> bool:
        """See `services.fleet_ports.Fleets.add_rollout`."""
        try:
            async with self._connection.begin_nested():
                await self._connection.execute(insert(tables.rollouts).values(**_row(rollout)))
        except IntegrityError:
            return False
        await self._tell(rollout)
        return True

    async def rollout(self, record_id: str) -> Rollout | None:
        """See `services.fleet_ports.Fleets.rollout`."""
        statement = select(tables.rollouts).where(tables.rollouts.c.id == record_id)
        if self._locking:
            statement = statement.with_for_update()
        row = (await self._connection.execute(statement)).mappings().first()
        return None if row is None else _rollout(row)

    async def named(self, owner: str, name: str) -> Rollout | None:
        """See `services.fleet_ports.Fleets.named`."""
        columns = tables.rollouts.c
        statement = select(tables.rollouts).where(columns.owner == owner, columns.name == name)
        row = (await self._connection.execute(statement)).mappings().first()
        return None if row is None else _rollout(row)

    async def rollouts(self, owner: str, *, offset: int, limit: int) -> list[Rollout]:
        """See `services.fleet_ports.Fleets.rollouts`."""
        columns = tables.rollouts.c
        statement = select(tables.rollouts).where(columns.owner == owner)
        statement = statement.order_by(columns.created_ms.desc(), columns.id).offset(offset).limit(limit)
        return [_rollout(row) for row in (await self._connection.execute(statement)).mappings()]

    async def open_rollouts(self, owner: str | None = None) -> list[Rollout]:
        """See `services.fleet_ports.Fleets.open_rollouts`."""
        columns = tables.rollouts.c
        statement = select(tables.rollouts).where(columns.closed.is_(False))
        if owner is not None:
            statement = statement.where(columns.owner == owner)
        rows = await self._connection.execute(statement.order_by(columns.created_ms, columns.id))
        return [_rollout(row) for row in rows.mappings()]

    async def save(self, rollout: Rollout) -> None:
        """See `services.fleet_ports.Fleets.save`."""
        columns = tables.rollouts.c
        known = select(columns.state, columns.wave, columns.reason).where(columns.id == rollout.id)
        before = (await self._connection.execute(known)).first()
        if before is None or tuple(before) != (rollout.state.value, rollout.wave, rollout.reason):
            await self._tell(rollout)
        await self._connection.execute(
            update(tables.rollouts).where(tables.rollouts.c.id == rollout.id).values(**_row(rollout))
        )

    async def _tell(self, rollout: Rollout) -> None:
        told: dict[str, Value] = {
            "name": rollout.name, "release": rollout.release_id, "state": rollout.state.value, "phase": rollout.wave,
            "reason": rollout.reason, "devices": rollout.members,
        }  # fmt: skip
        await emit(self._connection, rollout.owner, "rollout.changed", rollout.id, told, rollout.modified_ms)

    # -- the lease ---------------------------------------------------------------------------------------------------

    async def lease(self, name: str, holder: str, *, now_ms: int, until_ms: int) -> bool:
        """See `services.fleet_ports.Fleets.lease`."""
        columns = tables.leases.c
        statement = upsert(self._connection, tables.leases).values(name=name, holder=holder, until_ms=until_ms)
        mine = or_(columns.holder == holder, columns.until_ms < now_ms)
        done = await self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=["name"], set_={"holder": holder, "until_ms": until_ms}, where=mine
            )
        )
        return done.rowcount == 1

    async def holds(self, name: str, holder: str) -> bool:
        """See `services.fleet_ports.Fleets.holds`."""
        columns = tables.leases.c
        statement = select(columns.holder).where(and_(columns.name == name, columns.holder == holder))
        if self._locking:
            statement = statement.with_for_update(read=True)
        return await self._connection.scalar(statement) is not None
