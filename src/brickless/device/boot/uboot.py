"""The U-Boot back end: `<S>/boot/uboot.txt`, the variables that bootloader and runtime exchange (device.md 3.3, 3.4).

The order in which an update touches the disk (`core.update`), and what a power cut after each step leads to:

    1. `set_try`: pv_try=X            the next boot tries X, once
    2. `commit`: pv_rev=X, no pv_try  the next boot runs X: this write is the one point at which old becomes new
    3. progress DONE, then `.pv/done` for people, the hub and the collection of garbage; made up for at the next boot

    A try that failed: progress ERROR first, then the reboot with `pv_try` still set, and the bootloader falls back.
    `fail` clears `pv_try` on the boot that fell back, never on the failing one, and only once the error is on disk.
    Only a trial in place clears it while the revision's containers still run, before they go back.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from brickless.core import bootenv
from brickless.store import atomic

FILE = "boot/uboot.txt"


class BootState(NamedTuple):
    """What bootloader and storage say. `rev` is the committed revision; `try_` the one to be tried, "" for none."""

    rev: str
    try_: str


class UBoot:
    """The variables in `<S>/boot/uboot.txt`. Everything raises `OSError` when the disk refuses."""

    __slots__ = ("_path",)

    def __init__(self, storage: str) -> None:
        self._path = os.path.join(storage, FILE)

    def read(self) -> BootState:
        """What is stored now. A missing or damaged file reads as the factory revision with nothing to try."""
        env = self._load()
        return BootState(env.get("pv_rev") or bootenv.FACTORY, env.get("pv_try", ""))

    def set_try(self, rev: str) -> None:
        """Have the next boot try `rev`, once. Raises `HostileInputError` for a name that is no revision's."""
        self._store(bootenv.request_try(self._load(), rev))

    def commit(self, rev: str) -> None:
        """Make `rev` the committed revision and end its try."""
        self._store(bootenv.commit(self._load(), rev))

    def fail(self) -> None:
        """End a try that failed: on the boot that fell back, its ERROR being on the disk already."""
        self._store(bootenv.clear_try(self._load()))

    def _load(self) -> dict[str, str]:
        try:
            with open(self._path, "rb") as stream:
                return bootenv.parse(stream.read(bootenv.SIZE_BYTES))
        except FileNotFoundError:
            return {}

    def _store(self, env: dict[str, str]) -> None:
        """Replace the file as a whole: the bootloader sees the old variables or the new ones."""
        atomic.make_dirs(os.path.dirname(self._path))
        atomic.write_file(self._path, bootenv.render(env).ljust(bootenv.SIZE_BYTES, b"\0"))
