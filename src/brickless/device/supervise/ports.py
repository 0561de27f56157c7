"""What the supervisor needs from the kernel and from LXC, as a Protocol: the real one is `machine`, tests have a fake.

Everything that can block, fail or take time goes through here; the rest of the package only decides.
"""

from __future__ import annotations

from typing import Protocol

from brickless.device.supervise.jobs import Handle, Happening, Job, Running
from brickless.device.supervise.journal import Journal
from brickless.device.supervise.revisions import Revision


class Machine(Protocol):
    """The kernel, LXC and PID 1 as the supervisor sees them. All methods return at once and raise `OSError`."""

    journal: Journal
    # Whether volumes with a dm-verity manifest are mapped by it (PV_SECUREBOOT_HANDLERS).
    maps_verity: bool

    def now_s(self) -> float:
        """Seconds of a clock that only goes forward."""
        ...

    def say(self, text: str) -> None:
        """One event as a line on the console, and in the revision's log."""
        ...

    def enter(self, revision: Revision) -> list[str]:
        """Bring up what the revision asks of the device itself (networks, swap, ...); what failed, in words."""
        ...

    def prepare(self, job: Job) -> bool:
        """Get ready what a start needs and what takes time; False while that is under way: `Prepared` follows."""
        ...

    def cancel(self, name: str) -> None:
        """Give up what `prepare` began."""
        ...

    def expose(self, job: Job, handle: Handle) -> None:
        """What others see of a container whose init runs."""
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

    def last_words(self, name: str) -> str:
        """The end of what the container said, for the reason of a failure."""
        ...

    def log_to(self, rev: str) -> None:
        """Write the log of `rev` from now on."""
        ...

    def has_shell(self) -> bool:
        """Whether a debug shell is open on the console."""
        ...

    def tell_init(self, words: str) -> None:
        """A line for PID 1."""
        ...

    def discover(self) -> list[Running]:
        """The containers that an earlier supervisor started and that still run; watched from now on."""
        ...

    def happenings(self) -> list[Happening]:
        """What happened to containers since the last call."""
        ...
