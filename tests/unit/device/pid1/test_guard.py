"""The hardware watchdog: who feeds it, when it is armed, and what happens when nobody speaks."""

from __future__ import annotations

import pytest

from brickless.device.pid1.guard import START_GRACE_S, Guard, early_settings
from brickless.linux.watchdog import Watchdog


class FakeConsole:
    """Collects lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


class FakeWatchdog:
    """Counts."""

    def __init__(self, timeout_s: int) -> None:
        self.timeout_s = timeout_s
        self.feeds = 0
        self.armed = True

    def feed(self) -> None:
        self.feeds += 1

    def disarm(self) -> None:
        self.armed = False


class Board:
    """A guard and the hardware that it armed."""

    def __init__(self, *, broken: bool = False) -> None:
        self.armed: list[FakeWatchdog] = []
        self.broken = broken
        self.console = FakeConsole()
        self.guard = Guard(self.console, self.arm)  # type: ignore[arg-type] # the console and the hardware are fakes

    def arm(self, timeout_s: int) -> Watchdog:
        if self.broken:
            raise FileNotFoundError(2, "No such file", "/dev/watchdog")
        self.armed.append(FakeWatchdog(timeout_s))
        return self.armed[-1]  # type: ignore[return-value] # as above


@pytest.mark.parametrize(
    ("cmdline", "config", "expected"),
    [
        ("", "", ("shutdown", 15)),
        ("PV_WDT_MODE=always PV_WDT_TIMEOUT=40", "", ("always", 40)),
        ("quiet", "PV_WDT_MODE=startup\nPV_WDT_TIMEOUT=9\n", ("startup", 9)),
        ("PV_WDT_MODE=disabled", "PV_WDT_MODE=always\n", ("disabled", 15)),
        ("PV_WDT_MODE=never PV_WDT_TIMEOUT=0", "", ("shutdown", 15)),
        ("PV_WDT_TIMEOUT=x", "", ("shutdown", 15)),
    ],
)
def test_what_pid_1_knows_by_itself(cmdline: str, config: str, expected: tuple[str, int]) -> None:
    assert early_settings(cmdline, config) == expected


def test_once_the_supervisor_has_spoken_only_its_words_feed() -> None:
    board = Board()
    board.guard.configure("always", 15, 0.0)
    hardware = board.armed[0]
    board.guard.alive()
    fed = hardware.feeds
    for second in range(100):
        board.guard.tick(float(second))
    assert hardware.feeds == fed, "a supervisor that hangs must not be covered by PID 1"
    assert board.guard.due_s() is None
    board.guard.alive()
    assert hardware.feeds == fed + 1


def test_before_its_first_word_pid_1_feeds_but_not_for_ever() -> None:
    board = Board()
    board.guard.configure("always", 15, 0.0)
    hardware = board.armed[0]
    now_s = 0.0
    while (due_s := board.guard.due_s()) is not None:
        assert due_s - now_s <= 15, "fed often enough"
        now_s = due_s
        board.guard.tick(now_s)
    assert START_GRACE_S <= now_s < START_GRACE_S + 15
    assert hardware.feeds >= START_GRACE_S / 15
    assert "no word of the supervisor" in board.console.lines[-1]


def test_startup_ends_when_the_goals_are_reached_and_comes_back_for_the_way_down() -> None:
    board = Board()
    board.guard.configure("startup", 15, 0.0)
    board.guard.started()
    assert not board.armed[0].armed
    board.guard.ending(50.0)
    assert board.armed[1].armed
    assert board.armed[1].feeds > 0


def test_shutdown_arms_only_for_the_way_down() -> None:
    board = Board()
    board.guard.configure("shutdown", 15, 0.0)
    assert not board.armed
    board.guard.ending(5.0)
    fed = board.armed[0].feeds
    board.guard.tick(100.0)
    assert board.armed[0].feeds == fed


def test_disabled_never_arms_and_disarms_what_pid_1_armed() -> None:
    board = Board()
    board.guard.configure("always", 15, 0.0)
    board.guard.configure("disabled", 15, 1.0)
    board.guard.ending(2.0)
    assert [one.armed for one in board.armed] == [False]


def test_a_board_without_a_watchdog_says_so_and_goes_on() -> None:
    board = Board(broken=True)
    board.guard.configure("always", 15, 0.0)
    board.guard.alive()
    board.guard.ending(1.0)
    assert all("hardware watchdog" in line for line in board.console.lines)
    assert board.guard.due_s() is None
