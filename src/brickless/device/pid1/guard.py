"""The hardware watchdog, fed only while PID 1's loop and the supervisor's loop turn (device.md 3.9).

    disabled   never armed
    shutdown   armed for the way down: a reboot that hangs is ended by the hardware
    startup    armed from PID 1's start until the revision's containers reached their goals, and for the way down
    always     armed from PID 1's start to the end

Who feeds: PID 1, each time the supervisor says that its loop turned; nobody else, so a hang of either resets the board.
Until the supervisor has said so for the first time PID 1 feeds by itself, for a bounded time: checking a large revision
takes longer than the hardware's timeout, but not for ever.

A bootloader may have armed the hardware before the kernel; the driver or this module takes it over.
"""

from __future__ import annotations

from collections.abc import Callable

from brickless.linux import kmsg
from brickless.linux.watchdog import Watchdog

MODES = ("disabled", "shutdown", "startup", "always")
DEFAULT_MODE, DEFAULT_TIMEOUT_S = "shutdown", 15
CONFIG_FILE = "/etc/pantavisor.config"
# The supervisor's first word must come within this: reading and hashing the largest revisions included.
START_GRACE_S = 300.0
FEEDS_A_TIMEOUT = 3


def early_settings(cmdline: str, config: str) -> tuple[str, int]:
    """(mode, seconds) as far as PID 1 can know them by itself: the kernel's command line, then the initramfs's own
    file.

    The supervisor, which reads every level of the configuration, has the last word.
    """
    found: dict[str, str] = {}
    for word in (*config.splitlines(), *cmdline.split()):
        key, _, value = word.strip().partition("=")
        found[key] = value.strip()
    mode, seconds = found.get("PV_WDT_MODE", ""), found.get("PV_WDT_TIMEOUT", "")
    timeout_s = int(seconds) if seconds.isdecimal() and int(seconds[:6]) > 0 else DEFAULT_TIMEOUT_S
    return (mode if mode in MODES else DEFAULT_MODE), timeout_s


class Guard:
    """What PID 1 knows of the watchdog. `arm` opens the hardware: raises `OSError` when there is none."""

    __slots__ = ("_arm", "_console", "_feed_by_s", "_grace_until_s", "_heard", "_mode", "_timeout_s", "_watchdog")

    def __init__(self, console: kmsg.Console, arm: Callable[[int], Watchdog] = Watchdog) -> None:
        self._console = console
        self._arm = arm
        self._mode, self._timeout_s = DEFAULT_MODE, DEFAULT_TIMEOUT_S
        self._watchdog: Watchdog | None = None
        self._heard = False
        self._feed_by_s = 0.0
        self._grace_until_s = 0.0

    def configure(self, mode: str, timeout_s: int, now_s: float) -> None:
        """Take a mode and a timeout, and arm the hardware where the mode wants it at once."""
        self._mode, self._timeout_s = mode, timeout_s
        if mode in ("startup", "always"):
            self._grace_until_s = self._grace_until_s or now_s + START_GRACE_S
            self._start(now_s)
        else:
            self._stop()

    def alive(self) -> None:
        """The supervisor's loop turned, and ours did, or we would not be here."""
        self._heard = True
        self._feed()

    def started(self) -> None:
        """The revision reached its goals: the mode `startup` ends here."""
        if self._mode == "startup":
            self._stop()

    def ending(self, now_s: float) -> None:
        """The way down begins; from here on nobody feeds."""
        if self._mode != "disabled":
            self._heard = True
            self._start(now_s)
            self._feed()

    def due_s(self) -> float | None:
        """When `tick` must be called; None while the supervisor's words are what counts."""
        return None if self._heard or self._watchdog is None else self._feed_by_s

    def tick(self, now_s: float) -> None:
        """Feed while the supervisor has not spoken yet, within the bound."""
        if self._watchdog is not None and not self._heard and self._feed_by_s <= now_s:
            self._feed_by_s = now_s + self._timeout_s / FEEDS_A_TIMEOUT
            if now_s >= self._grace_until_s:
                self._heard = True
                self._console.line(f"brickless: pid1: no word of the supervisor: reset within {self._timeout_s} s")
                return
            self._feed()

    def _start(self, now_s: float) -> None:
        if self._watchdog is not None:
            return
        try:
            self._watchdog = self._arm(self._timeout_s)
        except OSError as error:
            self._console.line(f"brickless: pid1: hardware watchdog: {error}")
            return
        self._timeout_s = self._watchdog.timeout_s
        self._feed_by_s = now_s + self._timeout_s / FEEDS_A_TIMEOUT
        self._feed()

    def _feed(self) -> None:
        if self._watchdog is not None:
            try:
                self._watchdog.feed()
            except OSError as error:
                self._console.line(f"brickless: pid1: hardware watchdog: {error}")

    def _stop(self) -> None:
        if self._watchdog is not None:
            watchdog, self._watchdog = self._watchdog, None
            try:
                watchdog.disarm()
            except OSError as error:
                self._console.line(f"brickless: pid1: hardware watchdog: {error}")
