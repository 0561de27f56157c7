"""Room on the storage partition: what an update needs, what there is, and what may go (contracts/device.md 2.5)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from brickless.device.config import Config
from brickless.device.link.wire import ObjectInfo
from brickless.device.update.garbage import Garbage
from brickless.store.objects import PART
from brickless.store.trails import Storage

if TYPE_CHECKING:
    from brickless.core.state import State

#: What a file system says when it takes no more bytes: full, over quota, or beyond a limit.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def is_disk_full(error: OSError) -> bool:
    """Whether the disk has no room, as opposed to being broken."""
    return error.errno in _FULL


class Space:
    """Counts and frees bytes."""

    __slots__ = ("_config", "_garbage", "_report", "_storage")

    def __init__(self, storage: Storage, config: Config, private: str, report: Callable[[str], None]) -> None:
        self._storage = storage
        self._config = config
        self._garbage = Garbage(storage, config, private)
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

    def kept_bytes(self, state: State | None) -> int:
        """Bytes that copies of data will take when the revision is tried (`snapshot`); nothing for most revisions."""
        containers = () if state is None else state.containers.values()
        if state is None or not any(one.snapshot for container in containers for one in container.storage):
            return 0
        from brickless.device.supervise import revisions, snapshots

        return snapshots.kept_bytes(self._storage, state, revisions.fingerprint)

    def available_bytes(self) -> int:
        """Free space without the reserve."""
        reserved = self._storage.total_bytes() * self._config.integer("PV_STORAGE_GC_RESERVED") // 100
        return max(0, self._storage.free_bytes() - reserved)

    def collect(self, rev: str, *, owed: Iterable[str] = ()) -> None:
        """Removes old revisions: see `garbage`; this one stays, and those that the hub still asks about."""
        freed = self._garbage.collect({rev, *owed})
        self._report(f"collected garbage for revision {rev}: {freed} bytes freed, {self.available_bytes()} available")

    def collect_when_due(self) -> None:
        """Removes old revisions when more is used than the threshold allows."""
        if self._garbage.is_due():
            freed = self._garbage.collect()
            self._report(f"collected garbage at the threshold: {freed} bytes freed")
