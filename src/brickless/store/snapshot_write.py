"""Keeps what `status` found, with the picture that `store.snapshot` compares.

A tree with symlinks is never kept (what one leads to can change without a trace here), nor one that changed so
recently that it could change once more within the same tick of the file system's clock.
Writes `.pvr/snapshot` alone.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from brickless.store import atomic, snapshot
from brickless.store.worktree import Folder, Found, settled


class Before(NamedTuple):
    """When a look at a repository began, and how its own files looked then."""

    at_ns: int
    meta: bytes

    @classmethod
    def now(cls, root: str) -> Before:
        """Note it; call before anything is read."""
        at_ns = time.time_ns()
        return cls(at_ns, snapshot.meta(root))

    def times(self) -> Iterator[int]:
        """The ctimes of the repository's own files, in nanoseconds."""
        return (ctime_ns for _, ctime_ns, _, _ in struct.iter_unpack("4q", self.meta))


def keep(
    root: str, before: Before, folders: Sequence[Folder], files: Mapping[str, Found], *, text: str, document: str
) -> None:
    """Keep a status that was found after `before`, in a tree that the scan saw as `folders` and `files`.

    Keeps nothing, and says nothing, when the picture cannot vouch for it or the repository is read-only: only speed
    is lost.
    """
    if len(folders) == 0 or not _trustworthy(before, folders, files):
        return
    looks = {folder.path[:-1] or ".": folder.stat for folder in folders}
    looks |= {path: found.stat for path, found in files.items()}
    paths = sorted(looks)
    middle = len(paths) // 2
    halves = [_packed(half, looks) for half in (paths[:middle], paths[middle:])]
    parts = [before.meta, *halves[0], *halves[1], f"{text}\0{document}".encode()]
    body = b"".join(parts)
    header = struct.pack(snapshot.HEADER, *map(len, parts), zlib.crc32(body))
    try:
        atomic.write_stream(os.path.join(root, ".pvr", snapshot.NAME), [snapshot.MAGIC, header, body], durable=False)
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}:
            raise


def _trustworthy(before: Before, folders: Sequence[Folder], files: Mapping[str, Found]) -> bool:
    # Each name is one of the files or folders (.pvr is neither, the root has no name): no dangling link, no leftover.
    if sum(folder.names for folder in folders) != len(files) + len(folders):
        return False
    if any(found.symlink for found in files.values()) or not all(stat.S_ISDIR(f.stat.st_mode) for f in folders):
        return False
    times = chain((f.stat.st_ctime_ns for f in folders), (f.stat.st_ctime_ns for f in files.values()), before.times())
    return all(settled(ctime_ns, before.at_ns) for ctime_ns in times)


def _packed(paths: Sequence[str], looks: Mapping[str, os.stat_result]) -> tuple[bytes, bytes]:
    return os.fsencode("\0".join(paths)), snapshot.packed(looks[path] for path in paths)
