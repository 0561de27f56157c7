"""Who is in a rollout: devices that match its selector join, those that do not any more leave, unless they have it.

Only devices that were modified since the last look are compared; labels, claims and deletions all modify a device. The
looks overlap, because a change becomes visible a little later than its own time says.
"""

from __future__ import annotations

from dataclasses import replace

from brickless.hub.domain import fleet_labels, fleet_phases
from brickless.hub.domain.fleet import Member, MemberState, Rollout, RolloutState
from brickless.hub.domain.fleet_machine import Event
from brickless.hub.services.fleet_moves import moved
from brickless.hub.services.fleet_ports import Labelled
from brickless.hub.services.ports import Session

OVERLAP_MS = 60_000


def new_members(rollout: Rollout, devices: list[Labelled], now_ms: int) -> list[Member]:
    """The members of a rollout at its beginning."""
    selector = fleet_labels.parse(rollout.selector)
    chosen = {one.device_id: one.labels for one in devices if selector.matches(one.labels)}
    waves = fleet_phases.waves(rollout.spec.phases, rollout.id, chosen)
    return [_member(rollout, device_id, wave, now_ms) for device_id, wave in waves.items()]


def _member(rollout: Rollout, device_id: str, wave: int, now_ms: int) -> Member:
    return Member(
        rollout_id=rollout.id,
        device_id=device_id,
        state=MemberState.WAITING,
        reason="its turn has not come",
        wave=wave,
        position=fleet_phases.position(rollout.id, device_id),
        deadline_ms=rollout.ends_ms,
        due_ms=rollout.ends_ms,
        changed_ms=now_ms,
    )


async def sync(session: Session, rollout_id: str, now_ms: int) -> bool:
    """Bring a rollout's members up to date with the account's devices. True when anything changed."""
    rollout = await session.fleets.rollout(rollout_id)
    if rollout is None:
        return False
    since_ms = max(0, rollout.synced_ms - OVERLAP_MS)
    devices = await session.fleets.labelled(rollout.owner, since_ms=since_ms, gone=True)
    joined, changed = await _compared(session, rollout, devices, now_ms)
    await session.members.add(joined)
    await session.members.save(changed)
    state = rollout.state
    if (joined or changed) and state is RolloutState.SETTLED:
        state = RolloutState.RUNNING
    await session.fleets.save(replace(rollout, synced_ms=now_ms, members=rollout.members + len(joined), state=state))
    return bool(joined or changed)


async def _compared(
    session: Session, rollout: Rollout, devices: list[Labelled], now_ms: int
) -> tuple[list[Member], list[Member]]:
    selector = fleet_labels.parse(rollout.selector)
    known = await session.members.get(rollout.id, (one.device_id for one in devices))
    joined: list[Member] = []
    changed: list[Member] = []
    for device in devices:
        member = known.get(device.device_id)
        if selector.matches(device.labels) and not device.gone:
            if member is None:
                wave = fleet_phases.wave_of_joiner(rollout.spec.phases, device.labels)
                joined.append(_member(rollout, device.device_id, wave, now_ms))
            elif _may_return(member, device):
                again = moved(member, Event.JOIN, "it is selected again", now_ms=now_ms, deadline_ms=rollout.ends_ms)
                changed.append(replace(again, not_before_ms=0))
        elif member is not None and member.state in {MemberState.WAITING, MemberState.DEFERRED} and not member.busy:
            reason = "it was deleted" if device.gone else "the selector does not match it any more"
            changed.append(moved(member, Event.LEAVE, reason, now_ms=now_ms))
    return joined, changed


def _may_return(member: Member, device: Labelled) -> bool:
    """Whether who left, or did not fit, is worth another look: its device changed since."""
    left = member.state in {MemberState.WITHDRAWN, MemberState.UNFIT}
    return left and device.modified_ms > member.changed_ms
