"""Reading a device's ext4 disk from outside, while it is switched off: no root, no mount."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from pathlib import Path

from brickless.linux import process
from brickless.twin.errors import TwinError

TOOL_TIMEOUT_S = 120.0
# e2fsck(8): file system errors were corrected. The journal was replayed, which is no fault.
E2FSCK_CORRECTED = 1
# What is compared at once, and what is written where that differs.
BLOCK_BYTES, PAGE_BYTES = 1 << 18, 1 << 12


def replay_journal(disk: Path) -> None:
    """Bring the file system to the state of its journal, as mounting it would. Raises `TwinError` when it is broken."""
    e2fsck = process.require("e2fsck", "e2fsprogs")
    argv = [e2fsck, "-E", "journal_only", "-y", str(disk)]
    done = process.run(argv, purpose="replaying a journal", timeout_s=TOOL_TIMEOUT_S, check=False)
    if done.returncode not in {0, E2FSCK_CORRECTED}:
        said = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
        raise TwinError(f"{disk}: the journal cannot be replayed (e2fsck {done.returncode}): {said}")


def check(disk: Path) -> list[str]:
    """What a full check finds wrong, without changing anything; empty for a sound file system."""
    argv = [process.require("e2fsck", "e2fsprogs"), "-f", "-n", str(disk)]
    done = process.run(argv, purpose="checking a disk", timeout_s=TOOL_TIMEOUT_S, check=False)
    return [] if done.returncode == 0 else done.stdout.decode("utf-8", "replace").splitlines()


def dump(disk: Path, inside: str, out: Path) -> bool:
    """Copy the file `inside` to `out`; False when there is none."""
    _check_path(inside)
    out.unlink(missing_ok=True)
    _debugfs(disk, f'dump "{inside}" "{out}"')
    return out.exists()


def read(disk: Path, inside: str) -> bytes | None:
    """The content of a small file, None when there is none."""
    with tempfile.TemporaryDirectory(prefix="brickless-disk-") as folder:
        out = Path(folder) / "file"
        return out.read_bytes() if dump(disk, inside, out) else None


def write(disk: Path, inside: str, content: bytes) -> None:
    """Replace the file `inside`, which must be there, by another with this content. The journal must be replayed.

    Raises `TwinError`.
    """
    _check_path(inside)
    with tempfile.NamedTemporaryFile(prefix="brickless-disk-") as source:
        source.write(content)
        source.flush()
        for command in (f'rm "{inside}"', f'write "{source.name}" "{inside}"'):
            _debugfs(disk, command, "-w")
    if read(disk, inside) != content:
        raise TwinError(f"{disk}: {inside} could not be replaced")


def names(disk: Path, folder: str) -> list[str]:
    """The names in a folder, sorted; empty when there is none."""
    _check_path(folder)
    found = []
    for line in _debugfs(disk, f'ls -p "{folder}"').splitlines():
        # /inode/mode/uid/gid/name/size/
        fields = line.split("/")
        if len(fields) > 5 and fields[5] not in {"", ".", ".."} and fields[1] != "0":
            found.append(fields[5])
    return sorted(found)


def _debugfs(disk: Path, command: str, *options: str) -> str:
    argv = [process.require("debugfs", "e2fsprogs"), *options, "-R", command, str(disk)]
    done = process.run(argv, purpose="reading or changing a disk", timeout_s=TOOL_TIMEOUT_S)
    said = done.stderr.decode("utf-8", "replace")
    if "Filesystem not open" in said or "Bad magic number" in said:
        raise TwinError(f"{disk}: no ext4 file system: {said.strip()}")
    return done.stdout.decode("utf-8", "replace")


def _check_path(path: str) -> None:
    if any(character in path for character in '"\n\0'):
        raise TwinError(f"{path!r} cannot be named to debugfs")


def inode(disk: Path, inside: str) -> int | None:
    """The number of the inode that a path leads to, None when there is no such path."""
    _check_path(inside)
    found = re.search(r"^Inode: (\d+)", _debugfs(disk, f'stat "{inside}"'), re.MULTILINE)
    return int(found.group(1)) if found else None


def copy_sparse(source: Path, target: Path, *, offset: int = 0) -> None:
    """Copy a file from `offset` on, holes kept: images are mostly holes."""
    reader = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    writer = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(reader).st_size
        os.ftruncate(writer, size - offset)
        at = offset
        while (at := next_data(reader, at, size)) < size:
            end = os.lseek(reader, at, os.SEEK_HOLE)
            os.lseek(writer, at - offset, os.SEEK_SET)
            while at < end:
                # It writes at the target's own position, which moves with it.
                at += os.sendfile(writer, reader, at, end - at)
    finally:
        os.close(reader)
        os.close(writer)


def next_data(fd: int, at: int, size: int) -> int:
    """The first place from `at` on that is no hole, `size` when there is none."""
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError as error:
        # lseek(2): there is no data behind `at`.
        if error.errno == errno.ENXIO:
            return size
        raise


def equalise(source: Path, target: Path, *, offset: int = 0) -> None:
    """Make `target` the same as `source` from `offset` on, byte for byte, by writing only the pages that differ.

    Much faster than a copy where they differ little. Raises `ValueError` when the sizes do not fit.
    """
    reader, writer = os.open(source, os.O_RDONLY | os.O_CLOEXEC), os.open(target, os.O_RDWR | os.O_CLOEXEC)
    try:
        size = os.fstat(reader).st_size - offset
        if os.fstat(writer).st_size != size:
            raise ValueError(f"{target} is not as large as {source} from {offset} on")
        wanted, found = bytearray(BLOCK_BYTES), bytearray(BLOCK_BYTES)
        at = 0
        # Where both have a hole both have zeros.
        while (at := min(next_data(reader, at + offset, size + offset) - offset, next_data(writer, at, size))) < size:
            at -= at % BLOCK_BYTES
            os.preadv(reader, [wanted], at + offset)
            os.preadv(writer, [found], at)
            if wanted != found:
                _differing(writer, wanted, found, at, size)
            at += BLOCK_BYTES
    finally:
        os.close(reader)
        os.close(writer)


def _differing(writer: int, wanted: bytearray, found: bytearray, at: int, size: int) -> None:
    for begin in range(0, min(BLOCK_BYTES, size - at), PAGE_BYTES):
        part = wanted[begin : begin + min(PAGE_BYTES, size - at - begin)]
        if part != found[begin : begin + len(part)]:
            os.pwrite(writer, part, at + begin)
