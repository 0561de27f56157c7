"""Progress for the hub: what lies in `trails/<rev>/.pv/progress` reaches it, the latest wins, until it is acknowledged.

A final report that was acknowledged is remembered in `.pv/reported` (the SHA-256 of what was sent), so that neither a
restart nor an offline week loses or repeats it. Reports on the way are remembered in memory only: flash wears.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from brickless.core.canonical import sha256_hex
from brickless.core.errors import HostileInputError
from brickless.core.progress import Progress, parse_progress
from brickless.device.link.hub import Hub, HubRefusedError
from brickless.store import atomic
from brickless.store.trails import Storage

_MARK = ".pv/reported"
#: Answers that will not change: the hub does not have this step, or it is not ours.
_POINTLESS = frozenset({400, 403, 404, 410})


class Reports:
    """Which reports are still owed, and the sending of them."""

    __slots__ = ("_live", "_owed", "_report", "_sent", "_storage")

    def __init__(self, storage: Storage, report: Callable[[str], None]) -> None:
        self._storage = storage
        self._report = report
        self._sent: dict[str, str] = {}
        self._live: dict[str, bytes] = {}
        self._owed: set[str] = {rev for rev in storage.revisions() if self._owes(rev)}

    def _owes(self, rev: str) -> bool:
        if not rev.isdigit() or rev == "0":
            return False
        data = self._storage.progress(rev)
        return data is not None and self._acknowledged(rev) != sha256_hex(data)

    def _acknowledged(self, rev: str) -> str:
        try:
            with open(os.path.join(self._storage.revision_dir(rev), _MARK), encoding="ascii") as file:
                return file.read(64)
        except FileNotFoundError:
            return ""

    @property
    def owed(self) -> frozenset[str]:
        """Revisions whose last progress the hub has not acknowledged."""
        return frozenset(self._owed)

    def put(self, rev: str, progress: Progress, *, persist: bool = True) -> None:
        """The progress of a revision from now on. Without `persist` it is only sent: bytes on the way wear no flash.

        A disk that refuses does not keep the hub from being told: then it is told from memory.
        """
        data = progress.to_json()
        self._live.pop(rev, None)
        if persist:
            try:
                self._storage.write_progress(rev, data)
            except OSError as error:
                self._report(f"the progress of revision {rev} cannot be kept: {error.strerror}")
                self._live[rev] = data
        else:
            self._live[rev] = data
        self._owed.add(rev)

    def of(self, rev: str) -> Progress | None:
        """The last persisted progress of a revision; None without one, or with a broken one."""
        data = self._storage.progress(rev)
        try:
            return parse_progress(data) if data is not None else None
        except HostileInputError as error:
            self._report(f"the progress of revision {rev} on disk is broken and counts as none: {error}")
            return None

    def look_at(self, rev: str) -> None:
        """Notices a change of a revision's progress that the supervisor has written."""
        self._live.pop(rev, None)
        data = self._storage.progress(rev)
        if data is not None and self._sent.get(rev) != sha256_hex(data):
            self._owed.add(rev)

    def again(self, rev: str) -> None:
        """The hub asks about a step that is over: it is told once more."""
        self._sent.pop(rev, None)
        self._owed.add(rev)

    def send(self, hub: Hub) -> None:
        """Sends what is owed. Raises as the hub does; what was not acknowledged stays owed."""
        for rev in sorted(self._owed):
            data = self._live.get(rev) or self._storage.progress(rev)
            if data is None:
                self._owed.discard(rev)
                continue
            try:
                hub.put_progress(rev, data)
            except HubRefusedError as error:
                if error.status not in _POINTLESS:
                    raise
                self._report(f"the progress of step {rev} was refused: {error}")
            self._remember(rev, data)

    def _remember(self, rev: str, data: bytes) -> None:
        digest = sha256_hex(data)
        self._sent[rev] = digest
        self._owed.discard(rev)
        try:
            final = parse_progress(data).is_final
        except HostileInputError:
            final = True
        if final and rev not in self._live:
            atomic.write_file(os.path.join(self._storage.revision_dir(rev), _MARK), digest.encode())
