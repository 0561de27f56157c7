"""The runtime's own messages in the revision's log folder, and bounds for what others write there (device.md 5.9)."""

from __future__ import annotations

import os

from brickless.store import atomic

# A log keeps at most twice this: the file and the one before it. Flash and the hub's quota are small.
MAX_BYTES = 65536
PLATFORM = "pantavisor"


def log_dir(storage: str, rev: str, platform: str) -> str:
    """`<S>/logs/<rev>/<platform>`."""
    return os.path.join(storage, "logs", rev, platform)


def line(uptime_s: float, text: str, *, level: str = "INFO", source: str = "supervisor") -> bytes:
    """One message as the contract writes it into `pantavisor.log`."""
    return f"[{PLATFORM}] {uptime_s:.0f} {level}\t -- [{source}]: {text}\n".encode("utf-8", "replace")


class BoundedLog:
    """A log file that is appended to, and moved aside when it is full."""

    __slots__ = ("_fd", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1

    def write(self, data: bytes) -> None:
        """Append. Raises `OSError` when the disk refuses (full, broken)."""
        if self._fd < 0:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        os.write(self._fd, data)
        if os.fstat(self._fd).st_size > MAX_BYTES:
            self.close()
            atomic.rename(self.path, self.path + ".1")

    def close(self) -> None:
        """Close the file; the next `write` opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def bound(path: str) -> None:
    """Move a file that others append to aside when it is full: once for each start of its writer."""
    try:
        full = os.stat(path).st_size > MAX_BYTES
    except FileNotFoundError:
        return
    if full:
        atomic.rename(path, path + ".1")
