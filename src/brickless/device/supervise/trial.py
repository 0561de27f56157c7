"""A revision on trial: drives `core.update` with the hands of the supervisor, and feeds it what the containers do."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Protocol

from brickless.core import update
from brickless.core.progress import Progress
from brickless.core.update import UpdateState
from brickless.core.update_types import (
    Action,
    Broken,
    Commit,
    Committed,
    ContainerFailed,
    Event,
    FailTry,
    GoalsLost,
    GoalsReached,
    GoalTimedOut,
    HubLost,
    HubReached,
    MarkDone,
    Persist,
    Phase,
    Reboot,
    RollBack,
    RollBackFailed,
    RolledBack,
    SetTry,
    Stable,
    StartTimer,
    StopTimers,
    Timer,
    TimerExpired,
    Transition,
    Transitioned,
    Unstable,
)


class Hands(Protocol):
    """What a trial does to the device. Everything may raise `OSError`."""

    def now_s(self) -> float:
        """Seconds of a clock that only goes forward."""
        ...

    def persist(self, rev: str, progress: Progress) -> None:
        """Write a revision's progress to the disk."""
        ...

    def set_try(self, rev: str) -> None:
        """Have the bootloader try the revision at the next boot."""
        ...

    def reboot(self, reason: str) -> None:
        """Stop the containers and start the device anew."""
        ...

    def transition(self, rev: str) -> None:
        """Make `rev` the running revision, in place."""
        ...

    def commit(self, rev: str) -> None:
        """Make `rev` the revision that the bootloader boots."""
        ...

    def mark_done(self, rev: str) -> None:
        """Write the revision's done marker."""
        ...

    def fail_try(self, previous: str) -> None:
        """Clear the bootloader's try; it boots `previous`."""
        ...

    def roll_back(self, rev: str) -> None:
        """Make the previous revision the running one again, in place."""
        ...


class Standing(NamedTuple):
    """How the running revision's containers stand. `failed` and `late` are reasons in words, "" for none."""

    reached: bool
    stable: bool
    failed: str
    late: str
    quiet: bool


class Trial:
    """One update from its trial on. Every path ends in one final status (`core.update`)."""

    __slots__ = ("_events", "_hands", "_reached", "_stable", "_timers", "state")

    def __init__(self, hands: Hands, state: UpdateState) -> None:
        self._hands = hands
        self.state = state
        self._timers: dict[Timer, float] = {}
        self._events: deque[Event] = deque()
        self._reached = False
        self._stable = True

    @property
    def finished(self) -> bool:
        """Whether nothing more will be done."""
        return self.state.finished

    def send(self, event: Event) -> None:
        """Give the machine an event and do all it asks for, and what follows from that."""
        self._events.append(event)
        if len(self._events) > 1:
            return
        while self._events:
            self.state, actions = update.step(self.state, self._events[0])
            self._do_all(actions)
            self._events.popleft()

    def due_s(self) -> float | None:
        """When `tick` must be called at the latest."""
        return min(self._timers.values(), default=None)

    def tick(self, standing: Standing) -> None:
        """Tell the machine what changed with the containers, and let timers run out.

        In this order: a container that died in the second in which the commit is due must not be committed.
        """
        if self.state.phase is Phase.STARTING and not self.state.reboot and standing.quiet:
            self._reached, self._stable = False, True
            self.send(Transitioned())
        if self.state.phase in (Phase.TRYING, Phase.TESTING):
            self._feed_trial(standing)
        elif self.state.phase is Phase.ROLLING_BACK and not self.state.reboot:
            self._feed_rollback(standing)
        self._expire(self._hands.now_s())

    def _expire(self, now_s: float) -> None:
        for timer, at_s in list(self._timers.items()):
            # What one timer leads to may stop or restart another.
            if now_s >= at_s and self._timers.get(timer) == at_s:
                del self._timers[timer]
                self.send(TimerExpired(timer))

    def hub(self, *, reachable: bool) -> None:
        """The hub answered, or did not."""
        self.send(HubReached() if reachable else HubLost())

    def _feed_trial(self, standing: Standing) -> None:
        if standing.failed:
            self.send(ContainerFailed(standing.failed))
            return
        if standing.late:
            self.send(GoalTimedOut(standing.late))
            return
        if standing.stable != self._stable:
            self._stable = standing.stable
            self.send(Stable() if standing.stable else Unstable())
        if standing.reached != self._reached:
            self._reached = standing.reached
            self.send(GoalsReached() if standing.reached else GoalsLost())

    def _feed_rollback(self, standing: Standing) -> None:
        if standing.failed or standing.late:
            self.send(RollBackFailed(standing.failed or standing.late))
        elif standing.reached and standing.quiet:
            self.send(RolledBack())

    # -- actions -----------------------------------------------------------------------------------------------------

    def _do_all(self, actions: tuple[Action, ...]) -> None:
        """Do the actions in order; what follows one that failed is left out, and the machine hears of it."""
        for action in actions:
            try:
                self._do(action)
            except OSError as error:
                if self.state.phase is Phase.ROLLING_BACK:
                    # There is no other way back than the boot, and the bootloader knows it.
                    self._hands.reboot(f"revision {self.state.rev} cannot be left in place: {error}")
                    return
                self._events.append(Broken(f"{type(action).__name__}: {error}"))
                return

    def _do(self, action: Action) -> None:
        if isinstance(action, StartTimer):
            self._timers[action.timer] = self._hands.now_s() + action.seconds
        elif isinstance(action, StopTimers):
            for timer in action.timers:
                self._timers.pop(timer, None)
        elif isinstance(action, Persist):
            self._hands.persist(self.state.rev, action.progress)
        elif isinstance(action, Reboot):
            self._hands.reboot(action.reason)
        else:
            self._do_to_revision(action)

    def _do_to_revision(self, action: Action) -> None:
        if isinstance(action, SetTry):
            self._hands.set_try(action.rev)
        elif isinstance(action, Transition):
            self._hands.transition(self.state.rev)
        elif isinstance(action, Commit):
            self._hands.commit(action.rev)
            self._events.append(Committed())
        elif isinstance(action, MarkDone):
            self._hands.mark_done(action.rev)
        elif isinstance(action, FailTry):
            self._hands.fail_try(action.previous)
        elif isinstance(action, RollBack):
            self._hands.roll_back(action.rev)
