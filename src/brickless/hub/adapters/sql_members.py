"""Devices of rollouts, and the trails of many devices at once, in SQL."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import RowMapping, and_, bindparam, func, insert, not_, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from brickless.hub.adapters import fleet_tables, tables
from brickless.hub.adapters.sql_events import batches, emit_of_devices
from brickless.hub.adapters.sql_fleets import upsert
from brickless.hub.adapters.sql_trails import note_parts, posted
from brickless.hub.domain import progress as words
from brickless.hub.domain.fleet import NEVER_MS, OPEN, UNJUDGED, Member, MemberState
from brickless.hub.domain.jsontext import Value, load_stored
from brickless.hub.domain.rollout_rule import BAD, Verdict
from brickless.hub.domain.values import Step
from brickless.hub.services.fleet_ports import Head, Judged, News, Verdicts

_members = fleet_tables.rollout_members
_rollouts = fleet_tables.rollouts
_PLAIN = (
    "rollout_id", "device_id", "reason", "wave", "position", "deadline_ms", "due_ms", "changed_ms", "not_before_ms",
    "number", "rev", "base_rev", "took_rev", "deferrals", "seen_ms", "seen_status",
)  # fmt: skip
_COLUMNS = (*_PLAIN, "state", "verdict", "undone", "busy", "watched")
_KEY = ("rollout_id", "device_id")
_OPEN = sorted(state.value for state in OPEN)
_UNJUDGED = sorted(state.value for state in UNJUDGED)
_BAD = sorted(verdict.value for verdict in BAD)
#: Beyond the number of any member.
NEVER_NUMBER = 2**31 - 1
_STEP = (
    "trail_id", "rev", "owner", "committer", "commit_msg", "state", "state_sha", "meta", "used_objects", "status",
    "progress", "progress_ms", "step_ms", "created_ms", "modified_ms",
)  # fmt: skip
#: States in which a newer revision on the trail takes the place of the rollout's.
_REPLACEABLE = sorted(
    state.value for state in (MemberState.OFFERED, MemberState.UPDATING, MemberState.DEFERRED, MemberState.GOING_BACK)
)


def _member(row: RowMapping) -> Member:
    return Member(
        **{name: row[name] for name in _PLAIN},
        state=MemberState(row["state"]),
        verdict=Verdict(row["verdict"]) if row["verdict"] else None,
        undone=tuple((release_id, rev) for release_id, rev in json.loads(row["undone"])) if row["undone"] else (),
    )


def _row(member: Member) -> dict[str, Any]:
    return {
        **{name: getattr(member, name) for name in _PLAIN},
        "state": member.state.value,
        "verdict": member.verdict.value if member.verdict else None,
        "undone": json.dumps(member.undone) if member.undone else "",
        "busy": member.busy,
        "watched": member.watched,
    }


class SqlMembers:
    """`services.fleet_ports.Members` over one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def _all(self, statement: Any) -> list[Member]:
        return [_member(row) for row in (await self._connection.execute(statement)).mappings()]

    async def add(self, members: Sequence[Member]) -> None:
        """See `services.fleet_ports.Members.add`."""
        if members:
            statement = upsert(self._connection, _members).on_conflict_do_nothing(index_elements=list(_KEY))
            await self._connection.execute(statement, [_row(member) for member in members])

    async def get(self, rollout_id: str, device_ids: Iterable[str]) -> dict[str, Member]:
        """See `services.fleet_ports.Members.get`."""
        found: dict[str, Member] = {}
        for batch in batches(device_ids):
            where = (_members.c.rollout_id == rollout_id, _members.c.device_id.in_(batch))
            found.update((one.device_id, one) for one in await self._all(select(_members).where(*where)))
        return found

    async def page(
        self, rollout_id: str, *, state: MemberState | None, after: str, limit: int
    ) -> list[tuple[Member, str]]:
        """See `services.fleet_ports.Members.page`."""
        joined = _members.join(tables.devices, tables.devices.c.id == _members.c.device_id)
        statement = select(_members, tables.devices.c.nick).select_from(joined)
        statement = statement.where(_members.c.rollout_id == rollout_id, _members.c.device_id > after)
        if state is not None:
            statement = statement.where(_members.c.state == state.value)
        rows = await self._connection.execute(statement.order_by(_members.c.device_id).limit(limit))
        return [(_member(row), row["nick"]) for row in rows.mappings()]

    async def of_device(self, device_id: str) -> list[Member]:
        """See `services.fleet_ports.Members.of_device`."""
        statement = select(_members).where(_members.c.device_id == device_id)
        return await self._all(statement.order_by(_members.c.changed_ms.desc()))

    async def counts(self, rollout_ids: Iterable[str]) -> dict[str, dict[MemberState, int]]:
        """See `services.fleet_ports.Members.counts`."""
        found: dict[str, dict[MemberState, int]] = {}
        for batch in batches(rollout_ids):
            columns = (_members.c.rollout_id, _members.c.state)
            statement = select(*columns, func.count()).where(_members.c.rollout_id.in_(batch)).group_by(*columns)
            for rollout_id, state, count in await self._connection.execute(statement):
                found.setdefault(rollout_id, {})[MemberState(state)] = count
        return found

    async def save(self, members: Sequence[Member]) -> None:
        """See `services.fleet_ports.Members.save`."""
        if not members:
            return
        values: dict[str, Any] = {name: bindparam(name) for name in _COLUMNS if name not in _KEY}
        where = and_(_members.c.rollout_id == bindparam("key_rollout"), _members.c.device_id == bindparam("key_device"))
        rows = []
        # Who gives a device free comes first: the lock of a device is a unique index.
        for member in sorted(members, key=lambda one: one.busy):
            row = _row(member)
            rows.append({"key_rollout": row.pop("rollout_id"), "key_device": row.pop("device_id"), **row})
        await self._connection.execute(update(_members).where(where).values(**values), rows)

    async def news(self, rollout_id: str | None, limit: int) -> list[News]:
        """See `services.fleet_ports.Members.news`."""
        steps, trails = tables.steps, tables.trails
        joined = _members.join(
            steps, and_(steps.c.trail_id == _members.c.device_id, steps.c.rev == _members.c.rev)
        ).join(trails, trails.c.id == _members.c.device_id)
        went_on = and_(_members.c.state.in_(_REPLACEABLE), trails.c.newest_rev > _members.c.rev)
        said = or_(steps.c.progress_ms != _members.c.seen_ms, steps.c.status != _members.c.seen_status)
        statement = select(_members, steps.c.status, steps.c.progress, steps.c.progress_ms, trails.c.newest_rev).where(
            _members.c.watched.is_(True), or_(said, went_on)
        )
        if rollout_id is None:
            joined = joined.join(_rollouts, _rollouts.c.id == _members.c.rollout_id)
            statement = statement.where(_rollouts.c.closed.is_(True))
        else:
            statement = statement.where(_members.c.rollout_id == rollout_id)
        rows = await self._connection.execute(statement.select_from(joined).limit(limit))
        return [
            News(_member(row), row["status"], row["progress"], row["progress_ms"], row["newest_rev"])
            for row in rows.mappings()
        ]

    async def due(self, rollout_id: str, now_ms: int, limit: int) -> list[Member]:
        """See `services.fleet_ports.Members.due`."""
        where = (_members.c.rollout_id == rollout_id, _members.c.due_ms <= now_ms)
        return await self._all(select(_members).where(*where).order_by(_members.c.due_ms).limit(limit))

    async def _least(self, column: Any, *where: Any) -> int:
        found = await self._connection.scalar(select(func.min(column)).where(*where))
        return NEVER_MS if found is None else int(found)

    async def next_due_ms(self, rollout_id: str) -> int:
        """See `services.fleet_ports.Members.next_due_ms`."""
        return await self._least(_members.c.due_ms, _members.c.rollout_id == rollout_id)

    @staticmethod
    def _waiting(rollout_id: str, wave: int) -> tuple[Any, ...]:
        return (
            _members.c.rollout_id == rollout_id,
            _members.c.state == MemberState.WAITING.value,
            _members.c.wave <= wave,
        )

    async def queue(self, rollout_id: str, *, wave: int, now_ms: int, limit: int) -> list[Member]:
        """See `services.fleet_ports.Members.queue`."""
        statement = select(_members).where(*self._waiting(rollout_id, wave), _members.c.not_before_ms <= now_ms)
        order = ((_members.c.number < 0), _members.c.wave, _members.c.position)
        return await self._all(statement.order_by(*order).limit(limit))

    async def next_turn_ms(self, rollout_id: str, *, wave: int) -> int:
        """See `services.fleet_ports.Members.next_turn_ms`."""
        return await self._least(_members.c.not_before_ms, *self._waiting(rollout_id, wave))

    async def verdicts(self, rollout_id: str, frontier: int) -> Verdicts:
        """See `services.fleet_ports.Members.verdicts`."""
        number, verdict = _members.c.number, _members.c.verdict
        here = (_members.c.rollout_id == rollout_id, number >= frontier)
        unjudged = select(number).where(*here, verdict.is_(None), _members.c.state.in_(_UNJUDGED))
        end = await self._connection.scalar(unjudged.order_by(number).limit(1))
        end = NEVER_NUMBER if end is None else int(end)
        rows = await self._connection.execute(select(number, verdict).where(*here, number < end).order_by(number))
        early = select(func.count()).select_from(_members).where(here[0], number > end, verdict.in_(_BAD))
        early_bad = 0 if end == NEVER_NUMBER else int(await self._connection.scalar(early) or 0)
        return Verdicts([Judged(one, Verdict(said) if said else None) for one, said in rows], early_bad)

    async def open_in(self, rollout_id: str, *, wave: int | None = None) -> int:
        """See `services.fleet_ports.Members.open_in`."""
        where = [_members.c.rollout_id == rollout_id, _members.c.state.in_(_OPEN)]
        if wave is not None:
            where.append(_members.c.wave <= wave)
        return int(await self._connection.scalar(select(func.count()).select_from(_members).where(*where)) or 0)

    async def last_wave(self, rollout_id: str) -> int:
        """See `services.fleet_ports.Members.last_wave`."""
        found = await self._connection.scalar(
            select(func.max(_members.c.wave)).where(_members.c.rollout_id == rollout_id)
        )
        return -1 if found is None else int(found)

    async def halt(self, rollout_id: str, reason: str, now_ms: int) -> int:
        """See `services.fleet_ports.Members.halt`."""
        waiting = or_(
            _members.c.state == MemberState.WAITING.value,
            and_(_members.c.state == MemberState.DEFERRED.value, _members.c.rev == 0),
        )
        done = await self._connection.execute(
            update(_members)
            .where(_members.c.rollout_id == rollout_id, waiting)
            .values(
                state=MemberState.WITHDRAWN.value, reason=reason, due_ms=NEVER_MS, deadline_ms=NEVER_MS,
                changed_ms=now_ms,
            )
        )  # fmt: skip
        return done.rowcount

    async def in_state(self, rollout_id: str, states: Iterable[MemberState], limit: int) -> list[Member]:
        """See `services.fleet_ports.Members.in_state`."""
        where = (_members.c.rollout_id == rollout_id, _members.c.state.in_(sorted(state.value for state in states)))
        return await self._all(select(_members).where(*where).limit(limit))

    async def took(self, rollout_id: str, now_ms: int, limit: int) -> list[Member]:
        """See `services.fleet_ports.Members.took`."""
        states = (MemberState.UPDATED, MemberState.SILENT, MemberState.WITHDRAWN, MemberState.DECLINED)
        where = (
            _members.c.rollout_id == rollout_id,
            _members.c.took_rev > 0,
            _members.c.not_before_ms <= now_ms,
            _members.c.state.in_(sorted(state.value for state in states)),
        )
        return await self._all(select(_members).where(*where).limit(limit))

    async def elsewhere(self, rollout_id: str, device_ids: Iterable[str], *, since_ms: int) -> list[Member]:
        """See `services.fleet_ports.Members.elsewhere`."""
        found: list[Member] = []
        joined = _members.join(_rollouts, _rollouts.c.id == _members.c.rollout_id)
        for batch in batches(device_ids):
            statement = select(_members).select_from(joined)
            statement = statement.where(
                _members.c.device_id.in_(batch),
                _members.c.rollout_id != rollout_id,
                or_(_members.c.busy.is_(True), not_(_rollouts.c.closed), _rollouts.c.modified_ms >= since_ms),
            )
            found += await self._all(statement)
        return found


