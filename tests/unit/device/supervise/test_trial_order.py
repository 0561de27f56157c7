"""A trial in the tick in which everything happens at once: containers count before clocks."""

from __future__ import annotations

from brickless.core import update
from brickless.core.progress import Message, Progress, Status
from brickless.core.update_types import Booted, HubGate, Policy
from brickless.device.supervise.trial import Standing, Trial

GOOD = Standing(reached=True, stable=True, failed="", late="", quiet=True)


class Hands:
    """Keeps what it was told to do."""

    def __init__(self) -> None:
        self.at_s = 0.0
        self.done: list[str] = []
        self.ends: list[Progress] = []

    def now_s(self) -> float:
        return self.at_s

    def persist(self, rev: str, progress: Progress) -> None:
        if progress.is_final:
            self.ends.append(progress)

    def set_try(self, rev: str) -> None:
        self.done.append(f"try {rev}")

    def reboot(self, reason: str) -> None:
        self.done.append("reboot")

    def transition(self, rev: str) -> None:
        self.done.append(f"transition {rev}")

    def commit(self, rev: str) -> None:
        self.done.append(f"commit {rev}")

    def mark_done(self, rev: str) -> None:
        self.done.append(f"done {rev}")

    def fail_try(self, previous: str) -> None:
        self.done.append(f"back to {previous}")

    def roll_back(self, rev: str) -> None:
        self.done.append(f"roll back to {rev}")


def under_test() -> tuple[Hands, Trial]:
    hands = Hands()
    policy = Policy(hub_gate=HubGate.OFF, commit_delay_s=25, trial_timeout_s=60)
    trial = Trial(hands, update.start("7", previous="3", policy=policy))
    trial.send(Booted("7", trying=True))
    trial.tick(GOOD)
    assert trial.due_s() == 25
    return hands, trial


def test_a_good_trial_is_committed_when_the_delay_is_over() -> None:
    hands, trial = under_test()
    hands.at_s = 25
    trial.tick(GOOD)
    assert hands.done == ["commit 7", "done 7"]
    assert trial.finished
    assert trial.due_s() is None


def test_what_fails_in_the_second_of_the_commit_is_not_committed() -> None:
    hands, trial = under_test()
    hands.at_s = 25
    trial.tick(GOOD._replace(failed="web exited with status 1"))
    assert hands.done == ["reboot"]
    assert [(end.status, end.message) for end in hands.ends] == [(Status.ERROR, Message.CONTAINER_FAILED)]


def test_what_is_down_in_the_second_of_the_commit_is_waited_for() -> None:
    hands, trial = under_test()
    hands.at_s = 25
    trial.tick(GOOD._replace(reached=False))
    assert hands.done == []
    hands.at_s = 30
    trial.tick(GOOD)
    assert trial.due_s() == 55, "the delay begins anew"


def test_timers_that_run_out_together() -> None:
    hands, trial = under_test()
    hands.at_s = 1000
    trial.tick(GOOD._replace(stable=False))
    assert len(hands.ends) == 1
    assert trial.due_s() is None
