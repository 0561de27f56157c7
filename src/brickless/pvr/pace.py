"""How fast bytes may move: all transfers of a run together keep to one rate (`--limit-rate`)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

#: So much may come at once after a pause: a rate is an average, and a piece of a stream is not split.
_BURST_S = 0.25


class Pace:
    """Thread-safe. Who moved some bytes calls `took`, and is held back until the rate allows more."""

    def __init__(
        self,
        rate: int,
        wait: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`rate` is in bytes a second, 0 for no limit; `wait` is given seconds, and may return early to stop."""
        self._rate = rate
        self._wait = wait
        self._clock = clock
        self._free_s = 0.0
        self._guard = threading.Lock()

    def took(self, count: int) -> None:
        """Account for bytes that just moved; returns when it is time for more."""
        if not self._rate or count <= 0:
            return
        with self._guard:
            now_s = self._clock()
            # When everything that moved until now has had its time.
            self._free_s = max(self._free_s, now_s - _BURST_S) + count / self._rate
            late_s = self._free_s - now_s
        if late_s > 0:
            self._wait(late_s)
