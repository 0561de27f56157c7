"""Keeps the kernel from suspending while something goes on that must not be slept through (device.md 5.12).

One kernel wakelock, held as long as any scope holds: the boot until its goals are reached, a trial, the way to a
reboot. The kernel keeps it for whoever takes over from a supervisor that died. Which scopes hold stands in
`<private>/wakelocks`, for `GET /wakelocks`. `managed` holds the same ones: when to sleep is left to the system.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from brickless.store import atomic

LOCK = b"pantavisor"
FILE = "wakelocks"
MAX_BYTES = 4096


class Awake:
    """The lock. Where a kernel has none, nothing is done."""

    __slots__ = ("_file", "_folder", "_held", "_say")

    def __init__(self, mode: str, folder: str, private: str, say: Callable[[str], None]) -> None:
        """`folder` is the kernel's power interface; mode `disabled` uses none."""
        there = mode != "disabled" and os.path.exists(os.path.join(folder, "wake_lock"))
        self._folder = folder if there else ""
        self._file = os.path.join(private, FILE)
        self._held: frozenset[str] | None = None
        self._say = say

    def hold(self, scopes: frozenset[str]) -> None:
        """These scopes hold from now on; none of them lets the device sleep. A kernel that refuses is told once."""
        if not self._folder or scopes == self._held:
            return
        known = self._held is not None and bool(self._held) is bool(scopes)
        self._held = scopes
        try:
            if not known:
                self._write("wake_lock" if scopes else "wake_unlock")
            atomic.write_file(self._file, " ".join(sorted(scopes)).encode(), mode=0o600, durable=False)
        except OSError as error:
            self._say(f"the kernel's wakelock cannot be used: {error}")
            self._folder = ""

    def _write(self, name: str) -> None:
        fd = os.open(os.path.join(self._folder, name), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, LOCK)
        except OSError as error:
            # The kernel says so of a lock that nobody holds: after a boot there is none to be let go.
            if name == "wake_lock" or error.errno != errno.EINVAL:
                raise
        finally:
            os.close(fd)


def held(private: str) -> frozenset[str]:
    """The scopes that hold, as the supervisor wrote them down last."""
    try:
        with open(os.path.join(private, FILE), "rb") as stream:
            return frozenset(stream.read(MAX_BYTES).decode("ascii", "replace").split())
    except FileNotFoundError:
        return frozenset()
