"""How much each revision writes to flash: what wears a device out is the software's fault, so the owner is shown whose.

The kernel counts per boot; here the growth is added to the revision that runs. The sums are kept in one small file,
written at most every ten minutes: the counter must not be what it counts.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

from brickless.core.canonical import loads
from brickless.core.errors import HostileInputError
from brickless.device.link import facts
from brickless.store import atomic

_KEEP_REVISIONS = 10
_SAVE_EVERY_S = 600.0


class FlashWear:
    """Bytes written, by revision, the newest ten."""

    __slots__ = ("_count", "_last_bytes", "_path", "_saved_at_s", "_storage", "_sums")

    def __init__(
        self, storage: str, report: Callable[[str], None], count: Callable[[str], int] = facts.written_bytes
    ) -> None:
        self._path = os.path.join(storage, "cache", "flash-written.json")
        self._storage = storage
        self._count = count
        self._sums = self._load(report)
        self._last_bytes = count(storage)
        self._saved_at_s = time.monotonic()

    def _load(self, report: Callable[[str], None]) -> dict[str, int]:
        try:
            with open(self._path, "rb") as file:
                value = loads(file.read(64 * 1024))
        except FileNotFoundError:
            return {}
        except HostileInputError as error:
            report(f"{self._path} is broken, counting begins anew: {error}")
            return {}
        pairs = value.items() if isinstance(value, dict) else ()
        return {rev: count for rev, count in pairs if isinstance(count, int) and not isinstance(count, bool)}

    def look(self, rev: str) -> dict[str, int]:
        """Adds what was written since the last look to the running revision; returns the sums."""
        now_bytes = self._count(self._storage)
        grown = max(0, now_bytes - self._last_bytes)  # less than before: another device, or a counter that wrapped
        self._last_bytes = now_bytes
        if rev:
            before = self._sums.pop(rev, 0)
            self._sums[rev] = before + grown  # the running one is the newest
        while len(self._sums) > _KEEP_REVISIONS:
            del self._sums[next(iter(self._sums))]
        if time.monotonic() - self._saved_at_s >= _SAVE_EVERY_S:
            self.save()
        return dict(self._sums)

    def save(self) -> None:
        """Keeps the sums."""
        atomic.make_dirs(os.path.dirname(self._path))
        atomic.write_file(self._path, json.dumps(self._sums).encode())
        self._saved_at_s = time.monotonic()
