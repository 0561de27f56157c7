"""What PID 1 hears of the supervisor's loop while a hardware watchdog waits for it (device.md 3.9, `pid1.guard`)."""

from __future__ import annotations

import time
from collections.abc import Callable

from brickless.device.config import Config

# How often PID 1 hears that the loop turns: thrice within the watchdog's timeout.
ALIVE_SHARE = 3
# Modes of the watchdog in which it is armed while a revision is tried, and what is waited for beyond its timeout.
ARMED_MODES = ("startup", "always")
MARGIN_S = 2


def commit_delay_s(settings: Config) -> int:
    """How long a revision must have been well before it is committed.

    Not before an armed watchdog would have bitten: a PID 1 that hangs must not be committed by a supervisor that lives.
    """
    wanted_s = settings.seconds("PV_UPDATER_COMMIT_DELAY")
    if settings.text("PV_WDT_MODE") not in ARMED_MODES:
        return wanted_s
    return max(wanted_s, settings.integer("PV_WDT_TIMEOUT") + MARGIN_S)


class Heartbeat:
    """The supervisor's side; PID 1 arms the hardware where the mode wants it."""

    __slots__ = ("_at_s", "_every_s", "_mode", "_tell")

    def __init__(self, tell: Callable[[str], None], settings: Config) -> None:
        """`tell` sends a line to PID 1, the mode first."""
        mode, timeout_s = settings.text("PV_WDT_MODE"), settings.integer("PV_WDT_TIMEOUT")
        self._tell = tell
        self._mode = mode
        self._every_s = timeout_s / ALIVE_SHARE
        self._at_s: float | None = time.monotonic() if mode in ARMED_MODES else None
        tell(f"watchdog {mode} {timeout_s}")

    def beat(self, *, reached: bool) -> float | None:
        """Say that the loop turned, when it is time to; when it is the next time. `reached`: all goals are."""
        if self._mode == "startup" and self._at_s is not None and reached:
            self._tell("started")
            self._at_s = None
        if self._at_s is not None and time.monotonic() >= self._at_s:
            self._tell("alive")
            self._at_s = time.monotonic() + self._every_s
        return self._at_s
