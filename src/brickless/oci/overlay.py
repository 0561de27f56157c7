"""What an image changes over another app's root: the upper part of an overlay, as little as possible.

The lower root is read from its squashfs (whoever made it), entry by entry; a difference in type, mode, owner, device,
target or content counts, where the reference sees content alone. What is gone becomes overlayfs's whiteout: device
0:0. Attributes of the lower root are not seen: a file that only lost its attributes stays as it is below.
Source: contract pvr.md 4.4 "Overlay"; Linux Documentation/filesystems/overlayfs "whiteouts".
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from brickless.core.errors import HostileInputError
from brickless.linux import process
from brickless.oci import tar
from brickless.oci.flatten import Flattener
from brickless.oci.tree import Node, Slot, Tree

DATA_MARK = b"# START OF DATA - DO NOT MODIFY\n"
# A pseudo file of unsquashfs 4.5: name, type, time, mode, owner; then what the type needs. Blanks, quotes and
# backslashes in names are escaped; line breaks are not, so a name with one cannot be told from two entries.
LINE = re.compile(rb"((?:\\.|[^\\ \n])+) ([DRSCBI]) (\d+) ([0-7]+) (-?\d+) (-?\d+)(?: (.*))?\n")
LINK = re.compile(rb"((?:\\.|[^\\ \n])+) L ((?:\\.|[^\\\n])+)\n")
ESCAPE = re.compile(rb"\\(.)")
TYPES = {b"D": tar.FOLDER, b"S": tar.SYMLINK, b"C": tar.CHAR, b"B": tar.BLOCK_DEVICE, b"I": tar.FIFO, b"R": tar.FILE}
CHUNK_BYTES = 1 << 20
UNSQUASH_TIMEOUT_S = 600.0


class Record(NamedTuple):
    """One entry of the lower root: what must be equal, and where a file's content lies (size, offset)."""

    type: bytes
    mode: int
    uid: int
    gid: int
    extra: bytes
    size: int
    offset: int


class Lower:
    """The lower root: its entries by path, and the file with their contents."""

    def __init__(self, records: dict[bytes, Record], data: IO[bytes]) -> None:
        self.records = records
        self._data = data

    def content(self, record: Record) -> Iterator[bytes]:
        """A file's bytes."""
        size, offset = record.size, record.offset
        while size > 0:
            chunk = os.pread(self._data.fileno(), min(CHUNK_BYTES, size), offset)
            if not chunk:
                raise HostileInputError("unsquashfs wrote less than it announced")
            yield chunk
            size, offset = size - len(chunk), offset + len(chunk)


@contextmanager
def read_lower(squashfs: Path, spool: Path | None = None) -> Iterator[Lower]:
    """Read a squashfs without root. Raises `ProcessError` (damaged), `HostileInputError` (ambiguous names)."""
    with tempfile.TemporaryDirectory(prefix="brickless-lower-", dir=spool) as folder:
        dump = os.path.join(folder, "dump")
        argv = [process.require("unsquashfs", "squashfs-tools"), "-q", "-n", "-pf", dump, str(squashfs)]
        process.run(argv, purpose=f"read {squashfs}", timeout_s=UNSQUASH_TIMEOUT_S)
        with open(dump, "rb") as handle:
            yield Lower(_parse(handle, squashfs), handle)


def _parse(handle: IO[bytes], squashfs: Path) -> dict[bytes, Record]:
    records: dict[bytes, Record] = {}
    links: list[tuple[bytes, bytes]] = []
    while (line := handle.readline()) != b"#\n":
        if found := LINK.fullmatch(line):
            links.append((_unescaped(found[1]), _unescaped(found[2])))
        elif found := LINE.fullmatch(line):
            records[_unescaped(found[1]).strip(b"/")] = _record(found)
        else:
            raise HostileInputError(f"{squashfs} has a name that unsquashfs cannot tell apart: {line[:80]!r}")
    if handle.readline() != DATA_MARK or handle.readline() != b"#\n":
        raise HostileInputError(f"{squashfs}: unsquashfs wrote something that is no pseudo file")
    start = handle.tell()
    shifted = {path: record._replace(offset=record.offset + start) for path, record in records.items()}
    return shifted | {name: shifted[target] for name, target in links if target in shifted}


