"""When a child of PID 1 is started again, and when PID 1 gives up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from brickless.device.pid1 import daemon


def dying(times: int, *, essential: bool = True, lived_s: float = 1.0) -> tuple[daemon.Daemon, list[float]]:
    child = daemon.Daemon("supervisor", "m", essential=essential)
    now_s, delays = 0.0, []
    for _ in range(times):
        child.started(7, now_s)
        now_s += lived_s
        delays.append(child.died(now_s))
        now_s += delays[-1]
    return child, delays


def test_each_death_waits_longer_up_to_a_minute() -> None:
    _, delays = dying(10)
    assert delays[:4] == [0.5, 1.0, 2.0, 4.0]
    assert delays[-1] == daemon.BACKOFF_LONGEST_S


def test_who_lived_long_is_forgiven() -> None:
    _, delays = dying(4, lived_s=daemon.HEALTHY_S)
    assert delays == [0.5] * 4


def test_a_trial_is_given_up_after_three_deaths_and_a_committed_revision_is_not() -> None:
    child, _ = dying(3)
    assert child.is_hopeless(trial=True)
    assert not child.is_hopeless(trial=False)


def test_even_a_committed_revision_is_reset_in_the_end() -> None:
    child, _ = dying(daemon.DEATHS_AT_ALL)
    assert child.is_hopeless(trial=False)


def test_the_agent_never_resets_the_device() -> None:
    child, _ = dying(1000, essential=False)
    assert not child.is_hopeless(trial=True)


@given(st.integers(min_value=1, max_value=2000))
def test_the_wait_is_always_bounded(times: int) -> None:
    _, delays = dying(times)
    assert all(0 < delay <= daemon.BACKOFF_LONGEST_S for delay in delays)
