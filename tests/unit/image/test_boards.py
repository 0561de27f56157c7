"""Disk images: the partition table, what lies where, and that the same inputs give the same bytes."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from brickless.core import bootenv, canonical
from brickless.core.bootselect import FRESH
from brickless.core.errors import HostileInputError, UserError
from brickless.image import boards, bootscript, factory, fat, partitions
from brickless.image.bsp import Bsp
from brickless.store.objects import ObjectStore


def fill(objects: ObjectStore) -> bytes:
    return canonical.dumps(
        {
            "#spec": factory.SPEC,
            "bsp/kernel.img": objects.add([b"kernel"]),
            "bsp/pantavisor": objects.add([b"initramfs"]),
            "bsp/run.json": {"addons": [], "initrd": "pantavisor", "linux": "kernel.img"},
            "device.json": {"groups": factory.stock_groups()},
        }
    )


def image(tmp_path: Path, name: str = "disk.img", **options: object) -> Path:
    for file in ("kernel", "initrd", "addon"):
        (tmp_path / file).write_bytes(file.encode())
    bsp = Bsp(tmp_path / "kernel", tmp_path / "initrd", (("addon.cpio", tmp_path / "addon"),))
    chosen = boards.Options(size_mb=16)._replace(**options)
    boards.build(tmp_path / name, boards.board("virt-arm64"), folder=tmp_path, bsp=bsp, fill=fill, options=chosen)
    return tmp_path / name


def test_the_same_inputs_give_the_same_image(tmp_path: Path) -> None:
    first, second = (hashlib.sha256(image(tmp_path, name).read_bytes()).hexdigest() for name in ("a", "b"))
    assert first == second


def test_what_lies_where(tmp_path: Path) -> None:
    path = image(tmp_path)
    with path.open("rb") as disk:
        table = partitions.parse(disk.read(512))
        boot, data = table
        assert (boot.active, boot.kind, data.kind) == (True, partitions.FAT16_LBA, partitions.LINUX)
        assert data.offset_bytes + data.size_bytes == path.stat().st_size
        system = fat.Fat(disk, boot.offset_bytes)
        script = system.read("boot.scr") or b""
        assert script.startswith(bootscript.IMAGE_MAGIC.to_bytes(4, "big"))
        assert bootenv.parse((system.read("pv.env") or b"")[4:]) == FRESH
        assert system.read("rescue/kernel.img") == b"kernel"
        assert system.read("rescue/initrd.img") == b"initrd\0\0addon", "archives start at multiples of four"
        disk.seek(data.offset_bytes + 1024 + 56)
        assert disk.read(2) == b"\x53\xef", "an ext file system"


def test_the_environment_may_lie_on_the_boot_partition(tmp_path: Path) -> None:
    path = image(tmp_path, environment_on_boot=True)
    with path.open("rb") as disk:
        content = fat.Fat(disk, boards.GAP_BYTES).read("uboot.txt") or b""
    assert bootenv.parse(content) == {"pv_rev": "0", "pv_try": ""}
    assert len(content) == bootenv.SIZE_BYTES
    line = boards.command_line(boards.board("virt-arm64"), boards.Options(environment_on_boot=True))
    assert "PV_BOOTLOADER_ENV=fat:/dev/vda1:uboot.txt" in line


def test_the_bound_of_attempts_is_what_the_scripts_can_count_to(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="between 1 and 9"):
        image(tmp_path, max_attempts=10)
    for bound in (1, 9):
        assert f"-lt {bound}" in bootscript.uboot("", max_attempts=bound)
        assert f"-lt {bound}" in bootscript.grub("", max_attempts=bound)


def test_scripts_have_everything_filled_in() -> None:
    for script in (bootscript.uboot("quiet", max_attempts=3), bootscript.grub("quiet", max_attempts=3, watchdog_s=60)):
        assert "@" not in script
        assert "<<" not in script
        assert "quiet" in script


def test_the_gap_between_two_archives_is_cleared_before_it_is_skipped() -> None:
    """What a warm reset leaves in memory there would make the kernel drop every archive behind it."""
    (addon,) = (
        line for line in bootscript.uboot("", max_attempts=3).splitlines() if line.startswith("setenv pv_addon")
    )
    assert addon.index("mw.b ${pv_end} 0 4") < addon.index("setexpr pv_end ${pv_end} + 3")


@pytest.mark.needs("mkimage")
def test_u_boots_own_tool_knows_the_script(tmp_path: Path) -> None:
    path = tmp_path / "boot.scr"
    path.write_bytes(bootscript.uboot_image("echo hello\n"))
    tool = shutil.which("mkimage", path="/usr/bin")
    assert tool is not None
    done = subprocess.run([tool, "-l", str(path)], capture_output=True, text=True, check=True)
    assert "Script" in done.stdout
    assert "Verifying Checksum" not in done.stderr


def test_an_unknown_board_is_named_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="Known are pc, virt-arm64"):
        boards.board("toaster")


@pytest.mark.parametrize("sector", [b"", bytes(512), b"\xff" * 512])
def test_what_is_no_partition_table_is_refused(sector: bytes) -> None:
    with pytest.raises(HostileInputError):
        partitions.parse(sector)
