"""What `status` found, kept with the picture of the tree in which it found it: the same picture has the same status.

The status of a repository is a function of its committed state, its marks, its configuration, and the names and bytes
of its files. `.pvr/snapshot` keeps the answer together with the times, size and inode of everything that it was made
from. A look that sees the very same need not parse the state, read a folder or a file, or compare an entry: one
`lstat` for each folder and file, and comparisons of whole byte strings. A name that came or went shows in the times of
its folder, which every POSIX file system updates. Anything else, be it the smallest doubt, is no answer, and the
repository is looked at in full (store.repo): nothing here ever decides that a file changed.

    magic (8 bytes) | 7 native 64-bit numbers: the lengths of the 6 parts, and the CRC-32 of all that follows
    meta       the looks of `.pvr/json`, `.pvr/new` and `.pvr/config`
    two halves of the tree:
      paths      folders and files, joined by NUL
      looks      for each path mtime_ns, ctime_ns, size and inode, native 64 bits
    answer     the status as text, NUL, the same as JSON

Reads alone; `store.snapshot_write` writes. Imports next to nothing, not even `typing`: each module costs a fast start
as much as hundreds of files (ADR 0030).
"""

from __future__ import annotations

import os
from itertools import chain
from operator import attrgetter
from struct import error as StructError  # noqa: N812 - the module calls it `error`
from struct import pack, unpack
from zlib import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

NAME = "snapshot"
MAGIC = b"pvrsnap\x02"
HEADER = "7Q"
META = ("json", "new", "config")
_ABSENT = bytes(4 * 8)
_HEADER_END = len(MAGIC) + 7 * 8
_MAX_BYTES = 256 << 20
#: Below this many paths a second process costs more than it saves.
SHARED_FROM = 2000
_numbers = attrgetter("st_mtime_ns", "st_ctime_ns", "st_size", "st_ino")


def answer(root: str, *, as_json: bool = False) -> bytes | None:
    """The status that was kept, if the tree at `root` still is what it was; None when it must be looked at in full."""
    try:
        with open(os.path.join(root, ".pvr", NAME), "rb") as file:
            data = file.read(_MAX_BYTES)
        kept = _read(data)
        if not kept or meta(root) != kept[0] or not _both_hold(root, kept):
            return None
    except (OSError, ValueError, StructError):
        # Unreadable, damaged, or a tree that changes while we look: the full look says what there is to say.
        return None
    text, _, document = kept[-1].partition(b"\0")
    return document if as_json else text


def packed(looks: Iterable[os.stat_result]) -> bytes:
    """The numbers of some looks as they are stored. Raises struct.error for one beyond 63 bits."""
    numbers = tuple(chain.from_iterable(map(_numbers, looks)))
    return pack(f"{len(numbers)}q", *numbers)


def meta(root: str) -> bytes:
    """How the repository's own files look; one that is missing is all zeros."""
    found = []
    for name in META:
        try:
            found.append(packed([os.lstat(os.path.join(root, ".pvr", name))]))
        except FileNotFoundError:
            found.append(_ABSENT)
    return b"".join(found)


def _read(data: bytes) -> list[bytes]:
    if data[: len(MAGIC)] != MAGIC or len(data) < _HEADER_END:
        return []
    *lengths, checksum = unpack(HEADER, data[len(MAGIC) : _HEADER_END])
    if _HEADER_END + sum(lengths) != len(data) or crc32(memoryview(data)[_HEADER_END:]) != checksum:
        return []
    parts = []
    start = _HEADER_END
    for length in lengths:
        parts.append(data[start : start + length])
        start += length
    return parts


def _both_hold(root: str, parts: list[bytes]) -> bool:
    """Look at both halves; a second process takes one of a large tree, as `lstat` is what all the time goes into."""
    _, paths1, looks1, paths2, looks2, _ = parts
    if len(looks1) + len(looks2) < SHARED_FROM * len(_ABSENT) or os.cpu_count() == 1:
        return _holds(root, paths1, looks1) and _holds(root, paths2, looks2)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if _holds(root, paths1, looks1) else 1
        finally:
            os._exit(code)
    same = False
    try:
        same = _holds(root, paths2, looks2)
    finally:
        _, status = os.waitpid(child, 0)
    return same and status == 0


def _holds(root: str, stored: bytes, looks: bytes) -> bool:
    """Whether these entries of the tree at `root` still look like this. Raises OSError for what is gone."""
    paths = os.fsdecode(stored).split("\0") if stored else []
    return packed(map(os.lstat, paths if root == "." else [os.path.join(root, path) for path in paths])) == looks
