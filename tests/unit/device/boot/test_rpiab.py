"""The Raspberry Pi's two boot partitions: the life of an update, and the power cut at every call that changes a
disk."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest

from brickless.core.errors import HostileInputError
from brickless.device.boot.rpiab import Rpiab, Slot, parse_autoboot, render_autoboot
from brickless.store.atomic import Files
from brickless.testkit.power_cut import PowerCutError


class FakeFirmware:
    """The board: a flag that a reset consumes and a power cut clears."""

    def __init__(self) -> None:
        self.asked = False
        self.tryboot = False

    def is_tryboot(self) -> bool:
        return self.tryboot

    def request_tryboot(self) -> None:
        self.asked = True

    def reset(self) -> None:
        self.tryboot, self.asked = self.asked, False

    def power_cut(self) -> None:
        self.tryboot = self.asked = False


class Pi:
    """A board with its partitions as folders; an image is a file beside each."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.firmware = FakeFirmware()
        for name in ("bootsel", "a", "b", "storage/boot", "storage/trails/4/.pv", "storage/trails/5/.pv"):
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "bootsel/autoboot.txt").write_bytes(render_autoboot(2, 3))
        (root / "a/pv_rev.txt").write_bytes(b"3".ljust(512))
        (root / "b/pv_rev.txt").write_bytes(b"2".ljust(512))
        (root / "a.img").write_bytes(b"image 3")
        (root / "b.img").write_bytes(b"image 2")
        (root / "storage/boot/rpiab.txt").write_bytes(b"pv_rev=3\0\0".ljust(512, b"\0"))
        (root / "storage/trails/4/.pv/rpiboot.img.gz").write_bytes(gzip.compress(b"image 4"))
        (root / "storage/trails/5/.pv/rpiboot.img").write_bytes(b"image 5")

    def boot(self, files: Files | None = None) -> Rpiab:
        slots = (
            Slot(2, str(self.root / "a"), str(self.root / "a.img")),
            Slot(3, str(self.root / "b"), str(self.root / "b.img")),
        )
        return Rpiab(str(self.root / "storage"), str(self.root / "bootsel"), slots, self.firmware, files or Files())

    def booted_image(self) -> bytes:
        """What the firmware starts now."""
        boot, tried = parse_autoboot((self.root / "bootsel/autoboot.txt").read_text())
        number = tried if self.firmware.tryboot else boot
        return (self.root / ("a.img" if number == 2 else "b.img")).read_bytes()

    def copy(self, root: Path) -> Pi:
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        other = Pi.__new__(Pi)
        other.root, other.firmware = root, FakeFirmware()
        other.firmware.tryboot = self.firmware.tryboot
        return other


def test_an_update_is_tried_once_and_committed(tmp_path: Path) -> None:
    pi = Pi(tmp_path)
    boot = pi.boot()
    boot.install("4")
    boot.set_try("4")
    boot.request_tryboot()
    pi.firmware.reset()
    assert pi.booted_image().startswith(b"image 4")
    assert pi.boot().read() == ("3", "4")
    pi.boot().commit("4")
    pi.firmware.reset()
    assert pi.booted_image().startswith(b"image 4")
    assert pi.boot().read() == ("4", "")
    pi.boot().install("5")
    assert (tmp_path / "a.img").read_bytes().startswith(b"image 5"), "the next one goes to the other partition"


def test_a_try_that_resets_falls_back_and_is_not_repeated(tmp_path: Path) -> None:
    pi = Pi(tmp_path)
    boot = pi.boot()
    boot.install("4")
    boot.set_try("4")
    boot.request_tryboot()
    pi.firmware.reset()
    pi.firmware.reset()
    assert pi.booted_image() == b"image 3"
    assert pi.boot().read() == ("3", "4"), "the boot that fell back sees that there was a try"
    pi.boot().fail()
    assert pi.boot().read() == ("3", "")


class CutFiles(Files):
    """Stops before the n-th call that changes a disk."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left

    def _count(self) -> None:
        if not self.left:
            raise PowerCutError
        self.left -= 1

    def write(self, fd: int, data: bytes | memoryview) -> int:
        self._count()
        return super().write(fd, data)

    def rename(self, source: str, target: str) -> None:
        self._count()
        super().rename(source, target)


def test_the_power_cut_at_every_write_leaves_old_or_new(tmp_path: Path) -> None:
    outcomes = set()
    for cut in range(40):
        pi = Pi(tmp_path / str(cut))
        files = CutFiles(cut)
        try:
            boot = pi.boot(files)
            boot.install("4")
            boot.set_try("4")
            boot.request_tryboot()
            pi.firmware.reset()
            pi.boot(files).commit("4")
        except PowerCutError:
            pi.firmware.power_cut()
        else:
            pi.firmware.reset()
            assert pi.boot().read() == ("4", "")
            assert outcomes == {"3", "4"}, "the cuts covered both sides of the commit"
            return
        rev = pi.boot().read().rev
        assert pi.booted_image().startswith(f"image {rev}".encode()), "what boots is what is said to be committed"
        outcomes.add(rev)
        # And it goes on from there: the same update works.
        boot = pi.boot()
        if boot.read().try_:
            boot.fail()
        if rev == "3":
            boot.install("4")
            boot.set_try("4")
            boot.request_tryboot()
            pi.firmware.reset()
            pi.boot().commit("4")
            assert pi.boot().read() == ("4", "")
    pytest.fail("the update never came to its end")


def test_revisions_with_the_same_boot_files_accumulate_up_to_a_sector(tmp_path: Path) -> None:
    boot = Pi(tmp_path).boot()
    count = 0
    while boot.accumulate(str(1000 + count)):
        count += 1
    assert count == (511 - 1) // 5
    assert len((tmp_path / "a/pv_rev.txt").read_bytes()) == 512


def test_a_revision_that_is_on_no_partition_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="on no boot partition"):
        Pi(tmp_path).boot().set_try("9")


@pytest.mark.parametrize(
    "text", ["", "[all]\nboot_partition=2\n", "boot_partition=x\n[tryboot]\nboot_partition=3", "\0" * 600]
)
def test_a_damaged_autoboot_is_refused(tmp_path: Path, text: str) -> None:
    pi = Pi(tmp_path)
    (tmp_path / "bootsel/autoboot.txt").write_text(text)
    with pytest.raises(HostileInputError):
        pi.boot().commit("4")


@pytest.mark.parametrize(
    "image", [b"", b"no gzip", gzip.compress(b"x" * 5000, mtime=0)[:-20]], ids=["empty", "no-gzip", "cut-off"]
)
def test_a_damaged_image_is_refused_before_anything_points_at_it(tmp_path: Path, image: bytes) -> None:
    pi = Pi(tmp_path)
    (tmp_path / "storage/trails/4/.pv/rpiboot.img.gz").write_bytes(image)
    with pytest.raises(HostileInputError):
        pi.boot().install("4")
    with pytest.raises(OSError, match="on no boot partition"):
        pi.boot().set_try("4")


def test_partitions_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    pi = Pi(tmp_path)
    (tmp_path / "bootsel/autoboot.txt").write_bytes(render_autoboot(5, 6))
    with pytest.raises(HostileInputError, match="names the partitions 5 and 6"):
        pi.boot().read()
