"""Starting a program without waiting for it, in few words: PID 1 loads this module, so it imports next to nothing."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Mapping

# Make a terminal the one of our session (include/uapi/asm-generic/ioctls.h).
TIOCSCTTY = 0x540E
# What each gets besides what its caller adds.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/", "LC_ALL": "C.UTF-8"}
DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)


def program(path: str, environment: Mapping[str, str]) -> int:
    """Start the program at `path`, in a process group of its own; returns its pid. Raises `OSError`.

    Whoever calls reaps it.
    """
    return os.posix_spawn(
        path,
        [path],
        {**ENVIRONMENT, **environment},
        setpgroup=0,
        setsigmask=[],
        setsigdef=DEFAULT_SIGNALS,
    )


def shell(path: str, terminal: str) -> int:
    """Start a login shell whose terminal is `terminal`, in a session of its own; returns its pid. Raises `OSError`."""
    fd = os.open(terminal, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    pid = os.fork()
    if pid:
        os.close(fd)
        return pid
    try:
        for number in DEFAULT_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        fcntl.ioctl(fd, TIOCSCTTY, 0)
        for stdio in (0, 1, 2):
            os.dup2(fd, stdio)
        os.execve(path, ["-sh"], {**ENVIRONMENT, "TERM": "linux", "HOME": "/root"})  # noqa: S606 - a shell is what it starts
    finally:
        os._exit(127)
