"""The words of the update machine (`core.update`): what may happen to an update, and what is to be done about it."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, TypeAlias

from brickless.core.progress import Downloads, Progress


class Phase(StrEnum):
    """How far an update is. The agent drives it up to INSTALLED, the supervisor from STARTING on."""

    READY = "ready"
    CHECKING = "checking"
    FETCHING = "fetching"
    WAITING = "waiting"
    INSTALLING = "installing"
    INSTALLED = "installed"
    STARTING = "starting"
    TRYING = "trying"
    TESTING = "testing"
    COMMITTING = "committing"
    ROLLING_BACK = "rolling-back"
    FINISHED = "finished"


BEFORE_TRIAL = frozenset(
    {Phase.READY, Phase.CHECKING, Phase.FETCHING, Phase.WAITING, Phase.INSTALLING, Phase.INSTALLED}
)
TRIAL = frozenset({Phase.STARTING, Phase.TRYING, Phase.TESTING})


class Timer(StrEnum):
    """The clocks that the driver runs for the machine; starting one that runs starts it anew."""

    RETRY = "retry"
    HUB = "hub"
    COMMIT = "commit"
    TRIAL = "trial"


class HubGate(StrEnum):
    """What a remote update's commit asks of the hub.

    REACHED: it must answer when the revision is committed; a loss while testing has the hub's time-out to end.
    STRICT: as the reference, the first loss while testing fails the update. OFF: it is not asked.
    """

    REACHED = "reached"
    STRICT = "strict"
    OFF = "off"


class Policy(NamedTuple):
    """The device's settings: `PV_REVISION_RETRIES`, `PV_UPDATER_COMMIT_DELAY`, `PH_UPDATER_NETWORK_TIMEOUT` and ours.

    `trial_timeout_s` bounds a trial as a whole: containers that crash and recover for ever must not keep it open.
    """

    max_retries: int = 10
    commit_delay_s: float = 25
    hub_timeout_s: float = 120
    hub_gate: HubGate = HubGate.REACHED
    trial_timeout_s: float = 1800
    retry_delay_s: float = 2
    max_retry_delay_s: float = 60


class StepReceived(NamedTuple):
    """The hub's list or a local command names this revision as the one to go to.

    The driver does not send it while the supervisor has the update in its hands.
    """


class Refused(NamedTuple):
    """The state is missing, malformed or not signed as it must be. `message` is one of `progress.Message`."""

    message: str
    detail: str = ""


class NothingMissing(NamedTuple):
    """All objects are there."""


class ObjectsMissing(NamedTuple):
    """These bytes are to be fetched; there is space for them."""

    size_bytes: int
    detail: str = ""


class SpaceShort(NamedTuple):
    """Even after a garbage collection there is no space."""

    required_bytes: int
    available_bytes: int


class Downloading(NamedTuple):
    """The fetch goes on: its totals, at the pace at which they shall be reported."""

    downloads: Downloads


class Downloaded(NamedTuple):
    """Every missing object is there, and its hash is right."""

    size_bytes: int = 0


class DownloadFailed(NamedTuple):
    """The fetch stopped.

    `permanent` says that trying again cannot help (the hub does not know an object), `offline` that nothing was
    reached: such a try is not counted.
    """

    detail: str
    permanent: bool = False
    offline: bool = False


class ObjectBroken(NamedTuple):
    """An object's bytes do not have its hash: while fetching, or when the trial verifies what it runs."""

    detail: str


class Installed(NamedTuple):
    """Files are linked, inline JSON is written: the revision can be started."""


class TrialStarted(NamedTuple):
    """The supervisor planned the transition and begins: by a reboot or in place."""

    reboot: bool
    detail: str = ""


class Transitioned(NamedTuple):
    """In-place: the old containers are stopped, the new ones are being started."""


class Booted(NamedTuple):
    """The device started. `trying`: the running revision is on trial; `fell_back`: a trial of this one was given up."""

    running: str
    trying: bool = False
    fell_back: bool = False


class GoalsReached(NamedTuple):
    """Every container of the new revision is where its status goal wants it. Not before Transitioned."""


class GoalsLost(NamedTuple):
    """A container fell below its goal again, and is being recovered."""


