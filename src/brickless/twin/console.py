"""The serial console of an emulated device: a file, live lines, a way to wait for words. It spans reboots."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from brickless.twin.errors import ConsoleTimeoutError, MachineEndedError

TAIL_LINES = 40
# A console line without an end is cut here, so that a guest that writes garbage cannot eat our memory.
MAX_LINE_BYTES = 8192
# ANSI sequences (firmware and kernels colour their lines) and control characters: kept in the file, not in the lines.
_NOISE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1bc|[\x00-\x08\x0b-\x1f\x7f]")


class Line(NamedTuple):
    """One line of the console: `at_s` is the host's monotonic clock when its end arrived."""

    text: str
    at_s: float


class Found(NamedTuple):
    """A line that was waited for: the match, when it came (monotonic), and the mark of the line behind it."""

    match: re.Match[str]
    at_s: float
    mark: int


class Console:
    """Collects what a machine writes. Threads may feed and wait at the same time."""

    def __init__(self, path: Path, on_line: Callable[[str], None] | None = None) -> None:
        """Append to the file `path`; `on_line` is called with each whole line, from the feeding thread."""
        self.path = path
        self._file = path.open("ab", buffering=0)
        self._on_line = on_line
        self._lines: list[Line] = []
        self._rest = b""
        self._ended: str | None = None
        self._changed = threading.Condition()

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the machine, in any cut."""
        self._file.write(data)
        self._rest += data
        *whole, self._rest = self._rest.split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            whole.append(self._rest)
            self._rest = b""
        for raw in whole:
            self._add(raw[:MAX_LINE_BYTES])

    def note(self, text: str) -> None:
        """Add a line of our own (the firmware's, say)."""
        self.feed(text.encode() + b"\n")

    def _add(self, raw: bytes) -> None:
        text = _NOISE.sub("", raw.decode("utf-8", "replace")).rstrip()
        with self._changed:
            self._lines.append(Line(text, time.monotonic()))
            self._changed.notify_all()
        if self._on_line is not None:
            self._on_line(text)

    def mark(self) -> int:
        """The place behind the last line so far: `wait_for(..., since=mark)` looks only at what comes after it."""
        with self._changed:
            return len(self._lines)

    def lines(self, since: int = 0) -> list[Line]:
        """The lines from `since` on."""
        with self._changed:
            return self._lines[since:]

    def wait_for(self, pattern: str, *, timeout_s: float, since: int = 0) -> Found:
        """The first line from `since` on in which the regular expression is found.

        Raises `ConsoleTimeoutError` after `timeout_s`, `MachineEndedError` when the machine ended for good; both with
        the tail of the console.
        """
        expression = re.compile(pattern)
        deadline_s = time.monotonic() + timeout_s
        position = since
        with self._changed:
            while True:
                for index in range(position, len(self._lines)):
                    match = expression.search(self._lines[index].text)
                    if match is not None:
                        return Found(match, self._lines[index].at_s, index + 1)
                position = max(position, len(self._lines))
                if self._ended is not None:
                    raise MachineEndedError(
                        f"the machine ended ({self._ended}) before its console said {pattern!r}{self._tail()}"
                    )
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise ConsoleTimeoutError(
                        f"the console did not say {pattern!r} within {timeout_s:g} s{self._tail()}"
                    )
                self._changed.wait(left_s)

    def _tail(self) -> str:
        last = "\n".join(f"    | {line.text}" for line in self._lines[-TAIL_LINES:])
        return f"; its last lines ({self.path} has all):\n{last}\n"

    def tail(self) -> str:
        """The last lines, for a message."""
        with self._changed:
            return self._tail()

    def reopen(self) -> None:
        """More is to come (the machine was started again)."""
        with self._changed:
            self._ended = None

    def end(self, reason: str) -> None:
        """Nothing more will come: whoever waits is told why."""
        with self._changed:
            self._ended = reason
            self._changed.notify_all()

    def close(self) -> None:
        """End it and close the file."""
        self.end("the console was closed")
        self._file.close()
