"""What moves rollouts on: hears of steps, ends what is overdue, asks the rule, gives the release to the next devices.

One replica drives at a time: it holds a lease in the database, and every transaction checks that it still does. All
that it knows is in the database; each transaction is whole by itself and is decided from what it reads inside, so a
crash anywhere, or a second driver whose lease has run out, repeats a step at worst. The number of statements of a look
depends on how many devices have news, never on the size of the fleet.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import NamedTuple

from brickless.hub.domain import fleet_phases
from brickless.hub.domain.fleet import NEVER_MS, OPEN, Member, MemberState, Release, Rollout, RolloutState
from brickless.hub.domain.fleet_machine import Event
from brickless.hub.domain.rollout_rule import Decision, decide
from brickless.hub.services.fleet_between import settled_between
from brickless.hub.services.fleet_moves import Zones, moved
from brickless.hub.services.fleet_news import absorbed
from brickless.hub.services.fleet_ports import News
from brickless.hub.services.fleet_posting import CANCELLED, Posting, recalled, withdraw
from brickless.hub.services.fleet_sync import sync
from brickless.hub.services.parts import Parts
from brickless.hub.services.ports import Session

LEASE = "rollouts"
LEASE_MS = 30_000
#: How soon news of devices that are under way is looked for, and how often without any.
BUSY_MS = 1_000
IDLE_MS = 5_000
#: How often deleted, new and relabelled devices are looked for.
SYNC_MS = 5_000
#: How often reports of devices of closed rollouts are looked for.
LATE_MS = 60_000
#: Devices in one transaction: short enough that posts and reports of others never wait long.
BATCH = 250
MAX_NEWS = 2_000


class Quiet(NamedTuple):
    """A rollout that cannot go on by itself before `until_ms`, as long as nobody modified it since."""

    modified_ms: int
    until_ms: int


class LeaseLost(Exception):  # noqa: N818 - no error: another replica drives now
    """Another replica has taken over."""


class FleetDriver:
    """Drives every rollout that is not closed. `zones` gives the offset function of a time zone."""

    def __init__(self, parts: Parts, zones: Zones, *, holder: str) -> None:
        self._parts = parts
        self._zones = zones
        self._holder = holder
        self._posting = Posting(parts, zones)
        self._lease_until_ms = 0
        self._late_at_ms = 0
        self._wake = asyncio.Event()
        #: A hint only, and lost with the process: without it a look is the same, and costs more.
        self._quiet: dict[str, Quiet] = {}
        self._planned: dict[str, Quiet] = {}

    # -- the loop ----------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Look at once, at every rollout: somebody changed one here."""
        self._planned.clear()
        self._wake.set()

    async def pause(self, until_ms: int) -> None:
        """Wait until then, or until woken."""
        wait_s = max(0.05, (until_ms - self._parts.clock.now_ms()) / 1000)
        try:
            await asyncio.wait_for(self._wake.wait(), wait_s)
        except TimeoutError:
            return
        finally:
            self._wake.clear()

    async def tick(self) -> int:
        """One look at every rollout. Returns the moment at which the next one is worth it, in milliseconds."""
        now_ms = self._parts.clock.now_ms()
        async with self._parts.db.read() as session:
            rollouts = await session.fleets.open_rollouts()
        if not rollouts and now_ms < self._late_at_ms:
            return now_ms + IDLE_MS
        if not await self._lead(now_ms):
            return now_ms + IDLE_MS
        try:
            # The one that wins where two meet goes first, so that it is never held up by the other.
            ordered = sorted(rollouts, key=lambda one: one.rank, reverse=True)
            moments = [await self._at_its_time(rollout, now_ms) for rollout in ordered]
            await self._late(now_ms)
        except LeaseLost:
            self._lease_until_ms = 0
            return now_ms + IDLE_MS
        return min([*moments, now_ms + IDLE_MS]) if not rollouts else min(moments)

    async def _lead(self, now_ms: int) -> bool:
        if now_ms < self._lease_until_ms - LEASE_MS // 2:
            return True
        until_ms = now_ms + LEASE_MS
        async with self._parts.db.write() as session:
            leads = await session.fleets.lease(LEASE, self._holder, now_ms=now_ms, until_ms=until_ms)
        self._lease_until_ms = until_ms if leads else 0
        return leads

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Session]:
        async with self._parts.db.write() as session:
            if not await session.fleets.holds(LEASE, self._holder):
                raise LeaseLost
            yield session

    # -- one rollout -------------------------------------------------------------------------------------------------

    async def _at_its_time(self, rollout: Rollout, now_ms: int) -> int:
        """Look at a rollout when its own next moment has come, or when somebody modified it."""
        planned = self._planned.get(rollout.id)
        if planned is not None and planned.modified_ms == rollout.modified_ms and now_ms < planned.until_ms:
            return planned.until_ms
        moment_ms = await self._look(rollout.id)
        self._planned[rollout.id] = Quiet(rollout.modified_ms, moment_ms)
        return moment_ms

    async def _look(self, rollout_id: str) -> int:
        """Everything that there is to do for one rollout now; returns when there is more."""
        now_ms = self._parts.clock.now_ms()
        async with self._parts.db.read() as session:
            rollout = await session.fleets.rollout(rollout_id)
        if rollout is None:
            return NEVER_MS
        changed = await self._join(rollout, now_ms)
        changed |= await self._hear(rollout_id)
        changed |= await self._end_overdue(rollout_id, now_ms)
        quiet = self._quiet.get(rollout_id)
        if not changed and quiet is not None and quiet.modified_ms == rollout.modified_ms and now_ms < quiet.until_ms:
            return await self._next(rollout_id, now_ms)
        more = await self._advance(rollout_id)
        if changed or more:
            self._parts.events.device_changed(rollout.owner, f"rollout:{rollout_id}")
        return now_ms if more else await self._next(rollout_id, now_ms)

    async def _join(self, rollout: Rollout, now_ms: int) -> bool:
        if now_ms < rollout.synced_ms + SYNC_MS:
            return False
        if rollout.state not in {RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.SETTLED}:
            return False
        async with self._transaction() as session:
            return await sync(session, rollout.id, now_ms)

    async def _hear(self, rollout_id: str) -> bool:
        async with self._parts.db.read() as session:
            news = await session.members.news(rollout_id, 1)
        if not news:
            return False
        async with self._transaction() as session:
            rollout = await session.fleets.rollout(rollout_id)
            if rollout is None:
                return False
            news = await session.members.news(rollout_id, MAX_NEWS)
            await self._take(session, {rollout_id: rollout}, news)
        return True

    async def _take(self, session: Session, rollouts: dict[str, Rollout], news: Sequence[News]) -> None:
        now_ms = self._parts.clock.now_ms()
        members, replaced = absorbed(rollouts, news, now_ms)
        members = await settled_between(
            session, {(one.member.rollout_id, one.member.device_id): one.member for one in news}, members, now_ms
        )
        await session.members.save(members)
        await withdraw(session, replaced, "somebody else's revision took its place", now_ms)
        for rollout_id in {one.rollout_id for one in members if one.state in OPEN}:
            rollout = rollouts[rollout_id]
            if rollout.closed:
                # A device took the step after all: its deadline must be kept, and a roll back goes on with it.
                back = rollout.state is RolloutState.ROLLED_BACK
                state = RolloutState.ROLLING_BACK if back else rollout.state
                await session.fleets.save(replace(rollout, closed=False, state=state, modified_ms=now_ms))

    async def _late(self, now_ms: int) -> None:
        """Reports about steps of rollouts that are over: who was silent may still speak."""
        if now_ms < self._late_at_ms:
            return
        async with self._parts.db.read() as session:
            news = await session.members.news(None, 1)
        if news:
            async with self._transaction() as session:
                news = await session.members.news(None, MAX_NEWS)
                rollouts: dict[str, Rollout] = {}
                for rollout_id in {one.member.rollout_id for one in news}:
                    if (found := await session.fleets.rollout(rollout_id)) is not None:
                        rollouts[rollout_id] = found
                await self._take(session, rollouts, news)
        self._late_at_ms = now_ms + LATE_MS

    # -- deadlines ---------------------------------------------------------------------------------------------------

    async def _end_overdue(self, rollout_id: str, now_ms: int) -> bool:
        async with self._parts.db.read() as session:
            if await session.members.next_due_ms(rollout_id) > now_ms:
                return False
        async with self._transaction() as session:
            rollout = await session.fleets.rollout(rollout_id)
            if rollout is None:
                return False
            due = await session.members.due(rollout_id, now_ms, BATCH)
            to_recall = [one for one in due if one.state is MemberState.OFFERED and one.deadline_ms > now_ms]
            done = await session.fleet_trails.cancel_new(
                ((one.device_id, one.rev) for one in to_recall), progress=CANCELLED, now_ms=now_ms
            )
            members = [
                recalled(one, rollout, "its window closed before it took the revision", now_ms)
                if (one.device_id, one.rev) in done
                else overdue(one, rollout, now_ms)
                for one in due
            ]
            await session.members.save(members)
        self._parts.changed(rollout.owner, *sorted(trail_id for trail_id, _ in done))
        return True

    # -- going on ----------------------------------------------------------------------------------------------------

    async def _advance(self, rollout_id: str) -> bool:
        """Count the evidence, ask the rule, give the release to a batch of devices. True when there is more to do."""
        devices: set[str] = set()
        async with self._transaction() as session:
            rollout = await session.fleets.rollout(rollout_id)
            if rollout is None or rollout.closed:
                return False
            before = rollout
            now_ms = self._parts.clock.now_ms()
            rollout, early_bad = await self._counted(session, rollout)
            if rollout.state in {RolloutState.RUNNING, RolloutState.SETTLED}:
                rollout, devices = await self._go_on(session, rollout, early_bad, now_ms)
            elif rollout.state is RolloutState.ROLLING_BACK:
                rollout, devices = await self._go_back(session, rollout, now_ms)
            rollout = await self._closed(session, rollout, now_ms)
            if rollout != before:
                rollout = replace(rollout, modified_ms=now_ms)
                await session.fleets.save(rollout)
            self._quiet[rollout_id] = Quiet(rollout.modified_ms, await self._quiet_until(session, rollout, early_bad))
        self._parts.changed(rollout.owner, *sorted(devices))
        return len(devices) > 0 or (rollout.state is not before.state and not rollout.closed)

    @staticmethod
    async def _quiet_until(session: Session, rollout: Rollout, early_bad: int) -> int:
        """Until when nothing can go on by itself, unless there is news."""
        if rollout.state is RolloutState.ROLLING_BACK:
            return 0
        if rollout.state is not RolloutState.RUNNING:
            return rollout.ends_ms
        until_ms = rollout.ends_ms
        if rollout.wave_since_ms:
            soak_ms = fleet_phases.soak_ms(rollout.spec.phases, rollout.wave)
            until_ms = min(until_ms, rollout.wave_since_ms + soak_ms)
        step = decide(rollout.spec.policy, rollout.members, rollout.evidence, early_bad=early_bad)
        if step.under_way_max > rollout.assigned - rollout.frontier:
            until_ms = min(until_ms, await session.members.next_turn_ms(rollout.id, wave=rollout.wave))
        return until_ms

    @staticmethod
    async def _counted(session: Session, rollout: Rollout) -> tuple[Rollout, int]:
        """Verdicts up to the first device that is not judged, in the order of assignment; and failures beyond it."""
        evidence, frontier = rollout.evidence, rollout.frontier
        run, early_bad = await session.members.verdicts(rollout.id, rollout.frontier)
        for member in run:
            if member.verdict is not None:
                evidence = evidence.count(member.verdict, rollout.spec.policy)
            frontier = member.number + 1
        return replace(rollout, evidence=evidence, frontier=frontier), early_bad

    async def _go_on(self, session: Session, rollout: Rollout, early_bad: int, now_ms: int) -> tuple[Rollout, set[str]]:
        step = decide(rollout.spec.policy, rollout.members, rollout.evidence, early_bad=early_bad)
        if step.decision is Decision.STOP:
            return await halted(session, rollout, RolloutState.STOPPED, step.reason, now_ms)
        if now_ms >= rollout.ends_ms:
            return await halted(session, rollout, RolloutState.FINISHED, "its time is over", now_ms)
        rollout = await self._phase(session, replace(rollout, reason=step.reason), now_ms)
        room = min(BATCH, step.under_way_max - (rollout.assigned - rollout.frontier))
        queue = await session.members.queue(rollout.id, wave=rollout.wave, now_ms=now_ms, limit=BATCH)
        # Who was given the release before keeps its place; new ones only as far as there is room.
        known = [member for member in queue if member.number >= 0]
        queue = known + [member for member in queue if member.number < 0][: max(0, room)]
        release = await session.fleets.release(rollout.owner, rollout.release_id) if queue else None
        if release is None:
            return rollout, set()
        return await self._assign(session, rollout, release, queue, now_ms)

    async def _assign(
        self, session: Session, rollout: Rollout, release: Release, queue: Sequence[Member], now_ms: int
    ) -> tuple[Rollout, set[str]]:
        batch = await self._posting.assign(session, rollout, release, queue)
        assigned = rollout.assigned
        for index, member in enumerate(batch.members):
            if member.rollout_id == rollout.id and member.state is MemberState.OFFERED and member.number < 0:
                batch.members[index] = replace(member, number=assigned)
                assigned += 1
        devices = await batch.write(session, now_ms)
        return replace(rollout, assigned=assigned), devices

    @staticmethod
    async def _phase(session: Session, rollout: Rollout, now_ms: int) -> Rollout:
        """The next phase once every device of this one is in a final state and its soak is over; or all are."""
        last = await session.members.last_wave(rollout.id)
        while not await session.members.open_in(rollout.id, wave=rollout.wave):
            if rollout.wave >= last:
                if await session.members.open_in(rollout.id):
                    return replace(rollout, state=RolloutState.RUNNING)
                return replace(rollout, state=RolloutState.SETTLED)
            since_ms = rollout.wave_since_ms or now_ms
            ready_ms = since_ms + fleet_phases.soak_ms(rollout.spec.phases, rollout.wave)
            if now_ms < ready_ms:
                reason = f"phase {rollout.wave + 1} is done and watched until the next begins; {rollout.reason}"
                return replace(rollout, wave_since_ms=since_ms, reason=reason, state=RolloutState.RUNNING)
            rollout = replace(rollout, wave=rollout.wave + 1, wave_since_ms=0)
        return replace(rollout, state=RolloutState.RUNNING, wave_since_ms=0)

    async def _go_back(self, session: Session, rollout: Rollout, now_ms: int) -> tuple[Rollout, set[str]]:
        took = await session.members.took(rollout.id, now_ms, BATCH)
        release = await session.fleets.release(rollout.owner, rollout.release_id)
        if not took or release is None:
            left = await session.members.took(rollout.id, NEVER_MS - 1, 1)
            if left or await session.members.open_in(rollout.id):
                return rollout, set()
            return replace(rollout, state=RolloutState.ROLLED_BACK), set()
        batch = await self._posting.take_back(session, rollout, release, took)
        return rollout, await batch.write(session, now_ms)

    @staticmethod
    async def _closed(session: Session, rollout: Rollout, now_ms: int) -> Rollout:
        over = rollout.state in {
            RolloutState.STOPPED,
            RolloutState.ABORTED,
            RolloutState.FINISHED,
            RolloutState.ROLLED_BACK,
        }
        if over and not await session.members.open_in(rollout.id):
            return replace(rollout, closed=True, modified_ms=now_ms)
        return rollout

    async def _next(self, rollout_id: str, now_ms: int) -> int:
        async with self._parts.db.read() as session:
            rollout = await session.fleets.rollout(rollout_id)
            if rollout is None or rollout.closed:
                return NEVER_MS
            moment_ms = min(await session.members.next_due_ms(rollout_id), now_ms + IDLE_MS)
            if rollout.state is RolloutState.RUNNING:
                turn_ms = await session.members.next_turn_ms(rollout_id, wave=rollout.wave)
                moment_ms = min(moment_ms, max(turn_ms, now_ms + BUSY_MS))
            return max(moment_ms, now_ms + BUSY_MS)


