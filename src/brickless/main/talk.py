"""How `brickless` speaks to a person: one line an event, with the seconds since the start."""

from __future__ import annotations

import sys
import threading
import time


class Talk:
    """Progress on stderr, results on stdout. Lines of several threads never mix."""

    def __init__(self, *, verbose: bool = False) -> None:
        """`verbose` shows the consoles of devices too."""
        self.verbose = verbose
        self.started_s = time.monotonic()
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started_s

    def say(self, text: str) -> None:
        """One event."""
        self._line(f"{self.seconds:6.1f} s  {text}")

    def step(self, text: str) -> None:
        """The beginning of a chapter."""
        self._line(f"{self.seconds:6.1f} s  == {text}")

    def console(self, device: str, line: str) -> None:
        """A line of a device's console: what the runtime says, or all of it when verbose."""
        if self.verbose or line.startswith(("brickless: ", "firmware: ")):
            self._line(f"{self.seconds:6.1f} s     {device} | {line}")

    def _line(self, text: str) -> None:
        with self._lock:
            print(text, file=sys.stderr, flush=True)

    def result(self, text: str) -> None:
        """What the command was asked for."""
        with self._lock:
            print(text, flush=True)
