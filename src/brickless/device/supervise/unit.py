"""One container as the supervisor sees it: its status, its goal, the times at which something is due. No effects."""

from __future__ import annotations

from enum import IntEnum

from brickless.core.groups import StatusGoal
from brickless.device.supervise.jobs import Handle, Job


class Status(IntEnum):
    """The statuses of device.md 5.1, in its order."""

    NONE = 0
    INSTALLED = 1
    MOUNTED = 2
    BLOCKED = 3
    STARTING = 4
    STARTED = 5
    READY = 6
    RECOVERING = 7
    STOPPING = 8
    STOPPED = 9


class Goal(IntEnum):
    """How a container, a group or a revision stands to its goal, worst last (device.md 4.7)."""

    NONE = 0
    ACHIEVED = 1
    UNACHIEVED = 2
    TIMEDOUT = 3


# Which statuses have reached which goal. Recovering, stopping and stopped never have: a crash loop is no success.
_REACHED = {
    StatusGoal.MOUNTED: frozenset({Status.MOUNTED, Status.STARTING, Status.STARTED, Status.READY}),
    StatusGoal.STARTED: frozenset({Status.STARTED, Status.READY}),
    StatusGoal.READY: frozenset({Status.READY}),
}
LIVE = frozenset({Status.STARTING, Status.STARTED, Status.READY, Status.STOPPING})


class Leaving:
    """A container on its way out: it belongs to no revision any more."""

    __slots__ = ("handle", "kill_at_s", "name")

    def __init__(self, name: str, handle: Handle, kill_at_s: float) -> None:
        self.name = name
        self.handle = handle
        self.kill_at_s = kill_at_s


class Unit:
    """One container of the running revision. Times are seconds of the machine's clock; None is not set."""

    __slots__ = (
        "failure",
        "goal_by_s",
        "handle",
        "has_finished",
        "is_preparing",
        "is_stable",
        "job",
        "kill_at_s",
        "last_exit",
        "reached_s",
        "restart_wanted",
        "retries",
        "retry_at_s",
        "stable_at_s",
        "started_s",
        "status",
        "timeout_s",
        "user_stopped",
    )

    def __init__(self, job: Job, timeout_s: float) -> None:
        self.job = job
        self.timeout_s = timeout_s
        self.status = Status.INSTALLED
        self.handle: Handle | None = None
        self.failure = ""
        self.retries = 0
        self.started_s = 0.0
        self.goal_by_s: float | None = None
        self.reached_s: float | None = None
        self.retry_at_s: float | None = None
        self.stable_at_s: float | None = None
        self.kill_at_s: float | None = None
        self.is_stable = False
        # What it ended with the last time, in words; "" for one that never ended by itself.
        self.last_exit = ""
        # It ended as it should and is not started again: a batch job.
        self.has_finished = False
        self.is_preparing = False
        self.user_stopped = False
        self.restart_wanted = False

    @property
    def name(self) -> str:
        """The container's name."""
        return self.job.container.name

    def goal(self, now_s: float) -> Goal:
        """How it stands to its goal now. Who a user stopped, or who did its work and ended, stands in nobody's way."""
        if self.user_stopped or self.has_finished:
            return Goal.NONE
        if self.has_reached_goal:
            return Goal.ACHIEVED
        if self.goal_by_s is not None and now_s >= self.goal_by_s:
            return Goal.TIMEDOUT
        return Goal.UNACHIEVED

    @property
    def has_reached_goal(self) -> bool:
        """Whether its status is at its goal or beyond."""
        return self.status in _REACHED[self.job.container.status_goal]

    @property
    def is_only_mounted(self) -> bool:
        """Whether it has nothing to run."""
        return self.job.container.status_goal is StatusGoal.MOUNTED

    @property
    def stable_timeout_s(self) -> int:
        """How long it must hold its goal before its revision may be committed; 0 does not gate."""
        recovery = self.job.container.auto_recovery
        return recovery.stable_timeout_s if recovery is not None else 0

    def enter(self, status: Status, now_s: float) -> None:
        """Take a status, and set the times that follow from it."""
        self.status = status
        if status is Status.STARTING:
            self.started_s = now_s
            if self.goal_by_s is None:
                self.goal_by_s = now_s + self.timeout_s
        if not self.has_reached_goal:
            self.reached_s = self.stable_at_s = None
            self.is_stable = False
        elif self.reached_s is None:
            self.reached_s = now_s
            self.stable_at_s = now_s + self.stable_timeout_s
            self.is_stable = self.stable_timeout_s == 0

    def settle(self, now_s: float) -> bool:
        """Become stable when the time has come; True when it just did."""
        if self.is_stable or self.stable_at_s is None or now_s < self.stable_at_s:
            return False
        self.is_stable = True
        return True

    def due_s(self, now_s: float) -> float | None:
        """The next time at which something happens by itself. A goal that was missed is no longer waited for."""
        times = [at for at in (self.retry_at_s, self.kill_at_s) if at is not None]
        if not self.is_stable and self.stable_at_s is not None:
            times.append(self.stable_at_s)
        if self.goal_by_s is not None and self.goal_by_s > now_s and not self.has_reached_goal:
            times.append(self.goal_by_s)
        return min(times, default=None)
