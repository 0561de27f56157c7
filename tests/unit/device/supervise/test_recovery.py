"""What follows an exit, by policy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.core.groups import AutoRecovery, RecoveryPolicy, RestartPolicy
from brickless.device.supervise.recovery import LONGEST_IMPLICIT_DELAY_S, Again, Decision, Exit, Fail, Stay, decide

CRASH = Exit(clean=False, ran_s=1.0, retries=0)
CLEAN = Exit(clean=True, ran_s=1.0, retries=0)
SYSTEM, CONTAINER = RestartPolicy.SYSTEM, RestartPolicy.CONTAINER


def policy(kind: RecoveryPolicy, **changes: object) -> AutoRecovery:
    return AutoRecovery(kind, 3, 5, 0, 2.0)._replace(**changes)


ON_FAILURE = policy(RecoveryPolicy.ON_FAILURE)


@pytest.mark.parametrize(
    ("recovery", "restart", "happened", "trial", "kind"),
    [
        (None, CONTAINER, CRASH, True, Fail),
        (None, CONTAINER, CLEAN, True, Fail),
        (None, SYSTEM, CRASH, False, Fail),
        (None, CONTAINER, CRASH, False, Again),
        (policy(RecoveryPolicy.NO), SYSTEM, CRASH, False, Fail),
        (ON_FAILURE, SYSTEM, CRASH, True, Again),
        (ON_FAILURE, SYSTEM, CLEAN, False, Stay),
        (policy(RecoveryPolicy.ALWAYS), SYSTEM, CLEAN, False, Again),
        (policy(RecoveryPolicy.UNLESS_STOPPED), SYSTEM, CLEAN, False, Again),
        (ON_FAILURE, CONTAINER, CRASH._replace(retries=3), False, Fail),
        (policy(RecoveryPolicy.ALWAYS, backoff_policy="never"), CONTAINER, CRASH._replace(retries=3), False, Stay),
        (policy(RecoveryPolicy.ALWAYS, backoff_policy="never"), CONTAINER, CRASH._replace(retries=3), True, Fail),
        (policy(RecoveryPolicy.ALWAYS, max_retries=0), CONTAINER, CRASH._replace(retries=999), False, Again),
    ],
)
def test_the_table(
    recovery: AutoRecovery | None, restart: RestartPolicy, happened: Exit, trial: bool, kind: type[Decision]
) -> None:
    assert isinstance(decide(recovery, restart, happened, trial=trial), kind)


def test_each_retry_waits_longer() -> None:
    waits = [decide(ON_FAILURE, CONTAINER, CRASH._replace(retries=n), trial=False) for n in range(3)]
    assert waits == [Again(5.0, 1), Again(10.0, 2), Again(20.0, 3)]


def test_who_ran_long_enough_is_forgiven() -> None:
    recovery = policy(RecoveryPolicy.ALWAYS, reset_window_s=60)
    assert decide(recovery, CONTAINER, Exit(False, 61.0, 3), trial=False) == Again(5.0, 1)


def test_a_back_off_begins_anew_after_its_time() -> None:
    recovery = policy(RecoveryPolicy.ALWAYS, backoff_policy="duration", backoff_s=600)
    assert decide(recovery, CONTAINER, CRASH._replace(retries=3), trial=False) == Again(600.0, 0)


@given(st.integers(0, 10_000))
def test_an_app_without_a_policy_always_comes_back_within_bounds(retries: int) -> None:
    decision = decide(None, CONTAINER, CRASH._replace(retries=retries), trial=False)
    assert isinstance(decision, Again)
    assert 0 < decision.delay_s <= LONGEST_IMPLICIT_DELAY_S
