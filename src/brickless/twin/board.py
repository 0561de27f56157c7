"""A board in QEMU that boots by itself: its own firmware, its own bootloader, one disk, and nothing on the command
line.

Unlike `EmulatedDevice` nobody decides here what is booted: the boot script on the disk does, and says so on the
console.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from brickless.twin.console import Console, Found
from brickless.twin.errors import TwinError
from brickless.twin.qemu import Forward, Hardware, Machine, Service

# What our boot scripts say before each attempt to start a kernel.
BOOTS = re.compile(r"bootloader: revision (?P<rev>\S+) attempt (?P<attempt>\d+)")
FELL_BACK = "had its attempts"


class Start(NamedTuple):
    """A revision that the bootloader started to boot: `attempt` is 0 for one that is no try; `at_s` is monotonic."""

    rev: str
    attempt: int
    at_s: float


class Board:
    """A board with `disk`; its console is kept in `folder`. As a context manager it is switched off at the end."""

    def __init__(
        self,
        folder: Path,
        disk: Path,
        hardware: Hardware,
        *,
        services: Sequence[Service] = (),
        forwards: Sequence[Forward] = (),
        drive: str = "",
        write_log: Path | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """`services` and `forwards` are its only network; `drive` replaces QEMU's options for the disk.

        `write_log` gets every write and flush of the disk, see `Machine`.
        """
        self.folder = folder
        self.disk = disk
        self.hardware = hardware
        self.console = Console(folder / "console.log", on_line)
        self.services = tuple(services)
        self.forwards = tuple(forwards)
        self.drive = drive
        self.write_log = write_log
        self._machine: Machine | None = None

    def start(self) -> Board:
        """Switch it on. Raises `TwinError` when it is on already."""
        if self._machine is not None:
            raise TwinError(f"the board in {self.folder} is on already")
        self.console.reopen()
        self._machine = Machine(
            None,
            self.console,
            disk=self.disk,
            drive=self.drive,
            write_log=self.write_log,
            hardware=self.hardware,
            forwards=self.forwards,
            services=self.services,
        ).start()
        return self

    @property
    def machine(self) -> Machine:
        """The QEMU that runs. Raises `TwinError` when it is off."""
        if self._machine is None:
            raise TwinError(f"the board in {self.folder} is off")
        return self._machine

    def wait_for(self, pattern: str, *, timeout_s: float, since: int = 0) -> Found:
        """Wait for a line of its console, over resets; see `Console.wait_for`."""
        return self.console.wait_for(pattern, timeout_s=timeout_s, since=since)

    def mark(self) -> int:
        """The place behind the last console line so far."""
        return self.console.mark()

    def starts(self, since: int = 0) -> list[Start]:
        """Every revision that its bootloader started to boot."""
        found = ((BOOTS.search(line.text), line.at_s) for line in self.console.lines(since))
        return [Start(match["rev"], int(match["attempt"]), at_s) for match, at_s in found if match is not None]

    def kill(self) -> None:
        """Cut the power; `start` switches it on again."""
        if self._machine is not None:
            self._machine.close()
            self._machine = None
        self.console.end("switched off")

    def stop(self) -> None:
        """Cut the power and free the console."""
        self.kill()
        self.console.close()

    def __enter__(self) -> Board:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def pc(*, memory_mb: int = 256, watchdog: bool = True) -> Hardware:
    """QEMU's PC with a BIOS."""
    return Hardware(memory_mb=memory_mb, watchdog=watchdog)


def virt_arm64(firmware: Path, *, memory_mb: int = 512) -> Hardware:
    """QEMU's `virt` board with U-Boot in its flash."""
    return Hardware(
        memory_mb=memory_mb,
        machine="virt",
        cpu="cortex-a53",
        program="qemu-system-aarch64",
        package="qemu-system-arm",
        firmware=firmware,
    )
