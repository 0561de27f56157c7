"""Every place that a bootloader's variables may lie in: read back, hostile bytes, and each way a cut may end a
write."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.core.errors import HostileInputError
from brickless.device.boot import grub
from brickless.device.boot.backend import backend, record
from brickless.device.boot.grub import Grub
from brickless.device.boot.uboot import FatRecord, RawRecord, UBoot
from brickless.device.boot.variables import Variables
from brickless.store.atomic import Files
from brickless.testkit.power_cut import PowerCutError

SIZE = 0x1000
OLD, NEW = {"pv_rev": "3", "pv_try": ""}, {"pv_rev": "4", "pv_try": ""}


class Torn(Files):
    """Writes only the first `keep_bytes` of everything, then the power is gone."""

    __slots__ = ("keep_bytes",)

    def __init__(self, keep_bytes: int) -> None:
        self.keep_bytes = keep_bytes

    def write(self, fd: int, data: bytes | memoryview) -> int:
        super().write(fd, memoryview(data)[: self.keep_bytes])
        raise PowerCutError


def raw(path: Path, files: Files | None = None) -> RawRecord:
    if not path.exists():
        path.write_bytes(b"\xff" * 4 * SIZE)
    return RawRecord(((str(path), SIZE), (str(path), 3 * SIZE)), SIZE, files or Files())


def test_the_redundant_environment_takes_turns(tmp_path: Path) -> None:
    path = tmp_path / "env"
    assert raw(path).load() == {}
    flags = []
    for rev in range(1, 600):
        raw(path).store({"pv_rev": str(rev)})
        assert raw(path).load() == {"pv_rev": str(rev)}
        flags.append((path.read_bytes()[SIZE + 4], path.read_bytes()[3 * SIZE + 4]))
    assert flags[0] == (255, 1)
    assert flags[1] == (2, 1)
    assert flags[-1] in {(86, 87), (88, 87)}, "the flag counts modulo 256"


@pytest.mark.parametrize("keep", [0, 1, 4, 5, 100, 511, 512, SIZE - 1])
def test_a_torn_write_of_the_redundant_environment_leaves_the_old_one(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "env"
    for _ in range(3):
        raw(path).store(OLD)
    with pytest.raises(PowerCutError):
        raw(path, Torn(keep)).store(NEW)
    assert raw(path).load() in (OLD, NEW)
    raw(path).store(NEW)
    assert raw(path).load() == NEW


def test_neither_copy_sound_reads_as_the_factory_revision(tmp_path: Path) -> None:
    assert UBoot(str(tmp_path), raw(tmp_path / "env")).read() == ("0", "")


@pytest.mark.needs("fw-printenv")
def test_u_boots_own_tool_reads_what_we_wrote(tmp_path: Path) -> None:
    path = tmp_path / "env"
    record_ = raw(path)
    record_.store(OLD)
    record_.store({**NEW, "pv_serial": "7"})
    config = tmp_path / "fw_env.config"
    config.write_text(f"{path} {SIZE:#x} {SIZE:#x}\n{path} {3 * SIZE:#x} {SIZE:#x}\n")
    tool = shutil.which("fw_printenv", path="/usr/bin:/usr/sbin:/sbin")
    assert tool is not None
    done = subprocess.run([tool, "-c", str(config)], capture_output=True, text=True, check=True)
    assert "pv_rev=4" in done.stdout.splitlines()
    assert "pv_serial=7" in done.stdout.splitlines()


def test_more_than_the_environment_holds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="the environment has"):
        raw(tmp_path / "env").store({"big": "x" * SIZE})
    with pytest.raises(ValueError, match="between 7"):
        RawRecord((("a", 0), ("a", 8)), 5)


def test_the_block_of_grub_is_1024_bytes_and_changes_in_its_first_sector(tmp_path: Path) -> None:
    boot = Grub(str(tmp_path))
    boot.commit("3")
    before = (tmp_path / "boot/grubenv").read_bytes()
    boot.set_try("locals/a-rather-long-name-of-a-revision")
    after = (tmp_path / "boot/grubenv").read_bytes()
    assert len(before) == len(after) == 1024
    assert before.startswith(grub.HEADER)
    assert before[512:] == after[512:] == b"#" * 512
    assert boot.read() == ("3", "locals/a-rather-long-name-of-a-revision")


@pytest.mark.needs("grub-editenv")
def test_grubs_own_tool_reads_and_writes_the_block(tmp_path: Path) -> None:
    boot = Grub(str(tmp_path))
    boot.set_try("4")
    path = str(tmp_path / "boot/grubenv")
    tool = shutil.which("grub-editenv", path="/usr/bin:/usr/sbin:/sbin")
    assert tool is not None
    listed = subprocess.run([tool, path, "list"], capture_output=True, text=True, check=True)
    assert "pv_try=4" in listed.stdout.splitlines()
    subprocess.run([tool, path, "set", "pv_rev=4", "pv_try="], check=True)
    assert boot.read() == ("4", "")


@pytest.mark.parametrize("keep", [0, 1, 100, 511])
@pytest.mark.parametrize("kind", ["uboot", "grub"])
def test_sectors_are_old_or_new_so_records_are(tmp_path: Path, kind: str, keep: int) -> None:
    """A disk writes a sector or does not: what a cut keeps of the write is all of the old one, or all of the new
    one."""

    def loader(files: Files) -> Variables:
        return Grub(str(tmp_path), files) if kind == "grub" else UBoot(str(tmp_path), files=files)

    loader(Files()).commit("3")
    path = next((tmp_path / "boot").iterdir())
    old = path.read_bytes()
    with pytest.raises(PowerCutError):
        loader(Torn(keep)).commit("4")
    path.write_bytes(old)
    assert loader(Files()).read().rev == "3"
    loader(Files()).commit("4")
    assert path.read_bytes()[512:] == old[512:]
    assert loader(Files()).read().rev == "4"


def test_the_life_of_a_try(tmp_path: Path) -> None:
    for loader in (Grub(str(tmp_path)), UBoot(str(tmp_path)), UBoot(str(tmp_path), raw(tmp_path / "env"))):
        loader.commit("3")
        loader.set_try("4")
        assert loader.read() == ("3", "4")
        loader.give_up()
        assert loader.read() == ("3", "4"), "the boot that falls back must see that there was a try"
        loader.fail()
        assert loader.read() == ("3", "")
        loader.confirm("2")
        loader.confirm("")
        assert loader.read() == ("3", "")


@given(st.binary(max_size=2000))
def test_any_bytes_are_no_reason_to_stop(data: bytes) -> None:
    assert isinstance(grub.parse(data), dict)
    assert isinstance(grub.parse(grub.HEADER + data), dict)


@pytest.mark.parametrize("value", ["a\\b", "a\nb"])
def test_what_grub_would_read_differently_is_refused(value: str) -> None:
    with pytest.raises(HostileInputError):
        grub.render({"pv_x": value})


def test_the_environment_is_named_in_the_configuration() -> None:
    assert isinstance(record("fat:/dev/vda1:uboot.txt"), FatRecord)
    assert isinstance(record("raw:/dev/vda:0x10000:0x20000:4096"), RawRecord)
    for bad in ("", "fat:", "fat:/dev/vda1", "raw:/dev/vda:1:2", "raw:/dev/vda:a:b:c", "ftp:x:y"):
        with pytest.raises(ValueError):  # noqa: PT011 - what int() says of a number is its own message
            record(bad)
    assert isinstance(backend("grub", "/nowhere"), Grub)


def test_the_layout_of_the_redundant_environment(tmp_path: Path) -> None:
    path = tmp_path / "env"
    raw(path).store(OLD)
    copy = path.read_bytes()[3 * SIZE : 4 * SIZE]
    assert struct.unpack("<I", copy[:4])[0] == zlib.crc32(copy[5:])
    assert copy[5:].startswith(b"pv_rev=3\0")
    assert os.path.getsize(path) == 4 * SIZE
