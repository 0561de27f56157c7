"""Maintenance windows: when devices may be given something, and deadlines that only run meanwhile. Pure.

A window is a span of the local day on some days of the week. The offset of local time from UTC comes in as a function,
so that nothing here reads the machine's time zone database.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

DAY_MIN = 24 * 60
_MIN_MS = 60_000
_DAY_MS = DAY_MIN * _MIN_MS
_MAX_DAYS = 800
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
#: The zone that means: the one that the device's label `timezone` names, UTC without it.
DEVICE_ZONE = "device"

#: Seconds that local time is ahead of UTC at a moment in milliseconds.
Offset = Callable[[int], int]


@dataclass(frozen=True, slots=True)
class Window:
    """From `start_min` to `end_min` (minutes of the local day; past midnight when `end_min` is not later) on `days`.

    `days` are numbers from 0, Monday, on which it opens. `zone` is an IANA name, `UTC`, or `device`.
    """

    start_min: int
    end_min: int
    days: frozenset[int] = frozenset(range(7))
    zone: str = DEVICE_ZONE

    def __post_init__(self) -> None:
        """Refuse a window that never opens."""
        if not (0 <= self.start_min < DAY_MIN and 0 <= self.end_min <= DAY_MIN) or self.start_min == self.end_min:
            raise ValueError("a window begins and ends at different minutes of the day, from 00:00 to 24:00")
        if not self.days or not self.days <= frozenset(range(7)):
            raise ValueError(f"a window opens on some of {', '.join(DAYS)}")

    @property
    def length_min(self) -> int:
        """How long it is open."""
        return (self.end_min - self.start_min) % DAY_MIN or DAY_MIN

    def __str__(self) -> str:
        days = "" if len(self.days) == 7 else " " + ",".join(DAYS[day] for day in sorted(self.days))
        start, end = (f"{minute // 60:02d}:{minute % 60:02d}" for minute in (self.start_min, self.end_min))
        return f"{start}-{end}{days} {self.zone}"


def utc(_now_ms: int) -> int:
    """The offset of UTC."""
    return 0


def _day_of(local_ms: int) -> int:
    # 1970-01-01 was a Thursday.
    return (local_ms // _DAY_MS + 3) % 7


def opening(window: Window, now_ms: int, offset: Offset) -> tuple[int, int]:
    """The opening that `now_ms` lies in, or the next one: when it begins and ends, in milliseconds of UTC."""
    local_ms = now_ms + offset(now_ms) * 1000
    midnight_ms = local_ms - local_ms % _DAY_MS
    for day in range(-1, 9):
        start_ms = midnight_ms + day * _DAY_MS + window.start_min * _MIN_MS
        if _day_of(start_ms) not in window.days:
            continue
        shift_ms = offset(start_ms - offset(now_ms) * 1000) * 1000
        begin_ms = start_ms - shift_ms
        end_ms = begin_ms + window.length_min * _MIN_MS
        if end_ms > now_ms:
            return begin_ms, end_ms
    raise ValueError("the window never opens")  # unreachable: some day of the next eight is one of its days


def is_open(window: Window | None, now_ms: int, offset: Offset) -> bool:
    """Whether a device may be given something now."""
    return window is None or opening(window, now_ms, offset)[0] <= now_ms


def after_open_time(window: Window | None, start_ms: int, open_ms: int, offset: Offset) -> int:
    """The moment at which the window will have been open for `open_ms` milliseconds since `start_ms`."""
    if window is None:
        return start_ms + open_ms
    now_ms, left_ms = start_ms, open_ms
    for _ in range(_MAX_DAYS):
        begin_ms, end_ms = opening(window, now_ms, offset)
        begin_ms = max(begin_ms, now_ms)
        if end_ms - begin_ms >= left_ms:
            return begin_ms + left_ms
        left_ms -= end_ms - begin_ms
        now_ms = end_ms
    return now_ms
