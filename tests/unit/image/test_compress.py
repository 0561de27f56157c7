"""Each way to pack an archive gives the bytes back and is the same every time."""

from __future__ import annotations

import gzip
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from brickless.image.compress import Compression, write

CHUNKS = [b"hello " * 1000, b"world " * 1000]
UNPACK: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.NONE: lambda data: data,
    Compression.GZIP: gzip.decompress,
    Compression.ZSTD: lambda data: zstandard.ZstdDecompressor().decompress(data, 1 << 20),
    Compression.XZ: lzma.decompress,
}


@pytest.mark.parametrize("how", list(Compression))
def test_packing(how: Compression, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write(iter(CHUNKS), first, how)
    write(iter(CHUNKS), second, how)
    assert first.read_bytes() == second.read_bytes()
    assert UNPACK[how](first.read_bytes()) == b"".join(CHUNKS)
    assert sorted(os.listdir(tmp_path)) == ["first", "second"], "nothing else is left behind"


def test_the_kernels_decoder_knows_the_check_of_xz(tmp_path: Path) -> None:
    write(iter(CHUNKS), tmp_path / "xz", Compression.XZ)
    crc32 = 1
    assert (tmp_path / "xz").read_bytes()[7] == crc32
