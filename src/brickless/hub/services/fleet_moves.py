"""How a member moves: the machine's next state with its reason, its deadline and its verdict. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from brickless.hub.domain.fleet import NEVER_MS, OPEN, Member, MemberState, Rollout, Spec
from brickless.hub.domain.fleet_machine import Event, after, verdict_of
from brickless.hub.domain.fleet_window import Offset, after_open_time, opening

MAX_REASON_CHARS = 400
#: How long a device that cannot be given the release now is left alone.
RETRY_MS = 60_000

#: The offset function of a zone; None for a zone that nobody knows.
Zones = Callable[[str], Offset | None]


def moved(member: Member, event: Event, reason: str, *, now_ms: int, deadline_ms: int = NEVER_MS) -> Member:
    """The member after an event; the same one when the event means nothing to it.

    `deadline_ms` is that of the new state when it is an open one. The first verdict stays: a device counts once.
    """
    state = after(member.state, event)
    if state is member.state:
        return member
    verdict = member.verdict
    if verdict is None and member.number >= 0 and event is not Event.HAS_IT:
        verdict = verdict_of(state)
    ends_ms = deadline_ms if state in OPEN else NEVER_MS
    return replace(
        member,
        state=state,
        reason=reason[:MAX_REASON_CHARS],
        deadline_ms=ends_ms,
        due_ms=ends_ms,
        changed_ms=now_ms,
        not_before_ms=0,
        verdict=verdict,
    )


def held(member: Member, reason: str, *, until_ms: int, now_ms: int) -> Member:
    """A waiting member that cannot be given the release before `until_ms`."""
    return replace(member, reason=reason[:MAX_REASON_CHARS], not_before_ms=until_ms, changed_ms=now_ms)


def waiting_deadline(member: Member, rollout: Rollout) -> int:
    """When a waiting member's state ends by itself: with the rollout, or with the time it was given already."""
    return rollout.ends_ms if member.number < 0 else min(rollout.ends_ms, member.deadline_ms)


def offered(member: Member, rollout: Rollout, offset: Offset, *, now_ms: int, reason: str) -> Member:
    """The member once its step is posted: a deadline in open time, kept when the step is only posted anew."""
    spec = rollout.spec
    kept_ms = member.deadline_ms if member.number >= 0 and member.state is MemberState.WAITING else NEVER_MS
    deadline_ms = kept_ms
    if kept_ms == NEVER_MS:
        deadline_ms = after_open_time(spec.window, now_ms, spec.deadline_s * 1000, offset)
    moving = moved(member, Event.OFFER, reason, now_ms=now_ms, deadline_ms=deadline_ms)
    return replace(moving, due_ms=min(deadline_ms, closing_ms(spec, now_ms, offset)))


def closing_ms(spec: Spec, now_ms: int, offset: Offset) -> int:
    """When a step that nobody took is recalled: as the window closes."""
    return NEVER_MS if spec.window is None else opening(spec.window, now_ms, offset)[1]


def deferred(member: Member, spec: Spec, reason: str, *, wanted_ms: int, now_ms: int) -> Member:
    """A device that asks for time: at most `deferral_s` at once, at most `max_deferrals` times."""
    if member.deferrals >= spec.max_deferrals:
        text = f"it said not now more than {spec.max_deferrals} times: {reason}"
        return moved(member, Event.DECLINE, text, now_ms=now_ms)
    until_ms = now_ms + max(RETRY_MS, min(wanted_ms, spec.deferral_s * 1000))
    text = f"not now, {member.deferrals + 1} of {spec.max_deferrals} times: {reason}"
    moving = moved(member, Event.NOT_NOW, text, now_ms=now_ms, deadline_ms=until_ms)
    return moving if moving is member else replace(moving, deferrals=member.deferrals + 1)
