"""Bytes written to flash, by the revision that wrote them."""

from __future__ import annotations

from pathlib import Path

import pytest

from brickless.device.link.flash import FlashWear


class Disk:
    def __init__(self) -> None:
        self.written = 1000

    def __call__(self, _: str) -> int:
        return self.written


def test_growth_belongs_to_the_revision_that_runs(tmp_path: Path) -> None:
    disk = Disk()
    wear = FlashWear(str(tmp_path), lambda _: None, disk)
    disk.written += 500
    assert wear.look("1") == {"1": 500}
    disk.written += 50
    assert wear.look("2") == {"1": 500, "2": 50}
    assert wear.look("1") == {"2": 50, "1": 500}


def test_sums_survive_a_boot_and_the_counter_s_fall_to_zero(tmp_path: Path) -> None:
    disk = Disk()
    wear = FlashWear(str(tmp_path), lambda _: None, disk)
    disk.written += 500
    wear.look("1")
    wear.save()
    disk.written = 0
    again = FlashWear(str(tmp_path), lambda _: None, disk)
    disk.written = 20
    assert again.look("1") == {"1": 520}
    disk.written = 10
    assert again.look("1") == {"1": 520}


def test_only_the_newest_ten_are_kept(tmp_path: Path) -> None:
    wear = FlashWear(str(tmp_path), lambda _: None, Disk())
    for rev in range(30):
        found = wear.look(str(rev))
    assert list(found) == [str(rev) for rev in range(20, 30)]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"1":"x"}', b"\xff"])
def test_a_broken_file_begins_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/flash-written.json").write_bytes(content)
    assert FlashWear(str(tmp_path), lambda _: None, Disk()).look("1") == {"1": 0}
