"""Programs that only some devices need, as an archive of their own: `mke2fs` for disks, `dbus-daemon` for a system bus.

A board that makes encrypted disks, or whose containers use the hosted bus, adds it to `addons` of its BSP; all others
do without its 1.5 MB.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from brickless.core.errors import BricklessError
from brickless.image import debian, libraries
from brickless.image.arch import AMD64, Arch
from brickless.image.compress import Compression, write
from brickless.image.cpio import Archive
from brickless.image.initramfs import unpacked

# Program -> the Debian package that has it, and where.
PROGRAMS = {"mke2fs": ("e2fsprogs", "sbin/mke2fs"), "dbus-daemon": ("dbus-daemon", "usr/bin/dbus-daemon")}


def build(
    out: Path,
    *,
    cache: Path,
    programs: Sequence[str] = tuple(PROGRAMS),
    compression: Compression = Compression.ZSTD,
    arch: Arch = AMD64,
) -> None:
    """Write the archive of `programs` and the libraries they need. Raises `BricklessError` for one we do not know."""
    unknown = sorted(set(programs) - set(PROGRAMS))
    if unknown:
        raise BricklessError(f"no tool is called {unknown[0]}: there are {', '.join(sorted(PROGRAMS))}")
    debs = debian.fetch(sorted({PROGRAMS[name][0] for name in programs}), cache / "debian", arch=arch.debian)
    root = unpacked(debs, cache / "trees")
    archive = Archive()
    paths = {name: root / PROGRAMS[name][1] for name in programs}
    for name, path in paths.items():
        archive.file(f"usr/bin/{name}", path, 0o755)
    for name, path in sorted(libraries.needed(root, paths.values(), arch).items()):
        target = f"usr{name}" if name == arch.loader else f"{arch.libraries}/{name}"
        archive.file(target, path, 0o755)
    out.parent.mkdir(parents=True, exist_ok=True)
    write(archive.chunks(), out, compression)
