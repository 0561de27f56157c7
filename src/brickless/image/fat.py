"""FAT16 file systems for boot partitions: written whole and reproducibly, and read back, without root or tools.

Only what boot partitions need: names of the form 8.3, in one case each part (Windows NT's bits keep lower case),
folders, files that lie in one piece. In one piece and never moved matters: bootloader and runtime overwrite sectors
of them in place (ADR 0100). Format: Microsoft's FAT specification (fatgen103), sections 3 to 6.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from brickless.core.errors import BricklessError, HostileInputError

SECTOR = 512
SECTORS_PER_CLUSTER = 4
CLUSTER = SECTOR * SECTORS_PER_CLUSTER
# With eight reserved sectors and tables of whole pages, every cluster starts at a multiple of its own size.
RESERVED = 8
FATS = 2
ROOT_ENTRIES = 512
ENTRY = struct.Struct("<11sBBBHHHHHHHI")
DIRECTORY, ARCHIVE, VOLUME, LONG_NAME = 0x10, 0x20, 0x08, 0x0F
LOWER_BASE, LOWER_EXTENSION = 0x08, 0x10
END = 0xFFFF
MIN_CLUSTERS, MAX_CLUSTERS = 4085, 65524
# 2024-01-01, as everywhere in our images.
DATE = (2024 - 1980) << 9 | 1 << 5 | 1
NAME = re.compile(r"[A-Za-z0-9_-]{1,8}(\.[A-Za-z0-9_-]{1,3})?")
MAX_READ_BYTES = 256 << 20


class _Folder:
    def __init__(self) -> None:
        self.folders: dict[str, _Folder] = {}
        self.files: dict[str, bytes] = {}


def build(out: Path, *, size_bytes: int, files: Mapping[str, bytes | Path], label: str, hidden_sectors: int) -> None:
    """Write the file system `out` with `files` (path inside -> content).

    `hidden_sectors` is where the partition starts on its disk. Raises `BricklessError` when the files do not fit or a
    name is not of the form 8.3.
    """
    total = size_bytes // SECTOR
    table_sectors = _table_sectors(total)
    first = RESERVED + FATS * table_sectors + ROOT_ENTRIES * ENTRY.size // SECTOR
    clusters = (total - first) // SECTORS_PER_CLUSTER
    if not MIN_CLUSTERS <= clusters <= MAX_CLUSTERS:
        raise BricklessError(f"{size_bytes} bytes make {clusters} clusters, which is not FAT16")
    writer = _Writer(clusters)
    root = writer.folder(_tree(files), own=0)
    if len(root) >= ROOT_ENTRIES * ENTRY.size:
        raise BricklessError(f"more than {ROOT_ENTRIES - 1} names in the root folder")
    table = struct.pack(f"<{len(writer.table)}H", *writer.table).ljust(table_sectors * SECTOR, b"\0")
    with out.open("wb") as stream:
        stream.truncate(size_bytes)
        stream.write(_boot_sector(total, table_sectors, label, hidden_sectors))
        stream.seek(RESERVED * SECTOR)
        stream.write(table * FATS + _entry((label.ljust(11)[:11].encode(), 0), VOLUME) + root)
        stream.seek(first * SECTOR)
        stream.write(writer.data)


def _table_sectors(total: int) -> int:
    # One entry of two bytes a cluster; a little too many clusters are counted, which costs a few bytes.
    sectors = -(-(total // SECTORS_PER_CLUSTER + 2) * 2 // SECTOR)
    return sectors + -sectors % SECTORS_PER_CLUSTER


def _boot_sector(total: int, table_sectors: int, label: str, hidden: int) -> bytes:
    small = total if total < 0x10000 else 0
    head = struct.pack("<3s8sHBHBHHBHHHII", b"\xeb\x3c\x90", b"BRICKLES", SECTOR, SECTORS_PER_CLUSTER, RESERVED, FATS,
        ROOT_ENTRIES, small, 0xF8, table_sectors, 63, 255, hidden, 0 if small else total)  # fmt: skip
    tail = struct.pack("<BBBI11s8s", 0x80, 0, 0x29, 0xB51C4E55, label.ljust(11)[:11].encode(), b"FAT16   ")
    return (head + tail).ljust(SECTOR - 2, b"\0") + b"\x55\xaa"


def _tree(files: Mapping[str, bytes | Path]) -> _Folder:
    root = _Folder()
    for path in sorted(files):
        *folders, name = path.split("/")
        place = root
        for folder in folders:
            place = place.folders.setdefault(folder, _Folder())
        content = files[path]
        place.files[name] = content.read_bytes() if isinstance(content, Path) else content
    return root


class _Writer:
    """Lays files out one after the other and keeps the table of clusters."""

    def __init__(self, clusters: int) -> None:
        self.table = [0xFFF8, END]
        self.data = bytearray()
        self._limit = clusters + 2

    def place(self, content: bytes) -> int:
        """Append in one piece; returns the first cluster, 0 for nothing."""
        count = -(-len(content) // CLUSTER)
        if not count:
            return 0
        start = len(self.table)
        if start + count > self._limit:
            raise BricklessError("the boot files do not fit into the boot partition")
        self.table += [*range(start + 1, start + count), END]
        self.data += content.ljust(count * CLUSTER, b"\0")
        return start

    def folder(self, folder: _Folder, *, own: int) -> bytes:
        """The entries of a folder, whose contents are placed first."""
        entries = b""
        for name, content in folder.files.items():
            entries += _entry(short_name(name), ARCHIVE, self.place(content), len(content))
        for name, below in folder.folders.items():
            # A folder is placed before it is filled: what lies in it points back to it.
            count = len(below.files) + len(below.folders) + 2
            start = self.place(bytes(count * ENTRY.size))
            inside = _entry((b".".ljust(11), 0), DIRECTORY, start) + _entry((b"..".ljust(11), 0), DIRECTORY, own)
            inside += self.folder(below, own=start)
            offset = (start - 2) * CLUSTER
            self.data[offset : offset + len(inside)] = inside
            entries += _entry(short_name(name), DIRECTORY, start)
        return entries


def _entry(name: tuple[bytes, int], attributes: int, start: int = 0, size: int = 0) -> bytes:
    return ENTRY.pack(name[0], attributes, name[1], 0, 0, DATE, DATE, 0, 0, DATE, start, size)


def short_name(name: str) -> tuple[bytes, int]:
    """The eleven bytes of a name of the form 8.3, and the bits that keep its case. Raises `BricklessError`."""
    base, _, extension = name.partition(".")
    if not NAME.fullmatch(name) or any(part not in {part.lower(), part.upper()} for part in (base, extension)):
        raise BricklessError(f"{name!r} is no name for a boot partition: at most 8.3 characters, each part in one case")
    bits = LOWER_BASE if base != base.upper() else 0
    bits |= LOWER_EXTENSION if extension != extension.upper() else 0
    return base.upper().ljust(8).encode() + extension.upper().ljust(3).encode(), bits


# -- reading -------------------------------------------------------------------------------------------------------


class Extent(NamedTuple):
    """A file on the disk: the byte offsets of its clusters, in order, and its size in bytes."""

    clusters: tuple[int, ...]
    size_bytes: int


class Fat:
    """A FAT16 file system at `offset` of an open disk. Every number in it is checked: `HostileInputError`."""

    def __init__(self, disk: BinaryIO, offset: int = 0) -> None:
        """Read the boot sector."""
        self._disk = disk
        self._offset = offset
        sector = self._at(0, SECTOR)
        if len(sector) < SECTOR or sector[510:] != b"\x55\xaa":
            raise HostileInputError("no FAT file system: its boot sector has no signature")
        fields = struct.unpack_from("<HBHBHHBHHHII", sector, 11)
        size, per_cluster, reserved, fats, entries, small, _, table = fields[:8]
        total = small or fields[11]
        if size != SECTOR or not per_cluster or not table or not entries or fats not in (1, 2):
            raise HostileInputError("no FAT16 file system: its boot sector makes no sense")
        self._cluster = per_cluster * SECTOR
        self._table = reserved * SECTOR
        self._root = self._table + fats * table * SECTOR
        self._root_size = entries * ENTRY.size
        self._data = self._root + self._root_size
        self._last = min((total * SECTOR - self._data) // self._cluster + 1, table * SECTOR // 2 - 1, MAX_CLUSTERS + 1)

    def _at(self, offset: int, size: int) -> bytes:
        self._disk.seek(self._offset + offset)
        return self._disk.read(size)

    def find(self, path: str) -> Extent | None:
        """Where a file lies, None when there is no such file."""
        listing = self._at(self._root, self._root_size)
        *folders, name = path.split("/")
        for folder in folders:
            found = _look(listing, folder, directory=True)
            if found is None:
                return None
            listing = self._content(Extent(self._chain(found[0]), 0), whole=True)
        found = _look(listing, name, directory=False)
        return None if found is None else Extent(self._chain(found[0]), found[1])

    def read(self, path: str) -> bytes | None:
        """The content of a file, None when there is no such file."""
        extent = self.find(path)
        return None if extent is None else self._content(extent)

    def _content(self, extent: Extent, *, whole: bool = False) -> bytes:
        size = len(extent.clusters) * self._cluster if whole else extent.size_bytes
        if size > MAX_READ_BYTES or size > len(extent.clusters) * self._cluster:
            raise HostileInputError(f"a file of {size} bytes has {len(extent.clusters)} clusters")
        data = bytearray()
        for offset in extent.clusters:
            self._disk.seek(offset)
            data += self._disk.read(self._cluster)
        return bytes(data[:size])

    def _chain(self, start: int) -> tuple[int, ...]:
        return tuple(self._offset + self._data + (one - 2) * self._cluster for one in self._numbers(start))

    def _numbers(self, start: int) -> Iterator[int]:
        current = start
        for _ in range(self._last):
            if not current or current >= 0xFFF8:
                return
            if not 2 <= current <= self._last:
                raise HostileInputError(f"a chain of clusters leads to {current}, there are {self._last}")
            yield current
            (current,) = struct.unpack("<H", self._at(self._table + current * 2, 2))
        raise HostileInputError("a chain of clusters has no end")


def _look(listing: bytes, name: str, *, directory: bool) -> tuple[int, int] | None:
    """(first cluster, size) of a name in a folder; names differ not by case."""
    try:
        wanted = short_name(name)[0]
    except BricklessError:
        return None
    for offset in range(0, len(listing) - ENTRY.size + 1, ENTRY.size):
        fields = ENTRY.unpack_from(listing, offset)
        if fields[0][0] == 0:
            return None
        if fields[1] & VOLUME or fields[0][0] == 0xE5 or bool(fields[1] & DIRECTORY) != directory:
            continue
        if fields[0] == wanted:
            return int(fields[10]), int(fields[11])
    return None
