"""What may go when room is needed (device.md 2.5): old revisions with their logs and disks, and objects nobody names.

Never: the factory revision (unless the configuration gives it up), the running one, the one that the bootloader boots,
the last that was committed, and every one whose update is under way or was put a short while ago.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from brickless.core.errors import HostileInputError
from brickless.core.progress import Status, parse_progress
from brickless.device.boot.backend import backend
from brickless.device.config import Config
from brickless.device.control.places import OBJECT_PUT
from brickless.linux import mount
from brickless.store.trails import FACTORY, LOCALS, Storage

_UNDER_WAY = frozenset({Status.QUEUED, Status.DOWNLOADING, Status.INPROGRESS, Status.TESTING})


class Garbage:
    """Decides what stays, and collects the rest."""

    __slots__ = ("_config", "_private", "_storage")

    def __init__(self, storage: Storage, config: Config, private: str) -> None:
        self._storage = storage
        self._config = config
        self._private = private

    def collect(self, keep: Iterable[str] = ()) -> int:
        """Collect now, all but `keep` and what stays anyway; the bytes freed. Raises OSError when the disk refuses."""
        keep_factory = self._config.flag("PV_STORAGE_GC_KEEP_FACTORY")
        kept = self.kept() | set(keep)
        return self._storage.collect_garbage(kept, keep_factory=keep_factory, in_use=mounted(mount.roots()))

    def kept(self) -> set[str]:
        """The revisions that stay."""
        keep = {self._storage.current() or FACTORY, *self._booted()}
        good = last_good(self._storage)
        if good is not None:
            keep.add(good)
        now_s = time.time()
        for rev in self._storage.revisions():
            status, since_s = self._standing(rev)
            fresh = status is Status.NEW and 0 <= now_s - since_s < self._defer_s
            if status in _UNDER_WAY or fresh:
                keep.add(rev)
        return keep

    @property
    def _defer_s(self) -> int:
        return self._config.seconds("PV_STORAGE_GC_THRESHOLD_DEFERTIME")

    def _booted(self) -> set[str]:
        """What the bootloader's variables name: the committed revision, and one that is to be tried."""
        kind, environment = (self._config.text(key) for key in ("PV_BOOTLOADER_TYPE", "PV_BOOTLOADER_ENV"))
        stored = backend(kind, self._storage.root, environment).read()
        return {rev for rev in (stored.rev, stored.try_) if rev}

    def _standing(self, rev: str) -> tuple[Status | None, float]:
        data = self._storage.progress(rev)
        if data is None:
            return None, 0.0
        since_s = os.stat(os.path.join(self._storage.revision_dir(rev), ".pv", "progress")).st_mtime
        try:
            return parse_progress(data).status, since_s
        except HostileInputError:
            return None, since_s

    def is_due(self) -> bool:
        """Whether more is used than the threshold allows, and nobody has put an object a short while ago."""
        percent = self._config.integer("PV_STORAGE_GC_THRESHOLD")
        if not percent:
            return False
        total = self._storage.total_bytes()
        if (total - self._storage.free_bytes()) * 100 < total * percent:
            return False
        try:
            since_s = time.time() - os.stat(os.path.join(self._private, OBJECT_PUT)).st_mtime
        except FileNotFoundError:
            return True
        return not 0 <= since_s < self._defer_s


def mounted(roots: Iterable[str]) -> frozenset[str]:
    """The revisions whose own volumes are among what is mounted: an update keeps containers that it does not change."""
    found: set[str] = set()
    for root in roots:
        names = root.partition("/disks/rev/")[2].split("/")
        if names[0]:
            found.add("/".join(names[: 2 if names[0] == LOCALS else 1]))
    return frozenset(found)


def last_good(storage: Storage) -> str | None:
    """The revision that was committed last: what a rollback returns to."""
    done = [rev for rev in storage.revisions() if storage.is_done(rev)]
    return max(done, key=lambda rev: _done_at_s(storage, rev), default=None)


def _done_at_s(storage: Storage, rev: str) -> float:
    return os.stat(os.path.join(storage.revision_dir(rev), ".pv", "done")).st_mtime
