"""Loop devices: a file becomes a block device that frees itself when the last user lets go (loop(4)).

One call, LOOP_CONFIGURE (kernel 5.8), sets file and flags at once, so nobody ever sees a half-made device; an older
kernel gets LOOP_SET_FD and LOOP_SET_STATUS64.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

LOOP_SET_FD = 0x4C00
LOOP_CLR_FD = 0x4C01
LOOP_SET_STATUS64 = 0x4C04
LOOP_CONFIGURE = 0x4C0A
LOOP_CTL_ADD = 0x4C80
LOOP_CTL_GET_FREE = 0x4C82
LO_FLAGS_READ_ONLY = 1
LO_FLAGS_AUTOCLEAR = 4
LO_NAME_SIZE = 64
CONTROL = "/dev/loop-control"
LOOP_MAJOR = 7
# Another process may take the free device between our two calls; each try asks for a new one.
ATTEMPTS = 64


def info64(path: str, flags: int) -> bytes:
    """`struct loop_info64` of include/uapi/linux/loop.h: 232 bytes with the flags and the file's name."""
    name = os.fsencode(path)[: LO_NAME_SIZE - 1]
    return struct.pack("=5Q4I64s64s32s2Q", 0, 0, 0, 0, 0, 0, 0, 0, flags, name, b"", b"", 0, 0)


def config(fd: int, path: str, flags: int, block_size_bytes: int = 0) -> bytes:
    """`struct loop_config` of include/uapi/linux/loop.h."""
    return struct.pack("=2I", fd, block_size_bytes) + info64(path, flags) + bytes(64)


@contextmanager
def attach(path: str, *, read_only: bool = True, index_base: int = -1) -> Iterator[str]:
    """The loop device of the file `path`, for mounting inside the `with` block.

    The device is marked autoclear: after the block it lives as long as something is mounted from it, and no longer.
    `index_base` >= 0 takes one of the 64 devices from that number (PV_LOOP_INDEX_BASE of device.md 5.4).
    Raises `OSError`.
    """
    flags = LO_FLAGS_AUTOCLEAR | (LO_FLAGS_READ_ONLY if read_only else 0)
    mode = os.O_RDONLY if read_only else os.O_RDWR
    backing = os.open(path, mode | os.O_CLOEXEC)
    try:
        device, fd = _claim(backing, path, flags, mode, index_base)
    finally:
        os.close(backing)
    try:
        yield device
    finally:
        os.close(fd)


def _claim(backing: int, path: str, flags: int, mode: int, index_base: int) -> tuple[str, int]:
    for attempt in range(ATTEMPTS):
        device = _candidate(index_base, attempt)
        fd = os.open(device, mode | os.O_CLOEXEC)
        try:
            _configure(fd, backing, path, flags)
        except OSError as error:
            os.close(fd)
            if error.errno != errno.EBUSY:
                raise OSError(error.errno, f"{os.strerror(error.errno or 0)} (attach {path} to {device})") from error
            continue
        return device, fd
    raise OSError(errno.EBUSY, f"no free loop device for {path} after {ATTEMPTS} attempts")


def _candidate(index_base: int, attempt: int) -> str:
    control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        if index_base < 0:
            index = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
        else:
            index = index_base + attempt
            try:
                fcntl.ioctl(control, LOOP_CTL_ADD, index)
            except OSError as error:
                if error.errno != errno.EEXIST:
                    raise
    finally:
        os.close(control)
    return _node(index)


def _node(index: int) -> str:
    """The device's node. Where /dev is no devtmpfs (a container) the kernel does not make it: make it by hand."""
    device = f"/dev/loop{index}"
    if not os.path.exists(device):
        import stat

        os.mknod(device, 0o660 | stat.S_IFBLK, os.makedev(LOOP_MAJOR, index))
    return device


def _configure(fd: int, backing: int, path: str, flags: int) -> None:
    try:
        fcntl.ioctl(fd, LOOP_CONFIGURE, config(backing, path, flags))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTTY):
            raise
    else:
        return
    fcntl.ioctl(fd, LOOP_SET_FD, backing)
    try:
        fcntl.ioctl(fd, LOOP_SET_STATUS64, info64(path, flags))
    except OSError:
        fcntl.ioctl(fd, LOOP_CLR_FD, 0)
        raise
