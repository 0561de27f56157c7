"""The update machine on a model of a device: any events in any order, and the power cut between any two actions."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from brickless.core import bootenv
from brickless.core import update_types as u
from brickless.core.progress import Progress, Status, parse_progress
from brickless.core.update import UpdateState, start, step
from brickless.core.update_types import HubGate, Phase, Policy, Timer

OLD = "3"
WORLD: list[u.Event] = [
    u.Refused("State JSON has bad format"),
    u.NothingMissing(),
    u.ObjectsMissing(10),
    u.SpaceShort(2, 1),
    u.Downloaded(),
    u.DownloadFailed("reset"),
    u.DownloadFailed("no route", offline=True),
    u.DownloadFailed("unknown object", permanent=True),
    u.ObjectBroken("hash"),
    u.Installed(),
    u.TrialStarted(reboot=True),
    u.TrialStarted(reboot=False),
    u.Transitioned(),
    u.GoalsReached(),
    u.GoalsLost(),
    u.GoalTimedOut("web"),
    u.Stable(),
    u.Unstable(),
    u.ContainerFailed("web"),
    u.HubReached(),
    u.HubLost(),
    *[u.TimerExpired(timer) for timer in Timer],
    u.Superseded("8"),
    u.Cancelled(),
    u.Broken("disk"),
]
# What leads on in each phase: mixed into the noise, or most runs would end before their trial.
ONWARD: dict[Phase, list[u.Event]] = {
    Phase.CHECKING: [u.NothingMissing(), u.ObjectsMissing(10)],
    Phase.FETCHING: [u.Downloaded()],
    Phase.WAITING: [u.TimerExpired(Timer.RETRY)],
    Phase.INSTALLING: [u.Installed()],
    Phase.INSTALLED: [u.TrialStarted(reboot=True), u.TrialStarted(reboot=False)],
    Phase.STARTING: [u.Transitioned()],
    Phase.TRYING: [u.GoalsReached(), u.HubReached()],
    Phase.TESTING: [u.HubReached(), u.Stable(), u.GoalsReached(), u.TimerExpired(Timer.COMMIT)],
}


TRIAL_NEWS: list[u.Event] = [
    u.GoalsLost(),
    u.GoalsReached(),
    u.GoalTimedOut("web"),
    u.ContainerFailed("web"),
    u.HubLost(),
    u.Unstable(),
    u.TimerExpired(Timer.COMMIT),
    u.TimerExpired(Timer.HUB),
]


class Device(RuleBasedStateMachine):
    """Disk and bootloader survive a power cut; the machine, its actions and what it was told do not."""

    @initialize(
        rev=st.sampled_from(["7", "locals/x"]), gate=st.sampled_from(list(HubGate)), retries=st.sampled_from([2, 10])
    )
    def provision(self, rev: str, gate: HubGate, retries: int) -> None:
        self.begin(rev, gate, retries)

    def begin(self, rev: str, gate: HubGate, retries: int) -> None:
        self.rev = rev
        self.policy = Policy(hub_gate=gate, max_retries=retries)
        self.disk: bytes | None = None
        self.env = {"pv_rev": OLD, "pv_try": ""}
        self.memory = ""
        self.finals: list[Progress] = []
        self.boot()

    def boot(self) -> None:
        choice = bootenv.choose(self.env, self.memory)
        self.memory = choice.trying
        self.running = choice.rev
        self.in_place = False
        self.goals = self.hub = False
        self.queue: list[u.Action] = []
        stored = parse_progress(self.disk) if self.disk else None
        self.state: UpdateState = start(self.rev, previous=OLD, stored=stored, policy=self.policy)
        trying = choice.attempt > 0
        self.send(u.Booted(choice.rev, trying=trying, fell_back=choice.fell_back))

    def send(self, event: u.Event) -> None:
        if isinstance(event, u.GoalsReached | u.GoalsLost):
            self.goals = isinstance(event, u.GoalsReached)
        if isinstance(event, u.HubReached | u.HubLost):
            self.hub = isinstance(event, u.HubReached)
        self.state, actions = step(self.state, event)
        self.queue.extend(actions)

    def act(self, action: u.Action) -> None:
        match action:
            case u.Persist(progress):
                self.persist(progress)
            case u.SetTry(rev):
                self.env = bootenv.request_try(self.env, rev)
            case u.Transition():
                self.running, self.in_place = self.rev, True
                self.goals = False
            case u.Reboot():
                self.boot()
            case u.Commit(rev):
                assert self.goals, "committed without its goals"
                assert self.hub or self.state.local, "committed without the hub"
                assert self.running == rev == self.rev
                self.env = bootenv.commit(self.env, rev)
                self.send(u.Committed())
            case u.FailTry(rev, previous):
                assert self.status() in {Status.ERROR, Status.WONTGO}, "the try is cleared before its error is on disk"
                assert (rev, previous) == (self.rev, OLD)
                self.env = bootenv.commit(self.env, previous)
            case u.RollBack(rev):
                assert rev == OLD
                self.running = OLD
                self.send(u.RolledBack())
            case u.MarkDone():
                assert self.env["pv_rev"] == self.rev
                assert self.status() is Status.DONE

    def persist(self, progress: Progress) -> None:
        assert not self.finals, f"{self.finals[-1].status} was final, and is followed by {progress.status}"
        self.disk = progress.to_json()
        if progress.is_final:
            self.finals.append(progress)

    def status(self) -> Status | None:
        return parse_progress(self.disk).status if self.disk else None

    @rule(event=st.sampled_from(WORLD))
    @precondition(lambda self: not self.queue)
    def anything(self, event: u.Event) -> None:
        self.send(event)

    @rule(data=st.data())
    @precondition(lambda self: not self.queue and self.state.phase in ONWARD)
    def onward(self, data: st.DataObject) -> None:
        self.send(data.draw(st.sampled_from(ONWARD[self.state.phase])))

    @rule(steps=st.integers(1, 8), reboot=st.booleans())
    def lead_on(self, steps: int, reboot: bool) -> None:
        """Go far quickly: the interesting phases are the late ones."""
        for _ in range(steps):
            while self.queue:
                self.act(self.queue.pop(0))
            if self.state.phase is Phase.READY:
                self.send(u.StepReceived())
            elif self.state.phase is Phase.INSTALLED:
                self.send(u.TrialStarted(reboot=reboot))
            for event in ONWARD.get(self.state.phase, []):
                if not self.queue:
                    self.send(event)

    @rule(event=st.sampled_from(TRIAL_NEWS), then=st.sampled_from(TRIAL_NEWS), actions=st.integers(0, 4))
    @precondition(lambda self: self.state.phase in {Phase.TRYING, Phase.TESTING})
    def news_and_then_the_power_is_cut(self, event: u.Event, then: u.Event, actions: int) -> None:
        while self.queue:
            self.act(self.queue.pop(0))
        self.send(event)
        while self.queue and actions == 4:
            self.act(self.queue.pop(0))
        if not self.queue:
            self.send(then)
        for action in self.queue[:actions]:
            self.queue.pop(0)
            self.act(action)
        if actions < 4:
            self.boot()

    @rule()
    @precondition(lambda self: not self.queue and self.state.phase is Phase.READY)
    def step_is_listed(self) -> None:
        self.send(u.StepReceived())

    @rule()
    @precondition(lambda self: self.queue)
    def one_action(self) -> None:
        self.act(self.queue.pop(0))

    @rule()
    @precondition(lambda self: self.queue)
    def all_actions(self) -> None:
        while self.queue:
            self.act(self.queue.pop(0))

    @rule()
    @precondition(lambda self: self.queue)
    def bootloader_or_disk_fails(self) -> None:
        if isinstance(self.queue[0], u.SetTry | u.Commit | u.Check | u.Install):
            self.queue.clear()
            self.send(u.Broken("I/O error"))

    @rule()
    def power_cut(self) -> None:
        self.boot()

    @invariant()
    def old_or_new(self) -> None:
        assert self.running in {OLD, self.rev}
        assert self.env["pv_rev"] in {OLD, self.rev}
        if self.status() is Status.DONE:
            assert self.env["pv_rev"] == self.rev
        if self.state.phase is Phase.READY and not self.queue:
            assert self.status() not in {Status.INPROGRESS, Status.TESTING}, (
                "the disk tells of a trial that nobody runs"
            )

    def walk(self, random: Random) -> None:
        """One random life: mostly forward, so that the late phases are met as often as the early ones."""
        for _ in range(random.randint(5, 60)):
            move = random.random()
            if move < 0.03 or (self.queue and move < 0.1):
                self.boot()
            elif self.queue and move < 0.13:
                self.bootloader_or_disk_fails()
            elif self.queue:
                self.act(self.queue.pop(0))
            elif self.state.phase is Phase.READY and move < 0.9:
                self.send(u.StepReceived())
            elif self.state.phase in {Phase.TRYING, Phase.TESTING} and move < 0.5:
                self.send(random.choice(TRIAL_NEWS))
            elif move < 0.2 and self.state.phase is not Phase.FINISHED:
                self.send(random.choice(WORLD))
            elif self.state.phase in ONWARD:
                self.send(random.choice(ONWARD[self.state.phase]))
            self.old_or_new()

    def teardown(self) -> None:
        """With events that lead on, every update ends: once, and with what it says running."""
        if not hasattr(self, "state"):
            return
        for _ in range(200):
            if self.queue:
                self.act(self.queue.pop(0))
            elif self.state.finished:
                break
            elif self.state.phase is Phase.READY:
                self.send(u.StepReceived())
            elif self.state.phase is Phase.STARTING and self.state.reboot:
                self.boot()  # the reboot was asked for
            else:
                for event in ONWARD[self.state.phase]:
                    if not self.queue:
                        self.send(event)
        assert self.state.finished
        assert len(self.finals) == 1
        expected = self.rev if self.finals[0].status is Status.DONE else OLD
        assert self.env["pv_rev"] == expected
        assert self.running == expected
        self.boot()
        assert self.running == expected, "and after a boot, too"


TestDevice = pytest.mark.timeout(120)(Device.TestCase)
TestDevice.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("seed", range(20))
def test_random_lives(seed: int) -> None:
    """Hypothesis finds short paths; these walks cover the long ones. A failure names the seed and the life."""
    random = Random(seed)
    ends: set[Status] = set()
    for life in range(150):
        device = Device()
        device.begin(random.choice(["7", "locals/x"]), random.choice(list(HubGate)), random.choice([2, 10]))
        try:
            device.walk(random)
            device.teardown()
        except AssertionError as error:
            raise AssertionError(f"life {life} of seed {seed}: {error}") from error
        ends.add(device.finals[0].status)
    assert ends == {Status.DONE, Status.ERROR, Status.WONTGO}