class SqlFleetTrails:
    """`services.fleet_ports.FleetTrails` over one connection; `locking` as in `SqlTrails`."""

    def __init__(self, connection: AsyncConnection, *, locking: bool) -> None:
        self._connection = connection
        self._locking = locking

    async def heads(self, device_ids: Iterable[str]) -> dict[str, Head]:
        """See `services.fleet_ports.FleetTrails.heads`. Trails are held in the order of their ids: no deadlocks."""
        devices, trails, steps = tables.devices, tables.trails, tables.steps
        joined = trails.join(devices, devices.c.id == trails.c.id).join(
            steps, and_(steps.c.trail_id == trails.c.id, steps.c.rev == trails.c.newest_rev)
        )
        found: dict[str, Head] = {}
        for batch in batches(sorted(device_ids)):
            statement = select(
                trails.c.id, devices.c.owner, trails.c.newest_rev, steps.c.status, steps.c.committer,
                trails.c.done_rev, devices.c.device_meta,
            )  # fmt: skip
            statement = statement.select_from(joined).where(trails.c.id.in_(batch), devices.c.garbage.is_(False))
            if self._locking:
                statement = statement.with_for_update(of=trails)
            for row in await self._connection.execute(statement.order_by(trails.c.id)):
                found[row.id] = Head(*row)
        return found

    async def hashes(self, revs: Iterable[tuple[str, int]]) -> dict[tuple[str, int], str]:
        """See `services.fleet_ports.FleetTrails.hashes`."""
        columns = tables.steps.c
        found: dict[tuple[str, int], str] = {}
        for batch in batches(revs):
            statement = select(columns.trail_id, columns.rev, columns.state_sha)
            rows = await self._connection.execute(statement.where(tuple_(columns.trail_id, columns.rev).in_(batch)))
            found.update(((row.trail_id, row.rev), row.state_sha) for row in rows)
        return found

    async def state(self, trail_id: str, rev: int) -> bytes:
        """See `services.fleet_ports.FleetTrails.state`."""
        columns = tables.steps.c
        found = await self._connection.scalar(
            select(columns.state).where(columns.trail_id == trail_id, columns.rev == rev)
        )
        return b"{}" if found is None else bytes(found)

    async def add_steps(self, steps: Sequence[Step], objects: Mapping[str, tuple[str, ...]]) -> None:
        """See `services.fleet_ports.FleetTrails.add_steps`."""
        if not steps:
            return
        await self._connection.execute(
            insert(tables.steps), [{name: getattr(s, name) for name in _STEP} for s in steps]
        )
        states = {step.state_sha: step.state for step in steps}
        for sha, state in states.items():
            await note_parts(self._connection, state, sha)
        named = [
            {"sha": sha, "trail_id": step.trail_id, "rev": step.rev}
            for step in steps
            for sha in objects[step.state_sha]
        ]
        if named:
            await self._connection.execute(insert(tables.step_objects), named)
        statement = update(tables.trails).where(tables.trails.c.id == bindparam("key"))
        await self._connection.execute(
            statement.values(newest_rev=bindparam("rev"), last_touched_ms=bindparam("now_ms")),
            [{"key": step.trail_id, "rev": step.rev, "now_ms": step.created_ms} for step in steps],
        )
        await emit_of_devices(
            self._connection, "step.posted", {step.trail_id: posted(step) for step in steps}, steps[0].modified_ms
        )

    async def cancel_new(self, revs: Iterable[tuple[str, int]], *, progress: str, now_ms: int) -> set[tuple[str, int]]:
        """See `services.fleet_ports.FleetTrails.cancel_new`."""
        columns = tables.steps.c
        found: set[tuple[str, int]] = set()
        for batch in batches(revs):
            statement = update(tables.steps).where(
                tuple_(columns.trail_id, columns.rev).in_(batch), columns.status == words.NEW
            )
            statement = statement.values(status=words.CANCEL, progress=progress, modified_ms=now_ms)
            rows = await self._connection.execute(statement.returning(columns.trail_id, columns.rev))
            found.update((row.trail_id, row.rev) for row in rows)
        told: dict[str, dict[str, Value]] = {
            trail_id: {"rev": rev, "status": words.CANCEL, "progress": load_stored(progress)} for trail_id, rev in found
        }
        await emit_of_devices(self._connection, "step.progress", told, now_ms)
        return found
