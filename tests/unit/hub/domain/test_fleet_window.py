"""Maintenance windows over days, weeks, midnight and the change of the clocks; deadlines that only run inside."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.hub.adapters.zones import offset_of
from brickless.hub.domain.fleet_window import Window, after_open_time, is_open, opening, utc

HOUR_MS = 3_600_000
NIGHT = Window(22 * 60, 6 * 60)


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def text(moment_ms: int) -> str:
    return datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M")


@pytest.mark.parametrize(
    ("window", "zone", "now", "begins", "ends"),
    [
        (NIGHT, "UTC", "2026-03-10T12:00", "2026-03-10T22:00", "2026-03-11T06:00"),
        (NIGHT, "UTC", "2026-03-10T23:00", "2026-03-10T22:00", "2026-03-11T06:00"),
        (NIGHT, "UTC", "2026-03-10T05:59", "2026-03-09T22:00", "2026-03-10T06:00"),
        (NIGHT, "UTC", "2026-03-10T06:00", "2026-03-10T22:00", "2026-03-11T06:00"),
        (NIGHT, "Europe/Berlin", "2026-01-10T12:00", "2026-01-10T21:00", "2026-01-11T05:00"),
        (NIGHT, "Europe/Berlin", "2026-07-10T12:00", "2026-07-10T20:00", "2026-07-11T04:00"),
        (NIGHT, "Asia/Kolkata", "2026-07-10T12:00", "2026-07-10T16:30", "2026-07-11T00:30"),
        # 2026-03-14 is a Saturday.
        (Window(60, 120, frozenset({5})), "UTC", "2026-03-10T12:00", "2026-03-14T01:00", "2026-03-14T02:00"),
        (Window(0, 24 * 60), "UTC", "2026-03-10T12:00", "2026-03-10T00:00", "2026-03-11T00:00"),
    ],
)
def test_openings(window: Window, zone: str, now: str, begins: str, ends: str) -> None:
    offset = offset_of(zone)
    assert offset is not None
    assert tuple(map(text, opening(window, ms(now), offset))) == (begins, ends)
    assert is_open(window, ms(now), offset) is (begins <= now)


def test_a_deadline_runs_only_while_the_window_is_open() -> None:
    start = ms("2026-03-10T12:00")
    assert text(after_open_time(NIGHT, start, 2 * HOUR_MS, utc)) == "2026-03-11T00:00"
    assert text(after_open_time(NIGHT, start, 24 * HOUR_MS, utc)) == "2026-03-13T06:00"
    assert text(after_open_time(None, start, 24 * HOUR_MS, utc)) == "2026-03-11T12:00"


@given(
    st.integers(0, 24 * 60 - 1), st.integers(1, 24 * 60), st.sets(st.integers(0, 6), min_size=1), st.integers(0, 10**12)
)
def test_an_opening_is_never_over_and_a_deadline_never_early(start: int, end: int, days: set[int], now_ms: int) -> None:
    if start == end:
        return
    window = Window(start, end, frozenset(days))
    begins_ms, ends_ms = opening(window, now_ms, utc)
    assert now_ms < ends_ms
    assert ends_ms - begins_ms == window.length_min * 60_000
    assert after_open_time(window, now_ms, HOUR_MS, utc) >= now_ms + HOUR_MS


@pytest.mark.parametrize("name", ["Europe/Nowhere", "", "../etc/passwd", "a" * 300, "Europe", "/etc/localtime"])
def test_a_zone_that_is_none_is_unknown(name: str) -> None:
    assert offset_of(name) is None


@pytest.mark.parametrize(
    ("start", "end", "days"), [(5, 5, {1}), (-1, 5, {1}), (0, 1441, {1}), (0, 5, set()), (0, 5, {7})]
)
def test_a_window_that_never_opens_is_refused(start: int, end: int, days: set[int]) -> None:
    with pytest.raises(ValueError, match="window"):
        Window(start, end, frozenset(days))
