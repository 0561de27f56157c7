"""Small records that a bootloader reads or writes too: replaced by writing one sector in place.

Why not the atomic write: a bootloader reads a file system without replaying its journal, and a rename lives in the
journal until the kernel gets around to writing the folder itself. A power cut in between shows the bootloader the old
file, whose blocks may be someone else's by then. FAT has no atomic rename at all. One sector of 512 bytes that never
moves is old or new by what disks promise, in every file system (ADR 0100).

So a record's meaning lies in its first sector, and its size never changes. Anything else (the first write of a file,
variables that do not fit) goes through `store.atomic`, and the caller makes it visible (`linux.journal.checkpoint`).
Standard library only.
"""

from __future__ import annotations

import os

from brickless.store import atomic
from brickless.store.atomic import FILES, Files

SECTOR = 512


def read(path: str, max_bytes: int) -> bytes | None:
    """The record, None when there is none. Raises `OSError`."""
    try:
        with open(path, "rb") as stream:
            return stream.read(max_bytes)
    except FileNotFoundError:
        return None


def replace(path: str, data: bytes, *, files: Files = FILES) -> bool:
    """Make `data` the record at `path`, durable; True when one sector in place was enough, False for a new file.

    Raises `OSError`; the old record stays whatever is raised, unless the disk tears a sector.
    """
    old = read(path, len(data) + 1)
    if old == data:
        return True
    if old is None or len(old) != len(data) or old[SECTOR:] != data[SECTOR:]:
        atomic.write_file(path, data, files=files)
        return False
    fd = files.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        atomic.write_all(fd, data[:SECTOR], files)
        files.fsync(fd)
    finally:
        files.close(fd)
    return True
