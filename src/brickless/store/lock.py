"""Locks between processes: flock(2) on a file beside what it protects. The kernel frees it when its holder dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from brickless.core.errors import BricklessError

_PID_MAX_BYTES = 32


class LockedError(BricklessError):
    """Another process held the lock for longer than the caller wanted to wait."""


@contextmanager
def lock(path: str, *, timeout_s: float | None) -> Iterator[None]:
    """Hold the exclusive lock on `path` (created when missing, never removed: removing it would let two in).

    `timeout_s` 0 tries once, None waits for ever. Raises LockedError, which names the process that holds it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        _acquire(fd, path, timeout_s)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _acquire(fd: int, path: str, timeout_s: float | None) -> None:
    if _try(fd):
        return
    if timeout_s is None:
        fcntl.flock(fd, fcntl.LOCK_EX)
    elif timeout_s <= 0 or not _wait(fd, timeout_s):
        holder = os.pread(fd, _PID_MAX_BYTES, 0).decode(errors="replace").strip() or "unknown"
        raise LockedError(
            f"{path} is locked by process {holder}.",
            context=f"waited {timeout_s:g} s",
            hint="Wait until that process has finished; when it died, the lock is free at once.",
        )


def _try(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(fd: int, timeout_s: float) -> bool:
    """Wait in the kernel, in a thread: flock has no timeout, and polling would be late and wasteful.

    The lock belongs to the open file description, which the duplicate shares: what the thread gets is ours. When we
    stop waiting first, the duplicate is the last one open, and the thread closes it as soon as it gets the lock.
    """
    import threading

    done = threading.Event()
    duplicate = os.dup(fd)

    def block() -> None:
        try:
            fcntl.flock(duplicate, fcntl.LOCK_EX)
            done.set()
        finally:
            os.close(duplicate)

    threading.Thread(target=block, name="flock", daemon=True).start()
    return done.wait(timeout_s)
