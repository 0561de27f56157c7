"""A device of the fleet simulation: the real update machine (`core.update`), with everything around it in virtual time.

What the machine asks for (fetch, install, try, commit, boot) takes seeded times and ends as the device's luck wills:
well, with an error, or with the death of the device in the middle of it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Protocol

from brickless.core import update_types as words
from brickless.core.progress import Message, Progress, Status
from brickless.core.update import UpdateState, start, step


class Luck(StrEnum):
    """How a trial ends."""

    WELL = "well"
    FAILS = "fails"
    DIES = "dies"


class World(Protocol):
    """What a device needs of the simulation."""

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Do it later."""

    def uniform(self, low: float, high: float) -> float:
        """A seeded number."""

    def luck(self, device: SimDevice, rev: int) -> Luck:
        """How the trial of this revision ends here."""

    def online(self, device: SimDevice) -> bool:
        """Whether the hub can be reached."""

    def report(self, device: SimDevice, rev: int, progress: bytes) -> None:
        """Tell the hub, as far as the network lets it."""

    def runs(self, device: SimDevice, rev: int) -> None:
        """The device has committed this revision."""

    def died(self, device: SimDevice) -> None:
        """The device fell silent."""


class SimDevice:
    """One device. `rev` is the committed revision; `clock_rate` how fast its own clock runs."""

    __slots__ = (
        "_tokens", "_update", "_world", "clock_rate", "dead", "id", "number", "poll_s", "reboots", "rev", "seen_rev",
        "site", "token", "unsent",
    )  # fmt: skip

    def __init__(self, world: World, number: int, record_id: str, site: str) -> None:
        self._world = world
        self.number = number
        self.id = record_id
        self.site = site
        self.rev = 0
        self.dead = False
        self.seen_rev = 0
        self.poll_s = world.uniform(60, 900)
        self.clock_rate = world.uniform(0.95, 1.05)
        self.reboots = world.uniform(0, 1) < 0.2
        self.unsent: dict[int, bytes] = {}
        self.token: Any = None
        self._update: UpdateState | None = None
        self._tokens: dict[object, int] = {}

    @property
    def busy(self) -> bool:
        """Whether an update is under way."""
        return self._update is not None and not self._update.finished

    def offered(self, revs: list[int]) -> None:
        """The hub's list of steps that are to be done: the newest counts, older ones are not worth it any more."""
        if self.dead or not revs:
            return
        newest = revs[-1]
        if newest <= self.rev:
            return
        if self._update is not None and not self._update.finished:
            if int(self._update.rev) != newest:
                self._feed(words.Superseded(str(newest)))
            if not self._update.finished:
                return
        for old in revs[:-1]:
            stale = Progress.of(Status.WONTGO, Message.STALE)
            self._world.report(self, old, stale.to_json())
        if self._update is not None and self._update.rev == str(newest):
            return  # it ended before: the hub has heard it, or hears it when the report arrives
        self._update = start(str(newest), previous=str(self.rev))
        self._feed(words.StepReceived())

    def reconnected(self) -> None:
        """The hub is in reach again: what could not be said is said, the newest of each revision."""
        unsent, self.unsent = self.unsent, {}
        for rev, progress in sorted(unsent.items()):
            self._world.report(self, rev, progress)
        self._hub_reached()

    def revive(self) -> None:
        """Somebody turned it off and on: the bootloader has gone back to the committed revision."""
        self.dead = False
        update = self._update
        if update is None or update.finished:
            return
        tried = update.phase in words.TRIAL or update.phase is words.Phase.COMMITTING
        self._update = start(update.rev, previous=str(self.rev), stored=update.progress)
        self._feed(words.Booted(str(self.rev), fell_back=tried))
        if not self._update.finished and self._update.phase is words.Phase.READY:
            self._feed(words.StepReceived())

    # -- the machine -------------------------------------------------------------------------------------------------

    def _feed(self, event: Any) -> None:
        if self.dead or self._update is None:
            return
        self._update, actions = step(self._update, event)
        for action in actions:
            _DO[type(action)](self, action)

    def _later(self, seconds: float, event: Any) -> None:
        update = self._update
        rev = None if update is None else update.rev

        def act() -> None:
            if self._update is not None and self._update.rev == rev:
                self._feed(event)

        self._world.after(seconds, act)

    def _persist(self, action: Any) -> None:
        assert self._update is not None  # noqa: S101 - only the machine's actions come here
        self._world.report(self, int(self._update.rev), action.progress.to_json())

    def _check(self, _action: Any) -> None:
        self._later(2, words.ObjectsMissing(1_000_000))

    def _fetch(self, _action: Any) -> None:
        if not self._world.online(self):
            self._later(30, words.DownloadFailed("the hub is out of reach", offline=True))
            return
        update = self._update

        def fetched() -> None:
            if self._update is not None and update is not None and self._update.rev == update.rev:
                there = self._world.online(self)
                self._feed(words.Downloaded() if there else words.DownloadFailed("the hub went away", offline=True))

        self._world.after(self._world.uniform(30, 7200), fetched)

    def _install(self, _action: Any) -> None:
        self._later(5, words.Installed())

    def _hand_over(self, _action: Any) -> None:
        self._later(1, words.TrialStarted(self.reboots))

    def _reboot(self, _action: Any) -> None:
        self._world.after(60, self._boot)

    def _boot(self) -> None:
        update = self._update
        if self.dead or update is None:
            return
        back = update.phase is words.Phase.ROLLING_BACK
        self._update = start(update.rev, previous=str(self.rev), stored=update.progress)
        if back:
            self._feed(words.Booted(str(self.rev), fell_back=True))
        else:
            self._feed(words.Booted(update.rev, trying=True))
            self._try()

    def _transition(self, _action: Any) -> None:
        self._later(5, words.Transitioned())
        self._world.after(6, self._try)

    def _try(self) -> None:
        """The new revision runs: what becomes of it."""
        if self.dead or self._update is None or self._update.phase is not words.Phase.TRYING:
            return
        luck = self._world.luck(self, int(self._update.rev))
        if luck is Luck.DIES:
            self.dead = True
            self._world.died(self)
        elif luck is Luck.FAILS:
            self._later(self._world.uniform(5, 600), words.ContainerFailed("the container ended with status 1"))
        else:
            self._later(20, words.GoalsReached())
            self._hub_reached()

    def _hub_reached(self) -> None:
        if self._world.online(self) and not self.dead:
            self._feed(words.HubReached())

    def _start_timer(self, action: Any) -> None:
        token = self._tokens[action.timer] = self._tokens.get(action.timer, 0) + 1
        update = self._update

        def act() -> None:
            if self._tokens.get(action.timer) == token and update is not None:
                self._feed(words.TimerExpired(action.timer))

        self._world.after(action.seconds * self.clock_rate, act)

    def _stop_timers(self, action: Any) -> None:
        for timer in action.timers:
            self._tokens[timer] = self._tokens.get(timer, 0) + 1

    def _commit(self, action: Any) -> None:
        self.rev = int(action.rev)
        self._world.runs(self, self.rev)
        self._later(0, words.Committed())

    def _roll_back(self, _action: Any) -> None:
        self._later(5, words.RolledBack())

    def _nothing(self, _action: Any) -> None:
        """What only a disk would see."""


_DO: dict[type[Any], Callable[[SimDevice, Any], None]] = {
    words.Persist: SimDevice._persist,
    words.Report: SimDevice._persist,
    words.Check: SimDevice._check,
    words.Fetch: SimDevice._fetch,
    words.StopFetch: SimDevice._nothing,
    words.Install: SimDevice._install,
    words.HandOver: SimDevice._hand_over,
    words.SetTry: SimDevice._nothing,
    words.Reboot: SimDevice._reboot,
    words.Transition: SimDevice._transition,
    words.StartTimer: SimDevice._start_timer,
    words.StopTimers: SimDevice._stop_timers,
    words.Commit: SimDevice._commit,
    words.MarkDone: SimDevice._nothing,
    words.FailTry: SimDevice._nothing,
    words.RollBack: SimDevice._roll_back,
}
