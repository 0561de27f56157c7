"""ext4 as far as a device needs it: how large a file system is, and growing it while it is mounted."""

from __future__ import annotations

import fcntl
import os
import struct
from typing import NamedTuple

from brickless.linux.blockdev import MAGIC, MAGIC_AT, SUPERBLOCK_OFFSET

# _IOW('f', 16, __u64)
EXT4_IOC_RESIZE_FS = 0x40086610
BLOCKS_LO_AT, BLOCK_SIZE_AT, INCOMPAT_AT, BLOCKS_HI_AT = 4, 24, 96, 0x150
INCOMPAT_64BIT = 0x80
# A device is rarely a whole number of block groups: less than this is not worth a change.
WORTH_BYTES = 8 << 20


class Size(NamedTuple):
    """How large a file system is."""

    blocks: int
    block_bytes: int


def size(node: str) -> Size | None:
    """The size of the ext file system on a device; None when there is none. Raises `OSError`."""
    fd = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return parse(os.pread(fd, 1024, SUPERBLOCK_OFFSET))
    finally:
        os.close(fd)


def parse(block: bytes) -> Size | None:
    """The size in a superblock (Documentation/filesystems/ext4/super.rst)."""
    if len(block) < 1024 or block[MAGIC_AT : MAGIC_AT + 2] != MAGIC:
        return None
    blocks, shift = (struct.unpack_from("<I", block, at)[0] for at in (BLOCKS_LO_AT, BLOCK_SIZE_AT))
    if struct.unpack_from("<I", block, INCOMPAT_AT)[0] & INCOMPAT_64BIT:
        blocks |= struct.unpack_from("<I", block, BLOCKS_HI_AT)[0] << 32
    return None if shift > 6 else Size(blocks, 1024 << shift)


def grow(node: str, mounted_at: str) -> int:
    """Let the mounted file system take the whole device; returns the bytes that were gained, 0 for none.

    The kernel does the work, group by group, each in a transaction of the journal: a power cut leaves a file system
    that is larger by what was done. Raises `OSError`.
    """
    now = size(node)
    if now is None:
        return 0
    fd = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        device_bytes = os.lseek(fd, 0, os.SEEK_END)
    finally:
        os.close(fd)
    if device_bytes - now.blocks * now.block_bytes < WORTH_BYTES:
        return 0
    folder = os.open(mounted_at, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(folder, EXT4_IOC_RESIZE_FS, struct.pack("=Q", device_bytes // now.block_bytes))
        os.fsync(folder)
    except OSError as error:
        raise OSError(error.errno, f"{os.strerror(error.errno or 0)} (grow the file system on {node})") from error
    finally:
        os.close(folder)
    return device_bytes - now.blocks * now.block_bytes
