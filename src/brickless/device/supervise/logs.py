"""The runtime's own messages in the revision's log folder, and bounds for what others write there (device.md 5.9)."""

from __future__ import annotations

import json
import os
import time

from brickless.store import atomic

# One piece of a log; a log has a few of them. Flash and the hub's quota are small.
MAX_BYTES = 65536
PIECES = 2
PLATFORM = "pantavisor"


def log_dir(storage: str, rev: str, platform: str) -> str:
    """`<S>/logs/<rev>/<platform>`."""
    return os.path.join(storage, "logs", rev, platform)


def line(uptime_s: float, text: str, *, level: str = "INFO", source: str = "supervisor") -> bytes:
    """One message as the contract writes it into `pantavisor.log`."""
    return stamped(PLATFORM, source, level, text, uptime_s)


def stamped(platform: str, source: str, level: str, text: str, at_s: float) -> bytes:
    """One message of anyone, as a line of its own: what a container wrote cannot forge a second one."""
    clean = text.replace("\n", " ").replace("\r", " ")
    return f"[{platform}] {at_s:.0f} {level}\t -- [{source}]: {clean}\n".encode("utf-8", "replace")


def ndjson(platform: str, source: str, level: str, text: str) -> bytes:
    """One message as a line of `pv.log`, the output `singlefile`."""
    now_s = time.time()
    value = {
        "tsec": int(now_s),
        "tnano": int(now_s % 1 * 1e9),
        "platform": platform,
        "lvl": level,
        "src": source,
        "msg": text,
    }
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


class BoundedLog:
    """A log file that is appended to, and moved aside when it is full: `<path>.1` is the newest of the old pieces."""

    __slots__ = ("_fd", "_pieces", "path")

    def __init__(self, path: str, *, pieces: int = PIECES) -> None:
        self.path = path
        self._pieces = max(2, pieces)
        self._fd = -1

    def write(self, data: bytes) -> bool:
        """Append; True when a piece was moved aside. Raises `OSError` when the disk refuses (full, broken)."""
        if self._fd < 0:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        os.write(self._fd, data)
        if os.fstat(self._fd).st_size <= MAX_BYTES:
            return False
        self.close()
        rotate(self.path, self._pieces)
        return True

    def close(self) -> None:
        """Close the file; the next `write` opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def rotate(path: str, pieces: int = PIECES) -> None:
    """Move a log aside; the oldest piece goes."""
    for number in range(pieces - 1, 0, -1):
        older, newer = f"{path}.{number}", path if number == 1 else f"{path}.{number - 1}"
        if os.path.exists(newer):
            atomic.rename(newer, older)


def bound(path: str) -> None:
    """Move a file that others append to aside when it is full: once for each start of its writer."""
    try:
        full = os.stat(path).st_size > MAX_BYTES
    except FileNotFoundError:
        return
    if full:
        rotate(path)


def enforce(folder: str, current: str, total_bytes: int, hysteresis: int) -> int:
    """Bring all logs together below `total_bytes` when they are above: old revisions first, then old pieces.

    They are brought 1/`hysteresis` below the bound, so that this does not happen with every line. Returns the bytes
    freed. What is written to now stays.
    """
    found: list[tuple[bool, float, str, int]] = []
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            info = os.lstat(path)
            rev = os.path.relpath(path, folder)
            is_current = rev.startswith(f"{current}/")
            is_live = is_current and not name.rpartition(".")[2].isdigit()
            if not is_live:
                found.append((is_current, info.st_mtime, path, info.st_blocks * 512))
    used = sum(size for *_, size in found) + _live_bytes(folder, current)
    if used <= total_bytes:
        return 0
    freed, goal = 0, used - total_bytes + total_bytes // max(1, hysteresis)
    for *_, path, size in sorted(found):
        if freed >= goal:
            break
        atomic.discard(path)
        freed += size
    return freed


def _live_bytes(folder: str, current: str) -> int:
    total = 0
    for root, _, names in os.walk(os.path.join(folder, current)):
        for name in names:
            if not name.rpartition(".")[2].isdigit():
                total += os.lstat(os.path.join(root, name)).st_blocks * 512
    return total
