"""The hardware watchdog: armed by opening, fed by writing (include/uapi/linux/watchdog.h). PID 1 loads this module."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

WDIOC_SETTIMEOUT = 0xC0045706
DEVICE = "/dev/watchdog"
# "Magic close": the driver disarms only when the last byte written before the close was a V.
DISARM = b"V"


class Watchdog:
    """An armed watchdog: who stops feeding it is reset."""

    __slots__ = ("_fd", "timeout_s")

    def __init__(self, timeout_s: int, path: str = DEVICE) -> None:
        """Arm it. Raises `OSError`: ENOENT when the board has none. `timeout_s` becomes what the driver made of it."""
        self._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self.timeout_s = timeout_s
        try:
            answer = fcntl.ioctl(self._fd, WDIOC_SETTIMEOUT, struct.pack("i", timeout_s))
            self.timeout_s = int(struct.unpack("i", answer)[0])
        except OSError as error:
            # A driver with a fixed timeout says so: it stays armed with its own.
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL):
                os.close(self._fd)
                raise

    def feed(self) -> None:
        """Put the reset off by another `timeout_s`."""
        os.write(self._fd, b".")

    def disarm(self) -> None:
        """Stop it, where the driver can be stopped at all."""
        os.write(self._fd, DISARM)
        os.close(self._fd)
