"""A sample of the fleet campaign (`make sim` plays the whole one): what must always hold, and that seeds repeat."""

from __future__ import annotations

import pytest

from brickless.testkit.fleet_campaign import play
from brickless.testkit.fleet_simulator import Broken, Simulation


@pytest.mark.parametrize("seed", range(6))
def test_two_rollouts_that_overlap(seed: int) -> None:
    assert play("overlap", seed, 120).seed == seed


@pytest.mark.parametrize("seed", [2, 5])
def test_a_bad_release_is_stopped_within_the_budget(seed: int) -> None:
    outcome = play("bad", seed, 10_000)
    assert outcome.kept, outcome


def test_a_good_release_reaches_everybody() -> None:
    outcome = play("good", 3, 2_000)
    assert outcome.kept, outcome
    assert outcome.counts["updated"] + outcome.failed == 2_000


def test_a_seed_is_the_same_again() -> None:
    first, second = play("overlap", 7, 60), play("overlap", 7, 60)
    assert first.digest == second.digest
    assert first.digest != play("overlap", 8, 60).digest


def test_half_a_release_is_found_out() -> None:
    world = Simulation(1, 10)
    world.release("x", "app,_config/app")
    device = next(iter(world.devices.values()))
    step = world.db.steps[device.id, 0]
    half = step.state.replace(b'"app/one.json":{"release":"0"}', b'"app/one.json":{"release":"x"}')
    with pytest.raises(Broken, match="only"):
        world.markers_of(half)
