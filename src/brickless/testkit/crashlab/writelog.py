"""Reads what a guest wrote to its disk, in the format of the kernel's dm-log-writes target.

QEMU's `blklogwrites` driver writes it (kernel: Documentation/admin-guide/device-mapper/log-writes.rst). Sector 0 holds
the superblock, then each entry takes one sector and is followed by its data.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from brickless.core.errors import HostileInputError

MAGIC = 0x6A736677736872
VERSION = 1
SECTOR_BYTES = 512
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
MAX_ENTRIES = 10_000_000
_SUPER = struct.Struct("<QQQI")
_ENTRY = struct.Struct("<QQQQ")


class Entry(NamedTuple):
    """One request of the guest: `data` is empty for a pure flush. `flush` means: all before it is on the disk."""

    sector: int
    data: bytes
    flush: bool

    @property
    def sectors(self) -> int:
        """How many sectors it writes."""
        return len(self.data) // SECTOR_BYTES


def count(path: Path) -> int:
    """How many entries the log has by now; it may be written at the same time. 0 for one that was just begun."""
    with path.open("rb") as stream:
        head = stream.read(_SUPER.size)
    return _entries(head, path)[0] if any(head) else 0


def read(paths: Sequence[Path]) -> list[Entry]:
    """All entries of the logs, one after another. Raises `HostileInputError` for what is no such log.

    Discards are kept as entries that write nothing: what they leave behind is anything, so the old bytes will do.
    """
    return [entry for path in paths for entry in _read(path)]


def _read(path: Path) -> Iterator[Entry]:
    if path.stat().st_size == 0:
        return
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as log:
        if not any(log[: _SUPER.size]):
            return
        number, size_bytes = _entries(log[: _SUPER.size], path)
        at = size_bytes
        for index in range(number):
            if at + size_bytes > len(log):
                raise HostileInputError(
                    f"the log of writes ends inside of entry {index} of {number}", context=str(path)
                )
            sector, sectors, flags, data_length = _ENTRY.unpack_from(log, at)
            at += size_bytes + data_length
            if flags & (DISCARD | MARK):
                yield Entry(0, b"", False)
                continue
            length = sectors * size_bytes
            if at + length > len(log):
                raise HostileInputError(
                    f"the log of writes ends inside of entry {index} of {number}", context=str(path)
                )
            # Sectors are the log's own unit.
            yield Entry(sector * size_bytes // SECTOR_BYTES, log[at : at + length], bool(flags & (FLUSH | FUA)))
            at += length


def _entries(head: bytes, path: Path) -> tuple[int, int]:
    """Number of entries and size of a sector in bytes, from the superblock."""
    if len(head) < _SUPER.size:
        raise HostileInputError("this is no log of writes: it is too short", context=str(path))
    magic, version, number, size_bytes = _SUPER.unpack_from(head)
    if magic != MAGIC or version != VERSION or size_bytes not in (512, 4096) or number > MAX_ENTRIES:
        raise HostileInputError("this is no log of writes (dm-log-writes, version 1)", context=str(path))
    return number, size_bytes
