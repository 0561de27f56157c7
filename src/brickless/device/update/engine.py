"""An update from the poll to the trial: the agent's driver of `core.update` (contracts/device.md 4.4).

The machine decides; here its actions are carried out and what happened is told to it. One update at a time, and
whatever happens on the way the running revision is not touched: all that is written is a revision beside it. Killed at
any moment, the agent takes the step up again from the hub's list and finds what it had already fetched. From the
hand-over on the progress is the supervisor's, and is only reported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from brickless.core import update
from brickless.core.errors import HostileInputError
from brickless.core.progress import Message, Progress, Status
from brickless.core.update_types import (
    Action,
    Broken,
    Check,
    Downloaded,
    DownloadFailed,
    Downloading,
    Event,
    Fetch,
    HandOver,
    Install,
    Installed,
    NothingMissing,
    ObjectBroken,
    ObjectsMissing,
    Persist,
    Phase,
    Policy,
    Refused,
    Report,
    SpaceShort,
    StartTimer,
    StepReceived,
    StopFetch,
    StopTimers,
    Superseded,
    Timer,
    TimerExpired,
)
from brickless.device.config import Config
from brickless.device.link.http import HubUnreachableError
from brickless.device.link.hub import Hub, HubRefusedError
from brickless.device.link.reports import Reports
from brickless.device.link.supervisor import Supervisor, SupervisorError
from brickless.device.link.wire import ObjectInfo, RemoteStep
from brickless.device.update.policy import judge, policy_of
from brickless.device.update.space import Space, is_disk_full
from brickless.store.trails import Storage

if TYPE_CHECKING:
    from brickless.core.state import State
    from brickless.device.update.fetch import Fetching

#: How often a trial is looked at, and an absent supervisor asked again.
TRIAL_LOOK_S = 1.0


class Active:
    """The update that is being worked on."""

    __slots__ = ("due_s", "fetching", "infos", "machine", "raw", "rev", "said", "state", "work")

    def __init__(self, rev: str, raw: bytes = b"", machine: update.UpdateState | None = None) -> None:
        self.rev = rev
        self.raw = raw
        #: None in the trial: then the supervisor has the update.
        self.machine = machine
        self.state: State | None = None
        self.infos: dict[str, ObjectInfo] = {}
        self.fetching: Fetching | None = None
        #: What is to be done at `due_s`; None: nothing but to wait for the download.
        self.work: Callable[[float], None] | None = None
        self.due_s = 0.0
        self.said = ""


class Engine:
    """Takes steps and works on them. Single-threaded: `turn` is called when `due_in_s` says, or after a wake."""

    def __init__(
        self,
        storage: Storage,
        config: Config,
        hub: Hub,
        supervisor: Supervisor,
        reports: Reports,
        *,
        private: str,
        wake: Callable[[], None],
        report: Callable[[str], None],
    ) -> None:
        self._storage = storage
        self._config = config
        self._hub = hub
        self._supervisor = supervisor
        self._reports = reports
        self._wake = wake
        self._report = report
        self._space = Space(storage, config, private, report)
        self._active: Active | None = None
        self._find_trial()

    # What the agent asks --------------------------------------------------------------------------------------------
    @property
    def active_rev(self) -> str | None:
        """The revision that is being worked on, the supervisor's trial included."""
        return self._active.rev if self._active else None

    @property
    def in_trial(self) -> bool:
        """Whether the supervisor is trying a remote revision: then the hub must be reached in time."""
        return self._active is not None and self._active.machine is None

    @property
    def state_name(self) -> str:
        """The client state for `pantahub.state` (contracts/device.md 7.2)."""
        if self._active is None or self._active.machine is None:
            return "idle"
        return "prep download" if self._active.fetching is None else "download"

    def due_in_s(self, now_s: float) -> float | None:
        """Seconds until `turn` has something to do; None: only a step, or a wake, gives it work."""
        active = self._active
        if active is None:
            return None
        due_s = active.due_s if active.fetching is None else active.fetching.due_s
        return max(0.0, due_s - now_s)

    def hurry(self) -> None:
        """Ends every pause between attempts."""
        if self._active is not None:
            self._active.due_s = 0.0
            if self._active.fetching is not None:
                self._active.fetching.hurry()

    def collect_when_due(self) -> None:
        """Collects garbage at the threshold, between updates."""
        if self._active is None:
            self._space.collect_when_due()

    def stop(self) -> None:
        """Ends downloads; what came stays."""
        if self._active is not None:
            self._stop_fetching(self._active)

    # Steps ----------------------------------------------------------------------------------------------------------
    def offer(self, steps: list[RemoteStep], now_s: float) -> None:
        """Steps that wait at the hub, by ascending revision. Finished ones are reported again; one is taken."""
        waiting = [step for step in steps if not self._is_over(step)]
        if not waiting:
            return
        newest = waiting[-1]
        if self._config.flag("PH_UPDATER_SKIP_TO_NEWEST"):
            self._supersede(waiting[:-1], newest, now_s)
            waiting = [newest]
        if self._active is None:
            self._begin(waiting[0], now_s)

    def _is_over(self, step: RemoteStep) -> bool:
        progress = self._reports.of(step.rev)
        if progress is not None and progress.is_final:
            self._reports.again(step.rev)
            return True
        current = self._storage.current()
        if current == step.rev and self._storage.is_done(step.rev):
            # Its progress was lost or is broken; the mark of the commit says how it ended.
            self._reports.put(step.rev, Progress.of(Status.DONE, Message.DONE, retries=step.retries))
            return True
        if progress is None and current is not None and current.isdigit() and int(step.rev) < int(current):
            # Of before the running revision, and nothing is known of it here: going back is not an update.
            self._end_at_once(step, Refused(Message.STALE, f"revision {current} is running already"))
            return True
        return False

    def _supersede(self, older: list[RemoteStep], newest: RemoteStep, now_s: float) -> None:
        active = self._active
        for step in older:
            if active is None or step.rev != active.rev:
                self._end_at_once(step, Superseded(newest.rev))
        if active is not None and active.machine is not None and active.rev != newest.rev:
            self._tell(active, Superseded(newest.rev), now_s)

    def _end_at_once(self, step: RemoteStep, event: Event) -> None:
        active = Active(step.rev, step.state, self._machine(step))
        self._tell(active, event, 0.0)

    def _machine(self, step: RemoteStep) -> update.UpdateState:
        stored = self._reports.of(step.rev)
        if stored is None and step.retries:
            stored = Progress.of(Status.QUEUED, "", retries=step.retries)
        interval_s = self._config.seconds("PH_UPDATER_INTERVAL")
        policy = Policy(
            max_retries=self._config.integer("PV_REVISION_RETRIES"),
            retry_delay_s=interval_s,
            max_retry_delay_s=max(interval_s, self._config.seconds("PH_UPDATER_BACKOFF_MAX")),
        )
        return update.start(step.rev, previous=self._storage.current() or "0", stored=stored, policy=policy)

    def _find_trial(self) -> None:
        """A trial from before the agent was started: the supervisor has it, the hub wants to know how it ends."""
        for rev in reversed(self._storage.revisions()):
            progress = self._reports.of(rev) if rev.isdigit() else None
            if progress is not None and progress.status in {Status.INPROGRESS, Status.TESTING}:
                self._active = Active(rev)
                self._active.work = self._look_at_trial
                self._say(self._active, progress)
                return

    def _begin(self, step: RemoteStep, now_s: float) -> None:
        self._active = Active(step.rev, step.state, self._machine(step))
        self._tell(self._active, StepReceived(), now_s)

    # The machine ----------------------------------------------------------------------------------------------------
    def _tell(self, active: Active, event: Event, now_s: float) -> None:
        """Tells the machine what happened and does what it says."""
        if active.machine is None:
            return
        active.machine, actions = update.step(active.machine, event)
        finished = active.machine.finished
        for action in actions:
            self._do(active, action, now_s, live=isinstance(event, Downloading))
        if finished:
            self._finish(active)

    def _do(self, active: Active, action: Action, now_s: float, *, live: bool) -> None:
        if isinstance(action, Persist | Report):
            self._say(active, action.progress)
            self._reports.put(active.rev, action.progress, persist=isinstance(action, Persist) and not live)
        elif isinstance(action, Check):
            active.work, active.due_s = self._check, now_s
        elif isinstance(action, Fetch):
            active.work, active.due_s = self._fetch, now_s
        elif isinstance(action, Install):
            active.work, active.due_s = self._install, now_s
        elif isinstance(action, HandOver):
            active.work, active.due_s = self._hand_over, now_s
        elif isinstance(action, StartTimer) and action.timer is Timer.RETRY:
            active.work, active.due_s = self._retry, now_s + action.seconds
        elif isinstance(action, StopFetch | StopTimers):
            self._stop_fetching(active)
        else:
            raise RuntimeError(f"{type(action).__name__} is not for the agent")

    def _say(self, active: Active, progress: Progress) -> None:
        line = f"revision {active.rev}: {progress.status.value}: {progress.message}"
        if line != active.said:
            active.said = line
            self._report(line + (f" {progress.logs.strip()}" if progress.logs else ""))

    def _finish(self, active: Active) -> None:
        self._stop_fetching(active)
        if self._active is active:
            self._active = None

    @staticmethod
    def _stop_fetching(active: Active) -> None:
        if active.fetching is not None:
            active.fetching.stop()
            active.fetching = None

    # Turns ----------------------------------------------------------------------------------------------------------
    def turn(self, now_s: float) -> None:
        """Does what is due. Raises as the hub does; then it goes on from where it stood in a later turn."""
        active = self._active
        if active is None:
            return
        try:
            if active.fetching is not None:
                self._look_at_fetch(active, active.fetching, now_s)
            for _ in Phase:  # one piece of work often leads to the next at once
                work = active.work
                if work is None or active.due_s > now_s or self._active is not active:
                    return
                work(now_s)
        except (HubUnreachableError, HubRefusedError, HostileInputError):
            active.due_s = now_s + self._config.seconds("PH_UPDATER_INTERVAL")
            raise
        except OSError as error:
            self._disk_refused(active, error, now_s)

    def _current(self) -> Active:
        if self._active is None:
            raise RuntimeError("there is no update to be worked on")
        return self._active

    def _check(self, now_s: float) -> None:
        """Persists the state as it was received, reads it, and finds out what is missing and whether it fits."""
        from brickless.core.state import parse_state

        active = self._current()
        if not active.raw.strip():
            self._tell(active, Refused(Message.NO_STATE, "the step has no state"), now_s)
            return
        self._with_room(active, lambda: self._storage.write_state(active.rev, active.raw))
        try:
            active.state = parse_state(active.raw)
        except HostileInputError as error:
            self._tell(active, Refused(Message.BAD_STATE, str(error)), now_s)
            return
        verdict = judge(active.state, policy_of(self._config), dated=not self._storage.is_done(active.rev))
        if verdict.message:
            self._tell(active, Refused(verdict.message, verdict.detail), now_s)
            return
        if verdict.detail:
            self._report(f"revision {active.rev}: {verdict.detail}")
        missing = self._storage.missing(active.state)
        active.work = None
        if not missing:
            self._tell(active, NothingMissing(), now_s)
            return
        names = f"{len(missing)} objects are missing, the first is {missing[0][0]}"
        self._tell(active, ObjectsMissing(0, names), now_s)

    def _describe(self, active: Active) -> str:
        """Sizes and addresses of the missing objects; what is wrong with one of them, "" when nothing is."""
        if active.state is None:
            raise RuntimeError(f"revision {active.rev} was not read")
        active.infos = {}
        for path, sha in self._storage.missing(active.state):
            try:
                active.infos[sha] = self._hub.object_info(sha)
            except HubRefusedError as error:
                return f"{path}: the hub has no object {sha} for this device: {error}"
            except HostileInputError as error:
                return f"{path}: {error}"
        return ""

    def _fetch(self, now_s: float) -> None:
        active = self._current()
        try:
            fault = self._describe(active)
        except HubUnreachableError as error:
            active.work = None
            self._tell(active, DownloadFailed(str(error), offline=True), now_s)
            raise
        active.work = None
        if fault:
            self._tell(active, DownloadFailed(fault), now_s)
            return
        required, available = self._room_for(active)
        if required > available:
            self._tell(active, SpaceShort(required, available), now_s)
            return
        from brickless.device.update.fetch import Fetching

        active.fetching = Fetching(active.infos, self._storage.objects, self._hub, self._config, self._wake)
        active.fetching.start(now_s)
        self._look_at_fetch(active, active.fetching, now_s)

    def _room_for(self, active: Active) -> tuple[int, int]:
        """Bytes that are needed and bytes that there are, after a collection of garbage when that is needed."""
        required = self._space.required_bytes(active.infos.values()) + self._space.kept_bytes(active.state)
        if required > self._space.available_bytes():
            self._space.collect(active.rev, owed=self._reports.owed)
        return required, self._space.available_bytes()

    def _look_at_fetch(self, active: Active, fetching: Fetching, now_s: float) -> None:
        found = fetching.look(now_s)
        if found.reason:
            self._report(f"revision {active.rev}: {found.reason}")
        if found.disk_error is not None:
            raise found.disk_error
        if found.failed:
            self._stop_fetching(active)
            event = ObjectBroken(found.reason) if found.broken else DownloadFailed(found.reason)
            self._tell(active, event, now_s)
        elif found.whole:
            self._stop_fetching(active)
            self._tell(active, Downloaded(), now_s)
        elif found.totals is not None:
            self._tell(active, Downloading(found.totals), now_s)

    def _retry(self, now_s: float) -> None:
        active = self._current()
        active.work = None
        self._tell(active, TimerExpired(Timer.RETRY), now_s)

    def _install(self, now_s: float) -> None:
        active = self._current()
        state = active.state
        if state is None:
            raise RuntimeError(f"revision {active.rev} was not read")
        try:
            self._with_room(active, lambda: self._storage.install(active.rev, state))
        except HostileInputError as error:
            self._tell(active, Broken(str(error)), now_s)
            return
        self._tell(active, Installed(), now_s)

    def _hand_over(self, now_s: float) -> None:
        active = self._current()
        try:
            self._supervisor.try_revision(active.rev)
        except SupervisorError as error:
            line = f"revision {active.rev} waits: {error}"
            if line != active.said:
                active.said = line
                self._report(line)
            active.due_s = now_s + TRIAL_LOOK_S
            return
        self._report(f"revision {active.rev} is installed and handed over for its trial")
        self._active = Active(active.rev)  # without the state: it need not stay in memory through the trial
        self._active.work = self._look_at_trial
        self._active.due_s = now_s

    def _look_at_trial(self, now_s: float) -> None:
        active = self._current()
        self._reports.look_at(active.rev)
        active.due_s = now_s + TRIAL_LOOK_S
        progress = self._reports.of(active.rev)
        if progress is not None and progress.status is Status.QUEUED and active.said:
            # A power cut came before the try was set, and the supervisor gave the step back: the hub's list has it.
            self._active = None
            return
        if progress is None or not (progress.is_final or progress.status in {Status.INPROGRESS, Status.TESTING}):
            return  # what stands there is still ours
        self._say(active, progress)
        if progress.is_final:
            self._active = None

    # The disk -------------------------------------------------------------------------------------------------------
    def _with_room(self, active: Active, write: Callable[[], None]) -> None:
        """Writes; on a full disk once more after collecting garbage. Raises OSError when that does not help."""
        try:
            write()
        except OSError as error:
            if not is_disk_full(error):
                raise
            self._space.collect(active.rev, owed=self._reports.owed)
            write()

    def _disk_refused(self, active: Active, error: OSError, now_s: float) -> None:
        """A disk that refuses in mid-update: what is missing is counted anew, so that it fits or is refused."""
        self._stop_fetching(active)
        active.work = None
        if not is_disk_full(error):
            self._tell(active, Broken(f"the storage refuses {error.filename or 'a file'}: {error.strerror}"), now_s)
            return
        required, available = self._room_for(active)
        fetching = active.machine is not None and active.machine.phase is Phase.FETCHING
        if required > available or not fetching:
            self._tell(active, SpaceShort(max(required, len(active.raw)), available), now_s)
            return
        self._tell(active, DownloadFailed(f"the disk refuses more bytes: {error.strerror}"), now_s)
