"""Records replaced in place: one sector or a new file, and every way in which a power cut may end the write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from brickless.store import sector
from brickless.store.atomic import Files
from brickless.testkit.power_cut import PowerCutError


class Recorder(Files):
    """Notes each call by its name, and stops before the `stop_before`-th write."""

    __slots__ = ("calls",)

    def __init__(self) -> None:
        self.calls: list[str] = []

    def write(self, fd: int, data: bytes | memoryview) -> int:
        self.calls.append(f"write {len(data)} at {os.lseek(fd, 0, os.SEEK_CUR)}")
        return super().write(fd, data)

    def rename(self, source: str, target: str) -> None:
        self.calls.append("rename")
        super().rename(source, target)

    def fsync(self, fd: int) -> None:
        self.calls.append("fsync")
        super().fsync(fd)


def test_a_change_of_the_first_sector_is_one_write_and_one_flush(tmp_path: Path) -> None:
    path = tmp_path / "record"
    path.write_bytes(b"old".ljust(4096, b"\0"))
    inode = path.stat().st_ino
    files = Recorder()
    assert sector.replace(str(path), b"new".ljust(4096, b"\0"), files=files)
    assert files.calls == ["write 512 at 0", "fsync"]
    assert path.stat().st_ino == inode, "the file may not move: a bootloader finds it by old metadata"
    assert path.read_bytes() == b"new".ljust(4096, b"\0")


@pytest.mark.parametrize("old", [None, b"", b"short", b"x" * 4096, b"y" * 5000])
def test_anything_else_is_a_new_file_by_a_rename(tmp_path: Path, old: bytes | None) -> None:
    path = tmp_path / "record"
    if old is not None:
        path.write_bytes(old)
    files = Recorder()
    assert not sector.replace(str(path), b"new".ljust(4096, b"\0"), files=files)
    assert "rename" in files.calls
    assert path.read_bytes() == b"new".ljust(4096, b"\0")


def test_the_same_record_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "record"
    path.write_bytes(b"same")
    files = Recorder()
    assert sector.replace(str(path), b"same", files=files)
    assert not files.calls


def test_a_cut_before_the_write_leaves_the_old_record(tmp_path: Path) -> None:
    class Cut(Files):
        __slots__ = ()

        def write(self, fd: int, data: bytes | memoryview) -> int:
            raise PowerCutError

    path = tmp_path / "record"
    path.write_bytes(b"old".ljust(1024, b"#"))
    with pytest.raises(PowerCutError):
        sector.replace(str(path), b"new".ljust(1024, b"#"), files=Cut())
    assert path.read_bytes() == b"old".ljust(1024, b"#")


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"old".ljust(1024, b"#"))
    (tmp_path / "record").symlink_to("elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        sector.replace(str(tmp_path / "record"), b"new".ljust(1024, b"#"))