def overdue(member: Member, rollout: Rollout, now_ms: int) -> Member:
    """The member whose moment has come."""
    if member.state is MemberState.DEFERRED:
        event, reason = (Event.OFFER, "in hand again") if member.rev else (Event.RESUME, "its turn comes again")
        deadline_ms = now_ms + rollout.spec.deadline_s * 1000 if member.rev else rollout.ends_ms
        return moved(member, event, reason, now_ms=now_ms, deadline_ms=deadline_ms)
    if member.state is MemberState.WAITING and member.number < 0:
        return moved(member, Event.EXPIRE, "the rollout ended before its turn", now_ms=now_ms)
    if member.state is MemberState.OFFERED and member.deadline_ms > now_ms:
        # It took the step in the moment in which its window closed.
        return replace(member, due_ms=member.deadline_ms)
    return moved(member, Event.LAPSE, "nothing was heard of it until its deadline", now_ms=now_ms)


async def halted(
    session: Session, rollout: Rollout, state: RolloutState, reason: str, now_ms: int
) -> tuple[Rollout, set[str]]:
    """A rollout that gives nothing out any more: what no device has touched is withdrawn, in this transaction."""
    await session.members.halt(rollout.id, f"the rollout is {state.value}", now_ms)
    wanted = (MemberState.OFFERED, MemberState.DEFERRED, MemberState.SILENT)
    loose = await session.members.in_state(rollout.id, wanted, rollout.members)
    devices = await withdraw(session, loose, f"the rollout is {state.value}", now_ms)
    if state is RolloutState.STOPPED and rollout.spec.rollback_on_stop:
        state = RolloutState.ROLLING_BACK
    return replace(rollout, state=state, reason=reason, modified_ms=now_ms), devices
