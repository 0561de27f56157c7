"""The update machine: each way an update can go, told as events and what is done about them."""

from __future__ import annotations

import pytest

from brickless.core import update_types as u
from brickless.core.progress import Downloads, Message, Progress, Status, parse_progress
from brickless.core.update import UpdateState, start, step
from brickless.core.update_types import Booted, HubGate, Phase, Policy, Timer


class Run:
    """Feeds events and keeps what the machine asked for."""

    def __init__(self, rev: str = "7", **more: object) -> None:
        self.state: UpdateState = start(rev, previous="3", **more)  # type: ignore[arg-type]  # plain values that the test knows
        self.last: tuple[u.Action, ...] = ()
        self.statuses: list[tuple[Status, str]] = []

    def on(self, *events: u.Event) -> Run:
        for event in events:
            self.state, self.last = step(self.state, event)
            for action in self.last:
                if isinstance(action, u.Persist):
                    self.statuses.append((action.progress.status, action.progress.message))
        return self

    def kinds(self) -> list[str]:
        return [type(action).__name__ for action in self.last]

    @property
    def end(self) -> tuple[Status, str]:
        assert self.state.progress is not None
        assert self.state.progress.is_final
        return self.state.progress.status, self.state.progress.message

    @property
    def logs(self) -> str:
        assert self.state.progress is not None
        return parse_progress(self.state.progress.to_json()).logs


TO_INSTALLED = (u.StepReceived(), u.ObjectsMissing(100), u.Downloaded(100), u.Installed())


def trial(*, reboot: bool = False, policy: Policy | None = None) -> Run:
    run = Run(policy=policy).on(*TO_INSTALLED, u.TrialStarted(reboot))
    if not reboot:
        return run.on(u.Transitioned())
    again = Run(stored=run.state.progress, policy=policy)
    again.statuses = run.statuses
    return again.on(Booted("7", trying=True))


def test_a_container_update_from_the_hub() -> None:
    run = Run().on(*TO_INSTALLED)
    assert run.kinds() == ["HandOver"]
    run.on(u.TrialStarted(reboot=False))
    assert run.kinds() == ["Persist", "SetTry", "Transition"]
    run.on(u.Transitioned(), u.GoalsReached())
    assert run.state.phase is Phase.TRYING, "the hub has not answered yet"
    run.on(u.HubReached(), u.TimerExpired(Timer.COMMIT))
    assert run.kinds() == ["StopTimers", "Commit"]
    assert run.on(u.Committed()).kinds() == ["Persist", "MarkDone", "StopTimers"]
    assert run.statuses == [
        (Status.QUEUED, "Retried 1 of 10"),
        (Status.DOWNLOADING, "Downloading update artifacts, retry 0 of 10"),
        (Status.INPROGRESS, Message.TRANSITIONING),
        (Status.INPROGRESS, Message.TRYING),
        (Status.TESTING, Message.TESTING_NONREBOOT),
        (Status.DONE, Message.DONE),
    ]
    assert run.on(u.ContainerFailed("late")).last == ()


def test_a_reboot_update_is_taken_up_after_the_boot() -> None:
    run = Run().on(*TO_INSTALLED, u.TrialStarted(reboot=True, detail="bsp/kernel.img is changed"))
    assert run.kinds() == ["Persist", "SetTry", "Reboot"]
    assert run.last[-1] == u.Reboot("bsp/kernel.img is changed")
    run = trial(reboot=True).on(u.HubReached(), u.GoalsReached())
    assert run.statuses[-1] == (Status.TESTING, Message.TESTING_REBOOT)
    assert run.on(u.TimerExpired(Timer.COMMIT)).last[-1] == u.Commit("7")
    assert run.on(u.Committed()).end == (Status.DONE, Message.DONE)
    assert run.state.retries == 1


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (u.GoalTimedOut("web is STARTING"), Message.GOAL_NOT_REACHED),
        (u.ContainerFailed("web exited with status 1"), Message.CONTAINER_FAILED),
        (u.ObjectBroken("web/root.squashfs"), Message.BAD_OBJECT),
        (u.Refused(Message.BAD_SIGNATURE), Message.BAD_SIGNATURE),
        (u.TimerExpired(Timer.HUB), Message.HUB_UNREACHABLE),
        (u.TimerExpired(Timer.TRIAL), Message.GOAL_NOT_REACHED),
        (u.Broken("no memory"), Message.INTERNAL),
    ],
)
def test_a_failed_trial_goes_back(event: u.Event, message: str) -> None:
    run = trial().on(event)
    assert run.kinds() == ["Persist", "StopTimers", "FailTry", "RollBack"]
    assert run.end == (Status.ERROR, message)
    assert run.last[-1] == u.RollBack("3")
    assert run.on(u.RolledBack()).state.finished

    run = trial().on(event, u.RollBackFailed("old does not start"))
    assert run.kinds() == ["Reboot"]
    assert run.state.finished

    run = trial(reboot=True).on(event)
    assert run.kinds() == ["Persist", "StopTimers", "Reboot"], "the try stays set until the boot that falls back"
    after = Run(stored=run.state.progress).on(Booted("3", fell_back=True))
    assert after.kinds() == ["FailTry", "Report"]
    assert after.end == (Status.ERROR, message)


