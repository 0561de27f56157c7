"""What news of one rollout mean to other rollouts of the same devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from brickless.hub.domain.fleet import Member, MemberState
from brickless.hub.domain.fleet_machine import Event
from brickless.hub.services.fleet_moves import moved
from brickless.hub.services.ports import Session


async def settled_between(
    session: Session, before: Mapping[tuple[str, str], Member], after: Sequence[Member], now_ms: int
) -> list[Member]:
    """The members, with what they mean to other rollouts of their devices.

    A device that took a step after all, while another rollout is at work on it, is that one's: the step that comes last
    wins. And whoever replaced another rollout's parts on a device supersedes it there, now that it has happened.
    """
    awake = {
        (one.rollout_id, one.device_id) for one in after if one.busy and not before[one.rollout_id, one.device_id].busy
    }
    replacing = [one for one in after if one.undone and one.state is MemberState.UPDATED]
    kept = list(after)
    for rollout_id in sorted({one[0] for one in awake} | {one.rollout_id for one in replacing}):
        ids = {device_id for key, device_id in awake if key == rollout_id}
        ids |= {one.device_id for one in replacing if one.rollout_id == rollout_id}
        others = await session.members.elsewhere(rollout_id, sorted(ids), since_ms=0)
        taken = {one.device_id for one in others if one.busy}
        kept = [
            replace(before[rollout_id, one.device_id], seen_ms=one.seen_ms, seen_status=one.seen_status)
            if one.rollout_id == rollout_id and (rollout_id, one.device_id) in awake and one.device_id in taken
            else one
            for one in kept
        ]
        undone = {one.device_id: {key for key, _ in one.undone} for one in replacing if one.rollout_id == rollout_id}
        kept += await _superseded(session, others, undone, now_ms)
    return kept


async def _superseded(
    session: Session, others: Sequence[Member], undone: Mapping[str, set[str]], now_ms: int
) -> list[Member]:
    found = []
    for other in others:
        if other.busy or not other.took or other.device_id not in undone:
            continue
        rival = await session.fleets.rollout(other.rollout_id)
        if rival is not None and rival.release_id in undone[other.device_id]:
            found.append(moved(other, Event.SUPERSEDE, "another rollout took its place", now_ms=now_ms))
    return found
