"""The hub's database in memory, as far as fleets need it: for simulations of ten thousand devices in seconds.

It implements the same Protocols as the SQL adapters, and tests/unit/hub/test_fleet_stores.py asks both the same. One
unit of work at a time; a transaction that raises is undone, step by step, from a journal.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from typing import Any, cast

from brickless.hub.domain import progress as words
from brickless.hub.domain.filters import StatusFilter
from brickless.hub.domain.fleet import NEVER_MS, OPEN, UNJUDGED, DeviceType, Member, MemberState, Release, Rollout
from brickless.hub.domain.rollout_rule import BAD
from brickless.hub.domain.values import Device, Step, StoredObject, Trail
from brickless.hub.services.fleet_ports import Head, Judged, Labelled, News, Verdicts
from brickless.hub.services.ports import Session

_TOOK = frozenset({MemberState.UPDATED, MemberState.SILENT, MemberState.WITHDRAWN, MemberState.DECLINED})
_Order = tuple[bool, int, int, str]


@dataclass(slots=True)
class Revs:
    """A trail's figures."""

    newest: int = 0
    reported: int = 0
    done: int = 0


@dataclass(slots=True)
class _Index:
    """A rollout's members, in the orders in which they are asked for."""

    members: dict[str, Member] = field(default_factory=dict)
    waiting: list[_Order] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    due: list[tuple[int, str]] = field(default_factory=list)
    counts: dict[tuple[MemberState, int], int] = field(default_factory=dict)
    watched: set[str] = field(default_factory=set)
    #: Numbers of the members that failed or fell silent.
    bad: set[int] = field(default_factory=set)


def _order(member: Member) -> _Order:
    return member.number < 0, member.wave, member.position, member.device_id