def _record(found: re.Match[bytes]) -> Record:
    kind, rest = TYPES[found[2]], found[7] or b""
    size = offset = 0
    if kind == tar.FILE:
        numbers = rest.split(b" ")
        # Behind size and offset newer releases write whether the file is sparse.
        size, offset, rest = int(numbers[0]), int(numbers[1]), b""
    # unsquashfs prints ids as signed numbers.
    uid, gid = int(found[5]) % (1 << 32), int(found[6]) % (1 << 32)
    return Record(kind, int(found[4], 8), uid, gid, rest, size, offset)


def _unescaped(name: bytes) -> bytes:
    return ESCAPE.sub(rb"\1", name)


def keep_difference(flattener: Flattener, lower: Lower) -> None:
    """Reduce the image to what differs from the lower root, whiteouts for what is gone."""
    upper = Tree()
    there: set[bytes] = set()
    folders: set[bytes] = set()
    for path, node in flattener.tree.walk():
        there.add(path)
        if node.children is not None:
            folders.add(path)
        if not path:
            upper.root.entry = node.entry
        elif not _same(flattener, node, lower, path):
            _place(upper, flattener.tree, path, node)
    for path in sorted(lower.records):
        parent = path.rpartition(b"/")[0]
        if path in there or not path or parent not in folders or parent not in lower.records:
            continue
        if lower.records[parent].type == tar.FOLDER:
            _place(upper, flattener.tree, path, Node(tar.Entry(b"", tar.CHAR, mode=0), 0))
    flattener.tree = upper


def _same(flattener: Flattener, node: Node, lower: Lower, path: bytes) -> bool:
    record, entry = lower.records.get(path), node.entry
    if record is None or (record.type, record.uid, record.gid) != (entry.type, entry.uid, entry.gid):
        return False
    # Pseudo files tell nothing of attributes: whatever has some belongs to the upper part.
    if entry.xattrs or (entry.type != tar.SYMLINK and record.mode != entry.mode):
        return False
    if entry.type == tar.SYMLINK:
        return record.extra == entry.link
    if entry.type in (tar.CHAR, tar.BLOCK_DEVICE):
        return record.extra == b"%d %d" % (entry.major, entry.minor)
    if entry.type == tar.FILE:
        return record.size == entry.size and _equal(flattener.content(node), lower.content(record))
    return True


def _equal(ours: Iterator[bytes], theirs: Iterator[bytes]) -> bool:
    """Whether two streams hold the same bytes, however they are cut."""
    left = right = b""
    while True:
        left = left or next(ours, b"")
        right = right or next(theirs, b"")
        if not left or not right:
            return left == right
        size = min(len(left), len(right))
        if left[:size] != right[:size]:
            return False
        left, right = left[size:], right[size:]


def _place(upper: Tree, whole: Tree, path: bytes, node: Node) -> None:
    """Put a node under the same path, its folders with the image's own metadata."""
    children, source = upper.root.children, whole.root.children
    parts = path.split(b"/")
    for part in parts[:-1]:
        if children is None or source is None:
            raise HostileInputError(f"a file is in the way of {path!r}")
        original = source[part].node
        if part not in children:
            children[part] = Slot(Node(original.entry, original.layer), 0)
        children, source = children[part].node.children, original.children
    if children is None:
        raise HostileInputError(f"a file is in the way of {path!r}")
    if node.children is None:
        children[parts[-1]] = Slot(node, 0)
    elif parts[-1] not in children:
        # Its contents come by themselves, as far as they differ.
        children[parts[-1]] = Slot(Node(node.entry, node.layer), 0)