class GoalTimedOut(NamedTuple):
    """A container did not reach its goal in its group's time."""

    detail: str


class Stable(NamedTuple):
    """Every container with a `stable_timeout` has survived it."""


class Unstable(NamedTuple):
    """A container with a `stable_timeout` has yet to survive it."""


class ContainerFailed(NamedTuple):
    """A container ended, and no recovery is left."""

    detail: str


class HubReached(NamedTuple):
    """The hub answered a request of this device."""


class HubLost(NamedTuple):
    """A request to the hub failed."""


class TimerExpired(NamedTuple):
    """A timer that the machine started has run out."""

    timer: Timer


class Committed(NamedTuple):
    """The bootloader's variables are on disk: the revision is the one to boot."""


class RolledBack(NamedTuple):
    """The previous revision's containers run again, in place."""


class RollBackFailed(NamedTuple):
    """The previous revision could not be brought back in place."""

    detail: str


class Superseded(NamedTuple):
    """A newer step is there: this one is not worth finishing unless its trial has begun."""

    by: str


class Cancelled(NamedTuple):
    """The owner does not want the update any more."""


class Broken(NamedTuple):
    """We could not do what an action asked for: an error of the disk, the bootloader, or ours."""

    detail: str


Event: TypeAlias = (
    StepReceived
    | Refused
    | NothingMissing
    | ObjectsMissing
    | SpaceShort
    | Downloading
    | Downloaded
    | DownloadFailed
    | ObjectBroken
    | Installed
    | TrialStarted
    | Transitioned
    | Booted
    | GoalsReached
    | GoalsLost
    | GoalTimedOut
    | Stable
    | Unstable
    | ContainerFailed
    | HubReached
    | HubLost
    | TimerExpired
    | Committed
    | RolledBack
    | RollBackFailed
    | Superseded
    | Cancelled
    | Broken
)


class Persist(NamedTuple):
    """Write the revision's progress to disk, durably, before the next action; then tell the hub if it is its step."""

    progress: Progress


class Report(NamedTuple):
    """Tell the hub what the disk says already."""

    progress: Progress


class Check(NamedTuple):
    """Verify the signatures, parse the state, list the missing objects.

    Answered by Refused, NothingMissing, ObjectsMissing or SpaceShort.
    """


class Fetch(NamedTuple):
    """Fetch the missing objects. Answered by Downloaded, DownloadFailed, ObjectBroken or SpaceShort."""

    attempt: int


class StopFetch(NamedTuple):
    """Stop a fetch that may be running; partial files stay for a later one."""


class Install(NamedTuple):
    """Link the revision together. Answered by Installed or Broken."""


class HandOver(NamedTuple):
    """Ask the supervisor to try the revision. Answered by TrialStarted."""


class SetTry(NamedTuple):
    """Tell the bootloader to try the revision at the next boot. Broken if that fails; what follows is then left out."""

    rev: str


class Reboot(NamedTuple):
    """Start the device anew."""

    reason: str


class Transition(NamedTuple):
    """Stop and start what `core.transition` planned. Answered by Transitioned or ContainerFailed."""


class StartTimer(NamedTuple):
    """Start a timer, anew if it runs."""

    timer: Timer
    seconds: float


class StopTimers(NamedTuple):
    """Stop these timers."""

    timers: tuple[Timer, ...]


class Commit(NamedTuple):
    """Make the revision the one to boot, and clear its try. Answered by Committed or Broken."""

    rev: str


class MarkDone(NamedTuple):
    """Write the revision's done marker."""

    rev: str


class FailTry(NamedTuple):
    """Clear the bootloader's try of `rev`, and let it boot `previous`. Only ever after the error is on disk."""

    rev: str
    previous: str


class RollBack(NamedTuple):
    """Bring the previous revision's containers back in place. Answered by RolledBack or RollBackFailed."""

    rev: str


Action: TypeAlias = (
    Persist
    | Report
    | Check
    | Fetch
    | StopFetch
    | Install
    | HandOver
    | SetTry
    | Reboot
    | Transition
    | StartTimer
    | StopTimers
    | Commit
    | MarkDone
    | FailTry
    | RollBack
)