class MemoryDatabase:
    """`services.ports.Database`. `on_write` is called as each transaction ends; it may raise, as a crash would."""

    def __init__(self) -> None:
        self.devices: dict[str, Device] = {}
        self.trails: dict[str, Trail] = {}
        self.revs: dict[str, Revs] = {}
        self.steps: dict[tuple[str, int], Step] = {}
        self.objects: dict[tuple[str, str], StoredObject] = {}
        self.labels: dict[str, dict[str, str]] = {}
        self.types: dict[tuple[str, str], DeviceType] = {}
        self.releases: dict[tuple[str, str], Release] = {}
        self.rollouts: dict[str, Rollout] = {}
        self.indexes: dict[str, _Index] = {}
        self.of_device: dict[str, set[str]] = {}
        #: Devices whose steps or members changed since they were found to have no news.
        self.touched: set[str] = set()
        #: When a device was modified last: most looks for changed ones end here.
        self.newest_ms = 0
        self.leases: dict[str, tuple[str, int]] = {}
        self.journal: list[Callable[[], None]] = []
        self.on_write: Callable[[], None] = lambda: None
        self._session = _Session(self)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Session]:
        """See `services.ports.Database.read`."""
        yield cast(Session, self._session)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Session]:
        """See `services.ports.Database.write`."""
        self.journal.clear()
        try:
            yield cast(Session, self._session)
            self.on_write()
        except BaseException:
            while self.journal:
                self.journal.pop()()
            raise

    # -- writes that can be undone -----------------------------------------------------------------------------------

    def put(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        """Insert or replace; None removes."""
        before = table.get(key)

        def undo() -> None:
            if before is None:
                table.pop(key, None)
            else:
                table[key] = before

        self.journal.append(undo)
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value

    def set_revs(self, trail_id: str, **values: int) -> None:
        """Change a trail's figures."""
        revs = self.revs[trail_id]
        before = {name: getattr(revs, name) for name in values}

        def undo() -> None:
            for name, value in before.items():
                setattr(revs, name, value)

        self.journal.append(undo)
        for name, value in values.items():
            setattr(revs, name, value)
        self.touched.add(trail_id)

    def put_member(self, member: Member) -> None:
        """Insert or replace, and keep the orders right."""
        index = self.indexes.setdefault(member.rollout_id, _Index())
        before = index.members.get(member.device_id)
        if member.busy:
            self._check_lock(member)
        self.journal.append(lambda: self._place(index, member, before))
        self._place(index, before, member)

    def _check_lock(self, member: Member) -> None:
        for rollout_id in self.of_device.get(member.device_id, ()):
            other = self.indexes[rollout_id].members.get(member.device_id)
            if other is not None and rollout_id != member.rollout_id and other.busy:
                raise RuntimeError(f"device {member.device_id} is busy in rollouts {rollout_id}, {member.rollout_id}")

    def _place(self, index: _Index, before: Member | None, after: Member | None) -> None:
        """Take `before` out of the orders and put `after` in; either may be None."""
        if before is not None:
            self._take_out(index, before)
        if after is not None:
            self._put_in(index, after)
        elif before is not None:
            self.of_device[before.device_id].discard(before.rollout_id)

    @staticmethod
    def _take_out(index: _Index, before: Member) -> None:
        index.members.pop(before.device_id)
        index.counts[before.state, before.wave] -= 1
        index.watched.discard(before.device_id)
        if before.verdict in BAD:
            index.bad.discard(before.number)
        if before.state is MemberState.WAITING:
            index.waiting.pop(bisect_left(index.waiting, _order(before)))

    def _put_in(self, index: _Index, after: Member) -> None:
        index.members[after.device_id] = after
        index.counts[after.state, after.wave] = index.counts.get((after.state, after.wave), 0) + 1
        if after.watched:
            index.watched.add(after.device_id)
        if after.state is MemberState.WAITING:
            insort(index.waiting, _order(after))
        if after.due_ms < NEVER_MS:
            heappush(index.due, (after.due_ms, after.device_id))
        if after.number >= 0:
            index.numbers += [""] * (after.number + 1 - len(index.numbers))
            index.numbers[after.number] = after.device_id
            if after.verdict in BAD:
                index.bad.add(after.number)
        self.of_device.setdefault(after.device_id, set()).add(after.rollout_id)
        self.touched.add(after.device_id)


class _Session:
    """One unit of work."""

    def __init__(self, db: MemoryDatabase) -> None:
        self.devices = _Devices(db)
        self.trails = _Trails(db)
        self.objects = _Objects(db)
        self.fleets = _Fleets(db)
        self.members = _Members(db)
        self.fleet_trails = _FleetTrails(db)


class _Devices:
    def __init__(self, db: MemoryDatabase) -> None:
        self._db = db

    async def get(self, record_id: str) -> Device | None:
        found = self._db.devices.get(record_id)
        return None if found is None or found.garbage else found

    async def by_nick(self, owner: str, nick: str) -> Device | None:
        return next((one for one in self._db.devices.values() if (one.owner, one.nick) == (owner, nick)), None)

    async def add(self, device: Device) -> bool:
        self._db.put(self._db.devices, device.id, device)
        self._db.newest_ms = max(self._db.newest_ms, device.modified_ms)
        return True

    async def update(self, device: Device) -> bool:
        return await self.add(device)


class _Trails:
    def __init__(self, db: MemoryDatabase) -> None:
        self._db = db

    async def add(self, trail: Trail) -> bool:
        if trail.id in self._db.trails:
            return False
        self._db.put(self._db.trails, trail.id, trail)
        self._db.put(self._db.revs, trail.id, Revs())
        return True

    async def get(self, trail_id: str) -> Trail | None:
        device = self._db.devices.get(trail_id)
        return None if device is None or device.garbage else self._db.trails.get(trail_id)

    async def touch(self, trail_id: str, now_ms: int, *, insync: bool = False) -> None:
        trail = replace(self._db.trails[trail_id], last_touched_ms=now_ms)
        self._db.put(self._db.trails, trail_id, replace(trail, last_insync_ms=now_ms) if insync else trail)

    async def newest_rev(self, trail_id: str) -> int | None:
        revs = self._db.revs.get(trail_id)
        return None if revs is None else revs.newest

    async def add_step(self, step: Step, objects: Iterable[str]) -> bool:
        del objects
        if (step.trail_id, step.rev) in self._db.steps:
            return False
        self._db.put(self._db.steps, (step.trail_id, step.rev), step)
        self._db.set_revs(step.trail_id, newest=step.rev)
        return True

    async def step(self, trail_id: str, rev: int) -> Step | None:
        return self._db.steps.get((trail_id, rev))

    async def steps(
        self, trail_id: str, status: StatusFilter, *, after_rev: int | None, offset: int, limit: int | None
    ) -> list[Step]:
        first = 0 if after_rev is None else after_rev + 1
        revs = range(first, self._db.revs[trail_id].newest + 1)
        found = [step for rev in revs if status.accepts((step := self._db.steps[trail_id, rev]).status)]
        return found[offset:] if limit is None else found[offset : offset + limit]

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
        del source
        step = self._db.steps.get((trail_id, rev))
        if step is None:
            return False
        changed = replace(step, status=status, progress=progress, modified_ms=modified_ms)
        if progress_ms is not None:
            changed = replace(changed, progress_ms=progress_ms)
            self._db.set_revs(trail_id, reported=rev)
            if status in words.REACHED:
                self._db.set_revs(trail_id, done=max(self._db.revs[trail_id].done, rev))
        self._db.put(self._db.steps, (trail_id, rev), changed)
        self._db.touched.add(trail_id)
        return True


class _Objects:
    def __init__(self, db: MemoryDatabase) -> None:
        self._db = db

    async def kept(self, owner: str, shas: Iterable[str]) -> dict[str, StoredObject]:
        return await self.many(owner, shas)

    async def many(self, owner: str, shas: Iterable[str]) -> dict[str, StoredObject]:
        return {sha: self._db.objects[owner, sha] for sha in shas if (owner, sha) in self._db.objects}

    async def public_sources(self, shas: Iterable[str]) -> dict[str, StoredObject]:
        del shas
        return {}


class _Fleets:
    """`services.fleet_ports.Fleets`."""

    def __init__(self, db: MemoryDatabase) -> None:
        self._db = db

    async def labelled(
        self, owner: str, *, since_ms: int = 0, after: str = "", limit: int | None = None, gone: bool = False
    ) -> list[Labelled]:
        if since_ms > self._db.newest_ms:
            return []
        found = [
            Labelled(one.id, one.nick, dict(self._db.labels.get(one.id, {})), one.modified_ms, one.garbage)
            for one in self._db.devices.values()
            if one.modified_ms >= since_ms and one.owner == owner and one.nick > after and (gone or not one.garbage)
        ]
        return sorted(found, key=lambda one: (one.nick, one.device_id))[:limit]

    async def labels(self, device_ids: Iterable[str]) -> dict[str, dict[str, str]]:
        return {one: dict(self._db.labels[one]) for one in device_ids if one in self._db.labels}

    async def put_labels(self, labels: Mapping[str, Mapping[str, str]], now_ms: int) -> None:
        for device_id, one in labels.items():
            self._db.put(self._db.labels, device_id, dict(one))
            self._db.put(self._db.devices, device_id, replace(self._db.devices[device_id], modified_ms=now_ms))
        self._db.newest_ms = max(self._db.newest_ms, now_ms)

    async def types(self, owner: str) -> list[DeviceType]:
        return [one for key, one in sorted(self._db.types.items()) if key[0] == owner]

    async def put_type(self, value: DeviceType) -> None:
        self._db.put(self._db.types, (value.owner, value.name), value)

    async def remove_type(self, owner: str, name: str) -> bool:
        known = (owner, name) in self._db.types
        self._db.put(self._db.types, (owner, name), None)
        return known

    async def add_release(self, release: Release, objects: Iterable[str]) -> bool:
        del objects
        if await self.release(release.owner, release.id) or await self.release(release.owner, release.name):
            return False
        self._db.put(self._db.releases, (release.owner, release.id), release)
        return True

    async def release(self, owner: str, name: str) -> Release | None:
        known = self._db.releases.get((owner, name))
        named = (one for one in self._db.releases.values() if (one.owner, one.name) == (owner, name))
        return known or next(named, None)

    async def releases(self, owner: str, *, offset: int, limit: int) -> list[Release]:
        mine = [one for one in self._db.releases.values() if one.owner == owner]
        return sorted(mine, key=lambda one: (-one.created_ms, one.id))[offset : offset + limit]

    async def remove_release(self, owner: str, record_id: str) -> None:
        self._db.put(self._db.releases, (owner, record_id), None)

    async def release_in_use(self, owner: str, record_id: str) -> bool:
        return any((one.owner, one.release_id) == (owner, record_id) for one in self._db.rollouts.values())

    async def add_rollout(self, rollout: Rollout) -> bool:
        if await self.named(rollout.owner, rollout.name):
            return False
        self._db.put(self._db.rollouts, rollout.id, rollout)
        return True

    async def rollout(self, record_id: str) -> Rollout | None:
        return self._db.rollouts.get(record_id)

    async def named(self, owner: str, name: str) -> Rollout | None:
        return next((one for one in self._db.rollouts.values() if (one.owner, one.name) == (owner, name)), None)

    async def rollouts(self, owner: str, *, offset: int, limit: int) -> list[Rollout]:
        mine = [one for one in self._db.rollouts.values() if one.owner == owner]
        return sorted(mine, key=lambda one: (-one.created_ms, one.id))[offset : offset + limit]

    async def open_rollouts(self, owner: str | None = None) -> list[Rollout]:
        found = [one for one in self._db.rollouts.values() if not one.closed and owner in {None, one.owner}]
        return sorted(found, key=lambda one: (one.created_ms, one.id))

    async def save(self, rollout: Rollout) -> None:
        self._db.put(self._db.rollouts, rollout.id, rollout)

    async def lease(self, name: str, holder: str, *, now_ms: int, until_ms: int) -> bool:
        known = self._db.leases.get(name)
        if known is not None and known[0] != holder and known[1] >= now_ms:
            return False
        self._db.put(self._db.leases, name, (holder, until_ms))
        return True

    async def holds(self, name: str, holder: str) -> bool:
        known = self._db.leases.get(name)
        return known is not None and known[0] == holder


class _Members:
    """`services.fleet_ports.Members`."""

    def __init__(self, db: MemoryDatabase) -> None:
        self._db = db

    def _index(self, rollout_id: str) -> _Index:
        return self._db.indexes.setdefault(rollout_id, _Index())

    async def add(self, members: Sequence[Member]) -> None:
        for member in members:
            if member.device_id not in self._index(member.rollout_id).members:
                self._db.put_member(member)

    async def get(self, rollout_id: str, device_ids: Iterable[str]) -> dict[str, Member]:
        members = self._index(rollout_id).members
        return {device_id: members[device_id] for device_id in device_ids if device_id in members}

    async def page(
        self, rollout_id: str, *, state: MemberState | None, after: str, limit: int
    ) -> list[tuple[Member, str]]:
        found = sorted(self._index(rollout_id).members.items())
        chosen = [one for key, one in found if key > after and state in {None, one.state}]
        return [(one, self._db.devices[one.device_id].nick) for one in chosen[:limit]]

    async def of_device(self, device_id: str) -> list[Member]:
        found = [self._index(one).members[device_id] for one in self._db.of_device.get(device_id, ())]
        return sorted(found, key=lambda one: -one.changed_ms)

    async def counts(self, rollout_ids: Iterable[str]) -> dict[str, dict[MemberState, int]]:
        found: dict[str, dict[MemberState, int]] = {}
        for rollout_id in rollout_ids:
            sums: dict[MemberState, int] = {}
            for (state, _), count in self._index(rollout_id).counts.items():
                if count:
                    sums[state] = sums.get(state, 0) + count
            if sums:
                found[rollout_id] = sums
        return found

    async def save(self, members: Sequence[Member]) -> None:
        for member in sorted(members, key=lambda one: one.busy):
            self._db.put_member(member)

    async def news(self, rollout_id: str | None, limit: int) -> list[News]:
        db = self._db
        rollouts = [key for key, one in db.rollouts.items() if one.closed] if rollout_id is None else [rollout_id]
        found: list[News] = []
        for key in rollouts:
            index = self._index(key)
            watched = index.watched & db.touched if rollout_id is not None else index.watched
            for device_id in sorted(watched):
                member = index.members[device_id]
                step, newest = db.steps[device_id, member.rev], db.revs[device_id].newest
                said = (step.progress_ms, step.status) != (member.seen_ms, member.seen_status)
                if said or (member.busy and newest > member.rev):
                    found.append(News(member, step.status, step.progress, step.progress_ms, newest))
                elif len(db.of_device[device_id]) == 1:
                    db.touched.discard(device_id)
                if len(found) == limit:
                    return found
        return found

    async def due(self, rollout_id: str, now_ms: int, limit: int) -> list[Member]:
        index = self._index(rollout_id)
        found: dict[str, Member] = {}
        while index.due and index.due[0][0] <= now_ms and len(found) < limit:
            due_ms, device_id = heappop(index.due)
            member = index.members.get(device_id)
            if member is not None and member.due_ms == due_ms:
                found[device_id] = member
        for member in found.values():
            # Still there until somebody writes it back.
            heappush(index.due, (member.due_ms, member.device_id))
        return list(found.values())

    async def next_due_ms(self, rollout_id: str) -> int:
        index = self._index(rollout_id)
        while index.due:
            due_ms, device_id = index.due[0]
            member = index.members.get(device_id)
            if member is not None and member.due_ms == due_ms:
                return due_ms
            heappop(index.due)
        return NEVER_MS

    async def queue(self, rollout_id: str, *, wave: int, now_ms: int, limit: int) -> list[Member]:
        index = self._index(rollout_id)
        found: list[Member] = []
        for fresh, number, _, device_id in index.waiting:
            if fresh and number > wave:
                break
            member = index.members[device_id]
            if number <= wave and member.not_before_ms <= now_ms:
                found.append(member)
                if len(found) == limit:
                    break
        return found

    async def next_turn_ms(self, rollout_id: str, *, wave: int) -> int:
        index, least_ms = self._index(rollout_id), NEVER_MS
        for _, number, _, device_id in index.waiting:
            if number <= wave:
                least_ms = min(least_ms, index.members[device_id].not_before_ms)
                if least_ms == 0:
                    break
        return least_ms

    async def verdicts(self, rollout_id: str, frontier: int) -> Verdicts:
        index = self._index(rollout_id)
        run: list[Judged] = []
        for number in range(frontier, len(index.numbers)):
            member = index.members.get(index.numbers[number])
            if member is None or member.number != number:
                continue  # a transaction that gave this number was undone
            if member.verdict is None and member.state in UNJUDGED:
                return Verdicts(run, sum(one > number for one in index.bad))
            run.append(Judged(number, member.verdict))
        return Verdicts(run, 0)

    async def open_in(self, rollout_id: str, *, wave: int | None = None) -> int:
        counts = self._index(rollout_id).counts
        return sum(
            count for (state, number), count in counts.items() if state in OPEN and (wave is None or number <= wave)
        )

    async def last_wave(self, rollout_id: str) -> int:
        return max((number for (_, number), count in self._index(rollout_id).counts.items() if count), default=-1)

    async def halt(self, rollout_id: str, reason: str, now_ms: int) -> int:
        waiting = [
            one
            for one in self._index(rollout_id).members.values()
            if one.state is MemberState.WAITING or (one.state is MemberState.DEFERRED and not one.rev)
        ]
        for one in waiting:
            self._db.put_member(
                replace(
                    one, state=MemberState.WITHDRAWN, reason=reason, due_ms=NEVER_MS, deadline_ms=NEVER_MS,
                    changed_ms=now_ms,
                )
            )  # fmt: skip
        return len(waiting)

    async def in_state(self, rollout_id: str, states: Iterable[MemberState], limit: int) -> list[Member]:
        wanted = frozenset(states)
        return [one for one in self._index(rollout_id).members.values() if one.state in wanted][:limit]

    async def took(self, rollout_id: str, now_ms: int, limit: int) -> list[Member]:
        members = self._index(rollout_id).members.values()
        found = [one for one in members if one.took_rev and one.not_before_ms <= now_ms and one.state in _TOOK]
        return found[:limit]

    async def elsewhere(self, rollout_id: str, device_ids: Iterable[str], *, since_ms: int) -> list[Member]:
        return [
            member
            for device_id in device_ids
            for other in sorted(self._db.of_device.get(device_id, ()))
            if other != rollout_id
            and (
                (member := self._index(other).members[device_id]).busy
                or not self._db.rollouts[other].closed
                or self._db.rollouts[other].modified_ms >= since_ms
            )
        ]


class _FleetTrails:
    """`services.fleet_ports.FleetTrails`."""

    def __init__(self, db: MemoryDatabase) -> None:
        self._db = db

    async def heads(self, device_ids: Iterable[str]) -> dict[str, Head]:
        found: dict[str, Head] = {}
        for device_id in device_ids:
            device, revs = self._db.devices.get(device_id), self._db.revs.get(device_id)
            if device is None or device.garbage or revs is None:
                continue
            step = self._db.steps[device_id, revs.newest]
            found[device_id] = Head(
                device_id, device.owner, revs.newest, step.status, step.committer, revs.done, device.device_meta
            )
        return found

    async def hashes(self, revs: Iterable[tuple[str, int]]) -> dict[tuple[str, int], str]:
        return {key: self._db.steps[key].state_sha for key in revs if key in self._db.steps}

    async def state(self, trail_id: str, rev: int) -> bytes:
        step = self._db.steps.get((trail_id, rev))
        return b"{}" if step is None else step.state

    async def add_steps(self, steps: Sequence[Step], objects: Mapping[str, tuple[str, ...]]) -> None:
        del objects
        for step in steps:
            self._db.put(self._db.steps, (step.trail_id, step.rev), step)
            self._db.set_revs(step.trail_id, newest=step.rev)

    async def cancel_new(self, revs: Iterable[tuple[str, int]], *, progress: str, now_ms: int) -> set[tuple[str, int]]:
        found: set[tuple[str, int]] = set()
        for key in revs:
            step = self._db.steps.get(key)
            if step is not None and step.status == words.NEW:
                changed = replace(step, status=words.CANCEL, progress=progress, modified_ms=now_ms)
                self._db.put(self._db.steps, key, changed)
                found.add(key)
        return found
