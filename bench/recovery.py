"""How long a board takes back to its last good revision after a bad update, and how many boots that needs.

Run by `make bench B=recovery`. Each board boots from its own disk image (SeaBIOS and GRUB, or U-Boot) in QEMU without
KVM, with the bound of attempts that images have by default. Measured is from power-on, the bad revision being on
trial and nothing counted yet, to the good revision's containers at work:

    panic    the kernel panics once the runtime is up: every attempt is used
    seen     the runtime itself sees the failure (a container that never gets ready): one attempt

The power is off between update and measurement, so that the figure is that of a device found dead in the morning.
Peers publish no such figure.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench.report import report
from brickless.image.boards import MAX_ATTEMPTS, Options
from brickless.main.artefacts import Artefacts
from brickless.main.badbsps import Fault
from brickless.main.boardlab import BoardLab
from brickless.main.lab import Lab
from brickless.main.talk import Talk

CACHE = Path(".cache").absolute()
BOARDS = ("pc", "virt-arm64")
INSTALLED_TIMEOUT_S = 300.0
BACK_TIMEOUT_S = 900.0


def main() -> None:
    """Measure both boards."""
    figures: dict[str, float | None] = {"attempts_bound": float(MAX_ATTEMPTS)}
    with (
        tempfile.TemporaryDirectory(prefix="brickless-recovery-") as scratch,
        Lab(Path(scratch) / "lab", Artefacts(CACHE), Talk()) as lab,
    ):
        for name in BOARDS:
            with BoardLab(lab, name, Path(scratch) / name, Options(), steady=False) as board:
                for case in ("panic", "seen"):
                    seconds, boots = recovery(board, case)
                    key = f"{name.replace('-', '_')}_{case}"
                    figures[f"{key}_s"], figures[f"{key}_boots"] = seconds, float(boots)
    report("recovery", figures)


def recovery(board: BoardLab, case: str) -> tuple[float, int]:
    """(seconds from power-on to the good revision at work, boots until then); the board runs the good one after."""
    running = board.running
    good = running.starts()[-1].rev
    mark = running.mark()
    bad = board.bsp(fault=Fault.PANIC) if case == "panic" else board.bsp(build=f"stuck {time.time_ns()}")
    rev = board.post(bad, f"bad: {case}", stuck=case == "seen")
    running.wait_for(rf"bootloader: revision {rev} attempt 1", timeout_s=INSTALLED_TIMEOUT_S, since=mark)
    running.kill()
    # The first attempt was counted; the figure is of one that starts with none, as after a cut on the way down.
    board.forget_attempts()
    mark = running.mark()
    started_s = time.monotonic()
    running.start()
    back = running.wait_for(rf"revision {good} started", timeout_s=BACK_TIMEOUT_S, since=mark)
    back = running.wait_for(r"container network STARTED", timeout_s=BACK_TIMEOUT_S, since=back.mark)
    boots = len(running.starts(mark))
    board.lab.api.wait_for_step(board.known, rev, BACK_TIMEOUT_S)
    return back.at_s - started_s, boots


if __name__ == "__main__":
    main()
