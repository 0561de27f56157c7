"""An update as a pure machine over events: which status it has, what is to be done next, and how it ends.

The agent drives it until the revision is installed, the supervisor from the trial on; each begins from the progress
on disk (`start`), so that a power cut in any phase is only a late event. Contract: device.md 3.3, 3.8, 4.1-4.5, 4.8.

Where we differ from the reference, and why:

- The bootloader commits first, the progress says DONE second. The other order has a moment in which the disk says
DONE and the next
  boot falls back. So the bootloader's write is the one point at which old becomes new.
- A non-reboot update is committed when it has proved itself (ADR 0007), not only at the next reboot; so nothing ends
as UPDATED.
- A failed trial without a reboot is rolled back in place: the try is cleared once the error is on disk, then the
containers go back.
- A hub that is lost while testing has its time-out to come back (`HubGate`); a container that falls below its goal
while testing
  starts the test anew; and a trial as a whole has an end, so that containers that crash and recover for ever are not
  committed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from brickless.core import paths
from brickless.core.progress import FINAL, Message, Progress, Status
from brickless.core.update_types import (
    BEFORE_TRIAL,
    TRIAL,
    Action,
    Booted,
    Broken,
    Cancelled,
    Check,
    Commit,
    Committed,
    ContainerFailed,
    Downloaded,
    DownloadFailed,
    Downloading,
    Event,
    FailTry,
    Fetch,
    GoalsLost,
    GoalsReached,
    GoalTimedOut,
    HandOver,
    HubGate,
    HubLost,
    HubReached,
    Install,
    Installed,
    MarkDone,
    NothingMissing,
    ObjectBroken,
    ObjectsMissing,
    Persist,
    Phase,
    Policy,
    Reboot,
    Refused,
    Report,
    RollBack,
    RollBackFailed,
    RolledBack,
    SetTry,
    SpaceShort,
    Stable,
    StartTimer,
    StepReceived,
    StopFetch,
    StopTimers,
    Superseded,
    Timer,
    TimerExpired,
    Transition,
    Transitioned,
    TrialStarted,
    Unstable,
)

MAX_DETAIL = 600  # characters; six bytes each at worst, and the logs of a progress hold 4096


class UpdateState(NamedTuple):
    """An update at one moment. `previous` is the revision that runs while this one is not committed."""

    rev: str
    previous: str
    phase: Phase
    progress: Progress | None
    policy: Policy = Policy()
    reboot: bool = True
    fetches: int = 0
    goals: bool = False
    stable: bool = True
    hub: bool = False
    hub_seen: bool = False
    commit_due: bool = False

    @property
    def local(self) -> bool:
        """Tell whether the hub has no part in it."""
        return paths.is_local(self.rev) or self.policy.hub_gate is HubGate.OFF

    @property
    def retries(self) -> int:
        """Return how often the update was picked up."""
        return self.progress.retries if self.progress else 0

    @property
    def finished(self) -> bool:
        """Tell whether nothing more will be done."""
        return self.phase is Phase.FINISHED


Result = tuple[UpdateState, tuple[Action, ...]]


def start(
    rev: str, *, previous: str, stored: Progress | None = None, policy: Policy | None = None, again: bool = False
) -> UpdateState:
    """Begin or resume the update to `rev` from the progress that is on disk (None when there is none).

    `previous` is the committed revision. `again` is for a command that runs a revision which was final before, as a
    local roll-back does: its old end is forgotten.
    """
    paths.check_revision(rev)
    return UpdateState(rev, previous, Phase.READY, None if again else stored, policy or Policy())


def step(state: UpdateState, event: Event) -> Result:
    """Return the state after `event`, and what to do, in this order.

    An event that has no meaning in this phase changes nothing: late answers and stale timers are harmless.
    """
    if state.finished:
        return state, ()
    stored = state.progress if state.phase is Phase.READY else None
    if stored is not None and stored.is_final and not isinstance(event, Booted):
        # It ended before: the hub hears the same again, and nothing else happens (contract 4.2).
        return state._replace(phase=Phase.FINISHED), (Report(stored),)
    return _HANDLERS[type(event)](state, event)


def _persist(state: UpdateState, status: Status, message: str, *, detail: str = "") -> tuple[UpdateState, Persist]:
    logs = json.dumps({"lvl": "ERROR", "src": "update", "msg": detail[:MAX_DETAIL]}) + "\n" if detail else ""
    progress = Progress.of(status, message, retries=state.retries, logs=logs)
    return state._replace(progress=progress), Persist(progress)


def _end(state: UpdateState, status: Status, message: str, *then: Action, detail: str = "") -> Result:
    state, persist = _persist(state, status, message, detail=detail)
    return state._replace(phase=Phase.FINISHED), (persist, *then, StopTimers(tuple(Timer)))


def _fail(state: UpdateState, message: str, detail: str) -> Result:
    """End a trial: the error goes to disk first, then the device goes back."""
    if state.phase in BEFORE_TRIAL:
        return _end(state, Status.ERROR, message, StopFetch(), detail=detail)
    state, persist = _persist(state, Status.ERROR, message, detail=detail)
    state = state._replace(phase=Phase.ROLLING_BACK)
    stop = StopTimers(tuple(Timer))
    if state.reboot:
        # The try stays set: the boot that falls back sees by it that it did, and clears it.
        return state, (persist, stop, Reboot(f"revision {state.rev} failed: {message}"))
    return state, (persist, stop, FailTry(state.rev, state.previous), RollBack(state.previous))


def _on_trial(state: UpdateState) -> bool:
    """Tell whether the new revision is what runs: until the reboot it is the old one whose containers fail."""
    return state.phase in {Phase.TRYING, Phase.TESTING} or (state.phase is Phase.STARTING and not state.reboot)


def _on_step_received(state: UpdateState, _: StepReceived) -> Result:
    if state.phase is not Phase.READY:
        return state, ()
    if not paths.is_local(state.rev):
        retries = state.retries + 1
        state = state._replace(progress=Progress.of(Status.QUEUED, "", retries=retries))
        if retries >= state.policy.max_retries:
            return _end(state, Status.WONTGO, Message.MAX_RETRIES)
    message = Message.QUEUED % (state.retries, state.policy.max_retries)
    state, persist = _persist(state, Status.QUEUED, message)
    return state._replace(phase=Phase.CHECKING, fetches=0), (persist, Check())


def _on_refused(state: UpdateState, event: Refused) -> Result:
    if state.phase in BEFORE_TRIAL:
        return _end(state, Status.WONTGO, event.message, StopFetch(), detail=event.detail)
    return _fail(state, event.message, event.detail) if _on_trial(state) else (state, ())


def _on_space_short(state: UpdateState, event: SpaceShort) -> Result:
    if state.phase not in BEFORE_TRIAL:
        return state, ()
    message = Message.NO_SPACE % (event.required_bytes, event.available_bytes)
    return _end(state, Status.WONTGO, message, StopFetch())


def _on_nothing_missing(state: UpdateState, _: NothingMissing) -> Result:
    return _install(state) if state.phase is Phase.CHECKING else (state, ())


def _on_objects_missing(state: UpdateState, event: ObjectsMissing) -> Result:
    if state.phase is not Phase.CHECKING:
        return state, ()
    if paths.is_local(state.rev):
        # Nobody brings the objects of a local revision: it was to be complete when it was asked for.
        return _end(state, Status.ERROR, Message.INTERNAL, detail=event.detail or "objects are missing")
    state, persist = _persist(state, Status.DOWNLOADING, Message.DOWNLOADING % (0, state.policy.max_retries))
    return state._replace(phase=Phase.FETCHING, fetches=1), (persist, Fetch(1))


def _install(state: UpdateState) -> Result:
    return state._replace(phase=Phase.INSTALLING), (Install(),)


def _on_downloading(state: UpdateState, event: Downloading) -> Result:
    if state.phase is not Phase.FETCHING or state.progress is None:
        return state, ()
    progress = state.progress._replace(downloads=event.downloads)
    return state._replace(progress=progress), (Persist(progress),)


def _on_downloaded(state: UpdateState, _: Downloaded) -> Result:
    return _install(state) if state.phase is Phase.FETCHING else (state, ())


def _on_download_failed(state: UpdateState, event: DownloadFailed) -> Result:
    if state.phase is not Phase.FETCHING:
        return state, ()
    policy = state.policy
    if event.offline:
        # No network is no fault of the update: waiting costs nothing, giving up would need an operator.
        return state._replace(phase=Phase.WAITING, fetches=state.fetches - 1), (
            StartTimer(Timer.RETRY, policy.max_retry_delay_s),
        )
    if event.permanent or state.fetches > policy.max_retries:
        return _end(state, Status.WONTGO, Message.MAX_DOWNLOADS, detail=event.detail)
    message = Message.DOWNLOADING % (state.fetches, policy.max_retries)
    state, persist = _persist(state, Status.DOWNLOADING, message, detail=event.detail)
    delay_s = min(policy.retry_delay_s * 2 ** min(state.fetches - 1, 16), policy.max_retry_delay_s)
    return state._replace(phase=Phase.WAITING), (persist, StartTimer(Timer.RETRY, delay_s))


def _on_object_broken(state: UpdateState, event: ObjectBroken) -> Result:
    if _on_trial(state):
        return _fail(state, Message.BAD_OBJECT, event.detail)
    return _on_download_failed(state, DownloadFailed(event.detail))


def _on_installed(state: UpdateState, _: Installed) -> Result:
    if state.phase is not Phase.INSTALLING:
        return state, ()
    return state._replace(phase=Phase.INSTALLED), (HandOver(),)


def _on_trial_started(state: UpdateState, event: TrialStarted) -> Result:
    if state.phase not in {Phase.READY, Phase.INSTALLED}:
        return state, ()
    message = Message.REBOOTING if event.reboot else Message.TRANSITIONING
    state, persist = _persist(state, Status.INPROGRESS, message)
    state = state._replace(phase=Phase.STARTING, reboot=event.reboot, goals=False, stable=True, commit_due=False)
    go: Action = Reboot(event.detail or f"revision {state.rev} is to be tried") if event.reboot else Transition()
    # The bootloader learns of a trial in place, too: after a power cut it boots the new revision, once.
    return state, (persist, SetTry(state.rev), go)


def _on_transitioned(state: UpdateState, _: Transitioned) -> Result:
    return _begin_trial(state) if state.phase is Phase.STARTING and not state.reboot else (state, ())


def _begin_trial(state: UpdateState) -> Result:
    state, persist = _persist(state, Status.INPROGRESS, Message.TRYING)
    state = state._replace(phase=Phase.TRYING)
    timers: list[Action] = [StartTimer(Timer.TRIAL, state.policy.trial_timeout_s)]
    if not (state.local or state.hub):
        timers.append(StartTimer(Timer.HUB, state.policy.hub_timeout_s))
    return state, (persist, *timers)


def _on_booted(state: UpdateState, event: Booted) -> Result:
    """Take up an update after a start of the device, from what the disk and the bootloader say."""
    if state.phase is not Phase.READY:
        return state, ()
    stored = state.progress.status if state.progress is not None else None
    if event.running == state.rev:
        return _on_booted_new(state, event, stored)
    if not event.fell_back:
        return _on_booted_old(state, stored)
    if stored in FINAL and stored not in {Status.DONE, Status.UPDATED}:
        return state._replace(phase=Phase.FINISHED), (FailTry(state.rev, event.running), *_report(state))
    back = FailTry(state.rev, event.running)
    detail = f"revision {state.rev} did not come up, and the bootloader went back to {event.running}"
    return _end(state, Status.ERROR, Message.UNEXPECTED_ROLLBACK, back, detail=detail)


def _on_booted_new(state: UpdateState, event: Booted, stored: Status | None) -> Result:
    if not event.trying:
        # The bootloader's write was the commit; whatever the power cut hid is made up for.
        if stored in FINAL and stored is not Status.UPDATED:
            done = (MarkDone(state.rev),) if stored is Status.DONE else ()
            return state._replace(phase=Phase.FINISHED), (*done, *_report(state))
        message = Message.FACTORY if state.rev == "0" else Message.DONE
        return _end(state, Status.DONE, message, MarkDone(state.rev))
    state = state._replace(reboot=True)
    if stored in FINAL and stored not in {Status.DONE, Status.UPDATED}:
        # Its error is on disk already: it is not tried again, the next boot goes back.
        state = state._replace(phase=Phase.ROLLING_BACK)
        return state, (Reboot(f"revision {state.rev} failed before: {_message(state)}"),)
    return _begin_trial(state)


def _on_booted_old(state: UpdateState, stored: Status | None) -> Result:
    """Nothing was tried and given up: the power was cut before the try was set, or after the end."""
    if stored in FINAL:
        return state._replace(phase=Phase.FINISHED), _report(state)
    if paths.is_local(state.rev) and stored not in {None, Status.NEW}:
        return _end(state, Status.ERROR, Message.ABORTED, detail="the device restarted before the revision was tried")
    if stored in {Status.INPROGRESS, Status.TESTING}:
        # Whoever looks at the disk must not wait for a trial that nobody has in hand: the step is queued again.
        message = Message.QUEUED % (state.retries, state.policy.max_retries)
        state, persist = _persist(state, Status.QUEUED, message)
        return state, (persist,)
    return state, ()


def _report(state: UpdateState) -> tuple[Action, ...]:
    return () if state.progress is None else (Report(state.progress),)


def _message(state: UpdateState) -> str:
    return "" if state.progress is None else state.progress.message


def _on_goals_reached(state: UpdateState, _: GoalsReached) -> Result:
    if state.phase is Phase.TRYING:
        return _begin_test(state._replace(goals=True))
    if state.phase is Phase.TESTING and not state.goals:
        state = state._replace(goals=True, commit_due=False)
        return state, (StartTimer(Timer.COMMIT, state.policy.commit_delay_s),)
    return state, ()


def _begin_test(state: UpdateState) -> Result:
    """Begin to test once the goals are reached and the hub has answered."""
    if not state.goals or not (state.hub or state.local):
        return state, ()
    message = Message.TESTING_REBOOT if state.reboot else Message.TESTING_NONREBOOT
    state, persist = _persist(state, Status.TESTING, message)
    return state._replace(phase=Phase.TESTING), (persist, StartTimer(Timer.COMMIT, state.policy.commit_delay_s))


def _on_goals_lost(state: UpdateState, _: GoalsLost) -> Result:
    if state.phase not in {Phase.TRYING, Phase.TESTING}:
        return state, ()
    return state._replace(goals=False, commit_due=False), (StopTimers((Timer.COMMIT,)),)


def _on_goal_timed_out(state: UpdateState, event: GoalTimedOut) -> Result:
    return _fail(state, Message.GOAL_NOT_REACHED, event.detail) if _on_trial(state) else (state, ())


def _on_container_failed(state: UpdateState, event: ContainerFailed) -> Result:
    return _fail(state, Message.CONTAINER_FAILED, event.detail) if _on_trial(state) else (state, ())


def _on_stable(state: UpdateState, _: Stable) -> Result:
    return _try_commit(state._replace(stable=True))


def _on_unstable(state: UpdateState, _: Unstable) -> Result:
    return state._replace(stable=False), ()


def _on_hub_reached(state: UpdateState, _: HubReached) -> Result:
    if state.phase not in TRIAL or state.hub:
        return state, ()
    state = state._replace(hub=True, hub_seen=True)
    if state.phase is Phase.STARTING:
        return state, ()
    then = _begin_test if state.phase is Phase.TRYING else _try_commit
    state, actions = then(state)
    return state, (StopTimers((Timer.HUB,)), *actions)


def _on_hub_lost(state: UpdateState, _: HubLost) -> Result:
    if state.phase not in TRIAL or state.local or not state.hub:
        return state, ()
    if state.phase is Phase.STARTING:
        return state._replace(hub=False), ()
    if state.phase is Phase.TESTING and state.policy.hub_gate is HubGate.STRICT:
        return _fail(state, Message.HUB_UNSTABLE, "a request to the hub failed while the revision was tested")
    return state._replace(hub=False), (StartTimer(Timer.HUB, state.policy.hub_timeout_s),)


def _on_timer_expired(state: UpdateState, event: TimerExpired) -> Result:
    if event.timer is Timer.RETRY:
        return _fetch_again(state)
    if state.phase not in {Phase.TRYING, Phase.TESTING}:
        return state, ()
    if event.timer is Timer.HUB:
        return _hub_timed_out(state)
    if event.timer is Timer.TRIAL:
        detail = f"the trial was not over after {state.policy.trial_timeout_s:g} s"
        return _fail(state, Message.GOAL_NOT_REACHED, detail)
    return _try_commit(state._replace(commit_due=True)) if state.phase is Phase.TESTING else (state, ())


def _fetch_again(state: UpdateState) -> Result:
    if state.phase is not Phase.WAITING:
        return state, ()
    fetches = state.fetches + 1
    return state._replace(phase=Phase.FETCHING, fetches=fetches), (Fetch(fetches),)


def _hub_timed_out(state: UpdateState) -> Result:
    if state.hub or state.local:
        return state, ()
    message = Message.HUB_UNSTABLE if state.hub_seen else Message.HUB_UNREACHABLE
    return _fail(state, message, f"the hub did not answer for {state.policy.hub_timeout_s:g} s")


def _try_commit(state: UpdateState) -> Result:
    if state.phase is not Phase.TESTING or not (state.commit_due and state.goals):
        return state, ()
    if not state.stable:
        if _message(state) == Message.TESTING_STABLE:
            return state, ()
        state, persist = _persist(state, Status.TESTING, Message.TESTING_STABLE)
        return state, (persist,)
    if not (state.hub or state.local):
        return state, ()
    return state._replace(phase=Phase.COMMITTING), (StopTimers(tuple(Timer)), Commit(state.rev))


def _on_committed(state: UpdateState, _: Committed) -> Result:
    if state.phase is not Phase.COMMITTING:
        return state, ()
    return _end(state, Status.DONE, Message.DONE, MarkDone(state.rev))


def _on_rolled_back(state: UpdateState, _: RolledBack) -> Result:
    if state.phase is not Phase.ROLLING_BACK or state.reboot:
        return state, ()
    return state._replace(phase=Phase.FINISHED), ()


def _on_roll_back_failed(state: UpdateState, event: RollBackFailed) -> Result:
    if state.phase is not Phase.ROLLING_BACK or state.reboot:
        return state, ()
    # The try is cleared already: the boot is one of the previous revision.
    reason = f"revision {state.previous} could not be brought back in place: {event.detail}"
    return state._replace(phase=Phase.FINISHED), (Reboot(reason),)


def _on_superseded(state: UpdateState, event: Superseded) -> Result:
    if state.phase not in BEFORE_TRIAL - {Phase.INSTALLED}:
        return state, ()
    return _end(state, Status.WONTGO, Message.STALE, StopFetch(), detail=f"revision {event.by} takes its place")


def _on_cancelled(state: UpdateState, _: Cancelled) -> Result:
    if state.phase not in BEFORE_TRIAL - {Phase.INSTALLED}:
        return state, ()
    return _end(state, Status.WONTGO, Message.ABORTED, StopFetch(), detail="the owner cancelled the update")


def _on_broken(state: UpdateState, event: Broken) -> Result:
    if state.phase is Phase.STARTING and state.reboot:
        # The reboot did not happen: the previous revision still runs, there is nothing to go back from.
        back = FailTry(state.rev, state.previous)
        return _end(state, Status.ERROR, Message.INTERNAL, back, detail=event.detail)
    if state.phase is Phase.ROLLING_BACK:
        return state, ()
    committing = state.phase is Phase.COMMITTING
    state, actions = _fail(state, Message.INTERNAL, event.detail)
    if committing and state.reboot:
        # Nobody knows how much of the commit was written: the variables are put back before the boot, not after.
        persist, *others = actions
        actions = (persist, FailTry(state.rev, state.previous), *others)
    return state, actions


_HANDLERS: dict[type[Any], Callable[[UpdateState, Any], Result]] = {
    StepReceived: _on_step_received,
    Refused: _on_refused,
    NothingMissing: _on_nothing_missing,
    ObjectsMissing: _on_objects_missing,
    SpaceShort: _on_space_short,
    Downloading: _on_downloading,
    Downloaded: _on_downloaded,
    DownloadFailed: _on_download_failed,
    ObjectBroken: _on_object_broken,
    Installed: _on_installed,
    TrialStarted: _on_trial_started,
    Transitioned: _on_transitioned,
    Booted: _on_booted,
    GoalsReached: _on_goals_reached,
    GoalsLost: _on_goals_lost,
    GoalTimedOut: _on_goal_timed_out,
    Stable: _on_stable,
    Unstable: _on_unstable,
    ContainerFailed: _on_container_failed,
    HubReached: _on_hub_reached,
    HubLost: _on_hub_lost,
    TimerExpired: _on_timer_expired,
    Committed: _on_committed,
    RolledBack: _on_rolled_back,
    RollBackFailed: _on_roll_back_failed,
    Superseded: _on_superseded,
    Cancelled: _on_cancelled,
    Broken: _on_broken,
}
