"""The partition table of a disk image: classic (MBR), which every firmware reads, with fixed places and identity.

One table, one sector: there is no second copy to disagree with it. Layout, in sectors of 512 bytes: the table and
what a BIOS loads before it knows of partitions (1 MiB), the boot partition, the storage partition up to the end.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from brickless.core.errors import HostileInputError

SECTOR = 512
ENTRY = struct.Struct("<B3sB3sII")
TABLE_AT = 446
CODE_BYTES = 440
SIGNATURE = b"\x55\xaa"
FAT16_LBA, LINUX = 0x0E, 0x83
ACTIVE = 0x80
# Cylinder, head and sector of a place beyond what they can say: everyone reads the other two numbers.
BEYOND = b"\xfe\xff\xff"
DISK_ID = 0xB51C4E55
ALIGNMENT_BYTES = 1 << 20


class Partition(NamedTuple):
    """A partition: its type, whether firmware boots it, its place in bytes."""

    kind: int
    active: bool
    offset_bytes: int
    size_bytes: int


def render(partitions: list[Partition], code: bytes = b"") -> bytes:
    """The first sector of a disk; `code` is what a BIOS runs (at most 440 bytes)."""
    if len(code) > CODE_BYTES or len(partitions) > 4:
        raise ValueError("a partition table takes 440 bytes of code and four partitions")
    entries = b""
    for one in partitions:
        place = (one.offset_bytes // SECTOR, one.size_bytes // SECTOR)
        entries += ENTRY.pack(ACTIVE if one.active else 0, BEYOND, one.kind, BEYOND, *place)
    head = code.ljust(CODE_BYTES, b"\0") + struct.pack("<IH", DISK_ID, 0)
    return head + entries.ljust(4 * ENTRY.size, b"\0") + SIGNATURE


def parse(sector: bytes) -> list[Partition]:
    """The partitions that a first sector names. Raises `HostileInputError` when it is no table."""
    if len(sector) < SECTOR or sector[SECTOR - 2 : SECTOR] != SIGNATURE:
        raise HostileInputError("the disk has no partition table")
    found = []
    for number in range(4):
        status, _, kind, _, start, count = ENTRY.unpack_from(sector, TABLE_AT + number * ENTRY.size)
        if kind:
            found.append(Partition(kind, status == ACTIVE, start * SECTOR, count * SECTOR))
    return found
