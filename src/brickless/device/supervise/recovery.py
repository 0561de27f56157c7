"""What happens when a container's init exits: started again, left alone, or a failure of the revision. Pure.

The contract (device.md 1.11, 5.5) with three of its faults mended: policies see the exit status; `unless-stopped` is
one; and in steady state a container whose changes never need a reboot does not reboot the device by crashing.
"""

from __future__ import annotations

from typing import NamedTuple

from brickless.core.groups import AutoRecovery, RecoveryPolicy, RestartPolicy

# For a container with restart policy `container` and no recovery of its own, once its revision is committed.
IMPLICIT = AutoRecovery(RecoveryPolicy.ALWAYS, 0, 5, 60, 2.0, 0, "never")
LONGEST_IMPLICIT_DELAY_S = 300.0


class Again(NamedTuple):
    """Start it again after `delay_s`; it is the retry number `retries` from then on."""

    delay_s: float
    retries: int


class Stay(NamedTuple):
    """Leave it stopped."""

    reason: str


class Fail(NamedTuple):
    """The revision failed with it: rolled back on trial, else the device reboots."""

    reason: str


Decision = Again | Stay | Fail


class Exit(NamedTuple):
    """What is known of an exit: `clean` is exit status 0, `ran_s` how long it ran, `retries` how often it came back."""

    clean: bool
    ran_s: float
    retries: int


def decide(recovery: AutoRecovery | None, restart: RestartPolicy, happened: Exit, *, trial: bool) -> Decision:
    """Decide on an exit that nobody asked for."""
    own = recovery is not None and recovery.policy is not RecoveryPolicy.NO
    if not own and (trial or restart is RestartPolicy.SYSTEM):
        return Fail("it exited and has no recovery policy")
    if recovery is not None and not own:
        return Stay("its recovery policy is 'no'")
    policy = recovery if recovery is not None and own else IMPLICIT
    if policy.policy is RecoveryPolicy.ON_FAILURE and happened.clean:
        return Stay("it finished")
    forgiven = 0 < policy.reset_window_s <= happened.ran_s
    retries = (0 if forgiven else happened.retries) + 1
    if policy.max_retries and retries > policy.max_retries:
        return _exhausted(policy, trial=trial)
    delay_s = policy.delay_s(retries)
    return Again(delay_s if own else min(delay_s, LONGEST_IMPLICIT_DELAY_S), retries)


def _exhausted(policy: AutoRecovery, *, trial: bool) -> Decision:
    reason = f"it was started again {policy.max_retries} times"
    if trial or policy.backoff_policy == "reboot":
        return Fail(reason)
    if policy.backoff_policy == "never":
        return Stay(reason)
    return Again(float(policy.backoff_s), 0)
