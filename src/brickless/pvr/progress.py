"""How far a transfer is, on stderr: a line that redraws itself on a terminal, one summary line anywhere else."""

from __future__ import annotations

import sys
import threading
import time

from brickless.pvr.env import Env

_REDRAW_S = 0.1
_MIB = 1 << 20


class Meter:
    """Counts objects and bytes of one transfer; thread-safe. Use as a context manager."""

    def __init__(self, env: Env, verb: str, objects: int, total_bytes: int) -> None:
        """`verb` is what is done ("Downloading"); the totals may be raised later."""
        self._env = env
        self._verb = verb
        self.objects = objects
        self.total_bytes = total_bytes
        self.done_objects = 0
        self.done_bytes = 0
        self._start_s = time.monotonic()
        self._drawn_s = 0.0
        self._guard = threading.Lock()
        self._live = sys.stderr.isatty() and not env.quiet and not env.json

    def __enter__(self) -> Meter:
        """Nothing is drawn before the first byte."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the line complete."""
        with self._guard:
            if self._live and self._drawn_s:
                self._draw()
                print(file=sys.stderr, flush=True)

    def add_bytes(self, count: int) -> None:
        """Some bytes came through (or were lost again: negative)."""
        with self._guard:
            self.done_bytes += count
            self._maybe_draw()

    def add_object(self) -> None:
        """One more object is complete."""
        with self._guard:
            self.done_objects += 1
            self._maybe_draw()

    def expect_bytes(self, count: int) -> None:
        """The total grew: another object's size became known."""
        with self._guard:
            self.total_bytes += count

    def say(self, text: str) -> None:
        """A line of talk, where the meter was; the meter comes back with the next bytes."""
        with self._guard:
            if self._live and self._drawn_s:
                print("\r\x1b[K", end="", file=sys.stderr)
                self._drawn_s = 0.0
        self._env.say(text)

    def _maybe_draw(self) -> None:
        if self._live and time.monotonic() - self._drawn_s >= _REDRAW_S:
            self._draw()

    def _draw(self) -> None:
        self._drawn_s = time.monotonic()
        print(f"\r\x1b[K{self.line()}", end="", file=sys.stderr, flush=True)

    def line(self) -> str:
        """The state as text: `Downloading 3/7 objects, 12.3/30.0 MiB, 4.5 MiB/s`; less where no total is known."""
        elapsed_s = max(time.monotonic() - self._start_s, 0.001)
        rate = self.done_bytes / _MIB / elapsed_s
        if not self.objects:
            return f"{self._verb} {self.done_bytes / _MIB:.1f} MiB, {rate:.1f} MiB/s"
        return (
            f"{self._verb} {self.done_objects}/{self.objects} objects, "
            f"{self.done_bytes / _MIB:.1f}/{max(self.total_bytes, self.done_bytes) / _MIB:.1f} MiB, {rate:.1f} MiB/s"
        )


def human_size(size_bytes: int) -> str:
    """A size for people: `512 B`, `3.4 MiB`."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{size_bytes} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
