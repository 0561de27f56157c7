"""Builds the disk of a crash state: the base image with what had reached it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from brickless.testkit.crashlab.states import CrashState
from brickless.testkit.crashlab.writelog import SECTOR_BYTES, Entry
from brickless.twin.disk import copy_sparse, next_data

BLOCK_BYTES, PAGE_BYTES = 1 << 18, 1 << 12


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


def equalise(source: Path, target: Path) -> None:
    """Make `target` the same as `source` byte for byte, by writing only the blocks in which they differ.

    Much faster than a copy where they differ little. Raises `ValueError` when they are not of the same size.
    """
    reader, writer = os.open(source, os.O_RDONLY | os.O_CLOEXEC), os.open(target, os.O_RDWR | os.O_CLOEXEC)
    try:
        size = os.fstat(reader).st_size
        if os.fstat(writer).st_size != size:
            raise ValueError(f"{target} is not as large as {source}")
        wanted, found = bytearray(BLOCK_BYTES), bytearray(BLOCK_BYTES)
        at = 0
        # Where both have a hole both have zeros.
        while (at := min(next_data(reader, at, size), next_data(writer, at, size))) < size:
            at -= at % BLOCK_BYTES
            os.preadv(reader, [wanted], at)
            os.preadv(writer, [found], at)
            if wanted != found:
                _differing(writer, wanted, found, at, size)
            at += BLOCK_BYTES
    finally:
        os.close(reader)
        os.close(writer)


def _differing(writer: int, wanted: bytearray, found: bytearray, at: int, size: int) -> None:
    for begin in range(0, min(BLOCK_BYTES, size - at), PAGE_BYTES):
        part = wanted[begin : begin + min(PAGE_BYTES, size - at - begin)]
        if part != found[begin : begin + len(part)]:
            os.pwrite(writer, part, at + begin)
