"""An update from the poll to the trial: refuse or fetch, verify, install, hand over (contracts/device.md 4.4).

One update at a time. Every step ends in exactly one final status, and whatever happens on the way the running revision
is not touched: all that is written here is a revision beside it. Killed at any moment, the agent takes the step up
again from the hub's list and finds what it had already fetched. From the trial on the progress is the supervisor's.
"""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable
from enum import StrEnum

from brickless.core.errors import HostileInputError
from brickless.core.progress import Downloads as Totals
from brickless.core.progress import Message, Progress, Status
from brickless.core.state import State, parse_state
from brickless.device.config import Config
from brickless.device.link.http import HubUnreachableError
from brickless.device.link.hub import Hub, HubRefusedError
from brickless.device.link.reports import Reports
from brickless.device.link.supervisor import Supervisor, SupervisorError
from brickless.device.link.wire import ObjectInfo, RemoteStep
from brickless.device.update.download import Downloads, End, Outcome
from brickless.device.update.space import Space, is_disk_full
from brickless.store.trails import Storage

#: How often the bytes of a download are reported, and a trial is looked at.
HEARTBEAT_S = 5.0
TRIAL_LOOK_S = 1.0
#: Failed attempts at one object before the whole attempt counts as failed.
_STRIKES = 3
_REFUSED_FOR_GOOD = frozenset({400, 403, 404, 410})


class Phase(StrEnum):
    """Where the active update stands."""

    DESCRIBE = "describe"  # sizes and addresses of what is missing
    FETCH = "fetch"
    INSTALL = "install"
    HAND_OVER = "hand over"  # installed; the supervisor has not taken it yet
    TRIAL = "trial"  # the supervisor's


class Active:
    """The update that is being worked on."""

    def __init__(self, rev: str, state: State | None, retries: int, phase: Phase) -> None:
        self.rev = rev
        self.state = state
        self.retries = retries
        self.phase = phase
        self.due_s = 0.0
        self.started_s = 0
        self.reason = ""
        self.failed = False
        self.infos: dict[str, ObjectInfo] = {}
        self.strikes: dict[str, int] = {}
        self.retry_at_s: dict[str, float] = {}

    def required_state(self) -> State:
        """The state, in the phases that have one."""
        if self.state is None:
            raise RuntimeError(f"revision {self.rev} has no state in the phase {self.phase}")
        return self.state