def test_the_old_containers_may_fail_until_the_reboot() -> None:
    run = Run().on(*TO_INSTALLED, u.TrialStarted(reboot=True))
    assert run.on(u.ContainerFailed("old"), u.GoalTimedOut("old"), u.HubLost()).last == ()
    assert run.on(u.Broken("the disk is full")).kinds() == ["Persist", "FailTry", "StopTimers"]
    assert run.end == (Status.ERROR, Message.INTERNAL)


@pytest.mark.parametrize(
    ("event", "status", "message"),
    [
        (u.Refused(Message.BAD_STATE, "web/run.json: .name: is missing"), Status.WONTGO, Message.BAD_STATE),
        (u.Refused(Message.NO_STATE), Status.WONTGO, Message.NO_STATE),
        (u.SpaceShort(10, 5), Status.WONTGO, "Space required 10 B, available 5 B"),
        (u.Superseded("8"), Status.WONTGO, Message.STALE),
        (u.Cancelled(), Status.WONTGO, Message.ABORTED),
        (u.Broken("cannot write"), Status.ERROR, Message.INTERNAL),
    ],
)
def test_what_ends_an_update_before_its_trial(event: u.Event, status: Status, message: str) -> None:
    for before in (TO_INSTALLED[:1], TO_INSTALLED[:2], TO_INSTALLED[:3]):
        run = Run().on(*before, event)
        assert run.end == (status, message)
        assert run.state.finished
        assert run.kinds()[-1] == "StopTimers"
    detail = getattr(event, "detail", "")
    assert detail in run.logs


def test_downloads_are_repeated_with_growing_pauses_and_not_for_ever() -> None:
    run = Run().on(*TO_INSTALLED[:2])
    pauses = []
    for _ in range(10):
        run.on(u.DownloadFailed("reset by peer"))
        assert run.statuses[-1][0] is Status.DOWNLOADING
        pauses.append(next(a.seconds for a in run.last if isinstance(a, u.StartTimer)))
        run.on(u.TimerExpired(Timer.RETRY))
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60, 60, 60]
    assert run.on(u.ObjectBroken("hash")).end == (Status.WONTGO, Message.MAX_DOWNLOADS)


def test_no_network_is_waited_for_and_a_missing_object_is_not() -> None:
    run = Run().on(*TO_INSTALLED[:2])
    for _ in range(100):
        run.on(u.DownloadFailed("no route", offline=True), u.TimerExpired(Timer.RETRY))
    assert run.state.phase is Phase.FETCHING
    run.on(u.DownloadFailed("the hub does not know object abc", permanent=True))
    assert run.end == (Status.WONTGO, Message.MAX_DOWNLOADS)
    assert "abc" in run.logs


def test_the_totals_of_a_download_are_reported() -> None:
    run = Run().on(*TO_INSTALLED[:2], u.Downloading(Downloads(100, 40, 1, 2)))
    assert isinstance(run.last[0], u.Persist)
    made = parse_progress(run.last[0].progress.to_json())
    assert made.downloads == Downloads(100, 40, 1, 2)
    assert made.status is Status.DOWNLOADING


def test_pick_ups_are_counted() -> None:
    stored = None
    for count in range(1, 10):
        run = Run(stored=stored).on(u.StepReceived())
        assert run.statuses == [(Status.QUEUED, f"Retried {count} of 10")]
        stored = run.state.progress
    assert Run(stored=stored).on(u.StepReceived()).end == (Status.WONTGO, Message.MAX_RETRIES)


def test_a_final_step_is_reported_again_and_nothing_else() -> None:
    stored = Progress.of(Status.ERROR, Message.CONTAINER_FAILED, retries=2)
    for event in (u.StepReceived(), u.TrialStarted(reboot=False), u.Superseded("8"), u.Broken("x")):
        assert Run(stored=stored).on(event).last == (u.Report(stored),)
    assert Run(stored=stored, again=True).on(u.StepReceived()).kinds() == ["Persist", "Check"]


def test_local_updates_ask_neither_hub_nor_downloads() -> None:
    run = Run("locals/x").on(u.StepReceived(), u.NothingMissing(), u.Installed(), u.TrialStarted(reboot=False))
    run.on(u.Transitioned(), u.GoalsReached(), u.TimerExpired(Timer.COMMIT), u.Committed())
    assert run.end == (Status.DONE, Message.DONE)
    run = Run("locals/x").on(u.StepReceived(), u.ObjectsMissing(5, "web/root.squashfs"))
    assert run.end == (Status.ERROR, Message.INTERNAL)
    assert "web/root.squashfs" in run.logs
    stored = Progress.of(Status.INPROGRESS, Message.REBOOTING)
    assert Run("locals/x", stored=stored).on(Booted("3")).end == (Status.ERROR, Message.ABORTED)


