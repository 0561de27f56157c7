"""Log lines for the hub: the log files on disk are the queue, and each has a mark up to which it was sent.

Bounded: while the hub cannot be reached the files go on growing and rotating by their own rules; of what is waiting at
most `PV_LOG_PUSH_MAX` bytes are sent later, the oldest are passed over and the hub is told how many. Marks lie in one
file that is written at most once a minute, for flash wears: a power cut repeats a minute of lines, it loses none.
Contract: contracts/device.md 7.7.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from brickless.core.canonical import loads
from brickless.core.errors import HostileInputError
from brickless.device.config import Config
from brickless.device.link.hub import Hub, HubRefusedError
from brickless.store import atomic

MAX_ENTRIES = 200
MAX_BATCH_BYTES = 256 * 1024
_MAX_LINE_BYTES = 16 * 1024
_MAX_FILES = 500
_MARKS_EVERY_S = 60.0
#: The number of an older piece of a log.
_PIECE = re.compile(r"\.[0-9]{1,2}$")
#: Refusals that later attempts may not get; any other 4xx is about what was sent.
_PASSING = frozenset({401, 403, 408, 429})


class Source(NamedTuple):
    """A log file: of which revision and container, and its name inside."""

    rev: str
    container: str
    name: str
    path: str


class _Entry(NamedTuple):
    source: Source
    text: str
    end: int


class LogPush:
    """Sends what was added since the last time."""

    __slots__ = ("_config", "_dirty", "_folder", "_marks", "_report", "_saved_at_s", "_store")

    def __init__(self, config: Config, storage: str, report: Callable[[str], None]) -> None:
        self._config = config
        self._folder = config.text("PV_LOG_DIR").rstrip("/")
        self._store = os.path.join(storage, "cache", "logs-sent.json")
        self._report = report
        self._marks = self._load()
        self._dirty = False
        self._saved_at_s = time.monotonic()

    def _load(self) -> dict[str, list[int]]:
        """Path -> inode and bytes sent. Broken marks count as none: lines are repeated, not lost."""
        try:
            with open(self._store, "rb") as file:
                value = loads(file.read(1024 * 1024))
        except FileNotFoundError:
            return {}
        except HostileInputError as error:
            self._report(f"{self._store} is broken, logs are sent from the start: {error}")
            return {}
        found: dict[str, list[int]] = {}
        for path, mark in value.items() if isinstance(value, dict) else ():
            if isinstance(mark, list) and len(mark) == 2 and all(isinstance(n, int) for n in mark):
                found[path] = [int(str(n)) for n in mark]
        return found

    def push(self, hub: Hub) -> None:
        """Sends one batch. Raises as the hub does; what was not acknowledged is sent again."""
        if not self._config.flag("PV_LOG_PUSH"):
            return
        self._follow_moved()
        batch = self._batch(self._sources())
        if batch:
            self._send(hub, batch)
            self._dirty = True
        if self._dirty and time.monotonic() - self._saved_at_s >= _MARKS_EVERY_S:
            self.save()

    def close(self) -> None:
        """Keeps the marks."""
        if self._dirty:
            self.save()

    def save(self) -> None:
        """Writes the marks of files that are still there."""
        self._follow_moved()
        self._marks = {path: mark for path, mark in self._marks.items() if os.path.exists(path)}
        atomic.make_dirs(os.path.dirname(self._store))
        atomic.write_file(self._store, json.dumps(self._marks, separators=(",", ":")).encode())
        self._dirty = False
        self._saved_at_s = time.monotonic()

    # What is there --------------------------------------------------------------------------------------------------
    def _sources(self) -> Iterator[Source]:
        """`<logs>/<rev>/<container>/<name>` of numbered revisions; compressed pieces were sent when they were whole."""
        found = 0
        for rev in sorted(_names(self._folder), key=lambda name: (len(name), name)):
            if not rev.isdigit():
                continue
            for container in _names(os.path.join(self._folder, rev)):
                root = os.path.join(self._folder, rev, container)
                for folder, _, files in os.walk(root):
                    for name in sorted(files):
                        path = os.path.join(folder, name)
                        if name.endswith((".gz", ".xz")) or os.path.islink(path):
                            continue
                        found += 1
                        if found > _MAX_FILES:
                            return
                        yield Source(rev, container, os.path.relpath(path, root), path)

    def _follow_moved(self) -> None:
        """A log that was moved aside keeps the mark that it had under its old name: it is not sent twice."""
        by_inode = {mark[0]: mark[1] for mark in self._marks.values()}
        for source in self._sources():
            inode = os.lstat(source.path).st_ino if os.path.lexists(source.path) else 0
            mark = self._marks.get(source.path)
            if (mark is None or mark[0] != inode) and inode in by_inode:
                self._marks[source.path] = [inode, by_inode[inode]]
                self._dirty = True

    def _batch(self, sources: Iterator[Source]) -> list[_Entry]:
        batch: list[_Entry] = []
        left = MAX_BATCH_BYTES
        for source in sources:
            for entry in self._new_lines(source, left):
                batch.append(entry)
                left -= len(entry.text) * 2 + 200
                if len(batch) >= MAX_ENTRIES or left <= 0:
                    return batch
        return batch

    def _new_lines(self, source: Source, most: int) -> Iterator[_Entry]:
        try:
            file = open(source.path, "rb")  # noqa: SIM115 closed by the with below
        except FileNotFoundError:
            return
        with file:
            info = os.fstat(file.fileno())
            inode, sent = self._marks.get(source.path, [info.st_ino, 0])
            if inode != info.st_ino or sent > info.st_size:
                sent = 0  # rotated or truncated: a new file under the old name
            allowed = self._config.size("PV_LOG_PUSH_MAX")
            if info.st_size - sent > allowed:
                skipped = info.st_size - sent - allowed
                sent += skipped
                yield _Entry(source, f"brickless: {skipped} bytes of this log were passed over", sent)
            file.seek(sent)
            data = file.read(min(max(most, _MAX_LINE_BYTES), MAX_BATCH_BYTES))
            yield from self._lines(source, data, sent)

    @staticmethod
    def _lines(source: Source, data: bytes, at: int) -> Iterator[_Entry]:
        start = 0
        while start < len(data):
            end = data.find(b"\n", start)
            if end < 0:
                if len(data) - start < _MAX_LINE_BYTES:
                    return  # the rest of the line is still to come
                end = start + _MAX_LINE_BYTES - 1
            line = data[start : min(end + 1, start + _MAX_LINE_BYTES)]
            start += len(line)
            yield _Entry(source, line.decode("utf-8", "replace").rstrip("\n"), at + start)

    # Sending --------------------------------------------------------------------------------------------------------
    def _send(self, hub: Hub, batch: list[_Entry]) -> None:
        try:
            hub.post_logs(_encode(batch))
        except HubRefusedError as error:
            if error.status in _PASSING or not 400 <= error.status < 500:
                raise
            if len(batch) > 1:  # one bad line must not hold back the others: find it
                middle = len(batch) // 2
                self._send(hub, batch[:middle])
                self._send(hub, batch[middle:])
                return
            self._report(f"the hub refuses a line of {batch[0].source.path}, it was dropped: {batch[0].text[:200]!r}")
        for entry in batch:
            self._mark(entry)

    def _mark(self, entry: _Entry) -> None:
        try:
            inode = os.stat(entry.source.path).st_ino
        except FileNotFoundError:
            return
        self._marks[entry.source.path] = [inode, entry.end]


def _encode(batch: list[_Entry]) -> bytes:
    # One by one: an encoder's pieces of 200 lines at once would be the largest thing that the agent ever holds.
    return b"[" + b",".join(_encoded(entry) for entry in batch) + b"]"


def _encoded(entry: _Entry) -> bytes:
    line = {
        "tsec": 0,
        "tnano": 0,
        "plat": entry.source.container,
        "rev": entry.source.rev,
        "src": f"/{_PIECE.sub('', entry.source.name)}",
        "lvl": "INFO",
        "msg": entry.text,
    }
    return json.dumps(line, separators=(",", ":")).encode()


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
