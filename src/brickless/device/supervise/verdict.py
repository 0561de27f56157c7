"""When a revision on trial is good, and when it is not. Pure: facts in, a verdict out (device.md 4.5, 4.7).

Two places where the contract's reference is mended: a container that crashes and comes back holds the commit up until
it has held its goal for the whole window, and the hub may be away for a while during the window (`Hub communication
not stable` only when it stays away).
"""

from __future__ import annotations

from typing import NamedTuple

from brickless.core.progress import Message
from brickless.device.supervise.unit import Goal


class Facts(NamedTuple):
    """What is known of a trial. All times are seconds; `held_s` is how long all goals have been held without a break.

    `hub_away_s` is how long the hub has not been reached, None while it is (or when the revision does not need it).
    """

    testing: bool
    goal: Goal
    late: tuple[str, ...]
    failures: tuple[str, ...]
    stable: bool
    held_s: float | None
    elapsed_s: float
    hub_ever: bool
    hub_away_s: float | None
    hub_needed: bool
    network_timeout_s: float
    commit_delay_s: float


class Wait(NamedTuple):
    """Nothing to decide yet; `message` is what is waited for, `within_s` when to look again at the latest."""

    message: str
    within_s: float | None


class Test(NamedTuple):
    """All goals are reached: the window before the commit begins."""


class Commit(NamedTuple):
    """The revision is good."""


class Refuse(NamedTuple):
    """The revision failed: the contract's message, and the reason in words."""

    message: str
    reason: str


Verdict = Wait | Test | Commit | Refuse


def judge(facts: Facts) -> Verdict:
    """Decide. Faults first: what has failed does not become good by reaching a goal later."""
    fault = _fault(facts)
    if fault is not None:
        return fault
    if not facts.testing:
        if facts.goal <= Goal.ACHIEVED and (facts.hub_ever or not facts.hub_needed):
            return Test()
        left_s = facts.network_timeout_s - facts.elapsed_s
        return Wait(Message.TRYING, left_s if facts.hub_needed and not facts.hub_ever else None)
    if facts.held_s is None or facts.held_s < facts.commit_delay_s:
        return Wait("", None if facts.held_s is None else facts.commit_delay_s - facts.held_s)
    if not facts.stable:
        return Wait(Message.TESTING_STABLE, None)
    if facts.hub_away_s is not None:
        return Wait("", facts.network_timeout_s - facts.hub_away_s)
    return Commit()


def _fault(facts: Facts) -> Refuse | None:
    if facts.failures:
        return Refuse(Message.CONTAINER_FAILED, "; ".join(facts.failures))
    if facts.goal is Goal.TIMEDOUT:
        return Refuse(Message.GOAL_NOT_REACHED, f"not at their goal in time: {', '.join(facts.late)}")
    if not facts.hub_needed:
        return None
    if not facts.hub_ever and facts.elapsed_s >= facts.network_timeout_s:
        return Refuse(Message.HUB_UNREACHABLE, f"the hub was not reached within {facts.network_timeout_s:g} s")
    if facts.testing and facts.hub_away_s is not None and facts.hub_away_s >= facts.network_timeout_s:
        return Refuse(Message.HUB_UNSTABLE, f"the hub has been away for {facts.hub_away_s:g} s")
    return None
