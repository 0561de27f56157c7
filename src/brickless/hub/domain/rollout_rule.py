"""When a rollout goes on, how many devices it may try at once, and when it stops: pure decisions over counted evidence.

The rule and its bounds are derived in docs/explanation/rollouts.md. In short: a cumulative sum test (Page 1954) over
the verdicts tells a bad release from the fleet's usual background of failures, and the number of devices that are being
tried is kept so small that, at the worst failure rate which the evidence still allows, the failure budget holds.
Verdicts count in the order in which devices were given the release, never in the order of arrival: successes report
within minutes and silence only at its deadline, so that the early arrivals always look better than the release is.
Nothing here knows a clock, a device or a database.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import ceil, floor, log, sqrt


class Verdict(StrEnum):
    """How one device's try of a release ended. Silence past its deadline is a failure like any other."""

    UPDATED = "updated"
    FAILED = "failed"
    SILENT = "silent"


#: Verdicts against the release.
BAD = frozenset({Verdict.FAILED, Verdict.SILENT})


class Decision(StrEnum):
    """What the rollout does next."""

    GO = "go"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Policy:
    """What an operator tolerates. Rates are fractions of devices, 0 to 1.

    `background` is the rate at which updates fail on a healthy fleet with a good release; `alarm` the least rate of a
    release that must be stopped; `budget` the fraction of the fleet that may fail before the stop. `evidence` is the
    height of the cumulative sum at which it stops, in nats; `doubt` the chance, each time it looks, that the true
    failure rate is above the one it reckons with.
    """

    background: float = 0.003
    alarm: float = 0.02
    budget: float = 0.005
    evidence: float = 11.0
    doubt: float = 1e-4
    canary: int = 5

    def __post_init__(self) -> None:
        """Refuse a policy that cannot work, saying which bound it breaks."""
        if not 0 < self.background < self.alarm <= 1:
            raise ValueError(f"background {self.background} must lie above 0 and below alarm {self.alarm}, at most 1")
        if not 0 < self.budget <= 1 or not 0 < self.doubt < 1 or self.evidence <= 0 or self.canary < 1:
            raise ValueError("budget and doubt must lie between 0 and 1, evidence above 0, canary at 1 or more")

    @property
    def per_failure(self) -> float:
        """What one failed or silent device adds to the sum, in nats."""
        return log(self.alarm / self.background)

    @property
    def per_success(self) -> float:
        """What one updated device takes off the sum, in nats (negative)."""
        return log((1 - self.alarm) / (1 - self.background)) if self.alarm < 1 else -self.evidence


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that the rule remembers of the verdicts so far; `sum_nats` is the cumulative sum, never below 0."""

    updated: int = 0
    failed: int = 0
    silent: int = 0
    sum_nats: float = 0.0

    @property
    def bad(self) -> int:
        """Devices that count against the release."""
        return self.failed + self.silent

    def count(self, verdict: Verdict, policy: Policy) -> Evidence:
        """The evidence with one more verdict."""
        good = verdict is Verdict.UPDATED
        moved = self.sum_nats + (policy.per_success if good else policy.per_failure)
        return Evidence(
            updated=self.updated + good,
            failed=self.failed + (verdict is Verdict.FAILED),
            silent=self.silent + (verdict is Verdict.SILENT),
            sum_nats=max(0.0, moved),
        )


@dataclass(frozen=True, slots=True)
class Step:
    """The rule's answer: whether to go on, how many devices may be under way at once, and why, for people."""

    decision: Decision
    under_way_max: int
    reason: str


def decide(policy: Policy, fleet_size: int, evidence: Evidence, *, early_bad: int = 0) -> Step:
    """What the evidence so far allows.

    `evidence` counts verdicts in the order of assignment up to the first device that is not judged yet; `early_bad` are
    the failures known beyond it. `under_way_max` bounds the devices given the release beyond that point.
    """
    budget = max(1, floor(policy.budget * fleet_size))
    if evidence.sum_nats >= policy.evidence:
        return Step(Decision.STOP, 0, f"{_counts(evidence)}: more than a healthy fleet's background explains")
    left = budget - evidence.bad - early_bad
    if left <= 0:
        return Step(Decision.STOP, 0, f"{_counts(evidence)}: the failure budget of {_devices(budget)} is used up")
    judged = evidence.updated + evidence.bad
    if judged < policy.canary:
        allowed = min(policy.canary, left)
        return Step(Decision.GO, allowed, f"canary: {_devices(allowed)} at once until {policy.canary} are judged")
    worst = rate_bound(judged, evidence.bad, policy.doubt)
    # Half of what is left: the number of failures among those under way scatters around its mean.
    allowed = max(1, floor(left / 2 / worst))
    return Step(Decision.GO, allowed, f"{_counts(evidence)}: at most {worst:.1%} fail, so {allowed} at once")


def rate_bound(tried: int, bad: int, doubt: float) -> float:
    """A failure rate that the true one exceeds with probability `doubt` at the most, having seen `bad` of `tried`.

    Chernoff: P(seen <= q) <= exp(-tried * KL(q || p)), and KL(q || p) >= (p - q)^2 / 2p for q <= p, solved for p.
    """
    if tried <= 0:
        return 1.0
    seen, doubt_nats = bad / tried, log(1 / doubt) / tried
    return min(1.0, seen + doubt_nats + sqrt(doubt_nats * doubt_nats + 2 * seen * doubt_nats))


def failures_until_stop(policy: Policy) -> int:
    """How many failures in a row, with no success between them, stop a rollout that had none before."""
    return ceil(policy.evidence / policy.per_failure)


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count} devices"


def _counts(evidence: Evidence) -> str:
    return f"{evidence.updated} updated, {evidence.failed} failed, {evidence.silent} silent"