def test_the_hub_may_be_away_for_a_while() -> None:
    run = trial().on(u.HubReached(), u.GoalsReached(), u.HubLost())
    assert run.last == (u.StartTimer(Timer.HUB, 120),)
    assert run.on(u.TimerExpired(Timer.COMMIT)).last == ()
    assert run.on(u.HubReached()).last[-1] == u.Commit("7")

    run = trial().on(u.HubReached(), u.GoalsReached(), u.HubLost(), u.TimerExpired(Timer.HUB))
    assert run.end == (Status.ERROR, Message.HUB_UNSTABLE)

    run = trial(policy=Policy(hub_gate=HubGate.STRICT)).on(u.HubReached(), u.GoalsReached(), u.HubLost())
    assert run.end == (Status.ERROR, Message.HUB_UNSTABLE)

    run = trial(policy=Policy(hub_gate=HubGate.OFF)).on(u.GoalsReached(), u.TimerExpired(Timer.COMMIT))
    assert run.last[-1] == u.Commit("7")


def test_what_falls_below_its_goal_is_tested_anew() -> None:
    run = trial().on(u.HubReached(), u.GoalsReached(), u.GoalsLost(), u.TimerExpired(Timer.COMMIT))
    assert run.last == ()
    assert run.on(u.GoalsReached()).last == (u.StartTimer(Timer.COMMIT, 25),)
    assert run.on(u.TimerExpired(Timer.COMMIT)).last[-1] == u.Commit("7")


def test_stability_is_waited_for() -> None:
    run = trial().on(u.Unstable(), u.HubReached(), u.GoalsReached(), u.TimerExpired(Timer.COMMIT))
    assert run.statuses[-1] == (Status.TESTING, Message.TESTING_STABLE)
    assert run.on(u.TimerExpired(Timer.COMMIT)).last == ()
    assert run.on(u.Stable()).last[-1] == u.Commit("7")


def test_power_cuts() -> None:
    testing = Progress.of(Status.TESTING, Message.TESTING_NONREBOOT, retries=1)
    error = Progress.of(Status.ERROR, Message.GOAL_NOT_REACHED)
    done = Progress.of(Status.DONE, Message.DONE)
    # while the trial ran: once more, by a boot
    assert Run(stored=testing).on(Booted("7", trying=True)).state.phase is Phase.TRYING
    # the trial did not come up
    run = Run(stored=testing).on(Booted("3", fell_back=True))
    assert run.end == (Status.ERROR, Message.UNEXPECTED_ROLLBACK)
    assert run.kinds() == ["Persist", "FailTry", "StopTimers"]
    # between the bootloader's commit and the progress
    assert Run(stored=testing).on(Booted("7")).kinds() == ["Persist", "MarkDone", "StopTimers"]
    assert Run(stored=done).on(Booted("7")).last == (u.MarkDone("7"), u.Report(done))
    # between the error and the clearing of the try: it is not tried again
    run = Run(stored=error).on(Booted("7", trying=True))
    assert run.kinds() == ["Reboot"]
    # between the clearing of the try and the roll-back
    assert Run(stored=error).on(Booted("3")).last == (u.Report(error),)
    # before the try was set: the hub's step is picked up again
    run = Run(stored=Progress.of(Status.INPROGRESS, Message.REBOOTING, retries=1)).on(Booted("3"), u.StepReceived())
    assert run.statuses == [(Status.QUEUED, "Retried 1 of 10"), (Status.QUEUED, "Retried 2 of 10")]


def test_the_factory_revision_needs_no_test() -> None:
    run = Run("0").on(Booted("0"))
    assert run.end == (Status.DONE, Message.FACTORY)


def test_a_commit_that_fails_puts_the_variables_back() -> None:
    run = trial(reboot=True).on(u.HubReached(), u.GoalsReached(), u.TimerExpired(Timer.COMMIT), u.Broken("I/O error"))
    assert run.kinds() == ["Persist", "FailTry", "StopTimers", "Reboot"]
    run = trial().on(u.HubReached(), u.GoalsReached(), u.TimerExpired(Timer.COMMIT), u.Broken("I/O error"))
    assert run.kinds() == ["Persist", "StopTimers", "FailTry", "RollBack"]


def test_a_trial_of_another_runtime_that_ended_updated_is_tried_and_committed() -> None:
    stored = Progress.of(Status.UPDATED, Message.UPDATED)
    run = Run(stored=stored).on(Booted("7", trying=True), u.HubReached(), u.GoalsReached())
    assert run.on(u.TimerExpired(Timer.COMMIT), u.Committed()).end == (Status.DONE, Message.DONE)
