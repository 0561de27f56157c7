"""What lies in a file system's journal, brought to where a reader finds it that knows no journal: a bootloader."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from brickless.linux import libc

# include/uapi/linux/ext4.h: _IOW('f', 43, __u32), since Linux 5.14; flags 0 only writes, it discards nothing.
EXT4_IOC_CHECKPOINT = 0x4004662B


def checkpoint(path: str) -> bool:
    """Write out the file system that `path` lies on, its journal as well; False where only the former is possible.

    A kernel before 5.14, other file systems than ext4, and any process but a machine's root leave the journal to its
    own time: a bootloader reads only what root's runtime wrote. Raises `OSError`.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.syncfs(fd)
        fcntl.ioctl(fd, EXT4_IOC_CHECKPOINT, struct.pack("I", 0))
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.ENODEV, errno.EPERM):
            return False
        raise
    finally:
        os.close(fd)
    return True
