"""Brings the containers of a revision up in group order, keeps them there, and takes them down again.

`converge` is the one operation: given a revision, stop what differs, keep what is the same (by fingerprint), start what
is missing. A boot, an update in place, its rollback, and a supervisor that was started again are all a `converge`;
so each may be interrupted at any point and done again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from brickless.core.groups import Group
from brickless.device.supervise import recovery
from brickless.device.supervise.jobs import Exited, Handle, Happening, Job, Prepared, Running, Started
from brickless.device.supervise.ports import Machine
from brickless.device.supervise.unit import LIVE, Goal, Leaving, Status, Unit
from brickless.linux.lxc import describe_exit

STOP_GRACE_S = 5.0


class Failure(NamedTuple):
    """A container that its revision fails with."""

    name: str
    reason: str


class Engine:
    """The containers of one revision at a time."""

    __slots__ = (
        "_groups",
        "_machine",
        "_noted",
        "_units",
        "default_timeout_s",
        "failures",
        "leaving",
        "rev",
        "trial",
    )

    def __init__(self, machine: Machine, default_timeout_s: float) -> None:
        """`default_timeout_s` is PV_UPDATER_GOALS_TIMEOUT, for groups without their own."""
        self._machine = machine
        self.default_timeout_s = default_timeout_s
        self._groups: tuple[Group, ...] = ()
        self._units: dict[str, Unit] = {}
        # Containers of the revision before, on their way out. A name starts again only when it is gone from here.
        self.leaving: dict[str, Leaving] = {}
        self._noted: dict[str, Goal] = {}
        self.failures: list[Failure] = []
        self.rev = ""
        # While a revision is tried no failure is forgiven (recovery.decide).
        self.trial = False

    @property
    def units(self) -> Iterable[Unit]:
        """The containers of the revision, in no order that matters."""
        return self._units.values()

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups of the revision, in boot order."""
        return self._groups

    def unit(self, name: str) -> Unit | None:
        """One container of the revision."""
        return self._units.get(name)

    # -- a revision ----------------------------------------------------------------------------------------------

    def converge(self, rev: str, groups: tuple[Group, ...], jobs: Iterable[Job], *, trial: bool) -> None:
        """Make `rev` the revision that runs. Same containers keep running, their times and counters too."""
        self.rev, self._groups, self.trial = rev, groups, trial
        self.failures.clear()
        self._noted.clear()
        timeouts = {group.name: group.timeout_s for group in groups}
        old, self._units = self._units, {}
        for job in jobs:
            limit_s = timeouts.get(job.container.group)
            timeout_s = self.default_timeout_s if limit_s is None else float(limit_s)
            before = old.get(job.container.name)
            if before is not None and before.job.fingerprint == job.fingerprint and not before.failure:
                self._units[job.container.name] = self._keep(old.pop(job.container.name), job)
                continue
            self._units[job.container.name] = Unit(job, timeout_s)
        for unit in old.values():
            self._retire(unit)

    def _keep(self, unit: Unit, job: Job) -> Unit:
        """A container that goes on; one that is not at its goal gets the time of its new revision to reach it.

        Should it be started again, then from the new revision: the old one may be gone by then.
        """
        unit.job = job
        if unit.goal_by_s is not None and not unit.has_reached_goal:
            unit.goal_by_s = self._machine.now_s() + unit.timeout_s
        return unit

    def adopt(self, running: Iterable[Running]) -> None:
        """Take over containers that an earlier supervisor started; stop those that this revision does not mean."""
        now_s = self._machine.now_s()
        for found in running:
            unit = self._units.get(found.name)
            if unit is not None and unit.job.fingerprint == found.fingerprint:
                unit.handle = found.handle
                unit.enter(Status.STARTING, now_s)
                if found.started:
                    unit.enter(Status.STARTED, now_s)
                    self._expose(unit)
                self._machine.say(f"container {found.name} adopted, pid {found.handle.pid}")
                continue
            self._dismiss(found.name, found.handle)

    def stop_all(self) -> None:
        """Stop everything: before a reboot."""
        for unit in self._units.values():
            self._retire(unit)
        self._units = {}

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is on its way out any more."""
        return not self.leaving

    def _retire(self, unit: Unit) -> None:
        if unit.is_preparing:
            self._machine.cancel(unit.name)
        if unit.handle is None:
            if unit.status is not Status.INSTALLED:
                self._unmount(unit.name)
            return
        if unit.status is Status.STOPPING and unit.kill_at_s is not None:
            self.leaving[unit.name] = Leaving(unit.name, unit.handle, unit.kill_at_s)
            return
        self._dismiss(unit.name, unit.handle)

    def _dismiss(self, name: str, handle: Handle) -> None:
        self.leaving[name] = Leaving(name, handle, self._ask_to_stop(name, handle))

    def _ask_to_stop(self, name: str, handle: Handle) -> float:
        """Ask a container to end; returns when it is to be killed if it has not."""
        self._machine.say(f"container {name} STOPPING")
        asked = self._machine.halt(name, handle)
        return self._machine.now_s() + (STOP_GRACE_S if asked else 0.0)

    # -- time and events -----------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Do everything that is due. Call it after each event and at `due_s`."""
        now_s = self._machine.now_s()
        ending: list[Leaving | Unit] = [*self.leaving.values(), *self._units.values()]
        for due in ending:
            if due.kill_at_s is not None and now_s >= due.kill_at_s and due.handle is not None:
                due.kill_at_s = now_s + STOP_GRACE_S
                self._machine.kill(due.handle)
        for unit in self._units.values():
            unit.settle(now_s)
        self._start_due(now_s)
        self._note_timeouts(now_s)

    def due_s(self) -> float | None:
        """When `tick` must be called at the latest; None when only an event can change anything."""
        now_s = self._machine.now_s()
        times = [leaving.kill_at_s for leaving in self.leaving.values()]
        for unit in self._units.values():
            due_s = unit.due_s(now_s)
            if due_s is not None and unit.name not in self.leaving:
                times.append(due_s)
        return min(times, default=None)

    def happened(self, event: Happening) -> None:
        """Take note of what a monitor reported."""
        if event.name in self.leaving:
            if isinstance(event, Exited):
                del self.leaving[event.name]
                self._machine.say(f"container {event.name} STOPPED")
                self._unmount(event.name)
            return
        unit = self._units.get(event.name)
        if unit is None:
            return
        if isinstance(event, Prepared):
            self._prepared(unit, event.error)
        elif isinstance(event, Started):
            self._started(unit)
        else:
            self._exited(unit, event.status)

    def _started(self, unit: Unit) -> None:
        if unit.status is Status.STARTING:
            unit.enter(Status.STARTED, self._machine.now_s())
            self._machine.say(f"container {unit.name} STARTED")
            self._expose(unit)

    def _expose(self, unit: Unit) -> None:
        """Show others what they may see of it. A container whose exports cannot be shown still runs, and says so."""
        if unit.handle is None:
            return
        try:
            self._machine.expose(unit.job, unit.handle)
        except (OSError, ValueError) as error:
            self._machine.say(f"container {unit.name}: {error}")

    def _prepared(self, unit: Unit, error: str) -> None:
        """Go on with a start that waited."""
        if not unit.is_preparing:
            return
        unit.is_preparing = False
        if error:
            self._refuse(unit, error)
        else:
            self._bring_up(unit)

    def ready(self, name: str) -> bool:
        """A container says that it is ready; False when it is not one that runs."""
        unit = self._units.get(name)
        if unit is None or unit.status not in (Status.STARTING, Status.STARTED, Status.READY):
            return False
        if unit.status is not Status.READY:
            unit.enter(Status.READY, self._machine.now_s())
            self._machine.say(f"container {name} READY")
        return True

    # -- exits ---------------------------------------------------------------------------------------------------

    def _exited(self, unit: Unit, status: int | None) -> None:
        now_s = self._machine.now_s()
        wanted = unit.status is Status.STOPPING
        unit.handle = None
        unit.kill_at_s = None
        if wanted:
            self._stopped_as_asked(unit, now_s)
            return
        how = describe_exit(status)
        words = self._machine.last_words(unit.name)
        reason = f"{how}: {words}" if words else how
        unit.last_exit = reason
        self._recover(unit, reason, recovery.Exit(status == 0, now_s - unit.started_s, unit.retries))

    def _recover(self, unit: Unit, reason: str, happened: recovery.Exit) -> None:
        """What follows an end that nobody asked for, or a start that was not possible."""
        now_s = self._machine.now_s()
        container = unit.job.container
        decision = recovery.decide(container.auto_recovery, container.restart_policy, happened, trial=self.trial)
        if isinstance(decision, recovery.Again):
            unit.retries = decision.retries
            unit.retry_at_s = now_s + decision.delay_s
            unit.enter(Status.RECOVERING, now_s)
            self._machine.say(f"container {unit.name} RECOVERING in {decision.delay_s:g} s after {reason}")
            return
        unit.has_finished = isinstance(decision, recovery.Stay) and happened.clean
        unit.enter(Status.STOPPED, now_s)
        self._machine.say(f"container {unit.name} STOPPED, {decision.reason}: {reason}")
        if isinstance(decision, recovery.Fail):
            self._fail(unit, reason)

    def _stopped_as_asked(self, unit: Unit, now_s: float) -> None:
        unit.enter(Status.STOPPED, now_s)
        self._machine.say(f"container {unit.name} STOPPED")
        if unit.restart_wanted:
            unit.restart_wanted = False
            unit.user_stopped = False
            unit.goal_by_s = None
            unit.retry_at_s = now_s

    def _fail(self, unit: Unit, reason: str) -> None:
        unit.failure = reason
        self.failures.append(Failure(unit.name, reason))

    # -- starts --------------------------------------------------------------------------------------------------

    def _start_due(self, now_s: float) -> None:
        """Start what may start: all containers of a group at once, a group when no earlier one is still on its way."""
        open_to = self._first_unachieved(now_s)
        for unit in list(self._units.values()):
            if unit.name in self.leaving or unit.user_stopped or unit.is_preparing:
                continue
            position = self._position(unit)
            if unit.status in (Status.INSTALLED, Status.BLOCKED):
                if position > open_to:
                    unit.status = Status.BLOCKED
                else:
                    self._bring_up(unit)
                    open_to = self._first_unachieved(now_s)
            elif unit.retry_at_s is not None and now_s >= unit.retry_at_s:
                unit.retry_at_s = None
                self._bring_up(unit)

    def _position(self, unit: Unit) -> int:
        names = [group.name for group in self._groups]
        name = unit.job.container.group
        return names.index(name) if name in names else len(names) - 1

    def _first_unachieved(self, now_s: float) -> int:
        """The index of the first group that is still on its way; members of it and of earlier ones may start."""
        waiting = [self._position(unit) for unit in self._units.values() if unit.goal(now_s) is Goal.UNACHIEVED]
        return min(waiting, default=len(self._groups))

    def _bring_up(self, unit: Unit) -> None:
        now_s = self._machine.now_s()
        try:
            if not self._machine.prepare(unit.job):
                unit.is_preparing = True
                return
            self._machine.mount(unit.job)
            if unit.is_only_mounted:
                unit.enter(Status.MOUNTED, now_s)
                self._machine.say(f"container {unit.name} MOUNTED")
                return
            unit.enter(Status.STARTING, now_s)
            unit.handle = self._machine.start(unit.job)
        except (OSError, ValueError) as error:
            self._refuse(unit, str(error))

    def _refuse(self, unit: Unit, error: str) -> None:
        """It cannot be started: on trial that is the revision's end; later it is tried again like one that crashed."""
        if not self.trial:
            self._recover(unit, f"it could not be started: {error}", recovery.Exit(False, 0.0, unit.retries))
            return
        unit.enter(Status.STOPPED, self._machine.now_s())
        self._machine.say(f"container {unit.name} STOPPED, it could not be started: {error}")
        self._fail(unit, error)

    def _unmount(self, name: str) -> None:
        try:
            self._machine.unmount(name)
        except OSError as error:
            self._machine.say(f"container {name}: its volumes stay mounted: {error}")

    # -- how it stands -------------------------------------------------------------------------------------------

    def goal(self) -> Goal:
        """How the revision stands to its goals: as its worst container does. One that must still stop is in the way."""
        if self.leaving:
            return Goal.UNACHIEVED
        now_s = self._machine.now_s()
        return max((unit.goal(now_s) for unit in self._units.values()), default=Goal.ACHIEVED)

    def late(self) -> list[Unit]:
        """The containers that did not reach their goal in time."""
        now_s = self._machine.now_s()
        return [unit for unit in self._units.values() if unit.goal(now_s) is Goal.TIMEDOUT]

    @property
    def is_stable(self) -> bool:
        """Whether every container held its goal for its `stable_timeout`."""
        return all(unit.is_stable or unit.user_stopped or unit.has_finished for unit in self._units.values())

    def reached_s(self) -> float | None:
        """Since when every container has held its goal without a break; None while one does not."""
        if self.goal() > Goal.ACHIEVED:
            return None
        return max((unit.reached_s for unit in self._units.values() if unit.reached_s is not None), default=0.0)

    def _note_timeouts(self, now_s: float) -> None:
        for unit in self._units.values():
            goal = unit.goal(now_s)
            if goal is Goal.TIMEDOUT and self._noted.get(unit.name) is not Goal.TIMEDOUT:
                self._machine.say(
                    f"platform '{unit.name}' status goal timed out after waiting for more than {unit.timeout_s:g} secs"
                )
            self._noted[unit.name] = goal

    # -- a user's wish -------------------------------------------------------------------------------------------

    def stop(self, name: str, *, restart: bool = False) -> bool:
        """Stop (or restart) a container on a user's wish; False when there is none such."""
        unit = self._units.get(name)
        if unit is None:
            return False
        unit.retry_at_s = None
        if unit.is_preparing:
            self._machine.cancel(name)
            unit.is_preparing = False
        unit.user_stopped = not restart
        unit.restart_wanted = restart
        if unit.status in LIVE and unit.handle is not None:
            if unit.status is not Status.STOPPING:
                unit.enter(Status.STOPPING, self._machine.now_s())
                unit.kill_at_s = self._ask_to_stop(name, unit.handle)
        elif restart:
            self._stopped_as_asked(unit, self._machine.now_s())
        else:
            unit.enter(Status.STOPPED, self._machine.now_s())
        return True

    def start(self, name: str) -> bool:
        """Start a container that was stopped; False when there is none such."""
        unit = self._units.get(name)
        if unit is None:
            return False
        unit.user_stopped = False
        if unit.status is Status.STOPPING:
            unit.restart_wanted = True
        elif unit.status in (Status.STOPPED, Status.RECOVERING):
            unit.failure = ""
            unit.has_finished = False
            unit.retries = 0
            unit.goal_by_s = None
            unit.retry_at_s = self._machine.now_s()
        return True
