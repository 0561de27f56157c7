"""Layers as they are stored: plain, gzip or zstd, told apart by their first bytes, never by what a manifest claims."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import IO, cast

from brickless.core.errors import HostileInputError

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# A zstd stream may open with a skippable frame (zstd:chunked and estargz-like layers carry their index in one).
ZSTD_SKIPPABLE = tuple(bytes([0x50 + n, 0x2A, 0x4D, 0x18]) for n in range(16))
CHUNK_BYTES = 1 << 20
# What zstd asks of its reader's memory; `--ultra --long=27` is the most that the zstd program itself grants.
MAX_WINDOW_BYTES = 1 << 27


class CompressionError(HostileInputError):
    """A compressed stream is damaged or cut off."""


def chunks_of(stream: IO[bytes], size: int = CHUNK_BYTES) -> Iterator[bytes]:
    """The rest of a stream, in pieces."""
    while chunk := stream.read(size):
        yield chunk


def decompress(chunks: Iterable[bytes], *, what: str) -> Iterator[bytes]:
    """The uncompressed bytes of a stream, in bounded pieces: a bomb costs its reader nothing but time.

    Raises `CompressionError` when the stream is damaged or ends early; `what` names it there.
    """
    source = iter(chunks)
    first = b""
    for chunk in source:
        first += chunk
        if len(first) >= 4:
            break
    if first.startswith(GZIP_MAGIC):
        yield from _gzip(first, source, what)
    elif first.startswith((ZSTD_MAGIC, *ZSTD_SKIPPABLE)):
        yield from _zstd(first, source, what)
    else:
        if first:
            yield first
        yield from source


def _gzip(first: bytes, source: Iterator[bytes], what: str) -> Iterator[bytes]:
    """All members of a gzip stream (RFC 1952 allows several, pigz and estargz write them), each with its checksum."""
    decoder = zlib.decompressobj(zlib.MAX_WBITS | 16)
    data, started = first, False
    try:
        while data or (data := next(source, b"")):
            if not started and not data.strip(b"\0"):
                data = b""  # zeros behind the last member: padding of tapes, accepted by gzip itself
                continue
            started = True
            if piece := decoder.decompress(data, CHUNK_BYTES):
                yield piece
            data = decoder.unconsumed_tail
            if decoder.eof:
                data, decoder, started = decoder.unused_data, zlib.decompressobj(zlib.MAX_WBITS | 16), False
    except zlib.error as error:
        raise CompressionError(f"{what} is damaged: {error}") from error
    if started:
        raise CompressionError(f"{what} is cut off: its gzip stream has no end")


def _zstd(first: bytes, source: Iterator[bytes], what: str) -> Iterator[bytes]:
    # Imported here: only images with zstd layers need it.
    import zstandard

    readable = cast(IO[bytes], _Source(first, source))
    reader = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).stream_reader(
        readable, read_across_frames=True
    )
    try:
        while piece := reader.read(CHUNK_BYTES):
            yield piece
    except zstandard.ZstdError as error:
        raise CompressionError(f"{what} is damaged: {error}") from error


class _Source:
    """An iterator of bytes as the readable object that zstandard asks for."""

    def __init__(self, first: bytes, rest: Iterator[bytes]) -> None:
        self._pending = first
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        if not self._pending:
            self._pending = next(self._rest, b"")
        data, self._pending = self._pending[:size], self._pending[size:]
        return data
