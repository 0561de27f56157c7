"""GRUB for PCs with a BIOS, as what lies in the first mebibyte of a disk: its boot sector and its core with all it
needs.

Debian's package `grub-pc-bin` gives the parts, `grub-mkimage` puts them together; nothing is installed, no root. The
core holds every command that our `grub.cfg` uses: the boot partition holds no modules that could be missing.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from brickless.core.errors import BricklessError
from brickless.image import cache, debian
from brickless.image.initramfs import unpacked
from brickless.linux import process

PACKAGE = "grub-pc-bin"
FOLDER = "usr/lib/grub/i386-pc"
PREFIX = "(hd0,msdos1)/grub"
MODULES = (
    "biosdisk", "part_msdos", "fat", "ext2", "normal", "linux", "loadenv", "test", "echo", "serial", "terminal",
    "reboot", "eval", "regexp", "memrw", "setpci", "true", "minicmd", "boot", "configfile",
)  # fmt: skip
MKIMAGE_TIMEOUT_S = 60.0
CODE_BYTES = 440
SECTOR = 512


def build(folder: Path, *, gap_bytes: int) -> tuple[bytes, bytes]:
    """(the code of the boot sector, the core that follows it from sector 1 on); `folder` is the cache.

    Raises `BricklessError` when the core does not fit into `gap_bytes`, `ToolMissingError` without `grub-mkimage`.
    """
    (deb,) = debian.fetch([PACKAGE], folder / "debian", closure=False)
    parts = unpacked([deb], folder / "trees") / FOLDER
    name = f"grub-{cache.key(deb.name, MODULES, PREFIX, 1)}.img"
    core = cache.artefact(folder / "artefacts", name, lambda out: _core(parts, out)).read_bytes()
    if len(core) > gap_bytes - SECTOR:
        raise BricklessError(f"GRUB's core takes {len(core)} bytes; before the first partition are {gap_bytes}")
    return (parts / "boot.img").read_bytes()[:CODE_BYTES], core


def _core(parts: Path, out: Path) -> None:
    mkimage = process.require("grub-mkimage", "grub-common")
    with tempfile.NamedTemporaryFile(prefix="brickless-grub-") as made:
        argv = [mkimage, "-O", "i386-pc", "-d", str(parts), "-p", PREFIX, "-o", made.name, *MODULES]
        process.run(argv, purpose="putting GRUB together", timeout_s=MKIMAGE_TIMEOUT_S)
        out.write_bytes(Path(made.name).read_bytes())
