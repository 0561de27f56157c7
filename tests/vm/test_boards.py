"""Real boards in QEMU: their own firmware, bootloader and disk. A BSP with another real kernel is committed, and comes
back from every way in which one can fail.

`make test-boards` runs all on both boards; `make test` what `SAMPLED` names (tests that share one board keep its
order).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brickless.image.boards import Options
from brickless.main.badbsps import Fault
from brickless.main.boardlab import MODEL, BoardLab, Outcome
from brickless.main.lab import Lab

BRICKLESS = Path(sys.executable).with_name("brickless")
ATTEMPTS = 2
WATCHDOG_S = 40
OTHER_MODEL = b"brickless,virt-2"
ALL = os.environ.get("BRICKLESS_BOARDS") == "all"
OPTIONS = Options(
    max_attempts=ATTEMPTS,
    watchdog_s=WATCHDOG_S,
    config={"PH_UPDATER_NETWORK_TIMEOUT": "20"},
    command_line="PV_WDT_TIMEOUT=10",
)

pytestmark = [pytest.mark.timeout(3600)]
fault = pytest.mark.fault


@pytest.fixture(scope="module")
def pc(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BoardLab]:
    """A PC with GRUB, shared: a test leaves it running a revision that works."""
    with BoardLab(lab, "pc", tmp_path_factory.mktemp("boards") / "pc", OPTIONS) as one:
        yield one


@pytest.fixture(scope="module")
def arm64(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BoardLab]:
    """An arm64 board with U-Boot whose environment lies on FAT, shared likewise."""
    with BoardLab(
        lab, "virt-arm64", tmp_path_factory.mktemp("boards") / "arm64", OPTIONS._replace(environment_on_boot=True)
    ) as one:
        yield one


Say = Callable[[str], None]
Scenario = Callable[[BoardLab, Say], None]


def kernel_of(board: BoardLab) -> str:
    """The kernel that ran last, as it said itself."""
    lines = [line.text for line in board.running.console.lines() if "Linux version " in line.text]
    return lines[-1].partition("Linux version ")[2].split()[0]


def model_of(board: BoardLab) -> str:
    """What the device tree of the last boot called the board, as the kernel says; "" where there is no tree."""
    lines = [line.text for line in board.running.console.lines() if "Machine model: " in line.text]
    return lines[-1].partition("Machine model: ")[2].strip() if lines else ""


def committed(board: BoardLab, say: Say) -> None:
    before = kernel_of(board)
    records = [board.memory_file, *(["uboot.txt"] if board.options.environment_on_boot else [])]
    places = [board.place_of(name) for name in records]
    new = board.bsp(kernel=board.board.update, build="updated", model=OTHER_MODEL)
    assert model_of(board) == (MODEL.decode() if new.fdt else "")
    outcome = board.update(new, "another kernel")
    assert outcome.step.status == "DONE", outcome.step
    assert [(one.rev, one.attempt) for one in outcome.starts] == [(str(outcome.rev), 1)]
    assert kernel_of(board) != before
    assert model_of(board) == (OTHER_MODEL.decode() if new.fdt else ""), "the device tree comes from the revision"
    assert [board.place_of(name) for name in records] == places, "a record that moves is not written in place"
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


def back_from_a_kernel_panic(board: BoardLab, say: Say) -> None:
    fails(board, Fault.PANIC, "Kernel panic - not syncing", say)


def back_from_a_hang_of_pid_1(board: BoardLab, say: Say) -> None:
    fails(board, Fault.HANG_PID1, "PID 1 hangs on purpose", say)


def back_from_a_kernel_that_hangs_before_pid_1(board: BoardLab, say: Say) -> None:
    fails(board, Fault.HANG_EARLY, "", say)


def back_from_a_runtime_that_exits(board: BoardLab, say: Say) -> None:
    fails(board, Fault.EXIT, "this runtime exits on purpose", say)


def back_from_containers_that_never_reach_their_goal(board: BoardLab, say: Say) -> None:
    outcome = board.update(board.bsp(build="stuck"), "a container gets stuck", stuck=True)
    # The runtime saw it fail and told the bootloader: one attempt is proof enough.
    came_back(board, outcome, 1, say)


def back_when_the_hub_cannot_be_reached_after_the_update(board: BoardLab, say: Say) -> None:
    outcome = board.update(board.bsp(build="lost", site=board.wrong_site()), "trusts another hub")
    came_back(board, outcome, 1, say)


def a_twin_boots_what_a_clone_has(board: BoardLab, say: Say) -> None:
    """`brickless twin` with a clone that came from the hub: the same revision on a disk of its own, until Ctrl-C."""
    clone = board.developer.folder / "twin"
    board.developer.pvr("clone", f"{board.lab.api.nick}/{board.known.nick}", str(clone))
    argv = [str(BRICKLESS), "twin", str(clone), "--board", board.board.name, "--cache", str(board.cache), "--verbose"]
    lines: list[str] = []
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as one:
        try:
            for line in one.stderr or ():
                lines.append(line)
                if "revision 0 started" in line:
                    one.send_signal(signal.SIGINT)
            assert one.wait() == 0, lines
        finally:
            one.kill()
    assert "switched off" in lines[-1], lines
    assert any(f"Linux version {kernel_of(board)} " in line for line in lines), "the twin has another kernel"
    say(f"{board.board.name}: a twin of its clone runs {kernel_of(board)}")


# The first is what the others come back to: another kernel than theirs.
ON_PC = (
    committed,
    a_twin_boots_what_a_clone_has,
    back_from_a_kernel_panic,
    back_from_a_hang_of_pid_1,
    back_from_a_kernel_that_hangs_before_pid_1,
    back_from_a_runtime_that_exits,
    back_from_containers_that_never_reach_their_goal,
    back_when_the_hub_cannot_be_reached_after_the_update,
)
# Nothing on that board resets a kernel that hangs: neither U-Boot nor the cloud kernels have a watchdog for it.
ON_ARM64 = tuple(one for one in ON_PC if one is not back_from_a_kernel_that_hangs_before_pid_1)
SAMPLED = (committed, back_from_a_kernel_panic, back_from_a_hang_of_pid_1)


def scenarios(of: tuple[Scenario, ...], sampled: tuple[Scenario, ...]) -> pytest.MarkDecorator:
    """All of a board's, or in CI the sampled ones."""
    return pytest.mark.parametrize("scenario", of if ALL else sampled, ids=lambda one: one.__name__)


@fault("a BSP update whose kernel panics", "the bootloader tries it as often as it may, then boots the last good one")
@fault("a BSP update whose PID 1 hangs", "the watchdog resets it, as above; the hub hears why")
@fault("a BSP update whose kernel hangs before PID 1", "the hardware's watchdog resets it, as above")
@fault("a BSP update whose runtime exits", "the kernel panics and reboots, as above")
@fault("a BSP update whose containers never reach their goal", "it is given up after one attempt: the runtime saw it")
@fault("a BSP update after which the hub cannot be reached", "it is given up after one attempt: the runtime saw it")
@pytest.mark.needs("qemu", "grub")
@scenarios(ON_PC, SAMPLED)
def test_pc(pc: BoardLab, scenario: Scenario, say: Say) -> None:
    scenario(pc, say)


@pytest.mark.needs("qemu-arm64")
@scenarios(ON_ARM64, SAMPLED[:2])
def test_arm64(arm64: BoardLab, scenario: Scenario, say: Say) -> None:
    scenario(arm64, say)
