"""How far long work is, with its rate, on stderr: a line that redraws itself on a terminal, nothing anywhere else."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from brickless.pvr.env import Env
from brickless.store.repo import Repository

REDRAW_S = 0.1
#: Work that is over sooner shows nothing: a line that comes and goes at once is noise.
FIRST_S = 0.5
_MIB = 1 << 20


class Meter:
    """Counts objects and bytes of one piece of work; thread-safe. Use as a context manager."""

    def __init__(self, env: Env, verb: str, objects: int = 0, total_bytes: int = 0, *, unit: str = "objects") -> None:
        """`verb` is what is done ("Downloading"). A total of 0 is not known; both may be raised later."""
        self._env = env
        self._verb = verb
        self._unit = unit
        self._beside: Meter | None = None
        self.objects = objects
        self.total_bytes = total_bytes
        self.done_objects = 0
        self.done_bytes = 0
        self._start_s = time.monotonic()
        self._drawn_s = 0.0
        self._guard = threading.Lock()
        self._live = sys.stderr.isatty() and not env.quiet and not env.json

    def __enter__(self) -> Meter:
        """Nothing is drawn before the work has lasted a while."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the line complete."""
        with self._guard:
            if self._live and self._drawn_s:
                self._draw()
                print(file=sys.stderr, flush=True)
                self._drawn_s = 0.0

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
        self._clear()
        self._env.say(text)

    def warn(self, text: str) -> None:
        """A warning, where the meter was."""
        self._clear()
        self._env.warn(text)

    def _clear(self) -> None:
        with self._guard:
            if self._live and self._drawn_s:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)
                self._drawn_s = 0.0

    def then(self, verb: str, total_bytes: int = 0) -> Callable[[int], None]:
        """The next piece of the same work begins: its own count and rate. Returns what hears of its bytes."""
        with self._guard:
            self._verb, self.total_bytes, self.done_bytes, self._beside = verb, total_bytes, 0, None
            self._start_s = time.monotonic() - (FIRST_S if self._drawn_s else 0)
        return self.add_bytes

    def beside(self, verb: str) -> Callable[[int], None]:
        """Another count on the same line, for work that goes on at the same time; what hears of its bytes."""
        other = Meter(self._env, verb)
        self._beside = other

        def heard(count: int) -> None:
            with self._guard:
                other.done_bytes += count
                self._maybe_draw()

        return heard

    def _maybe_draw(self) -> None:
        now_s = time.monotonic()
        if self._live and now_s - self._start_s >= FIRST_S and now_s - self._drawn_s >= REDRAW_S:
            self._draw()

    def _draw(self) -> None:
        self._drawn_s = time.monotonic()
        print(f"\r\x1b[K{self.line()}", end="", file=sys.stderr, flush=True)

    def line(self) -> str:
        """The state as text: `Downloading 3/7 objects, 12.3/30.0 MiB, 4.5 MiB/s`; less where less is known."""
        elapsed_s = max(time.monotonic() - self._start_s, 0.001)
        parts = []
        if self.objects:
            parts.append(f"{self.done_objects}/{self.objects} {self._unit}")
        elif self.done_objects:
            parts.append(f"{self.done_objects} {self._unit}, {self.done_objects / elapsed_s:.0f}/s")
        if self.done_bytes or not parts or self.total_bytes:
            total = f"/{max(self.total_bytes, self.done_bytes) / _MIB:.1f}" if self.total_bytes else ""
            parts.append(f"{self.done_bytes / _MIB:.1f}{total} MiB, {self.done_bytes / _MIB / elapsed_s:.1f} MiB/s")
        own = f"{self._verb} {', '.join(parts)}"
        beside = self._beside
        if beside is None or not beside.done_bytes:
            return own
        return f"{own}; {beside.line()}" if self.done_bytes else beside.line()


@contextmanager
def watched(env: Env, repo: Repository, verb: str) -> Iterator[Meter]:
    """While this lasts, what `repo` reads, hashes, stores and writes moves a meter."""
    with Meter(env, verb) as meter:
        repo.heard = meter.add_bytes
        try:
            yield meter
        finally:
            repo.heard = ignored


def ignored(_count: int) -> None:
    """Hear of bytes, and do nothing."""


def human_size(size_bytes: int) -> str:
    """A size for people: `512 B`, `3.4 MiB`."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{size_bytes} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
