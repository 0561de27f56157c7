"""The debug shell on the console: who presses Enter there gets it, and a reboot waits a while for its end.

An image without `/bin/sh` has none. While one is open, `/run/brickless/shell` is there. Contract: device.md 3.8, 9.4.
"""

from __future__ import annotations

import os

from brickless.linux import kmsg, spawn

PROGRAM = "/bin/sh"
OPEN_MARK = "/run/brickless/shell"
MODES = ("off", "ask", "open")
TIMEOUT_S = 60.0
READ_BYTES = 256


class Shell:
    """The shell that PID 1 offers on one terminal."""

    __slots__ = ("_console", "_mark", "_program", "_terminal", "_until_s", "fd", "pid", "timeout_s")

    def __init__(
        self, console: kmsg.Console, terminal: str = kmsg.CONSOLE, program: str = PROGRAM, mark: str = OPEN_MARK
    ) -> None:
        self._console = console
        self._terminal = terminal
        self._program = program
        self._mark = mark
        self._until_s = 0.0
        self.timeout_s = TIMEOUT_S
        #: What is polled for someone at the terminal; -1 while nobody is asked.
        self.fd = -1
        #: The shell while it is open, otherwise 0.
        self.pid = 0

    def offer(self, mode: str, timeout_s: float) -> None:
        """`open` it at once, `ask` on the terminal, or `off`; a reboot waits for it at most `timeout_s`."""
        self.timeout_s = timeout_s
        if mode == "off" or not os.access(self._program, os.X_OK):
            self._listen(False)
        elif mode == "open" and not self.pid:
            self.open()
        elif not self.pid:
            self._listen(True)
            self._console.line("brickless: press Enter for a shell")

    def _listen(self, wanted: bool) -> None:
        if self.fd >= 0 and not wanted:
            os.close(self.fd)
            self.fd = -1
        elif self.fd < 0 and wanted:
            self.fd = os.open(self._terminal, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)

    def asked(self) -> None:
        """Something came from the terminal: a line opens the shell."""
        try:
            data = os.read(self.fd, READ_BYTES)
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                self._listen(False)  # a terminal that is gone would wake us up for ever
            return
        if b"\n" in data or b"\r" in data:
            self.open()
        elif not data:
            self._listen(False)

    def open(self) -> None:
        """Start it; what cannot be started is said, and asked for again."""
        self._listen(False)
        try:
            self.pid = spawn.shell(self._program, self._terminal)
        except OSError as error:
            self._console.line(f"brickless: debug shell: {error}")
            return
        os.makedirs(os.path.dirname(self._mark), exist_ok=True)
        os.close(os.open(self._mark, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def ended(self, pid: int) -> bool:
        """Whether the process that ended was the shell; it is offered again."""
        if not self.pid or pid != self.pid:
            return False
        self.pid = 0
        os.unlink(self._mark)
        self.offer("ask", self.timeout_s)
        return True

    def defer(self, seconds: float, now_s: float) -> None:
        """Hold a reboot back for so long from now on, as long as the shell is open."""
        self._until_s = now_s + seconds
        self.timeout_s = seconds

    def holds_until_s(self, now_s: float) -> float | None:
        """Until when a reboot that is wished for now waits, at most; None when it need not."""
        if not self.pid:
            return None
        if not self._until_s:
            self._until_s = now_s + self.timeout_s
            self._console.line(f"brickless: the reboot waits {self.timeout_s:g} s for the debug shell to be left")
        return self._until_s if now_s < self._until_s else None
