"""The archive of an initramfs, read back by a reader of its own."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.image.cpio import Archive


def read(data: bytes) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    """Every member: path -> (mode, content, device number). Fails on what the kernel's unpacker would not take."""
    found: dict[str, tuple[int, bytes, tuple[int, int]]] = {}
    position = 0
    while True:
        assert data[position : position + 6] == b"070701"
        fields = [int(data[position + 6 + 8 * i : position + 14 + 8 * i], 16) for i in range(13)]
        _, mode, uid, gid, _, mtime, size, _, _, major, minor, length, check = fields
        assert (uid, gid, mtime, check) == (0, 0, 0, 0)
        name = data[position + 110 : position + 110 + length - 1].decode()
        position = (position + 110 + length + 3) // 4 * 4
        if name == "TRAILER!!!":
            assert len(data) % 512 == 0
            assert not data[position:].strip(b"\0")
            return found
        assert name not in found
        found[name] = (mode, data[position : position + size], (major, minor))
        position = (position + size + 3) // 4 * 4


def test_every_kind_of_member(tmp_path: Path) -> None:
    source = tmp_path / "python"
    source.write_bytes(b"binary" * 1000)
    archive = Archive()
    archive.file("usr/bin/python3", source, 0o755)
    archive.file("etc/hosts", b"127.0.0.1 localhost\n")
    archive.symlink("bin", "usr/bin")
    archive.device("dev/console", 5, 1)
    archive.directory("tmp", 0o1777)
    members = read(b"".join(archive.chunks()))
    assert members["usr/bin/python3"] == (stat.S_IFREG | 0o755, b"binary" * 1000, (0, 0))
    assert members["etc/hosts"][1] == b"127.0.0.1 localhost\n"
    assert members["bin"][:2] == (stat.S_IFLNK | 0o777, b"usr/bin")
    assert members["dev/console"] == (stat.S_IFCHR | 0o600, b"", (5, 1))
    assert members["tmp"][0] == stat.S_IFDIR | 0o1777
    assert list(members) == sorted(members)
    for path in members:
        assert "/" not in path or path.rpartition("/")[0] in members, "a folder comes before what is in it"


@pytest.mark.parametrize("path", ["", "/etc", "../etc", "a/../b", "a//b", "a/.", "a\0b"])
def test_a_path_that_leaves_the_archive_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="no path inside an archive"):
        Archive().file(path, b"")


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.binary(max_size=50), max_size=8))
def test_the_order_of_adding_does_not_matter(files: dict[str, bytes]) -> None:
    forward, backward = Archive(), Archive()
    for name, content in files.items():
        forward.file(name, content)
    for name in reversed(files):
        backward.file(name, files[name])
    data = b"".join(forward.chunks())
    assert data == b"".join(backward.chunks())
    assert {name: member[1] for name, member in read(data).items()} == files


def test_a_file_that_shrinks_while_it_is_packed_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "log"
    source.write_bytes(b"x" * (3 << 20))
    archive = Archive()
    archive.file("log", source)
    chunks = archive.chunks()
    next(chunks)
    next(chunks)
    source.write_bytes(b"")
    with pytest.raises(OSError, match="became shorter"):
        list(chunks)
