"""Room on the storage partition: what an update needs, what there is, and what may go (contracts/device.md 2.5)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable

from brickless.device.config import Config
from brickless.device.link.wire import ObjectInfo
from brickless.store.objects import PART
from brickless.store.trails import Storage

#: What a file system says when it takes no more bytes: full, over quota, or beyond a limit.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def is_disk_full(error: OSError) -> bool:
    """Whether the disk has no room, as opposed to being broken."""
    return error.errno in _FULL


class Space:
    """Counts and frees bytes."""

    __slots__ = ("_config", "_report", "_storage")

    def __init__(self, storage: Storage, config: Config, report: Callable[[str], None]) -> None:
        self._storage = storage
        self._config = config
        self._report = report

    def required_bytes(self, infos: Iterable[ObjectInfo]) -> int:
        """Bytes that still have to be fetched: what a broken download left counts as there."""
        total = 0
        for info in infos:
            path = self._storage.objects.path(info.sha)
            for there in (path, path + PART):
                try:
                    total -= min(os.stat(there).st_size, info.size_bytes)
                    break
                except FileNotFoundError:
                    continue
            total += info.size_bytes
        return total

    def available_bytes(self) -> int:
        """Free space without the reserve."""
        reserved = self._storage.total_bytes() * self._config.integer("PV_STORAGE_GC_RESERVED") // 100
        return max(0, self._storage.free_bytes() - reserved)

    def collect(self, rev: str, *, owed: Iterable[str] = ()) -> None:
        """Removes old revisions. Factory, running, last good and this one stay, and those that the hub asks about."""
        keep = {rev, *owed}
        good = self._last_good()
        if good is not None:
            keep.add(good)
        freed = self._storage.collect_garbage(keep)
        self._report(f"collected garbage for revision {rev}: {freed} bytes freed, {self.available_bytes()} available")

    def _last_good(self) -> str | None:
        """The revision that was committed last: what a rollback returns to."""
        done = [rev for rev in self._storage.revisions() if self._storage.is_done(rev)]
        return max(done, key=self._done_at_s, default=None)

    def _done_at_s(self, rev: str) -> float:
        return os.stat(os.path.join(self._storage.revision_dir(rev), ".pv", "done")).st_mtime
