"""Files of a storage partition, damaged one at a time: emptied, cut in half, filled with noise."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping

KINDS: Mapping[str, Callable[[bytes], bytes]] = {
    "empty": lambda _data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "random": lambda data: hashlib.shake_128(data).digest(max(64, min(len(data), 1 << 16))),
}


def files_of(root: str) -> Iterator[str]:
    """The regular files below `root`, by their relative paths; links stay out, they are not files to be damaged."""
    for folder, _, names in sorted(os.walk(root)):
        for name in sorted(names):
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                yield os.path.relpath(path, root)


def damage(root: str, relative: str, kind: str) -> bool:
    """Damage a file in place, so that every name of it is damaged. False when that changes nothing."""
    path = os.path.join(root, relative)
    with open(path, "rb") as stream:
        data = stream.read()
    bad = KINDS[kind](data)
    if bad == data:
        return False
    with open(path, "r+b") as stream:
        stream.truncate(0)
        stream.write(bad)
    return True


def copy_tree(source: str, target: str) -> None:
    """Copy a partition: what was one file under two names is one file again."""
    known: dict[int, str] = {}

    def copy(one: str, other: str) -> None:
        inode = os.stat(one, follow_symlinks=False).st_ino
        if inode in known:
            os.link(known[inode], other, follow_symlinks=False)
            return
        known[inode] = shutil.copy2(one, other, follow_symlinks=False)

    shutil.copytree(source, target, symlinks=True, copy_function=copy)
