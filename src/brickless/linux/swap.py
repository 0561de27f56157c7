"""Swap: the header that mkswap(8) writes, swapon(2), and zram devices by sysfs (admin-guide/blockdev/zram.rst)."""

from __future__ import annotations

import os
import struct

from brickless.linux import libc

MAGIC = b"SWAPSPACE2"
ZRAM_CONTROL = "/sys/class/zram-control"
SYS_BLOCK = "/sys/block"
ZRAM_MODULES = ("zsmalloc", "lzo", "lzo_rle", "zram")


def header(size_bytes: int, page_bytes: int) -> bytes:
    """The first page of a swap area. Raises `ValueError` for an area of less than ten pages, as the kernel does."""
    pages = size_bytes // page_bytes
    if pages < 10:
        raise ValueError(f"a swap area of {size_bytes} bytes is too small")
    # 1024 bytes for a boot sector, then version 1, the last page, no bad pages, a UUID, no label.
    info = bytes(1024) + struct.pack("=3I", 1, pages - 1, 0) + os.urandom(16)
    return info.ljust(page_bytes - len(MAGIC), b"\0") + MAGIC


def is_swap(path: str) -> bool:
    """Whether a device or file holds a swap area."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, len(MAGIC), page_bytes - len(MAGIC)) == MAGIC
    finally:
        os.close(fd)


def make(path: str) -> None:
    """Write the header; whatever was there is lost."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.pwrite(fd, header(os.lseek(fd, 0, os.SEEK_END), page_bytes), 0)
        os.fsync(fd)
    finally:
        os.close(fd)


def active(path: str = "/proc/swaps") -> list[str]:
    """The areas that are in use."""
    with open(path, encoding="utf-8", errors="replace") as stream:
        return [line.split()[0] for line in stream.read().splitlines()[1:] if line.strip()]


def on(path: str) -> None:
    """Use the area. Raises `OSError`."""
    libc.swapon(path)


def add_zram(size_bytes: int) -> str:
    """A new compressed block device in memory of `size_bytes`; returns its node. Raises `OSError`."""
    with open(os.path.join(ZRAM_CONTROL, "hot_add"), encoding="ascii") as stream:
        number = int(stream.read())
    fd = os.open(os.path.join(SYS_BLOCK, f"zram{number}", "disksize"), os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(size_bytes).encode())
    finally:
        os.close(fd)
    return f"/dev/zram{number}"
