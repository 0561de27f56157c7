"""Campaigns of fleet simulations: `python -m brickless.testkit.fleet_campaign --help`; `make sim` runs the whole one.

Each scenario is thirty days of a fleet under one seed. What must always hold raises `Broken` at once; what the rule
promises in 99 of 100 seeds comes back as an outcome. A failure prints the command that replays it.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from brickless.hub.domain.fleet import OPEN, MemberState, Phase, RolloutState, Spec
from brickless.hub.domain.fleet_window import Window
from brickless.hub.domain.rollout_rule import Policy, Verdict
from brickless.hub.services.rollouts import RolloutDraft
from brickless.testkit.fleet_simulator import Broken, Simulation

DAYS = 30
#: A release that fails so often, with this share of its failures as silence: by turns over the seeds.
BAD = ((0.02, 0.0), (0.02, 1.0), (0.05, 0.3), (0.2, 0.3), (1.0, 0.0), (1.0, 1.0), (0.02, 0.3), (0.05, 1.0))


class Outcome(NamedTuple):
    """How a seed ended; `kept` says whether the rule kept its promise."""

    scenario: str
    seed: int
    kept: bool
    state: str
    failed: int
    counts: dict[str, int]
    days: float
    digest: str
    seconds: float


def good(seed: int, devices: int) -> tuple[Simulation, bool, str]:
    """A good release, the usual background: it must reach every device that can be reached."""
    world = Simulation(seed, devices)
    release = world.release("good", "app,_config/app")
    rollout = world.roll_out(RolloutDraft(release, "*"))
    world.until(DAYS)
    kept = world.rollout(rollout).state in {RolloutState.SETTLED, RolloutState.FINISHED}
    return world, kept, rollout


def bad(seed: int, devices: int) -> tuple[Simulation, bool, str]:
    """A bad release: it must be stopped before it has failed on more than half a percent of the fleet."""
    world = Simulation(seed, devices)
    world.bad["bad"] = BAD[seed % len(BAD)]
    release = world.release("bad", "app,_config/app")
    rollout = world.roll_out(RolloutDraft(release, "*"))
    world.until(DAYS)
    verdicts = Counter(member.verdict for member in world.db.indexes[rollout].members.values())
    failed = max(len(world.failed.get("bad", ())), verdicts[Verdict.FAILED] + verdicts[Verdict.SILENT])
    kept = world.rollout(rollout).state is RolloutState.STOPPED and failed <= devices * 0.005
    return world, kept, rollout


def overlap(seed: int, devices: int) -> tuple[Simulation, bool, str]:
    """Two rollouts over the same devices and some of the same parts, with everything that people do meanwhile."""
    world, chance = Simulation(seed, devices), random.Random(seed)  # noqa: S311 - seeded on purpose
    first = world.release("first", "app,_config/app")
    second = world.release("second", chance.choice(("app", "_config/app,other", "other", "app,_config/app,other")))
    phases = (Phase("canary=yes", soak_s=3600), Phase(percent=20.0), Phase())
    # Here the rule must not end it early: what is tried is everything else.
    patient, life_s = Policy(budget=0.2, evidence=1000.0), 20 * 86_400
    window = chance.choice((None, Window(22 * 60, 6 * 60, zone="UTC")))
    one = world.roll_out(
        RolloutDraft(first, "*", spec=Spec(policy=patient, phases=phases, window=window, life_s=life_s))
    )
    other = ""

    def begin_second() -> None:
        nonlocal other
        if world.rollout(one).closed:
            world.forget_release("first")
        spec = Spec(policy=patient, priority=chance.choice((-1, 0, 1)), life_s=life_s)
        other = world.roll_out(RolloutDraft(second, "site in (site-1, site-2, site-3)", spec=spec))

    def meddle() -> None:
        alive = [device for device in world.devices.values() if not device.dead]
        world.post_by_hand(chance.choice(alive))
        world.after(chance.expovariate(1 / 7200), meddle)

    def grow() -> None:
        device = world.add_device(len(world.devices))
        world.after(chance.uniform(0, 86_400), lambda: _relabel(world, device.id, chance))
        world.after(chance.expovariate(1 / 43_200), grow)

    world.after(chance.uniform(0.1, 3) * 86_400, begin_second)
    world.after(3600, meddle)
    world.after(7200, grow)
    world.until(chance.uniform(1, 6))
    how = chance.randrange(4)
    if how == 1 and world.rollout(one).state in _ACTIVE:
        world.abort(one)
    elif how == 2:
        world.roll_back(one)
    elif how == 3 and other:
        world.roll_back(other)
    world.until(DAYS)
    world.check_members()
    for rollout in (one, other):
        _check_end(world, rollout)
    return world, True, one


def _check_end(world: Simulation, rollout: str) -> None:
    members = world.db.indexes[rollout].members.values()
    left = [one for one in members if one.state in OPEN and one.deadline_ms < world.now_ms]
    if left:
        raise Broken(f"{left[0]} is open past its deadline")
    if world.rollout(rollout).state not in _ENDED | {RolloutState.RUNNING}:
        raise Broken(f"{world.rollout(rollout)} did not end")


def _relabel(world: Simulation, device_id: str, chance: random.Random) -> None:
    changes: dict[str, str | None] = {"canary": chance.choice(("yes", None))}
    world.ask(lambda: world.fleets.set_labels(world.caller, device_id, changes))


_ACTIVE = {RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.SETTLED}
_ENDED = {
    RolloutState.SETTLED,
    RolloutState.STOPPED,
    RolloutState.ABORTED,
    RolloutState.FINISHED,
    RolloutState.ROLLED_BACK,
}
SCENARIOS: dict[str, Callable[[int, int], tuple[Simulation, bool, str]]] = {
    "good": good,
    "bad": bad,
    "overlap": overlap,
}


def play(scenario: str, seed: int, devices: int) -> Outcome:
    """One seed of one scenario. Raises `Broken` for an invariant that does not hold."""
    started_s = time.monotonic()
    world, kept, rollout = SCENARIOS[scenario](seed, devices)
    world.check_members()
    counts = Counter(member.state for member in world.db.indexes[rollout].members.values())
    failed = counts[MemberState.FAILED] + counts[MemberState.SILENT]
    return Outcome(
        scenario,
        seed,
        kept,
        world.rollout(rollout).state.value,
        failed,
        {state.value: count for state, count in sorted(counts.items())},
        round((world.now_ms - world.start_ms) / 86_400_000, 2),
        world.digest()[:16],
        round(time.monotonic() - started_s, 1),
    )


def replay_command(scenario: str, seed: int, devices: int) -> str:
    """What shows a seed again."""
    return (
        f"python -m brickless.testkit.fleet_campaign --scenario {scenario} --seed {seed} --seeds 1 --devices {devices}"
    )


def main() -> int:
    """Play seeds and print one JSON object a line. Status 1 when more than one seed in a hundred broke a promise."""
    parser = argparse.ArgumentParser(description="Fleets in virtual time, by seed.")
    parser.add_argument("--scenario", choices=[*SCENARIOS, "all"], default="all")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds of each scenario")
    parser.add_argument("--devices", type=int, default=10_000)
    options = parser.parse_args()
    bad_end = False
    # A world lives until its seed is over: looking for garbage in it again and again costs a third of the time.
    gc.disable()
    for scenario in SCENARIOS if options.scenario == "all" else [options.scenario]:
        outcomes = []
        for seed in range(options.seed, options.seed + options.seeds):
            command = replay_command(scenario, seed, options.devices)
            try:
                outcome = play(scenario, seed, options.devices)
            except Exception:
                sys.stderr.write(f"replay with: {command}\n")
                raise
            outcomes.append(outcome)
            gc.collect()
            sys.stdout.write(json.dumps(outcome._asdict()) + "\n")
            sys.stdout.flush()
            if not outcome.kept:
                sys.stderr.write(f"broke its promise; replay with: {command}\n")
        broken = sum(not outcome.kept for outcome in outcomes)
        sys.stderr.write(f"{scenario}: {len(outcomes)} seeds, {broken} broke the rule's promise\n")
        bad_end |= broken > max(1, len(outcomes) // 100)
    return int(bad_end)


if __name__ == "__main__":
    sys.exit(main())
