"""The board's bootloader on real disks: which revision it picks, what it remembers, when it gives up."""

from __future__ import annotations

from pathlib import Path

import pytest

from brickless.core import bootenv, canonical
from brickless.image import factory, storage
from brickless.linux import process
from brickless.store.objects import ObjectStore
from brickless.twin.errors import TwinError
from brickless.twin.firmware import Firmware


def fill(objects: ObjectStore) -> bytes:
    return canonical.dumps(
        {
            "#spec": factory.SPEC,
            "bsp/kernel.img": objects.add([b"kernel"]),
            "bsp/pantavisor": objects.add([b"initramfs"]),
            "bsp/site.cpio": objects.add([b"site"]),
            "bsp/run.json": {"addons": ["site.cpio"], "initrd": "pantavisor", "linux": "kernel.img"},
            "device.json": {"groups": factory.stock_groups()},
        }
    )


@pytest.fixture
def firmware(tmp_path: Path) -> Firmware:
    storage.build(tmp_path / "disk.img", fill=fill, size_mb=16)
    return Firmware(tmp_path / "disk.img", tmp_path / "pv_trying", tmp_path / "boot", options="quiet")


def put(image: Path, inside: str, content: bytes) -> None:
    """Write a file into the disk from outside, as a runtime that is no longer there would have."""
    source = image.parent / "source"
    source.write_bytes(content)
    folders = inside.split("/")[:-1]
    commands = [f"mkdir {'/'.join(folders[: depth + 1])}" for depth in range(len(folders))]
    script = image.parent / "script"
    script.write_text("\n".join([*commands, f"rm {inside}", f"write {source} {inside}"]) + "\n")
    process.run(["debugfs", "-w", "-f", str(script), str(image)], purpose="writing into a disk", timeout_s=60)


def environment(firmware: Firmware, **variables: str) -> None:
    put(firmware.image, "boot/uboot.txt", bootenv.render(variables).ljust(bootenv.SIZE_BYTES, b"\0"))


def bootable(firmware: Firmware, rev: str) -> None:
    put(firmware.image, f"trails/{rev}/.pv/pv-kernel.img", f"kernel {rev}".encode())
    put(firmware.image, f"trails/{rev}/.pv/pv-initrd.img", f"initramfs {rev}".encode())


def test_the_factory_revision(firmware: Firmware) -> None:
    selected = firmware.select()
    assert (selected.rev, selected.attempt, selected.fell_back) == ("0", 0, False)
    assert selected.boot.kernel.read_bytes() == b"kernel"
    assert selected.boot.initrd.read_bytes() == b"initramfs\0\0\0site", "archives start at multiples of four"
    assert selected.boot.command_line.endswith("quiet pv_rev=0 pv_try=")
    assert "rdinit=/usr/bin/pantavisor" in selected.boot.command_line


def test_a_trial_is_booted_once_and_then_never_again(firmware: Firmware) -> None:
    bootable(firmware, "7")
    environment(firmware, pv_rev="0", pv_try="7")
    selected = firmware.select()
    assert (selected.rev, selected.attempt) == ("7", 1)
    assert selected.boot.kernel.read_bytes() == b"kernel 7"
    assert selected.boot.command_line.endswith("pv_rev=7 pv_try=7")
    for _ in range(2):
        selected = firmware.select()
        assert (selected.rev, selected.fell_back) == ("0", True)
        assert selected.boot.command_line.endswith("pv_rev=0 pv_try=7"), "the runtime learns which trial failed"


def test_a_committed_revision(firmware: Firmware) -> None:
    bootable(firmware, "7")
    environment(firmware, pv_rev="7", pv_try="")
    assert firmware.select().rev == "7"
    assert firmware.trying() == ""


def test_a_trial_without_files_has_used_up_its_attempt(firmware: Firmware) -> None:
    environment(firmware, pv_rev="0", pv_try="9")
    selected = firmware.select()
    assert (selected.rev, selected.fell_back) == ("0", True)


def test_who_cannot_be_loaded_is_followed_by_the_one_before_and_the_factory(firmware: Firmware) -> None:
    environment(firmware, pv_rev="8", pv_try="", pv_prev="7")
    assert firmware.select().rev == "0"
    bootable(firmware, "7")
    selected = firmware.select()
    assert (selected.rev, selected.fell_back) == ("7", True)


def test_a_board_with_nothing_to_boot_says_so(firmware: Firmware) -> None:
    environment(firmware, pv_rev="8", pv_try="")
    process.run(
        ["debugfs", "-w", "-R", "rm trails/0/.pv/pv-kernel.img", str(firmware.image)], purpose="breaking", timeout_s=60
    )
    with pytest.raises(TwinError, match="nothing to boot: revision 8 has no kernel"):
        firmware.select()


def test_a_disk_without_a_file_system_says_so(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    with pytest.raises(TwinError, match="journal cannot be replayed"):
        Firmware(tmp_path / "disk.img", tmp_path / "memory", tmp_path / "boot").select()
