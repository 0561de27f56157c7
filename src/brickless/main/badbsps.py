"""Board support packages that fail, each in one of the ways in which real ones do: for tests, benchmarks and drills."""

from __future__ import annotations

import gzip
import struct
from enum import StrEnum
from pathlib import Path

from brickless.core.errors import BricklessError
from brickless.image import cache
from brickless.image.arch import AMD64
from brickless.image.boards import Board
from brickless.image.initramfs import Addition

INIT = "usr/bin/pantavisor"
_PYTHON = "#!/usr/bin/python3.11 -ISB\n"
# x86: `cli`, then `hlt` for ever. arm64: a branch to itself.
X86_HANG = b"\xfa\xf4\xeb\xfd"
ARM64_HANG = 0x14000000
SETUP_SECTORS_AT = 0x1F1
SECTOR = 512


class Fault(StrEnum):
    """How the new BSP fails."""

    PANIC = "panic"
    HANG_EARLY = "hang-before-pid1"
    HANG_PID1 = "hang-of-pid1"
    EXIT = "runtime-exits"


# The kernel panics by itself while the runtime is at work.
_PANIC = f"""{_PYTHON}from brickless.linux import mount
mount.mount_early()
print("this kernel panics on purpose", flush=True)
with open("/proc/sysrq-trigger", "w") as trigger:
    trigger.write("c")
"""
_EXIT = f"""{_PYTHON}print("this runtime exits on purpose", flush=True)
raise SystemExit(1)
"""
# The real runtime, whose PID 1 stops turning once the supervisor has spoken: everything else goes on.
_HANG = f"""{_PYTHON}from brickless.device.pid1 import guard
from brickless.device.pid1.main import main
import time


def hang(self):
    print("PID 1 hangs on purpose", flush=True)
    while True:
        time.sleep(3600)


guard.Guard.alive = hang
main()
"""
INITS = {Fault.PANIC: _PANIC, Fault.EXIT: _EXIT, Fault.HANG_PID1: _HANG}


def init_of(fault: Fault) -> dict[str, Addition]:
    """The files of an initramfs that fails so; none for a fault that is in the kernel."""
    return {INIT: Addition(INITS[fault].encode(), 0o755)} if fault in INITS else {}


def hanging_kernel(of: Board, kernel: Path, folder: Path) -> Path:
    """The kernel, as bootloaders load it, whose first instruction never comes to an end."""

    def make(out: Path) -> None:
        data = bytearray(kernel.read_bytes())
        if of.arch == AMD64:
            if data[0x202:0x206] != b"HdrS" or data[0x1FE:0x200] != b"\x55\xaa":
                raise BricklessError(f"{kernel} is no kernel for PCs")
            # The code in 32-bit mode starts behind the setup's sectors (Documentation/arch/x86/boot.rst).
            start = (data[SETUP_SECTORS_AT] + 1) * SECTOR
            data[start : start + len(X86_HANG)] = X86_HANG
        else:
            data = bytearray(_decompressed(bytes(data)))
            struct.pack_into("<I", data, 0, ARM64_HANG)
        out.write_bytes(data)

    return cache.artefact(folder / "artefacts", f"hangs-{cache.key(str(kernel), of.name, 1)}.img", make)


def _decompressed(data: bytes) -> bytes:

    return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
