"""What the supervisor needs from the kernel and from LXC, as a Protocol: the real one is `machine`, tests have a fake.

Everything that can block, fail or take time goes through here; the rest of the package only decides.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from brickless.core.container import Container


class Handle(NamedTuple):
    """A container's monitor: its pid, and its start time in clock ticks, which together name one process for ever."""

    pid: int
    ticks: int


class Job(NamedTuple):
    """One container of one revision. `fingerprint` tells whether two revisions mean the same container by a name."""

    container: Container
    rev: str
    fingerprint: str


class Running(NamedTuple):
    """A container that an earlier supervisor started and that still runs."""

    name: str
    rev: str
    fingerprint: str
    handle: Handle
    started: bool


class Started(NamedTuple):
    """A container's init runs."""

    name: str


class Exited(NamedTuple):
    """A container's monitor is gone, so it is. `status` is the wait status of its init, None if nobody saw it."""

    name: str
    status: int | None


Happening = Started | Exited


class Machine(Protocol):
    """The kernel, LXC and PID 1 as the supervisor sees them. All methods return at once and raise `OSError`."""

    def now_s(self) -> float:
        """Seconds of a clock that only goes forward."""
        ...

    def say(self, text: str) -> None:
        """One event as a line on the console, and in the revision's log."""
        ...

    def mount(self, job: Job) -> None:
        """Mount the container's volumes; what is mounted already stays."""
        ...

    def unmount(self, name: str) -> None:
        """Unmount everything of the container."""
        ...

    def start(self, job: Job) -> Handle:
        """Start the container's monitor; `Started` or `Exited` follow."""
        ...

    def halt(self, name: str, handle: Handle) -> bool:
        """Ask the container to end; False when asking is of no use."""
        ...

    def kill(self, handle: Handle) -> None:
        """End the container now; `Exited` follows."""
        ...

    def last_words(self, name: str, rev: str) -> str:
        """The end of what the container said, for the reason of a failure."""
        ...
