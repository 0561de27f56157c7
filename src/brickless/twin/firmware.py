"""The emulated board's own bootloader: reads the same variables as U-Boot and picks what QEMU starts (device.md 3.4).

It keeps `pv_trying` in a file beside the disk, as a board keeps it on a partition of its own, and decides with
`core.bootenv.choose`. It reads the disk as U-Boot does, file by file, as it is after its journal; it never writes it:
the journal is replayed in a copy, so that the kernel meets the disk as the power cut left it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from brickless.core import bootenv
from brickless.store import atomic
from brickless.twin import disk
from brickless.twin.errors import TwinError
from brickless.twin.qemu import Boot

COMMAND_LINE = "console=ttyS0 panic=2 rdinit=/usr/bin/pantavisor root=/dev/ram PV_STORAGE_DEVICE=/dev/vda"
# Archives of an initramfs start at multiples of this (see the kernel's buffer-format.rst).
ALIGNMENT = 4
MAX_ADDONS = 64


class Selected(NamedTuple):
    """What the firmware decided, and why in one line."""

    boot: Boot
    rev: str
    attempt: int
    fell_back: bool


class Firmware:
    """The bootloader of one board: its disk, its own memory, and a folder for the files it loads."""

    def __init__(self, image: Path, memory: Path, work: Path, *, options: str = "", max_attempts: int = 1) -> None:
        """`options` is added to the kernel's command line; `max_attempts` bounds the tries of a revision."""
        self.image = image
        self.memory = memory
        self.work = work
        self.options = options
        self.max_attempts = max_attempts

    def select(self) -> Selected:
        """Decide what to boot now, remember the attempt, load the files.

        A revision on trial whose files cannot be loaded has used up its attempt, as with a real bootloader. When the
        committed one cannot be loaded the one before it is, then the factory's. Raises `TwinError` when none can: such
        a board is a brick.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        view = self.work / "view.img"
        disk.copy_sparse(self.image, view)
        try:
            disk.replay_journal(view)
            return self._select(view)
        finally:
            view.unlink()

    def _select(self, view: Path) -> Selected:
        environment = bootenv.parse(disk.read(view, "boot/uboot.txt") or b"")
        fault = ""
        for _ in range(self.max_attempts + 1):
            choice = bootenv.choose(environment, self.trying(), max_attempts=self.max_attempts)
            atomic.write_file(str(self.memory), choice.trying.encode())
            boot = self._load(view, choice.rev, environment.get("pv_try", ""))
            if boot is not None:
                return Selected(boot, choice.rev, choice.attempt, choice.fell_back)
            fault = f"revision {choice.rev} has no kernel or initramfs on the disk"
            if not choice.attempt:
                break
        for rev in dict.fromkeys((environment.get("pv_prev") or bootenv.FACTORY, bootenv.FACTORY)):
            boot = self._load(view, rev, environment.get("pv_try", ""))
            if boot is not None:
                return Selected(boot, rev, 0, True)
        raise TwinError(f"nothing to boot: {fault}", context=str(self.image))

    def trying(self) -> str:
        """What it remembers of its tries."""
        return self.memory.read_text() if self.memory.exists() else ""

    def _load(self, view: Path, rev: str, trying: str) -> Boot | None:
        folder = f"trails/{rev}/.pv"
        kernel, initrd = self.work / "kernel", self.work / "initrd"
        parts = [self.work / "part"]
        if not disk.dump(view, f"{folder}/pv-kernel.img", kernel):
            return None
        if not disk.dump(view, f"{folder}/pv-initrd.img", parts[0]):
            return None
        for number in range(MAX_ADDONS):
            part = self.work / f"part.{number}"
            if not disk.dump(view, f"{folder}/pv-initrd.img.{number}", part):
                break
            parts.append(part)
        _join(parts, initrd)
        words = [COMMAND_LINE, self.options, f"pv_rev={rev}", f"pv_try={trying}"]
        return Boot(kernel, initrd, " ".join(word for word in words if word))


def _join(parts: list[Path], out: Path) -> None:
    with out.open("wb") as stream:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, stream)
            stream.write(bytes(-stream.tell() % ALIGNMENT))
            part.unlink()
