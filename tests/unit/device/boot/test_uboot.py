"""The bootloader's variables on the disk, and what a power cut between two writes leads to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from brickless.core import bootenv
from brickless.core.errors import HostileInputError
from brickless.device.boot.backend import backend
from brickless.device.boot.uboot import UBoot


def stored(root: Path) -> dict[str, str]:
    return bootenv.parse((root / "boot" / "uboot.txt").read_bytes())


def test_a_device_without_the_file_runs_the_factory_revision(tmp_path: Path) -> None:
    assert UBoot(str(tmp_path)).read() == ("0", "")


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"pv_rev", b"\0\0", b"=\0\0"])
def test_a_damaged_file_reads_as_the_factory_revision(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot" / "uboot.txt").write_bytes(content)
    assert UBoot(str(tmp_path)).read() == ("0", "")


def test_a_try_is_asked_for_and_committed(tmp_path: Path) -> None:
    boot = UBoot(str(tmp_path))
    boot.set_try("7")
    assert boot.read() == ("0", "7")
    boot.commit("7")
    assert boot.read() == ("7", "")


def test_a_failed_try_leaves_the_committed_revision(tmp_path: Path) -> None:
    boot = UBoot(str(tmp_path))
    boot.commit("3")
    boot.set_try("4")
    boot.fail()
    assert boot.read() == ("3", "")


def test_the_file_has_the_size_that_bootloaders_read_and_keeps_what_others_wrote(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot" / "uboot.txt").write_bytes(b"pv_rev=0\0board=x1\0\0")
    UBoot(str(tmp_path)).set_try("1")
    assert os.path.getsize(tmp_path / "boot" / "uboot.txt") == 65536
    assert stored(tmp_path)["board"] == "x1"


def test_a_second_request_for_the_same_revision_is_a_new_one(tmp_path: Path) -> None:
    boot = UBoot(str(tmp_path))
    boot.set_try("1")
    first = bootenv.choose(stored(tmp_path), "")
    assert bootenv.choose(stored(tmp_path), first.trying).fell_back
    boot.set_try("1")
    assert bootenv.choose(stored(tmp_path), first.trying).rev == "1"


@pytest.mark.parametrize("rev", ["", "../x", "1/2", "locals/a/b"])
def test_a_name_that_is_no_revision_is_refused(tmp_path: Path, rev: str) -> None:
    with pytest.raises(HostileInputError):
        UBoot(str(tmp_path)).set_try(rev)


def test_a_bootloader_that_we_cannot_drive_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="PV_BOOTLOADER_TYPE=lilo"):
        backend("lilo", str(tmp_path))
    assert isinstance(backend("uboot", str(tmp_path)), UBoot)
