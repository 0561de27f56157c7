"""The children that PID 1 keeps alive: when one is started again, and when starting it again is of no more use."""

from __future__ import annotations

# First wait after a death, doubled for each death that follows, up to the longest.
BACKOFF_FIRST_S = 0.5
BACKOFF_LONGEST_S = 60.0
# Who lived this long is healthy again: its earlier deaths are forgotten.
HEALTHY_S = 60.0
# Deaths after which a revision on trial is given up, and after which even a committed one is worth a reset.
DEATHS_ON_TRIAL = 3
DEATHS_AT_ALL = 30


class Daemon:
    """One child: its module, its pid while it runs, when it may be started again."""

    __slots__ = ("deaths", "essential", "module", "name", "next_start_s", "pid", "started_s")

    def __init__(self, name: str, module: str, *, essential: bool) -> None:
        self.name = name
        self.module = module
        self.essential = essential
        self.pid = 0
        self.deaths = 0
        self.started_s = 0.0
        self.next_start_s = 0.0

    def started(self, pid: int, now_s: float) -> None:
        """It runs."""
        self.pid = pid
        self.started_s = now_s

    def died(self, now_s: float) -> float:
        """It ended, for whatever reason; returns the seconds until it is started again."""
        self.pid = 0
        if now_s - self.started_s >= HEALTHY_S:
            self.deaths = 0
        self.deaths += 1
        delay_s: float = min(BACKOFF_FIRST_S * 2.0 ** min(self.deaths - 1, 16), BACKOFF_LONGEST_S)
        self.next_start_s = now_s + delay_s
        return delay_s

    def is_hopeless(self, trial: bool) -> bool:
        """Whether only a reset can help: an essential child that dies again and again.

        On trial that means the bootloader's fallback, the revision that worked before.
        """
        return self.essential and self.deaths >= (DEATHS_ON_TRIAL if trial else DEATHS_AT_ALL)
