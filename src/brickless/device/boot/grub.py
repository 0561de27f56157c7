"""The GRUB back end: `<S>/boot/grubenv`, an environment block of exactly 1024 bytes (device.md 3.5).

The block starts with a fixed line, then `key=value` lines, then `#` up to its end. Our variables fit into its first
sector, and a change overwrites that sector in place: GRUB, which reads the file without the journal, sees the old block
or the new one (`store.sector`). GRUB never writes here. What it must remember it keeps in a block of its own on the
boot partition, which it overwrites in place as well, and which we never write: each of the two has one writer.

A block whose first line is wrong counts as empty, as for GRUB itself: the factory revision boots.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from brickless.core import bootenv
from brickless.core.errors import HostileInputError
from brickless.device.boot.variables import Variables
from brickless.linux import journal
from brickless.store import atomic, sector
from brickless.store.atomic import FILES, Files

FILE = "boot/grubenv"
SIZE_BYTES = 1024
HEADER = b"# GRUB Environment Block\n"


def parse(block: bytes) -> dict[str, str]:
    """The variables of a block; what is no such line is passed over."""
    if not block.startswith(HEADER):
        return {}
    pieces = block[len(HEADER) : SIZE_BYTES].split(b"\n")
    return bootenv.parse(b"\0".join(piece for piece in pieces if piece and not piece.startswith(b"#")))


def render(variables: Mapping[str, str]) -> bytes:
    """The block. Raises `HostileInputError` for what GRUB would read differently, or what does not fit."""
    lines = b""
    for piece in bootenv.render(variables).rstrip(b"\0").split(b"\0"):
        if b"\\" in piece:
            raise HostileInputError(f"the boot variable {piece.decode('utf-8', 'replace')!r} cannot be stored")
        lines += piece + b"\n" if piece else b""
    block = HEADER + lines
    if len(block) > SIZE_BYTES:
        raise HostileInputError(f"the boot variables take {len(block)} bytes, more than {SIZE_BYTES}")
    return block.ljust(SIZE_BYTES, b"#")


class BlockRecord:
    """The block in a file; see the module for what makes a write of it safe."""

    __slots__ = ("_files", "_path")

    def __init__(self, path: str, files: Files = FILES) -> None:
        self._path = path
        self._files = files

    def load(self) -> dict[str, str]:
        """The variables of the block."""
        return parse(sector.read(self._path, SIZE_BYTES) or b"")

    def store(self, variables: Mapping[str, str]) -> None:
        """Replace the block: one sector in place, or a new file that is made visible before we go on."""
        folder = os.path.dirname(self._path)
        atomic.make_dirs(folder, files=self._files)
        if not sector.replace(self._path, render(variables), files=self._files):
            journal.checkpoint(folder)


class Grub(Variables):
    """The variables in `<S>/boot/grubenv`. Everything raises `OSError` when the disk refuses."""

    __slots__ = ()

    def __init__(self, storage: str, files: Files = FILES) -> None:
        super().__init__(BlockRecord(os.path.join(storage, FILE), files), lambda: journal.checkpoint(storage))
