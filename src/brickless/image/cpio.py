"""The kernel's initramfs archive (cpio "newc"), written byte for byte the same on every machine and without root.

Format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Owners are 0:0, times 0, order sorted.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BLOCK_BYTES = 512
CHUNK_BYTES = 1 << 20
# Sizes are 8 hexadecimal digits.
MAX_FILE_BYTES = 0xFFFFFFFF


class Entry(NamedTuple):
    """One file: `mode` with its type bits, the content in `data` or in the file `source`; a device has `rdev`."""

    mode: int
    data: bytes = b""
    source: Path | None = None
    rdev: tuple[int, int] = (0, 0)

    @property
    def size_bytes(self) -> int:
        """Bytes of content."""
        return self.source.stat().st_size if self.source is not None else len(self.data)


class Archive:
    """The tree of an initramfs, in memory; folders above a file are made when they are missing."""

    def __init__(self) -> None:
        """Start empty."""
        self._entries: dict[str, Entry] = {}

    def __contains__(self, path: object) -> bool:
        return path in self._entries

    def paths(self) -> list[str]:
        """All paths, sorted."""
        return sorted(self._entries)

    def __getitem__(self, path: str) -> Entry:
        return self._entries[path]

    def directory(self, path: str, mode: int = 0o755) -> None:
        """A folder."""
        self._put(path, Entry(stat.S_IFDIR | mode))

    def file(self, path: str, content: bytes | Path, mode: int = 0o644) -> None:
        """A regular file from bytes or from a file of the host (read when the archive is written)."""
        if isinstance(content, Path):
            self._put(path, Entry(stat.S_IFREG | mode, source=content))
        else:
            self._put(path, Entry(stat.S_IFREG | mode, content))

    def symlink(self, path: str, target: str) -> None:
        """A symbolic link."""
        self._put(path, Entry(stat.S_IFLNK | 0o777, target.encode()))

    def device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        """A character device; the kernel makes the node when it unpacks, so no root is needed here."""
        self._put(path, Entry(stat.S_IFCHR | mode, rdev=(major, minor)))

    def _put(self, path: str, entry: Entry) -> None:
        parts = path.split("/")
        if not path or any(part in {"", ".", ".."} for part in parts) or "\0" in path:
            raise ValueError(f"{path!r} is no path inside an archive: relative, without empty, '.' or '..' parts")
        for depth in range(1, len(parts)):
            self._entries.setdefault("/".join(parts[:depth]), Entry(stat.S_IFDIR | 0o755))
        self._entries[path] = entry

    def chunks(self) -> Iterator[bytes]:
        """The archive as bytes, padded to whole blocks."""
        written = 0
        for number, path in enumerate(sorted(self._entries), 1):
            for chunk in _member(number, path, self._entries[path]):
                written += len(chunk)
                yield chunk
        trailer = b"".join(_member(0, "TRAILER!!!", Entry(0)))
        yield trailer
        yield bytes(-(written + len(trailer)) % BLOCK_BYTES)


def _member(number: int, path: str, entry: Entry) -> Iterator[bytes]:
    name = path.encode() + b"\0"
    size = entry.size_bytes
    if size > MAX_FILE_BYTES:
        raise ValueError(f"{path}: {size} bytes are too many for an initramfs archive")
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (number, entry.mode, 0, 0, links, 0, size, 0, 0, *entry.rdev, len(name), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields)
    yield header + name + bytes(-(len(header) + len(name)) % 4)
    if entry.source is None:
        yield entry.data
    else:
        yield from _read(path, entry.source, size)
    yield bytes(-size % 4)


def _read(path: str, source: Path, size: int) -> Iterator[bytes]:
    left = size
    with source.open("rb") as stream:
        while left:
            chunk = stream.read(min(left, CHUNK_BYTES))
            if not chunk:
                raise OSError(f"{source}: became shorter while {path} was packed")
            left -= len(chunk)
            yield chunk
