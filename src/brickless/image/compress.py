"""Compression of initramfs archives in the ways that kernels read, reproducible."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

import zstandard

from brickless.linux import process

TIMEOUT_S = 600.0


class Compression(StrEnum):
    """How an archive is packed; `none` boots fastest in emulation, `xz` is smallest over the air."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    XZ = "xz"


def write(chunks: Iterable[bytes], out: Path, how: Compression) -> None:
    """Write the archive to `out`. Raises `process.ToolMissingError` (package xz-utils), `OSError`."""
    with out.open("wb") as stream:
        if how is Compression.NONE:
            stream.writelines(chunks)
        elif how is Compression.GZIP:
            with gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0, compresslevel=9) as packed:
                packed.writelines(chunks)
        elif how is Compression.ZSTD:
            with zstandard.ZstdCompressor(level=12).stream_writer(stream, closefd=False) as writer:
                for chunk in chunks:
                    writer.write(chunk)
    if how is Compression.XZ:
        _xz(chunks, out)


def _xz(chunks: Iterable[bytes], out: Path) -> None:
    plain = out.with_name(out.name + ".plain")
    try:
        with plain.open("wb") as stream:
            stream.writelines(chunks)
        # One block and CRC32: the kernel's decoder knows no other check, and threads would change the bytes.
        argv = [process.require("xz", "xz-utils"), "--check=crc32", "-9e", "-T1", "--stdout", str(plain)]
        with process.reading(argv, purpose="packing an initramfs", timeout_s=TIMEOUT_S) as packed, out.open("wb") as to:
            shutil.copyfileobj(packed, to)
    finally:
        plain.unlink(missing_ok=True)
