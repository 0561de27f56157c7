"""Builds the disk of a crash state: the base image with what had reached it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from brickless.testkit.crashlab.states import CrashState
from brickless.testkit.crashlab.writelog import SECTOR_BYTES, Entry
from brickless.twin.disk import copy_sparse, equalise


class Images:
    """Goes through the states of one record in the order of `durable`, so that each write is applied once."""

    def __init__(self, base: Path, log: Sequence[Entry], work: Path) -> None:
        """`work` gets a copy of `base` that follows the record; put it on a file system in memory."""
        self._log = log
        self._running = work
        self._applied = 0
        copy_sparse(base, work)
        self._fd = os.open(work, os.O_RDWR | os.O_CLOEXEC)

    def build(self, state: CrashState, out: Path) -> None:
        """Write the disk of `state` to `out`. Raises `ValueError` for a state that lies before the last one.

        `out` may hold another state, judged or not, of this record: only what differs is written then.
        """
        if state.durable < self._applied:
            raise ValueError(f"state {state} comes before {self._applied}, which is applied already")
        for entry in self._log[self._applied : state.durable]:
            _apply(self._fd, entry)
        self._applied = state.durable
        if out.exists():
            equalise(self._running, out)
        else:
            copy_sparse(self._running, out)
        fd = os.open(out, os.O_RDWR | os.O_CLOEXEC)
        try:
            for index in state.extra:
                _apply(fd, self._log[index])
            if state.torn >= 0:
                entry = self._log[state.torn]
                _apply(fd, entry._replace(data=entry.data[: state.cut * SECTOR_BYTES]))
        finally:
            os.close(fd)

    def close(self) -> None:
        """Free the working copy."""
        os.close(self._fd)
        self._running.unlink()

    def __enter__(self) -> Images:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _apply(fd: int, entry: Entry) -> None:
    if entry.data:
        os.pwrite(fd, entry.data, entry.sector * SECTOR_BYTES)
