"""Real boards in QEMU: their own firmware, bootloader and disk. A BSP with another real kernel is committed, and comes
back from every way in which one can fail.

`make test-boards` runs all on both boards; `make test` what `SAMPLED` names (tests that share one board keep its
order).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from brickless.image.boards import Options
from brickless.main.badbsps import Fault
from brickless.main.boardlab import BoardLab, Outcome
from brickless.main.lab import Lab

ATTEMPTS = 2
WATCHDOG_S = 40
ALL = os.environ.get("BRICKLESS_BOARDS") == "all"
everything = pytest.mark.skipif(not ALL, reason="sampled: `make test-boards` runs it")
OPTIONS = Options(
    max_attempts=ATTEMPTS,
    watchdog_s=WATCHDOG_S,
    config={"PH_UPDATER_NETWORK_TIMEOUT": "20"},
    command_line="PV_WDT_TIMEOUT=10",
)

pytestmark = [pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def pc(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BoardLab]:
    """A PC with GRUB, shared: a test leaves it running a revision that works."""
    with BoardLab(lab, "pc", tmp_path_factory.mktemp("boards") / "pc", OPTIONS) as one:
        yield one


@pytest.fixture(scope="module")
def arm64(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BoardLab]:
    """An arm64 board with U-Boot, shared likewise."""
    with BoardLab(lab, "virt-arm64", tmp_path_factory.mktemp("boards") / "arm64", OPTIONS) as one:
        yield one


Say = Callable[[str], None]


def kernel_of(board: BoardLab) -> str:
    """The kernel that ran last, as it said itself."""
    lines = [line.text for line in board.running.console.lines() if "Linux version " in line.text]
    return lines[-1].partition("Linux version ")[2].split()[0]


def committed(board: BoardLab, say: Say) -> None:
    before = kernel_of(board)
    outcome = board.update(board.bsp(kernel=board.board.update, build="updated"), "another kernel")
    assert outcome.step.status == "DONE", outcome.step
    assert [(one.rev, one.attempt) for one in outcome.starts] == [(str(outcome.rev), 1)]
    assert kernel_of(board) != before
    say(f"{board.board.name}: {before} -> {kernel_of(board)}, tried once and committed")


def came_back(board: BoardLab, outcome: Outcome, attempts: int, say: Say) -> None:
    """The bad revision had these attempts, then the good one booted, and the hub heard why."""
    tried = [one for one in outcome.starts if one.rev == str(outcome.rev)]
    assert outcome.step.status == "ERROR", outcome.step
    assert outcome.step.message
    assert [one.attempt for one in tried] == list(range(1, attempts + 1)), outcome.starts
    assert outcome.starts[-1].rev != str(outcome.rev)
    assert len(outcome.starts) == attempts + 1, "one boot of the good revision, and no more"
    took_s = outcome.starts[-1].at_s - outcome.starts[0].at_s
    how = f"revision {outcome.rev} {outcome.step.message!r}: back after {attempts} + 1 boots"
    say(f"{board.board.name}: {how}, {took_s:.0f} s")


def fails(board: BoardLab, fault: Fault, words: str, say: Say) -> None:
    mark = board.running.mark()
    outcome = board.update(board.bsp(fault=fault), f"a BSP that fails: {fault}")
    said = [line.text for line in board.running.console.lines(mark)]
    assert not words or sum(words in line for line in said) == ATTEMPTS
    came_back(board, outcome, ATTEMPTS, say)


@pytest.mark.needs("qemu", "grub")
class TestPc:
    """x86_64, GRUB, an i6300esb watchdog."""

    def test_another_kernel_is_tried_and_committed(self, pc: BoardLab, say: Say) -> None:
        committed(pc, say)

    def test_back_from_a_kernel_panic(self, pc: BoardLab, say: Say) -> None:
        fails(pc, Fault.PANIC, "Kernel panic - not syncing", say)

    def test_back_from_a_hang_of_pid_1(self, pc: BoardLab, say: Say) -> None:
        fails(pc, Fault.HANG_PID1, "PID 1 hangs on purpose", say)

    def test_back_from_a_kernel_that_hangs_before_pid_1(self, pc: BoardLab, say: Say) -> None:
        fails(pc, Fault.HANG_EARLY, "", say)

    def test_back_from_a_runtime_that_exits(self, pc: BoardLab, say: Say) -> None:
        fails(pc, Fault.EXIT, "this runtime exits on purpose", say)

    def test_back_from_containers_that_never_reach_their_goal(self, pc: BoardLab, say: Say) -> None:
        outcome = pc.update(pc.bsp(build="stuck"), "a container gets stuck", stuck=True)
        # The runtime saw it fail and told the bootloader: one attempt is proof enough.
        came_back(pc, outcome, 1, say)

    def test_back_when_the_hub_cannot_be_reached_after_the_update(self, pc: BoardLab, say: Say) -> None:
        outcome = pc.update(pc.bsp(build="lost", site=pc.wrong_site()), "trusts another hub")
        came_back(pc, outcome, 1, say)


@pytest.mark.needs("qemu-arm64")
class TestArm64:
    """arm64, U-Boot."""

    def test_another_kernel_is_tried_and_committed(self, arm64: BoardLab, say: Say) -> None:
        committed(arm64, say)

    def test_back_from_a_kernel_panic(self, arm64: BoardLab, say: Say) -> None:
        fails(arm64, Fault.PANIC, "Kernel panic - not syncing", say)
