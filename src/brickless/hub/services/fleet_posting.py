"""Giving devices a release, and taking it back: one batch of devices, one transaction, a bounded number of statements.

Everything here runs inside a transaction that holds the rollout and the devices' trails: whatever was decided is
either all written or not at all, so that a crash between any two statements leaves nothing half done.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from brickless.core import canonical
from brickless.hub.domain import fleet_release
from brickless.hub.domain import progress as words
from brickless.hub.domain.fleet import ACTIVE, NEVER_MS, Member, MemberState, Release, Rollout, RolloutState
from brickless.hub.domain.fleet_machine import Event
from brickless.hub.domain.fleet_window import DEVICE_ZONE, Offset, opening, utc
from brickless.hub.domain.jsontext import Value, load_stored
from brickless.hub.domain.objects import storage_id
from brickless.hub.domain.state import CheckedState
from brickless.hub.domain.values import Step
from brickless.hub.services.fleet_fitting import Fitter, Place, Undo
from brickless.hub.services.fleet_moves import RETRY_MS, Zones, deferred, held, moved, offered, waiting_deadline
from brickless.hub.services.fleet_ports import Head
from brickless.hub.services.parts import Parts
from brickless.hub.services.ports import Session

#: An app on a device says with this member of the device-meta until when it wants no update (Unix seconds).
NOT_NOW_META = "fleet.not-now"
ROLLOUTS = "prn:::rollouts:/"
#: The progress of a step that its rollout took back before any device had touched it.
CANCELLED = canonical.dumps(
    {**words.fresh(words.CANCEL), "progress": 100, "status-msg": "Withdrawn by its rollout"}
).decode()


@dataclass(slots=True)
class Batch:
    """What one transaction will write."""

    members: list[Member] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    objects: dict[str, tuple[str, ...]] = field(default_factory=dict)
    cancel: list[tuple[str, int]] = field(default_factory=list)

    async def write(self, session: Session, now_ms: int) -> set[str]:
        """Write it; returns the devices that have something new to fetch or to forget."""
        await session.fleet_trails.cancel_new(self.cancel, progress=CANCELLED, now_ms=now_ms)
        await session.fleet_trails.add_steps(self.steps, self.objects)
        await session.members.save(self.members)
        return {step.trail_id for step in self.steps} | {trail_id for trail_id, _ in self.cancel}


@dataclass(frozen=True, slots=True)
class Around:
    """What is known of the devices of a batch."""

    heads: dict[str, Head]
    labels: dict[str, dict[str, str]]
    others: dict[str, list[Member]]
    rollouts: dict[str, Rollout]
    releases: dict[str, Release]
    hashes: dict[tuple[str, int], str]

    def place(self, device_id: str, rev: int) -> Place:
        """A revision of a device."""
        return Place(device_id, rev, self.hashes.get((device_id, rev), ""))


async def withdraw(session: Session, members: Sequence[Member], reason: str, now_ms: int) -> set[str]:
    """Cancel the steps of members that no device has touched; the members move on by HALT. Returns the devices."""
    done = await session.fleet_trails.cancel_new(
        ((one.device_id, one.rev) for one in members if one.rev), progress=CANCELLED, now_ms=now_ms
    )
    changed = []
    for one in members:
        if (one.device_id, one.rev) in done:
            after = moved(one, Event.HALT, reason, now_ms=now_ms)
            changed.append(replace(after, seen_status=words.CANCEL))
    await session.members.save(changed)
    return {trail_id for trail_id, _ in done}


def zone_of(rollout: Rollout, labels: dict[str, str], zones: Zones) -> tuple[Offset, str]:
    """The offset of a device's local time for the rollout's window, and a remark when its zone is none."""
    window = rollout.spec.window
    if window is None:
        return utc, ""
    name = labels.get("timezone", "UTC") if window.zone == DEVICE_ZONE else window.zone
    offset = zones(name)
    return (offset, "") if offset is not None else (utc, f" (its time zone {name!r} is unknown, UTC is taken)")


class Posting:
    """Decides for each device of a batch and builds its step."""

    def __init__(self, parts: Parts, zones: Zones) -> None:
        self._parts = parts
        self._zones = zones
        self.fitter = Fitter(parts)

    # -- giving ------------------------------------------------------------------------------------------------------

    async def assign(self, session: Session, rollout: Rollout, release: Release, queue: Sequence[Member]) -> Batch:
        """Give the release to those of the queue that can take it now; the others get a reason and a time."""
        around = await self._around(session, rollout, queue)
        batch = Batch()
        for member in queue:
            await self._one(session, batch, rollout, release, member, around)
        return batch

    async def _around(self, session: Session, rollout: Rollout, members: Sequence[Member]) -> Around:
        ids = [member.device_id for member in members]
        heads = await session.fleet_trails.heads(ids)
        others: dict[str, list[Member]] = {}
        # A rollout that overlapped with this one in time counts although it is over; an older one is the device's own.
        for one in await session.members.elsewhere(rollout.id, ids, since_ms=rollout.created_ms):
            others.setdefault(one.device_id, []).append(one)
        wanted = {one.rollout_id for found in others.values() for one in found}
        rollouts = {one.id: one for one in await session.fleets.open_rollouts(rollout.owner) if one.id in wanted}
        for missing in wanted - set(rollouts):
            if (rival := await session.fleets.rollout(missing)) is not None:
                rollouts[missing] = rival
        releases: dict[str, Release] = {}
        known = [*members, *(one for found in others.values() for one in found)]
        wanted = {one.release_id for one in rollouts.values()} | {key for one in known for key, _ in one.undone}
        for release_id in wanted:
            if (found := await session.fleets.release(rollout.owner, release_id)) is not None:
                releases[release_id] = found
        revs = {(head.device_id, head.done_rev) for head in heads.values()}
        revs |= {(one.device_id, one.base_rev) for one in known if one.base_rev >= 0}
        revs |= {(one.device_id, rev) for one in known for _, rev in one.undone}
        hashes = await session.fleet_trails.hashes(revs)
        return Around(heads, await session.fleets.labels(ids), others, rollouts, releases, hashes)

    async def _one(
        self, session: Session, batch: Batch, rollout: Rollout, release: Release, member: Member, around: Around
    ) -> None:
        now_ms = self._parts.clock.now_ms()
        labels = around.labels.get(member.device_id, {})
        head = around.heads.get(member.device_id)
        if head is None or head.owner != rollout.owner:
            reason = "the device is gone, or has no trail"
            batch.members.append(moved(member, Event.LEAVE, reason, now_ms=now_ms))
            return
        if release.types and labels.get("type", "") not in release.types:
            reason = f"its type is {labels.get('type', '')!r}, and the release is for {', '.join(release.types)}"
            batch.members.append(moved(member, Event.UNFIT, reason, now_ms=now_ms))
            return
        offset, remark = zone_of(rollout, labels, self._zones)
        kept = self._not_now(rollout, member, head, offset, remark, now_ms) or self._held(
            rollout, release, member, head, around, now_ms
        )
        if kept is not None:
            batch.members.append(kept)
            return
        await self._give(session, batch, rollout, release, member, around, offset)

    def _not_now(
        self, rollout: Rollout, member: Member, head: Head, offset: Offset, remark: str, now_ms: int
    ) -> Member | None:
        """The member when its window is closed, or an app on it wants no update now."""
        if rollout.spec.window is not None:
            begins_ms, _ = opening(rollout.spec.window, now_ms, offset)
            if begins_ms > now_ms:
                return held(member, f"its window is closed{remark}", until_ms=begins_ms, now_ms=now_ms)
        if NOT_NOW_META not in head.device_meta:
            return None
        until = load_stored(head.device_meta).get(NOT_NOW_META)
        until_ms = _unix_ms(until)
        if until_ms <= now_ms:
            return None
        text = f"{NOT_NOW_META} in its device-meta"
        return deferred(member, rollout.spec, text, wanted_ms=until_ms - now_ms, now_ms=now_ms)

    @staticmethod
    def _held(
        rollout: Rollout, release: Release, member: Member, head: Head, around: Around, now_ms: int
    ) -> Member | None:
        """The member when somebody else is at work on the device, or another rollout comes first."""
        for other in around.others.get(member.device_id, ()):
            rival = around.rollouts[other.rollout_id]
            if other.busy:
                return held(member, f"rollout {rival.name} is at work on it", until_ms=now_ms + RETRY_MS, now_ms=now_ms)
            if rival.state is RolloutState.ROLLING_BACK and other.took:
                return held(member, f"rollout {rival.name} goes back first", until_ms=now_ms + RETRY_MS, now_ms=now_ms)
            if rival.state not in ACTIVE or not rival.outranks(rollout):
                continue
            theirs = around.releases.get(rival.release_id)
            if theirs is None or not fleet_release.overlap(theirs, release):
                continue
            if other.took:
                reason = f"rollout {rival.name} has precedence, and the device has its release"
                return moved(member, Event.SUPERSEDE, reason, now_ms=now_ms)
            if other.state in {MemberState.WAITING, MemberState.DEFERRED}:
                reason = f"rollout {rival.name} has precedence"
                return held(member, reason, until_ms=now_ms + RETRY_MS, now_ms=now_ms)
        under_way = head.newest_rev != head.done_rev and head.newest_status not in words.FINAL
        if under_way and not head.newest_committer.startswith(ROLLOUTS):
            reason = f"revision {head.newest_rev}, posted by hand, is under way"
            return held(member, reason, until_ms=now_ms + RETRY_MS, now_ms=now_ms)
        return None

    @staticmethod
    def _rivals(release: Release, member: Member, around: Around) -> Iterable[tuple[Member, Release]]:
        """Other rollouts whose parts this device has, where they touch those of the release."""
        for other in around.others.get(member.device_id, ()):
            rival = around.rollouts[other.rollout_id]
            theirs = around.releases.get(rival.release_id)
            if other.took and theirs is not None and fleet_release.overlap(theirs, release):
                yield other, theirs

    async def _give(
        self, session: Session, batch: Batch, rollout: Rollout, release: Release, member: Member, around: Around,
        offset: Offset,
    ) -> None:  # fmt: skip
        now_ms, head = self._parts.clock.now_ms(), around.heads[member.device_id]
        base = around.place(member.device_id, head.done_rev)
        undo: list[Undo] = []
        for other, theirs in self._rivals(release, member, around):
            if await self.fitter.has(session, theirs, base):
                undo.append(Undo(theirs, around.place(member.device_id, other.base_rev)))
                undo += self._undone(other, around)
        fit = await self.fitter.fit(session, rollout.owner, release, base, tuple(undo))
        if fit.state is None:
            batch.members.append(moved(member, Event.UNFIT, fit.reason, now_ms=now_ms))
            return
        self._cancel_pending(batch, head)
        if fit.state.sha == base.sha:
            batch.members.append(moved(member, Event.HAS_IT, "it had the release already", now_ms=now_ms))
            return
        step = self._step(rollout, head, fit.state, f"rollout {rollout.name}: release {release.name}", batch)
        reason = f"revision {step.rev} was posted"
        given = offered(member, rollout, offset, now_ms=now_ms, reason=reason)
        batch.members.append(
            replace(
                given,
                rev=step.rev,
                took_rev=step.rev,
                base_rev=head.done_rev,
                seen_ms=0,
                seen_status=words.NEW,
                undone=tuple((one.release.id, one.former.rev) for one in undo),
            )
        )

    @staticmethod
    def _undone(member: Member, around: Around) -> list[Undo]:
        return [
            Undo(around.releases[release_id], around.place(member.device_id, rev))
            for release_id, rev in member.undone
            if release_id in around.releases
        ]

    @staticmethod
    def _cancel_pending(batch: Batch, head: Head) -> None:
        """The newest step, when no device has touched it: the one that comes takes its place."""
        if head.newest_status == words.NEW and head.newest_rev != head.done_rev:
            batch.cancel.append((head.device_id, head.newest_rev))

    def _step(self, rollout: Rollout, head: Head, state: CheckedState, message: str, batch: Batch) -> Step:
        now_ms = self._parts.clock.now_ms()
        used = [storage_id(rollout.owner, sha) for sha in state.objects] or None
        meta: dict[str, Value] = {"fleet": {"rollout": rollout.id, "release": rollout.release_id}}
        step = Step(
            trail_id=head.device_id,
            rev=head.newest_rev + 1,
            owner=rollout.owner,
            committer=rollout.prn,
            commit_msg=message,
            state=state.raw,
            state_sha=state.sha,
            meta=canonical.dumps(meta).decode(),
            used_objects=json.dumps(used, separators=(",", ":")),
            status=words.NEW,
            progress=_FRESH,
            progress_ms=0,
            step_ms=now_ms,
            created_ms=now_ms,
            modified_ms=now_ms,
        )
        batch.steps.append(step)
        batch.objects[state.sha] = state.objects
        return step

    # -- taking back -------------------------------------------------------------------------------------------------

    async def take_back(self, session: Session, rollout: Rollout, release: Release, took: Sequence[Member]) -> Batch:
        """Post each device its former parts; the maintenance window does not hold up a roll back."""
        around = await self._around(session, rollout, took)
        batch, now_ms = Batch(), self._parts.clock.now_ms()
        for member in took:
            head = around.heads.get(member.device_id)
            if head is None or head.owner != rollout.owner:
                batch.members.append(moved(member, Event.SUPERSEDE, "the device is gone", now_ms=now_ms))
                continue
            kept = self._must_wait(member, head, around, now_ms)
            if kept is not None:
                batch.members.append(kept)
                continue
            await self._send_back(session, batch, rollout, release, member, around)
        return batch

    @staticmethod
    def _must_wait(member: Member, head: Head, around: Around, now_ms: int) -> Member | None:
        others = around.others.get(member.device_id, ())
        if any(other.busy for other in others):
            return replace(member, not_before_ms=now_ms + RETRY_MS)
        under_way = head.newest_rev != head.done_rev and head.newest_status not in words.FINAL
        if under_way and not head.newest_committer.startswith(ROLLOUTS):
            return replace(member, not_before_ms=now_ms + RETRY_MS)
        return None

    async def _send_back(
        self, session: Session, batch: Batch, rollout: Rollout, release: Release, member: Member, around: Around
    ) -> None:
        now_ms, head = self._parts.clock.now_ms(), around.heads[member.device_id]
        base = around.place(member.device_id, head.done_rev)
        # A step that may still be taken has to be followed by another one, whatever the device runs now.
        loose = head.newest_rev == member.rev and head.newest_rev != head.done_rev
        loose = loose and head.newest_status not in words.FINAL
        has = await self.fitter.has(session, release, base)
        if not loose and not has:
            if head.newest_status == words.CANCEL:
                # Should it have taken the step all the same, it says so, and its turn comes then.
                batch.members.append(replace(member, not_before_ms=NEVER_MS))
                return
            reason = "it does not have the release's parts"
            batch.members.append(moved(member, Event.WENT_BACK, reason, now_ms=now_ms))
            return
        former, undo = around.place(member.device_id, member.base_rev), tuple(self._undone(member, around))
        # A device that has none of it, and may still take it, is told once more what it runs: others' parts stay whole.
        fit = (
            await self.fitter.back(session, rollout.owner, release, base, former, undo)
            if has
            else await self.fitter.same(session, rollout.owner, base)
        )
        if fit.state is None:
            batch.members.append(moved(member, Event.NO_WAY_BACK, fit.reason, now_ms=now_ms))
            return
        self._cancel_pending(batch, head)
        step = self._step(rollout, head, fit.state, f"rollout {rollout.name}: back to the former parts", batch)
        deadline_ms = now_ms + rollout.spec.deadline_s * 1000
        reason = f"revision {step.rev}, with its former parts, was posted"
        back = moved(member, Event.GO_BACK, reason, now_ms=now_ms, deadline_ms=deadline_ms)
        # From here on its deferrals count the tries of the way back.
        tries = member.deferrals if member.rev != member.took_rev else 0
        batch.members.append(replace(back, rev=step.rev, seen_ms=0, seen_status=words.NEW, deferrals=tries))


_FRESH = canonical.dumps(words.fresh(words.NEW)).decode()


def recalled(member: Member, rollout: Rollout, reason: str, now_ms: int) -> Member:
    """A member whose step was cancelled as its window closed: it waits, and its deadline is still the same."""
    deadline_ms = waiting_deadline(member, rollout)
    after = moved(member, Event.RECALL, reason, now_ms=now_ms, deadline_ms=deadline_ms)
    return replace(after, seen_status=words.CANCEL)


def _unix_ms(value: Value) -> int:
    """Milliseconds of a time in Unix seconds, as number or digits; 0 for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 12:
        return int(value) * 1000
    if isinstance(value, int | Decimal) and not isinstance(value, bool) and 0 < value < 10**12:
        return int(value) * 1000
    return 0
