"""The agent's one place of waiting: a timer, a signal, or a thread that has finished something."""

from __future__ import annotations

import os
import select


class Wakeup:
    """A pipe that ends a wait early. `wake` may be called from threads and signal handlers."""

    __slots__ = ("_poll", "_read", "write_fd")

    def __init__(self) -> None:
        self._read, self.write_fd = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self.write_fd, False)
        self._poll = select.poll()
        self._poll.register(self._read, select.POLLIN)

    def watch(self, fd: int) -> None:
        """A descriptor that ends waits when it can be read, too; whoever owns it reads it."""
        self._poll.register(fd, select.POLLIN)

    def forget(self, fd: int) -> None:
        """No longer."""
        self._poll.unregister(fd)

    def wake(self) -> None:
        """Ends the wait that runs, or the next one."""
        try:
            os.write(self.write_fd, b"\0")
        except BlockingIOError:
            return  # the pipe is full of wakes already

    def wait(self, timeout_s: float) -> None:
        """Waits at most so long; woken early by `wake`."""
        if self._poll.poll(max(0, round(timeout_s * 1000))):
            try:
                while os.read(self._read, 4096):
                    pass
            except BlockingIOError:
                return

    def close(self) -> None:
        """Ends it."""
        os.close(self._read)
        os.close(self.write_fd)
