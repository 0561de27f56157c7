"""The rollout rule: its bounds on ten thousand devices over a hundred seeds, and the properties it never breaks."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.hub.domain.rollout_rule import Decision, Evidence, Policy, Step, Verdict, decide, rate_bound

FLEET = 10_000
SEEDS = range(100)


def roll_out(seed: int, verdict_of: Callable[[random.Random], Verdict], policy: Policy) -> tuple[Evidence, Step, int]:
    """One rollout in virtual time: verdicts arrive late and out of order, silence only at its deadline."""
    chance = random.Random(seed)
    evidence, now, judged, early_bad = Evidence(), 0.0, 0, 0
    under_way: list[tuple[float, int, Verdict]] = []
    given_out: list[Verdict] = []
    known: dict[int, Verdict] = {}
    step = decide(policy, FLEET, evidence)
    while step.decision is Decision.GO and judged < FLEET:
        while len(given_out) < min(FLEET, judged + step.under_way_max):
            verdict = verdict_of(chance)
            takes_h = 24.0 if verdict is Verdict.SILENT else chance.uniform(0.1, 3.0)
            heapq.heappush(under_way, (now + takes_h, len(given_out), verdict))
            given_out.append(verdict)
        now, index, verdict = heapq.heappop(under_way)
        known[index] = verdict
        early_bad += verdict is not Verdict.UPDATED
        while judged in known:
            early_bad -= known[judged] is not Verdict.UPDATED
            evidence = evidence.count(known.pop(judged), policy)
            judged += 1
        step = decide(policy, FLEET, evidence, early_bad=early_bad)
    # A stop gives out nothing more, yet those under way still end as they end.
    for late in given_out[judged:]:
        evidence = evidence.count(late, policy)
    return evidence, step, len(given_out)


def failing(rate: float, silent: float = 0.3) -> Callable[[random.Random], Verdict]:
    def verdict_of(chance: random.Random) -> Verdict:
        if chance.random() >= rate:
            return Verdict.UPDATED
        return Verdict.SILENT if chance.random() < silent else Verdict.FAILED

    return verdict_of


@pytest.mark.parametrize("silent", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("rate", [0.02, 0.05, 0.2, 1.0])
def test_a_bad_release_is_stopped_within_the_budget(rate: float, silent: float) -> None:
    bad_seeds = []
    for seed in SEEDS:
        evidence, step, _ = roll_out(seed, failing(rate, silent), Policy())
        if step.decision is not Decision.STOP or evidence.bad > FLEET * 0.005:
            bad_seeds.append((seed, evidence, step))
    assert len(bad_seeds) <= 1, bad_seeds


@pytest.mark.parametrize("rate", [0.0, 0.002])
def test_a_good_release_reaches_every_device(rate: float) -> None:
    stopped = []
    for seed in SEEDS:
        evidence, step, given_out = roll_out(seed, failing(rate), Policy())
        if step.decision is Decision.STOP or given_out != FLEET:
            stopped.append((seed, evidence, step))
    assert len(stopped) <= 1, stopped


@given(st.integers(1, 100_000), st.lists(st.sampled_from(list(Verdict)), max_size=200))
def test_the_budget_is_never_overdrawn_knowingly(fleet: int, verdicts: list[Verdict]) -> None:
    policy, evidence = Policy(), Evidence()
    for verdict in verdicts:
        evidence = evidence.count(verdict, policy)
    step = decide(policy, fleet, evidence)
    budget = max(1, int(policy.budget * fleet))
    assert evidence.updated + evidence.bad == len(verdicts)
    assert (step.under_way_max == 0) == (step.decision is Decision.STOP)
    if evidence.bad >= budget:
        assert step.decision is Decision.STOP
    assert step.reason


@given(st.integers(1, 5_000), st.integers(0, 5_000), st.floats(1e-9, 0.5))
def test_the_bound_lies_above_what_was_seen_and_falls_with_evidence(tried: int, bad: int, doubt: float) -> None:
    bad = min(bad, tried)
    bound = rate_bound(tried, bad, doubt)
    assert bad / tried <= bound <= 1.0
    assert rate_bound(2 * tried, 2 * bad, doubt) <= bound + 1e-9


@pytest.mark.parametrize(
    "fields",
    [
        {"background": 0.0},
        {"background": 0.05},
        {"alarm": 1.5},
        {"budget": 0.0},
        {"doubt": 1.0},
        {"evidence": 0.0},
        {"canary": 0},
    ],
)
def test_a_policy_that_cannot_work_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must lie"):
        Policy(**fields)
