"""A revision that is on the device already, brought to its trial: put there by hand, or one of before.

The same machine decides as for a step of the hub (`core.update`), the supervisor tries it the same way; only nobody
brings what is missing. Contract: device.md 4.8.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from brickless.core import update
from brickless.core.errors import HostileInputError
from brickless.core.progress import Message
from brickless.core.state import State, parse_state
from brickless.core.update_types import (
    Broken,
    Check,
    Event,
    HandOver,
    Install,
    Installed,
    NothingMissing,
    ObjectsMissing,
    Persist,
    Policy,
    Refused,
    SpaceShort,
    StepReceived,
)
from brickless.device.config import Config
from brickless.device.link.supervisor import Supervisor, SupervisorError
from brickless.device.update.policy import judge, policy_of
from brickless.device.update.space import is_disk_full
from brickless.store.lock import LockedError, lock
from brickless.store.trails import Storage

LOCK = "install.lock"


def is_installing(private: str) -> bool:
    """Whether a revision is being installed by hand."""
    path = os.path.join(private, LOCK)
    if not os.path.exists(path):
        return False
    try:
        with lock(path, timeout_s=0):
            return False
    except LockedError:
        return True


class LocalUpdate:
    """Installs one revision and hands it over. What goes wrong stands in the revision's progress."""

    __slots__ = ("_config", "_machine", "_private", "_state", "_storage", "_supervisor")

    def __init__(self, storage: Storage, config: Config, supervisor: Supervisor, private: str) -> None:
        self._storage = storage
        self._config = config
        self._supervisor = supervisor
        self._private = private
        self._machine: update.UpdateState | None = None
        self._state: State | None = None

    def run(self, rev: str, *, reboot: bool = False) -> None:
        """Do it; returns when the supervisor has the revision, or its end is written. Raises what the disk refuses."""
        os.makedirs(self._private, mode=0o700, exist_ok=True)
        with lock(os.path.join(self._private, LOCK), timeout_s=0):
            policy = Policy(max_retries=self._config.integer("PV_REVISION_RETRIES"))
            self._machine = update.start(rev, previous=self._storage.current() or "0", policy=policy, again=True)
            work: Callable[[], Event | None] | None = StepReceived
            while work is not None:
                event = work()
                work = self._tell(event, reboot=reboot) if event is not None else None

    def _tell(self, event: Event, *, reboot: bool) -> Callable[[], Event | None] | None:
        """Tell the machine, keep what it says, and return the work that it asks for."""
        machine = self._machine
        if machine is None:
            raise RuntimeError("nothing was begun")
        self._machine, actions = update.step(machine, event)
        work: Callable[[], Event | None] | None = None
        for action in actions:
            if isinstance(action, Persist):
                self._storage.write_progress(machine.rev, action.progress.to_json())
            elif isinstance(action, Check):
                work = lambda: self._check(machine.rev)  # noqa: E731 one of three, called once below
            elif isinstance(action, Install):
                work = lambda: self._install(machine.rev)  # noqa: E731 one of three, called once below
            elif isinstance(action, HandOver):
                work = lambda: self._hand_over(machine.rev, reboot=reboot)  # noqa: E731 one of three, called once below
        return work

    def _check(self, rev: str) -> Event:
        try:
            self._state = parse_state(self._storage.state_bytes(rev))
        except FileNotFoundError as error:
            return Refused(Message.NO_STATE, str(error))
        except HostileInputError as error:
            return Refused(Message.BAD_STATE, str(error))
        verdict = judge(self._state, policy_of(self._config), dated=not self._storage.is_done(rev))
        if verdict.message:
            return Refused(verdict.message, verdict.detail)
        missing = self._storage.missing(self._state)
        if not missing:
            return NothingMissing()
        detail = f"{len(missing)} objects are missing, the first is {missing[0][1]} of {missing[0][0]}"
        return ObjectsMissing(0, detail) if rev.startswith("locals/") else Refused(Message.INTERNAL, detail)

    def _install(self, rev: str) -> Event:
        if self._state is None:
            raise RuntimeError(f"revision {rev} was not read")
        try:
            self._storage.install(rev, self._state)
        except HostileInputError as error:
            return Broken(str(error))
        except OSError as error:
            if is_disk_full(error):
                return SpaceShort(len(self._state.raw), self._storage.free_bytes())
            return Broken(f"the storage refuses {error.filename or 'a file'}: {error.strerror}")
        return Installed()

    def _hand_over(self, rev: str, *, reboot: bool) -> Event | None:
        try:
            self._supervisor.try_revision(rev, reboot=reboot)
        except SupervisorError as error:
            return Broken(str(error))
        return None
