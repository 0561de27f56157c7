"""Block devices by name, label or UUID, and waiting until the kernel has found one, without udev."""

from __future__ import annotations

import os
import select
import socket
import time
from contextlib import suppress

SYS_BLOCK = "/sys/class/block"
# The superblock of ext2, ext3 and ext4 (Documentation/filesystems/ext4/super.rst), 1024 bytes into the device.
SUPERBLOCK_OFFSET = 1024
MAGIC_AT, MAGIC = 56, b"\x53\xef"
UUID_AT, LABEL_AT = 104, 120
NETLINK_KOBJECT_UEVENT = 15
KERNEL_GROUP = 1


def find(spec: str, *, sys_block: str = SYS_BLOCK, dev: str = "/dev") -> str | None:
    """The node of `/dev/NAME`, `LABEL=...` or `UUID=...`; None while there is no such device."""
    kind, equals, value = spec.partition("=")
    if not equals:
        return spec if os.path.exists(spec) else None
    for name in sorted(os.listdir(sys_block)) if os.path.isdir(sys_block) else []:
        node = os.path.join(dev, name)
        with suppress(OSError):
            identity = ext_identity(node)
            if identity is not None and value == identity[0 if kind == "LABEL" else 1]:
                return node
    return None


def ext_identity(node: str) -> tuple[str, str] | None:
    """(label, UUID) of the ext file system on the device; None when there is none. Raises `OSError`."""
    fd = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        block = os.pread(fd, 136, SUPERBLOCK_OFFSET)
    finally:
        os.close(fd)
    if len(block) < 136 or block[MAGIC_AT : MAGIC_AT + 2] != MAGIC:
        return None
    digits = block[UUID_AT : UUID_AT + 16].hex()
    uuid = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    return block[LABEL_AT : LABEL_AT + 16].rstrip(b"\0").decode("utf-8", "replace"), uuid


def wait(spec: str, timeout_s: float) -> str | None:
    """The node of a device, waiting for the kernel to announce it; None when it did not come in time.

    The listener is opened before the first look, so that a device that comes in between is not missed.
    """
    deadline = time.monotonic() + timeout_s
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT) as events:
        events.bind((0, KERNEL_GROUP))
        events.setblocking(False)
        poll = select.poll()
        poll.register(events, select.POLLIN)
        while True:
            node = find(spec)
            left_s = deadline - time.monotonic()
            if node is not None or left_s <= 0:
                return node
            poll.poll(int(left_s * 1000) + 1)
            # Which device it was is found by looking again; a full queue (ENOBUFS) means that there were many.
            with suppress(OSError):
                events.recv(65536)
