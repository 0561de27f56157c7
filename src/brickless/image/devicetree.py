"""The device tree of an emulated board as a file of its revision's `bsp/`: what QEMU would hand to the firmware.

Real boards get theirs from their kernel's package. QEMU's `virt` board has none there, the emulator makes it; asked for
it without its random seeds it gives the same bytes each time. U-Boot fills in what only it knows (memory, initramfs,
command line). Layout of the file: devicetree specification 0.4, chapter 5.
"""

from __future__ import annotations

import struct
from pathlib import Path

from brickless.core.errors import HostileInputError
from brickless.image import cache
from brickless.linux import process

PROGRAM, PACKAGE = "qemu-system-aarch64", "qemu-system-arm"
MACHINE, CPU, MEMORY_MB = "virt", "cortex-a53", 512
# Magic, size, places of structure, strings and reservations, two versions, processor, sizes of strings and structure.
HEADER = struct.Struct(">10I")
MAGIC = 0xD00DFEED
MAX_BYTES = 1 << 20
DUMP_TIMEOUT_S = 60.0


def virt_arm64(folder: Path, firmware: Path) -> Path:
    """The tree of QEMU's `virt` board with one processor, made once below the cache `folder`.

    `firmware` is what it has in its flash: with one it has other devices than without.
    """
    emulator = process.require(PROGRAM, PACKAGE)
    version = process.run([emulator, "--version"], purpose="asking QEMU for its version", timeout_s=DUMP_TIMEOUT_S)

    def make(out: Path) -> None:
        machine = f"{MACHINE},dtb-randomness=off,dumpdtb={out}"
        board = ["-machine", machine, "-cpu", CPU, "-m", str(MEMORY_MB), "-bios", str(firmware)]
        argv = [emulator, *board, "-display", "none", "-nodefaults"]
        process.run(argv, purpose="asking QEMU for its device tree", timeout_s=DUMP_TIMEOUT_S)
        out.write_bytes(packed(out.read_bytes()))

    name = f"virt-arm64-{cache.key(version.stdout.decode('utf-8', 'replace'), MACHINE, CPU, MEMORY_MB, 2)}.dtb"
    return cache.artefact(folder / "artefacts", name, make)


def packed(tree: bytes) -> bytes:
    """A tree without the room behind its last part. Raises `HostileInputError` when it is none."""
    if len(tree) < HEADER.size:
        raise HostileInputError("this is no device tree: it is too short")
    fields = list(HEADER.unpack_from(tree))
    magic, _, structure, strings, reserved, *_, strings_size, structure_size = fields
    end = max(structure + structure_size, strings + strings_size, reserved + 16)
    if magic != MAGIC or end > min(len(tree), MAX_BYTES):
        raise HostileInputError("this is no device tree, or one that names parts beyond its end")
    fields[1] = end
    return HEADER.pack(*fields) + tree[HEADER.size : end]
