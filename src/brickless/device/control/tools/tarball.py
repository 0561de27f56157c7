"""Exports read as a stream: `json` and `objects/<sha>` in a tar, plain or compressed by gzip or bzip2 (device.md 9.1).

A reader of our own, for the standard library's is larger than everything else here together, and extracts more than an
export may hold. Formats: ustar and its GNU and POSIX extensions for long names (which no export needs: skipped).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import IO

from brickless.core.errors import HostileInputError
from brickless.store.objects import is_sha

BLOCK_BYTES = 512
READ_BYTES = 64 * 1024
MAX_STATE_BYTES = 16 << 20
MAX_MEMBERS = 1_000_000
# Members that describe the next one: long names, global and extended headers.
_DESCRIBING = (b"L", b"K", b"x", b"g")
_REGULAR = (b"0", b"\0", b"7")
IGNORED = frozenset({"", ".", "objects", ".pvr", ".pvr/objects"})


class _Source:
    """Decompressed bytes of a stream."""

    __slots__ = ("_buffer", "_more", "_stream")

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._buffer = stream.read(READ_BYTES)
        self._more: Callable[[], bytes] = lambda: stream.read(READ_BYTES)
        if self._buffer.startswith(b"\x1f\x8b"):
            self._decode(zlib.decompressobj(zlib.MAX_WBITS | 16).decompress)
        elif self._buffer.startswith(b"BZh"):
            import bz2

            self._decode(bz2.BZ2Decompressor().decompress)

    def _decode(self, decompress: Callable[[bytes], bytes]) -> None:
        packed = self._buffer
        self._buffer = b""

        def more() -> bytes:
            nonlocal packed
            while packed:
                piece = decompress(packed)
                packed = self._stream.read(READ_BYTES)
                if piece:
                    return piece
            return b""

        self._more = more

    def peek(self) -> bytes:
        """Some bytes from the front; nothing is taken."""
        if not self._buffer:
            self._buffer = self._next()
        return self._buffer

    def _next(self) -> bytes:
        try:
            return self._more()
        except (zlib.error, OSError, EOFError) as error:
            raise HostileInputError(f"The package is damaged: {error}") from error

    def take(self, most: int) -> bytes:
        """At least one byte and at most so many; empty at the end."""
        data = self.peek()[:most]
        self._buffer = self._buffer[len(data) :]
        return data

    def exactly(self, count: int) -> bytes:
        """So many bytes, or fewer at the end."""
        data = bytearray()
        while len(data) < count and (piece := self.take(count - len(data))):
            data += piece
        return bytes(data)


class Member:
    """One file of an export: an object, or the state (`sha` empty). To be read before the next is asked for."""

    __slots__ = ("_left", "_source", "sha", "size_bytes")

    def __init__(self, source: _Source, sha: str, size_bytes: int) -> None:
        self._source = source
        self._left = size_bytes
        self.sha = sha
        self.size_bytes = size_bytes

    def pieces(self) -> Iterator[bytes]:
        """Its bytes. Raises HostileInputError when the package ends before."""
        while self._left:
            piece = self._source.take(min(self._left, READ_BYTES))
            if not piece:
                raise HostileInputError("The package is cut off")
            self._left -= len(piece)
            yield piece

    def read(self) -> bytes:
        """All of it, for a state. Raises HostileInputError."""
        if self.size_bytes > MAX_STATE_BYTES:
            raise HostileInputError(f"The state of the package has {self.size_bytes} bytes: too many")
        return b"".join(self.pieces())

    def skip(self) -> None:
        """Pass over what was not read, and over the padding."""
        for _ in self.pieces():
            continue
        self._source.exactly(-self.size_bytes % BLOCK_BYTES)


def members(stream: IO[bytes]) -> Iterator[Member]:
    """The files of a package; one that is a bare state is that one file. Raises HostileInputError."""
    source = _Source(stream)
    if source.peek()[:1] == b"{":
        yield _bare(source)
        return
    for _ in range(MAX_MEMBERS):
        header = source.exactly(BLOCK_BYTES)
        if len(header) < BLOCK_BYTES or not header.strip(b"\0"):
            if header.strip(b"\0"):
                raise HostileInputError("The package is cut off")
            return
        member = _member(source, header)
        if member is not None:
            yield member
            member.skip()
    raise HostileInputError(f"The package has more than {MAX_MEMBERS} members")


def _bare(source: _Source) -> Member:
    data = bytearray()
    while piece := source.take(READ_BYTES):
        data += piece
        if len(data) > MAX_STATE_BYTES:
            raise HostileInputError("The state is too large")
    again = _Source.__new__(_Source)
    again._buffer, again._more = bytes(data), bytes
    return Member(again, "", len(data))


def _member(source: _Source, header: bytes) -> Member | None:
    """The member of a header, None when it is a folder or describes another."""
    _check_sum(header)
    size = _number(header[124:136])
    kind = header[156:157]
    name = header[:100].split(b"\0", 1)[0].decode("utf-8", "replace")
    if header[257:262] == b"ustar" and header[345:346] != b"\0" and header[263:265] == b"00":
        name = header[345:500].split(b"\0", 1)[0].decode("utf-8", "replace") + "/" + name
    name = name.removeprefix("./").rstrip("/").removeprefix(".pvr/")
    sha = name.removeprefix("objects/") if name.startswith("objects/") else ""
    if kind in _DESCRIBING or name in IGNORED or (kind == b"5"):
        Member(source, "", size).skip()
        return None
    if kind not in _REGULAR or not (name == "json" or is_sha(sha)):
        if name == "config" and kind in _REGULAR:
            Member(source, "", size).skip()
            return None
        raise HostileInputError(f"The package has the member {name[:200]!r}, which no export has")
    return Member(source, sha, size)


def _check_sum(header: bytes) -> None:
    blank = header[:148] + b" " * 8 + header[156:]
    if _number(header[148:156]) != sum(blank):
        raise HostileInputError("The package is no tar archive, or damaged")


def _number(field: bytes) -> int:
    """An octal number, or a binary one as GNU tar writes what is too large. Raises HostileInputError."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0")
    if text.strip(b"01234567"):
        raise HostileInputError("The package is no tar archive, or damaged")
    return int(text or b"0", 8)
