"""Trails and steps in SQL. A trail's owner and visibility are its device's, joined at each read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, String, and_, case, cast, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from brickless.hub.adapters import tables
from brickless.hub.adapters.sql_devices import COLUMNS, device_from
from brickless.hub.adapters.sql_events import emit_of_device
from brickless.hub.adapters.sql_feed import feed
from brickless.hub.domain import progress as progress_words
from brickless.hub.domain.containers import parts_of
from brickless.hub.domain.filters import StatusFilter
from brickless.hub.domain.jsontext import Value, load_stored
from brickless.hub.domain.values import Step, Summary, Trail

_STEP = (
    "trail_id", "rev", "owner", "committer", "commit_msg", "state", "state_sha", "meta", "used_objects", "status",
    "progress", "progress_ms", "step_ms", "created_ms", "modified_ms", "progress_log",
)  # fmt: skip
#: The large parts of a step, which a fleet list does not show.
_LARGE = frozenset({"state", "progress_log"})
_LIVE = tables.devices.c.garbage.is_(False)


def _step(row: RowMapping) -> Step:
    return Step(**{name: row[name] for name in _STEP})


def _trail(row: RowMapping) -> Trail:
    return Trail(
        row["id"], row["owner"], row["public"], row["factory_state"], row["used_objects"], row["last_insync_ms"],
        row["last_touched_ms"],
    )  # fmt: skip


def _trails() -> Select[Any]:
    joined = tables.trails.join(tables.devices, tables.devices.c.id == tables.trails.c.id)
    return select(tables.trails, tables.devices.c.owner, tables.devices.c.public).select_from(joined).where(_LIVE)


async def note_parts(connection: AsyncConnection, state: bytes, sha: str) -> None:
    """What is searched by container; the same state is noted once."""
    rows = parts_of(state, sha)
    if rows:
        dialect: Any = postgresql if connection.dialect.name == "postgresql" else sqlite
        await connection.execute(dialect.insert(tables.state_parts).on_conflict_do_nothing(), rows)


def posted(step: Step) -> dict[str, Value]:
    """What the event of a new step tells."""
    return {"rev": step.rev, "state-sha": step.state_sha, "commit-msg": step.commit_msg[:200]}


class SqlTrails:
    """`services.ports.Trails` over one connection; `locking` makes reads hold what a transaction will change."""

    def __init__(self, connection: AsyncConnection, *, locking: bool) -> None:
        self._connection = connection
        self._locking = locking

    async def add(self, trail: Trail) -> bool:
        """See `services.ports.Trails.add`."""
        row = {
            "id": trail.id,
            "factory_state": trail.factory_state,
            "used_objects": trail.used_objects,
            "last_insync_ms": trail.last_insync_ms,
            "last_touched_ms": trail.last_touched_ms,
            "newest_rev": 0,
            "reported_rev": 0,
            "done_rev": 0,
        }
        try:
            async with self._connection.begin_nested():
                await self._connection.execute(insert(tables.trails).values(**row))
        except IntegrityError:
            return False
        return True

    async def get(self, trail_id: str) -> Trail | None:
        """See `services.ports.Trails.get`."""
        statement = _trails().where(tables.trails.c.id == trail_id)
        if self._locking:
            # Two posters of the same trail take turns: that is what makes the next revision number unique.
            statement = statement.with_for_update(of=tables.trails)
        row = (await self._connection.execute(statement)).mappings().first()
        return None if row is None else _trail(row)

    async def of(self, owner: str) -> list[Trail]:
        """See `services.ports.Trails.of`."""
        statement = _trails().where(tables.devices.c.owner == owner).order_by(tables.trails.c.id)
        return [_trail(row) for row in (await self._connection.execute(statement)).mappings()]

    async def touch(self, trail_id: str, now_ms: int, *, insync: bool = False) -> None:
        """See `services.ports.Trails.touch`."""
        values = {"last_touched_ms": now_ms, **({"last_insync_ms": now_ms} if insync else {})}
        await self._connection.execute(update(tables.trails).where(tables.trails.c.id == trail_id).values(**values))

    async def newest_rev(self, trail_id: str) -> int | None:
        """See `services.ports.Trails.newest_rev`."""
        found = await self._connection.scalar(select(tables.trails.c.newest_rev).where(tables.trails.c.id == trail_id))
        return found if isinstance(found, int) else None

    async def add_step(self, step: Step, objects: Iterable[str]) -> bool:
        """See `services.ports.Trails.add_step`."""
        try:
            async with self._connection.begin_nested():
                await self._connection.execute(
                    insert(tables.steps).values(**{name: getattr(step, name) for name in _STEP})
                )
        except IntegrityError:
            return False
        await self._add_objects(step.trail_id, step.rev, objects)
        await note_parts(self._connection, step.state, step.state_sha)
        if step.rev:
            await self._connection.execute(
                update(tables.trails).where(tables.trails.c.id == step.trail_id).values(newest_rev=step.rev)
            )
        await emit_of_device(self._connection, step.trail_id, "step.posted", posted(step), step.modified_ms)
        return True

    async def _add_objects(self, trail_id: str, rev: int, objects: Iterable[str]) -> None:
        rows = [{"sha": sha, "trail_id": trail_id, "rev": rev} for sha in objects]
        if rows:
            await self._connection.execute(insert(tables.step_objects), rows)

    async def step(self, trail_id: str, rev: int) -> Step | None:
        """See `services.ports.Trails.step`."""
        statement = select(tables.steps).where(tables.steps.c.trail_id == trail_id, tables.steps.c.rev == rev)
        if self._locking:
            statement = statement.with_for_update()
        row = (await self._connection.execute(statement)).mappings().first()
        return None if row is None else _step(row)

    async def steps(
        self, trail_id: str, status: StatusFilter, *, after_rev: int | None, offset: int, limit: int | None
    ) -> list[Step]:
        """See `services.ports.Trails.steps`."""
        statement = select(tables.steps).where(tables.steps.c.trail_id == trail_id)
        if status.words is not None:
            words = sorted(status.words)
            column = tables.steps.c.status
            statement = statement.where(column.in_(words) if status.include else column.not_in(words))
        if after_rev is not None:
            statement = statement.where(tables.steps.c.rev > after_rev)
        statement = statement.order_by(tables.steps.c.rev).offset(offset).limit(limit)
        return [_step(row) for row in (await self._connection.execute(statement)).mappings()]

    async def _update_step(self, trail_id: str, rev: int, **values: Any) -> bool:
        statement = update(tables.steps).where(tables.steps.c.trail_id == trail_id, tables.steps.c.rev == rev)
        done = await self._connection.execute(statement.values(**values))
        return done.rowcount == 1

    async def set_progress(
        self,
        trail_id: str,
        rev: int,
        *,
        status: str,
        progress: str,
        progress_ms: int | None,
        modified_ms: int,
        source: str = "device",
    ) -> bool:
        """See `services.ports.Trails.set_progress`."""
        columns = tables.steps.c
        log = await self._connection.scalar(
            select(columns.progress_log).where(columns.trail_id == trail_id, columns.rev == rev)
        )
        if log is None:
            return False
        values: dict[str, Any] = {
            "status": status,
            "progress": progress,
            "modified_ms": modified_ms,
            "progress_log": progress_words.logged(log, load_stored(progress), source=source, now_ms=modified_ms),
        }
        if progress_ms is not None:
            values["progress_ms"] = progress_ms
        done = await self._update_step(trail_id, rev, **values)
        if done and progress_ms is not None:
            # A report of an older revision that comes late, or twice, takes nothing back.
            newest = case((tables.trails.c.done_rev < rev, rev), else_=tables.trails.c.done_rev)
            reached: dict[str, Any] = {"done_rev": newest} if status in progress_words.REACHED else {}
            await self._connection.execute(
                update(tables.trails).where(tables.trails.c.id == trail_id).values(reported_rev=rev, **reached)
            )
        if done:
            data: dict[str, Value] = {"rev": rev, "status": status, "progress": load_stored(progress)}
            await emit_of_device(self._connection, trail_id, "step.progress", data, modified_ms)
        return done

    async def set_meta(self, trail_id: str, rev: int, meta: str, modified_ms: int) -> bool:
        """See `services.ports.Trails.set_meta`."""
        return await self._update_step(trail_id, rev, meta=meta, modified_ms=modified_ms)

    async def set_state(
        self, trail_id: str, rev: int, *, state: bytes, sha: str, used: str, objects: Iterable[str], modified_ms: int
    ) -> None:
        """See `services.ports.Trails.set_state`."""
        await self._update_step(trail_id, rev, state=state, state_sha=sha, used_objects=used, modified_ms=modified_ms)
        where = and_(tables.step_objects.c.trail_id == trail_id, tables.step_objects.c.rev == rev)
        await self._connection.execute(delete(tables.step_objects).where(where))
        await self._add_objects(trail_id, rev, objects)
        await note_parts(self._connection, state, sha)

    async def changed(self, owner: str, *, after_ms: int | None, before_ms: int | None, limit: int) -> list[Trail]:
        """See `services.ports.Trails.changed`."""
        columns = tables.trails.c
        rows = await feed(
            self._connection, _trails().where(tables.devices.c.owner == owner), columns.last_touched_ms, columns.id,
            after_ms=after_ms, before_ms=before_ms, limit=limit,
        )  # fmt: skip
        return [_trail(row) for row in rows]

    async def changed_steps(self, owner: str, *, after_ms: int | None, before_ms: int | None, limit: int) -> list[Step]:
        """See `services.ports.Trails.changed_steps`."""
        columns = tables.steps.c
        joined = tables.steps.join(tables.devices, tables.devices.c.id == columns.trail_id)
        statement = select(tables.steps).select_from(joined).where(_LIVE, columns.owner == owner)
        statement = statement.where(tables.devices.c.owner == owner)
        rows = await feed(
            self._connection, statement, columns.modified_ms, columns.trail_id + cast(columns.rev, String),
            after_ms=after_ms, before_ms=before_ms, limit=limit,
        )  # fmt: skip
        return [_step(row) for row in rows]

    async def names(self, trail_id: str, sha: str) -> bool:
        """See `services.ports.Trails.names`."""
        where = and_(tables.step_objects.c.sha == sha, tables.step_objects.c.trail_id == trail_id)
        return await self._connection.scalar(select(tables.step_objects.c.sha).where(where).limit(1)) is not None

    async def objects_of(self, trail_id: str) -> list[str]:
        """See `services.ports.Trails.objects_of`."""
        where = tables.step_objects.c.trail_id == trail_id
        return list(await self._connection.scalars(select(tables.step_objects.c.sha).where(where).distinct()))

    async def summaries(
        self, owner: str, device_id: str | None, *, limit: int | None = None, without_trail: bool = False
    ) -> list[Summary]:
        """See `services.ports.Trails.summaries`."""
        newest, reported = tables.steps.alias("newest"), tables.steps.alias("reported")
        joined = (
            tables.devices.join(tables.trails, tables.devices.c.id == tables.trails.c.id, isouter=without_trail)
            .join(newest, _at(newest, tables.trails.c.newest_rev), isouter=without_trail)
            .join(reported, _at(reported, tables.trails.c.reported_rev), isouter=without_trail)
        )
        columns = [
            *(tables.devices.c[name] for name in COLUMNS),
            tables.trails.c.last_touched_ms,
            tables.trails.c.newest_rev,
            newest.c.state_sha.label("newest_sha"),
            newest.c.step_ms.label("newest_step_ms"),
            newest.c.progress.label("newest_progress"),
            tables.trails.c.done_rev,
            *(reported.c[name].label(f"reported_{name}") for name in _STEP if name not in _LARGE),
        ]
        statement = select(*columns).select_from(joined).where(_LIVE, tables.devices.c.owner == owner)
        if device_id is not None:
            statement = statement.where(tables.devices.c.id == device_id)
        rows = await self._connection.execute(statement.order_by(tables.devices.c.nick).limit(limit))
        return [_summary(row) for row in rows.mappings()]


def _at(steps: Any, rev: ColumnElement[int]) -> ColumnElement[bool]:
    return and_(steps.c.trail_id == tables.trails.c.id, steps.c.rev == rev)


def _summary(row: RowMapping) -> Summary:
    if row["newest_rev"] is None:
        return Summary(device_from(row), 0, -1, "", 0, "{}", -1)
    reported = {name: row[f"reported_{name}"] for name in _STEP if name not in _LARGE}
    return Summary(
        device_from(row), row["last_touched_ms"], row["newest_rev"], row["newest_sha"], row["newest_step_ms"],
        row["newest_progress"], row["done_rev"], Step(state=b"", **reported),
    )  # fmt: skip
