"""Lines for the console and for the kernel's log, where they survive until the next reboot. PID 1 loads this module."""

from __future__ import annotations

import os

CONSOLE = "/dev/console"
KMSG = "/dev/kmsg"
# The kernel cuts a record at about 1 KiB (LOG_LINE_MAX); one event is one line.
LINE_MAX_BYTES = 960


def one_line(text: str) -> bytes:
    """`text` as one printable line of bounded length: what a container wrote cannot forge a second event."""
    clean = "".join(char if char.isprintable() else " " for char in text)
    return clean.encode("utf-8", "backslashreplace")[:LINE_MAX_BYTES] + b"\n"


class Console:
    """Writes one event a line; kept open, so that it works when nothing else does.

    Without a console (a board that has none) lines go to the kernel's log, and without that nowhere: no line is worth
    a device that does not start.
    """

    __slots__ = ("_fd",)

    def __init__(self, path: str = CONSOLE) -> None:
        self._fd = -1
        for candidate in (path, KMSG):
            try:
                self._fd = os.open(candidate, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC | os.O_APPEND)
            except OSError:
                continue
            return

    def line(self, text: str) -> bool:
        """Write one line; False when there is no console or it refused."""
        if self._fd < 0:
            return False
        data = one_line(text)
        try:
            return os.write(self._fd, data) == len(data)
        except OSError:
            return False

    def fileno(self) -> int:
        """The open descriptor, -1 when there is no console."""
        return self._fd
