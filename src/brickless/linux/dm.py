"""The device mapper by ioctl (include/uapi/linux/dm-ioctl.h): one target over one device, named, gone when unused.

`veritysetup` and `cryptsetup` would do the same with 2.5 MB of libraries; what a device needs of them is four calls.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import suppress

CONTROL = "/dev/mapper/control"
CONTROL_DEVICE = (10, 236)
MODULES = ("dm_mod",)
# _IOWR(0xfd, N, struct dm_ioctl)
DM_DEV_CREATE = 0xC138FD03
DM_DEV_REMOVE = 0xC138FD04
DM_DEV_SUSPEND = 0xC138FD06
DM_DEV_STATUS = 0xC138FD07
DM_TABLE_LOAD = 0xC138FD09
DM_TABLE_STATUS = 0xC138FD0C
READONLY = 1 << 0
STATUS_TABLE = 1 << 4
SECURE_DATA = 1 << 15
DEFERRED_REMOVE = 1 << 17
# version[3], data_size, data_start, target_count, open_count, flags, event_nr, padding, dev, name, uuid
HEADER = struct.Struct("=3IIIIiIIIQ128s129s7x")
DEVICE_AT = 40
TARGET = struct.Struct("=QQiI16s")
NAME_MAX = 127
SECTOR_BYTES = 512
ANSWER_BYTES = 4096


def request(name: str, *, flags: int = 0, payload: bytes = b"", targets: int = 0) -> bytes:
    """`struct dm_ioctl` with what follows it. Raises `ValueError` for a name that is none."""
    raw = os.fsencode(name)
    if not 0 < len(raw) <= NAME_MAX or b"/" in raw or b"\0" in raw:
        raise ValueError(f"not a name for a mapped device: {name!r}")
    size = HEADER.size + max(len(payload), ANSWER_BYTES)
    head = HEADER.pack(4, 0, 0, size, HEADER.size, targets, 0, flags, 0, 0, 0, raw, b"")
    return head + payload.ljust(ANSWER_BYTES, b"\0")


def table(length_sectors: int, kind: str, parameters: str) -> bytes:
    """One `struct dm_target_spec` with its parameters, padded as the kernel wants it."""
    text = parameters.encode() + b"\0"
    text = text.ljust(-(-len(text) // 8) * 8, b"\0")
    return TARGET.pack(0, length_sectors, 0, TARGET.size + len(text), kind.encode()) + text


def _ioctl(number: int, data: bytes, tried: str) -> bytes:
    fd = os.open(_control(), os.O_RDWR | os.O_CLOEXEC)
    try:
        buffer = bytearray(data)
        fcntl.ioctl(fd, number, buffer)
        return bytes(buffer)
    except OSError as error:
        raise OSError(error.errno, f"{os.strerror(error.errno or 0)} ({tried})") from error
    finally:
        os.close(fd)


def _control() -> str:
    """The control node; where /dev is no devtmpfs it is made by hand."""
    if not os.path.exists(CONTROL):
        import stat

        os.makedirs(os.path.dirname(CONTROL), exist_ok=True)
        with suppress(FileExistsError):
            os.mknod(CONTROL, 0o600 | stat.S_IFCHR, os.makedev(*CONTROL_DEVICE))
    return CONTROL


def create(name: str, kind: str, length_sectors: int, parameters: str, *, read_only: bool, secret: bool = False) -> str:
    """Map a device and return its node. A leftover of that name that nobody uses is replaced. Raises `OSError`.

    `secret`: the parameters hold a key, the kernel wipes its copies of them.
    """
    flags = (READONLY if read_only else 0) | (SECURE_DATA if secret else 0)
    try:
        answer = _ioctl(DM_DEV_CREATE, request(name, flags=flags), f"map the device {name}")
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        remove(name)
        answer = _ioctl(DM_DEV_CREATE, request(name, flags=flags), f"map the device {name}")
    try:
        spec = table(length_sectors, kind, parameters)
        _ioctl(DM_TABLE_LOAD, request(name, flags=flags, payload=spec, targets=1), f"load the {kind} table of {name}")
        _ioctl(DM_DEV_SUSPEND, request(name, flags=flags), f"start the mapped device {name}")
    except OSError:
        remove(name)
        raise
    return _node(_device(answer))


def _device(answer: bytes) -> int:
    return int(struct.unpack_from("=Q", answer, DEVICE_AT)[0])


def _node(device: int) -> str:
    node = f"/dev/dm-{os.minor(device)}"
    if not os.path.exists(node):
        import stat

        os.mknod(node, 0o600 | stat.S_IFBLK, device)
    return node


def remove(name: str, *, deferred: bool = False) -> bool:
    """Unmap a device; False when there is none. `deferred`: as soon as nobody uses it any more."""
    flags = DEFERRED_REMOVE if deferred else 0
    try:
        _ioctl(DM_DEV_REMOVE, request(name, flags=flags), f"unmap the device {name}")
    except OSError as error:
        if error.errno == errno.ENXIO:
            return False
        raise
    return True


def exists(name: str) -> bool:
    """Whether a device of that name is mapped."""
    try:
        _ioctl(DM_DEV_STATUS, request(name), f"look for the device {name}")
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT, errno.ENODEV):
            return False
        raise
    return True


def size_sectors(node: str) -> int:
    """The size of a block device in sectors of 512 bytes."""
    fd = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(fd, 0, os.SEEK_END) // SECTOR_BYTES
    finally:
        os.close(fd)
