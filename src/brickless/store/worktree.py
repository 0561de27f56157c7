"""The working tree of a repository: which files there are and what their content hashes to, without reading twice.

The stat cache (`.pvr/stat-cache`, ours alone; other clients ignore it) remembers for each file the hash that belongs
to its (mtime, ctime, size, inode). A file whose ctime is not safely older than the moment of hashing could change
once more within the same tick of the file system's clock; it is not remembered, and is hashed again next time.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from brickless.core.errors import UserError
from brickless.store import atomic
from brickless.store.objects import CHUNK_BYTES

# A tick of the kernel's coarse clock is at most 10 ms; ext3, FAT and some network file systems keep whole seconds.
_RACY_NS = 2_000_000_000
_FINE_RACY_NS = 50_000_000
_VERSION = 1
_MAX_CACHE_BYTES = 256 << 20


class Found(NamedTuple):
    """One file of the working tree."""

    stat: os.stat_result
    symlink: bool


class Folder(NamedTuple):
    """A folder of the working tree: its path, empty or ending in `/`; its look before it was read; how many names."""

    path: str
    stat: os.stat_result
    names: int


def scan(root: str, *, skip: str = ".pvr", seen: list[Folder] | None = None) -> dict[str, Found]:
    """Every file below `root` by its path, sorted; `skip` is a folder at the top that is not entered.

    `seen` is given every folder that was read.
    Symlinks to files count as the file they lead to (pvr.md 2.5); links to folders, dangling ones and leftovers of
    interrupted writes are left out. Sockets, devices and pipes are listed: who tracks one gets an error.
    """
    found = dict(_entries(root, skip, seen if seen is not None else []))
    return dict(sorted(found.items()))


def _entries(root: str, skip: str, seen: list[Folder]) -> Iterator[tuple[str, Found]]:
    folders: list[str] = [""]
    while folders:
        prefix = folders.pop()
        place = os.path.join(root, prefix)
        look = os.lstat(place[:-1] if prefix else root)
        names = 0
        with os.scandir(place) as entries:
            for entry in entries:
                names += 1
                name = entry.name
                path = prefix + name
                if entry.is_dir(follow_symlinks=False):
                    if path != skip:
                        folders.append(path + "/")
                    continue
                if name[0] == "." and atomic.is_temporary(name):
                    continue
                symlink = entry.is_symlink()
                try:
                    info = entry.stat()
                except OSError:
                    continue  # a dangling link, or a file that went away while we looked
                if not stat.S_ISDIR(info.st_mode):
                    yield path, Found(info, symlink)
        seen.append(Folder(prefix, look, names))


def read_file(root: str, path: str, *, max_bytes: int) -> bytes:
    """The content of a small file of the tree. Raises UserError for what is no regular file or is too large."""
    fd = open_regular(root, path)
    with os.fdopen(fd, "rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise UserError(
            "inline-too-large",
            f"{path} is larger than the {max_bytes} bytes that an inline JSON file may have.",
            hint="Add it as an object: `pvr add --raw`.",
        )
    return data


def open_regular(root: str, path: str) -> int:
    """Open a file of the tree for reading. Never blocks on a pipe. Raises UserError when it is no regular file."""
    full = os.path.join(root, path)
    try:
        # A pipe without a writer would block the open; O_NONBLOCK has no effect on a regular file.
        fd = os.open(full, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        fd = -1
    if fd < 0 or not stat.S_ISREG(os.fstat(fd).st_mode):
        if fd >= 0:
            os.close(fd)
        raise UserError(
            "not-a-regular-file",
            f"{path} is no regular file, and a state can hold no other kind.",
            hint=f"Remove it, or `rm` it from what is tracked: {full}",
        )
    return fd


class StatCache:
    """What each file hashed to when it had these times, size and inode."""

    __slots__ = ("_changed", "_entries", "_heard", "_path")

    def __init__(self, path: str, heard: Callable[[int], None] = lambda _: None) -> None:
        """Load the cache. One that is missing, damaged or of another version counts as empty: it is only a cache.

        `heard` is told how many bytes are read for hashing, as they are.
        """
        self._path = path
        self._heard = heard
        self._changed = False
        self._entries: dict[str, list[int | str]] = {}
        try:
            with open(path, "rb") as file:
                document = json.loads(file.read(_MAX_CACHE_BYTES))
        except (OSError, ValueError, RecursionError):
            return
        if isinstance(document, dict) and document.get("version") == _VERSION:
            entries = document.get("files")
            if isinstance(entries, dict):
                self._entries = entries

    def get(self, path: str, info: os.stat_result) -> str | None:
        """The hash of a file that has not changed since it was hashed, or None."""
        entry = self._entries.get(path)
        if not isinstance(entry, list) or len(entry) != 5:
            return None
        if entry[:4] != [info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino]:
            return None
        sha = entry[4]
        return sha if isinstance(sha, str) else None

    def hash(self, root: str, path: str) -> str:
        """The hash of a file of the tree, from the cache or from its bytes."""
        import hashlib
        import time

        fd = open_regular(root, path)
        try:
            before = os.fstat(fd)
            known = self.get(path, before)
            if known is not None:
                return known
            digest = hashlib.sha256()
            started_ns = time.time_ns()
            while chunk := os.read(fd, CHUNK_BYTES):
                digest.update(chunk)
                self._heard(len(chunk))
            if same(before, os.fstat(fd)):
                self.put(path, before, digest.hexdigest(), started_ns)
            return digest.hexdigest()
        finally:
            os.close(fd)

    def put(self, path: str, info: os.stat_result, sha: str, hashed_at_ns: int) -> None:
        """Remember a hash that was begun at `hashed_at_ns`, unless the file is so young that it may change unseen."""
        if not settled(info.st_ctime_ns, hashed_at_ns):
            return
        self._entries[path] = [info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino, sha]
        self._changed = True

    def save(self, keep: dict[str, Found] | None = None) -> None:
        """Write the cache if it changed, without the files that are gone. A repository that is read-only keeps none."""
        if keep is not None:
            gone = [path for path in self._entries if path not in keep]
            for path in gone:
                del self._entries[path]
            self._changed |= bool(gone)
        if not self._changed:
            return
        data = json.dumps({"version": _VERSION, "files": self._entries}, separators=(",", ":")).encode()
        try:
            atomic.write_file(self._path, data, durable=False)
        except OSError as error:
            # Only speed is lost. A disk that is full or read-only is reported by whoever has something to save.
            if error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}:
                raise
        self._changed = False


def settled(ctime_ns: int, looked_at_ns: int) -> bool:
    """Whether any change after a look would show: the last one is older than a tick of the file system's clock."""
    return ctime_ns <= looked_at_ns - (_FINE_RACY_NS if ctime_ns % 1_000_000_000 else _RACY_NS)


def same(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether a file did not change between two looks at it."""
    return (before.st_mtime_ns, before.st_ctime_ns, before.st_size, before.st_ino) == (
        after.st_mtime_ns,
        after.st_ctime_ns,
        after.st_size,
        after.st_ino,
    )