class Engine:
    """Takes steps and works on them. Single-threaded: `turn` is called when `due_s` says, or after a wake."""

    def __init__(
        self,
        storage: Storage,
        config: Config,
        hub: Hub,
        supervisor: Supervisor,
        reports: Reports,
        *,
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
        self._space = Space(storage, config, report)
        self._active: Active | None = self._unfinished_trial()
        self._downloads: Downloads | None = None

    # What the agent asks --------------------------------------------------------------------------------------------
    @property
    def active_rev(self) -> str | None:
        """The revision that is being worked on, the supervisor's trial included."""
        return self._active.rev if self._active else None

    @property
    def in_trial(self) -> bool:
        """Whether the supervisor is trying a remote revision: then the hub must be reached in time."""
        return self._active is not None and self._active.phase == Phase.TRIAL

    @property
    def state_name(self) -> str:
        """The client state for `pantahub.state` (contracts/device.md 7.2)."""
        if self._active is None or self._active.phase == Phase.TRIAL:
            return "idle"
        return "download" if self._active.phase == Phase.FETCH else "prep download"

    def due_in_s(self, now_s: float) -> float | None:
        """Seconds until `turn` has something to do; None: only a step, or a wake, gives it work."""
        return None if self._active is None else max(0.0, self._active.due_s - now_s)

    def hurry(self) -> None:
        """Ends every pause between attempts."""
        if self._active is not None:
            self._active.due_s = 0.0
            self._active.retry_at_s = dict.fromkeys(self._active.retry_at_s, 0.0)

    def stop(self) -> None:
        """Ends downloads; what came stays."""
        if self._downloads is not None:
            self._downloads.stop()

    # Steps ----------------------------------------------------------------------------------------------------------
    def offer(self, steps: list[RemoteStep]) -> None:
        """Steps that wait at the hub, by ascending revision. Finished ones are reported again; one is taken."""
        waiting = [step for step in steps if not self._is_over(step)]
        if self._active is not None or not waiting:
            return
        if self._config.flag("PH_UPDATER_SKIP_TO_NEWEST"):
            for older in waiting[:-1]:
                self._refuse(older.rev, older.retries, Message.STALE, f"step {waiting[-1].rev} takes its place")
            waiting = waiting[-1:]
        self._begin(waiting[0])

    def _is_over(self, step: RemoteStep) -> bool:
        progress = self._reports.of(step.rev)
        if progress is not None and progress.is_final:
            self._reports.again(step.rev)
            return True
        if progress is None and self._is_stale(step.rev):
            self._refuse(step.rev, step.retries, Message.STALE, f"revision {self._storage.current()} runs already")
            return True
        return False

    def _is_stale(self, rev: str) -> bool:
        """A step from before the running revision, of which nothing is known here: going back is not an update."""
        current = self._storage.current()
        return current is not None and current.isdigit() and int(rev) <= int(current)

    def _unfinished_trial(self) -> Active | None:
        """A trial from before the agent was started: the supervisor has it, the hub wants to know how it ends."""
        for rev in reversed(self._storage.revisions()):
            if not rev.isdigit():
                continue
            progress = self._reports.of(rev)
            if progress is not None and progress.status in {Status.INPROGRESS, Status.TESTING}:
                return Active(rev, None, progress.retries, Phase.TRIAL)
        return None

    def _begin(self, step: RemoteStep) -> None:
        rev = step.rev
        progress = self._reports.of(rev)
        retries = (progress.retries if progress else step.retries) + 1
        if retries >= self._limit:
            self._refuse(rev, retries, Message.MAX_RETRIES, "every attempt so far was interrupted")
            return
        self._report(f"revision {rev}: attempt {retries}")
        if not self._persist(rev, step.state):
            self._refuse(rev, retries, Message.NO_SPACE % (len(step.state), self._space.available_bytes()), "")
            return
        self._put(rev, Status.QUEUED, Message.QUEUED % (retries, self._limit), retries)
        if not step.state.strip():
            self._refuse(rev, retries, Message.NO_STATE, "the step has no state")
            return
        try:
            state = parse_state(step.state)
        except HostileInputError as error:
            self._refuse(rev, retries, Message.BAD_STATE, str(error))
            return
        self._active = Active(rev, state, retries, Phase.DESCRIBE)

    def _persist(self, rev: str, raw: bytes) -> bool:
        """Writes the state as it was received; on a full disk once more after collecting garbage."""
        for last in (False, True):
            try:
                self._storage.write_state(rev, raw)
            except OSError as error:
                if not is_disk_full(error):
                    raise
                if last:
                    return False
                self._space.collect(rev)
            else:
                return True
        return False

    @property
    def _limit(self) -> int:
        return self._config.integer("PV_REVISION_RETRIES")

    # Ends -----------------------------------------------------------------------------------------------------------
    def _refuse(self, rev: str, retries: int, message: str, why: str, status: Status = Status.WONTGO) -> None:
        """A final status, before the trial. The running revision was never touched."""
        self._report(f"revision {rev}: {status.value}: {message}" + (f" ({why})" if why else ""))
        self._reports.put(rev, Progress.of(status, message, retries=retries, logs=log_line(why) if why else ""))
        if self._active is not None and self._active.rev == rev:
            self.stop()
            self._downloads = None
            self._active = None

    def _put(self, rev: str, status: Status, message: str, retries: int) -> None:
        self._reports.put(rev, Progress.of(status, message, retries=retries))

    # Turns ----------------------------------------------------------------------------------------------------------
    def turn(self, now_s: float) -> None:
        """Does what is due. Raises as the hub does; then it goes on from where it stood in the next turn."""
        active = self._active
        if active is None or (active.due_s > now_s and active.phase != Phase.FETCH):
            return  # a download is looked at whenever a thread wakes us
        try:
            _TURNS[active.phase](self, active, now_s)
        except OSError as error:
            self._disk_refused(active, now_s, error)
        except (HubUnreachableError, HubRefusedError, HostileInputError):
            active.due_s = now_s + self._config.seconds("PH_UPDATER_INTERVAL")
            raise

    def _describe(self, active: Active, now_s: float) -> None:
        """Sizes and addresses of the missing objects; refuses what does not fit."""
        missing = self._storage.missing(active.required_state())
        if not missing:
            active.phase = Phase.INSTALL
            self._install(active, now_s)
            return
        message = Message.QUEUED_METADATA % (active.retries, self._limit)
        self._put(active.rev, Status.QUEUED, message, active.retries)
        active.infos = {}
        for path, sha in missing:
            try:
                active.infos[sha] = self._hub.object_info(sha)
            except HubRefusedError as error:
                if error.status not in _REFUSED_FOR_GOOD:
                    raise
                self._attempt_failed(
                    active, now_s, f"{path}: the hub has no object {sha} for this device ({error.status})"
                )
                return
            except HostileInputError as error:
                self._attempt_failed(active, now_s, f"{path}: {error}")
                return
        if self._fits(active):
            self._fetch(active, now_s)

    def _fits(self, active: Active) -> bool:
        required = self._space.required_bytes(active.infos.values())
        if required > self._space.available_bytes():
            self._space.collect(active.rev, owed=self._reports.owed)
        available = self._space.available_bytes()
        if required <= available:
            return True
        why = f"{len(active.infos)} objects have to be fetched; free space, or ask for less"
        self._refuse(active.rev, active.retries, Message.NO_SPACE % (required, available), why)
        return False

    def _fetch(self, active: Active, now_s: float) -> None:
        active.phase = Phase.FETCH
        active.failed = False
        active.strikes, active.retry_at_s = {}, {}
        active.started_s = int(time.time())
        self._put(active.rev, Status.DOWNLOADING, Message.DOWNLOADING % (active.retries, self._limit), active.retries)
        self._downloads = Downloads(
            self._storage.objects, self._hub.transport, check=self._hub.check_scheme, wake=self._wake
        )
        self._downloads.start(active.infos.values(), self._max_count)
        active.due_s = now_s + HEARTBEAT_S

    @property
    def _max_count(self) -> int:
        return self._config.integer("PH_UPDATER_TRANSFER_MAX_COUNT")

    def _fetching(self, active: Active, now_s: float) -> None:
        downloads = self._downloads
        if downloads is None:
            raise RuntimeError("a download without downloads")
        for outcome in downloads.ended():
            self._ended(active, outcome, now_s)
            if active.failed or self._active is not active:
                return
        self._again(active, downloads, now_s)
        if active.failed:
            return
        if all(self._storage.objects.has(sha) for sha in active.infos):
            downloads.stop()
            self._downloads = None
            active.phase = Phase.INSTALL
            self._install(active, now_s)
            return
        if now_s >= active.due_s:
            self._report_bytes(active, downloads)
            active.due_s = now_s + HEARTBEAT_S
        if active.retry_at_s:
            active.due_s = min(active.due_s, *active.retry_at_s.values())

    def _ended(self, active: Active, outcome: Outcome, now_s: float) -> None:
        sha = outcome.info.sha
        if outcome.end in {End.WHOLE, End.STOPPED}:
            return
        active.reason = outcome.reason
        self._report(f"revision {active.rev}: {outcome.reason}")
        if outcome.end == End.DISK:
            raise OSError(errno.ENOSPC, outcome.reason)
        if not outcome.gained_bytes:
            active.strikes[sha] = active.strikes.get(sha, 0) + 1
        strikes = active.strikes.get(sha, 0)
        if strikes >= _STRIKES:
            self._attempt_failed(active, now_s, outcome.reason)
            return
        active.retry_at_s[sha] = now_s + self._config.seconds("PH_UPDATER_INTERVAL") * strikes

    def _again(self, active: Active, downloads: Downloads, now_s: float) -> None:
        """Objects whose pause is over get a new address and are fetched on from where they broke off."""
        for sha in [sha for sha, at_s in active.retry_at_s.items() if at_s <= now_s]:
            try:
                info = self._hub.object_info(sha)
            except HubUnreachableError:
                active.retry_at_s[sha] = now_s + self._config.seconds("PH_UPDATER_INTERVAL")
                raise
            except (HubRefusedError, HostileInputError) as error:
                self._attempt_failed(active, now_s, str(error))
                return
            del active.retry_at_s[sha]
            active.infos[sha] = info
            downloads.start([info], self._max_count)

    def _report_bytes(self, active: Active, downloads: Downloads) -> None:
        total = sum(info.size_bytes for info in active.infos.values())
        totals = Totals(total, downloads.received_bytes, active.started_s, int(time.time()))
        message = Message.DOWNLOADING % (active.retries, self._limit)
        progress = Progress.of(Status.DOWNLOADING, message, retries=active.retries)._replace(downloads=totals)
        self._reports.put(active.rev, progress, persist=False)

    def _attempt_failed(self, active: Active, now_s: float, reason: str) -> None:
        """Counts an attempt; the next one comes after a pause that doubles, until there were too many."""
        self.stop()
        self._downloads = None
        active.failed = True
        active.retries += 1
        if active.retries > self._limit:
            self._refuse(active.rev, active.retries, Message.MAX_DOWNLOADS, reason)
            return
        self._report(f"revision {active.rev}: attempt {active.retries} follows: {reason}")
        pause_s = self._config.seconds("PH_UPDATER_INTERVAL") * 2 ** min(active.retries, 16)
        active.due_s = now_s + min(pause_s, self._config.seconds("PH_UPDATER_BACKOFF_MAX"))
        active.phase = Phase.DESCRIBE
        self._put(active.rev, Status.QUEUED, Message.QUEUED % (active.retries, self._limit), active.retries)

    def _install(self, active: Active, now_s: float) -> None:
        try:
            self._storage.install(active.rev, active.required_state())
        except HostileInputError as error:
            self._refuse(active.rev, active.retries, Message.INTERNAL, str(error), Status.ERROR)
            return
        active.phase = Phase.HAND_OVER
        self._hand_over(active, now_s)

    def _hand_over(self, active: Active, now_s: float) -> None:
        try:
            self._supervisor.try_revision(active.rev)
        except SupervisorError as error:
            if active.reason != str(error):
                active.reason = str(error)
                self._report(f"revision {active.rev} waits: {error}")
            active.due_s = now_s + TRIAL_LOOK_S
            return
        self._report(f"revision {active.rev} is installed and handed over for its trial")
        active.phase = Phase.TRIAL
        active.due_s = now_s
        active.state = None  # a large state need not stay in memory through the trial

    def _trial(self, active: Active, now_s: float) -> None:
        self._reports.look_at(active.rev)
        progress = self._reports.of(active.rev)
        if progress is not None and progress.is_final:
            self._report(f"revision {active.rev}: {progress.status.value}: {progress.message}")
            self._active = None
        active.due_s = now_s + TRIAL_LOOK_S

    def _disk_refused(self, active: Active, now_s: float, error: OSError) -> None:
        """A disk that refuses in mid-update: what is missing is computed anew, so that it fits or is refused."""
        self.stop()
        self._downloads = None
        if not is_disk_full(error):
            self._refuse(active.rev, active.retries, Message.INTERNAL, str(error), Status.ERROR)
            return
        required = self._space.required_bytes(active.infos.values())
        self._space.collect(active.rev, owed=self._reports.owed)
        available = self._space.available_bytes()
        if required > available or active.phase != Phase.FETCH:
            self._refuse(active.rev, active.retries, Message.NO_SPACE % (required, available), str(error))
            return
        self._attempt_failed(active, now_s, str(error))


_TURNS: dict[Phase, Callable[[Engine, Active, float], None]] = {
    Phase.DESCRIBE: Engine._describe,
    Phase.FETCH: Engine._fetching,
    Phase.INSTALL: Engine._install,
    Phase.HAND_OVER: Engine._hand_over,
    Phase.TRIAL: Engine._trial,
}


def log_line(message: str) -> str:
    """One line of a progress's `logs` (contracts/device.md 4.2): what went wrong, for people."""
    now_s = time.time()
    line = {
        "tsec": int(now_s),
        "tnano": int(now_s % 1 * 1e9),
        "platform": "pantavisor",
        "lvl": "ERROR",
        "src": "updater",
        "msg": message[:1500],
    }
    return json.dumps(line, separators=(",", ":")) + "\n"
