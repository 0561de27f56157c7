"""The judge on real ext4 images: a sound disk passes, and each kind of damage is named."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from brickless.core import bootenv, canonical
from brickless.image import factory, storage
from brickless.linux import process
from brickless.store.objects import ObjectStore
from brickless.testkit.crashlab.judge import Expected, judge

KERNEL = hashlib.sha256(b"kernel").hexdigest()
EXPECTED = Expected(frozenset({"0"}), {"config/pantahub.config": frozenset({b"PH_CREDS_HOST=hub\n"})})


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


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("judge") / "disk.img"
    storage.build(out, fill=fill, size_mb=16, config={"PH_CREDS_HOST": "hub"})
    return out


@pytest.fixture
def image(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(sound, tmp_path / "disk.img"))


def debugfs(image: Path, *commands: str) -> None:
    script = "".join(f"{one}\n" for one in commands).encode()
    process.run(["debugfs", "-w", "-f", "-", str(image)], purpose="damaging a disk", timeout_s=60, input=script)


def put(image: Path, inside: str, content: bytes) -> None:
    source = image.with_name("source")
    source.write_bytes(content)
    debugfs(image, f"rm {inside}", f"write {source} {inside}")


def environment(**variables: str) -> bytes:
    return bootenv.render(variables).ljust(bootenv.SIZE_BYTES, b"\0")


def test_a_sound_disk_is_good(image: Path) -> None:
    verdict = judge(image, EXPECTED)
    assert verdict.faults == ()
    assert verdict.boots == ("0",)


def test_a_missing_object_is_named(image: Path) -> None:
    debugfs(image, f"rm objects/{KERNEL}")
    assert f"object {KERNEL} is missing" in judge(image, EXPECTED).faults


def test_a_truncated_object_is_named(image: Path) -> None:
    put(image, f"objects/{KERNEL}", b"ker")
    assert any(f"object {KERNEL} is broken" in fault for fault in judge(image, EXPECTED).faults)


def test_a_kernel_that_is_not_the_revisions_own_is_named(image: Path) -> None:
    put(image, "trails/0/.pv/pv-kernel.img", b"other")
    assert "revision 0: .pv/pv-kernel.img is not the object that its state names" in judge(image, EXPECTED).faults


def test_a_missing_addon_of_the_initramfs_is_named(image: Path) -> None:
    debugfs(image, "rm trails/0/.pv/pv-initrd.img.0")
    assert any("no .pv/pv-initrd.img.0" in fault for fault in judge(image, EXPECTED).faults)


def test_a_state_that_does_not_parse_is_named(image: Path) -> None:
    put(image, "trails/0/.pvr/json", b'{"#spec":')
    assert any("revision 0 has no state" in fault for fault in judge(image, EXPECTED).faults)


def test_a_missing_environment_is_named(image: Path) -> None:
    debugfs(image, "rm boot/uboot.txt")
    assert any("boot/uboot.txt is missing" in fault for fault in judge(image, EXPECTED).faults)


@pytest.mark.parametrize("content", [b"", bytes(bootenv.SIZE_BYTES), b"garbage"])
def test_an_environment_without_a_revision_is_named(image: Path, content: bytes) -> None:
    put(image, "boot/uboot.txt", content)
    assert any("no pv_rev" in fault for fault in judge(image, EXPECTED).faults)


def test_a_revision_that_the_case_does_not_allow_is_named(image: Path) -> None:
    put(image, "boot/uboot.txt", environment(pv_rev="7", pv_try=""))
    assert any("revision 7 may be booted" in fault for fault in judge(image, EXPECTED).faults)


def test_a_try_needs_a_whole_revision_and_a_way_back(image: Path) -> None:
    put(image, "boot/uboot.txt", environment(pv_rev="0", pv_try="1"))
    verdict = judge(image, EXPECTED._replace(revisions=frozenset({"0", "1"})))
    assert verdict.boots == ("1", "0")
    assert any("revision 1 has no state" in fault for fault in verdict.faults)
    assert not any("revision 0" in fault for fault in verdict.faults)


def test_a_revision_that_is_done_before_it_is_committed_is_named(image: Path) -> None:
    put(image, "boot/uboot.txt", environment(pv_rev="0", pv_try="1"))
    debugfs(image, "mkdir trails/1", "mkdir trails/1/.pv", "write /dev/null trails/1/.pv/done")
    verdict = judge(image, EXPECTED._replace(revisions=frozenset({"0", "1"})))
    assert "revision 1 is marked done while the bootloader only tries it" in verdict.faults


def test_a_file_of_the_user_that_changed_or_went_is_named(image: Path) -> None:
    put(image, "config/pantahub.config", b"PH_CREDS_H")
    assert any("config/pantahub.config is 10 bytes" in fault for fault in judge(image, EXPECTED).faults)
    debugfs(image, "rm config/pantahub.config")
    assert "config/pantahub.config is missing" in judge(image, EXPECTED).faults


def test_a_file_system_that_does_not_recover_is_named(image: Path) -> None:
    with image.open("r+b") as stream:
        stream.seek(1024)
        stream.write(bytes(1024))
    verdict = judge(image, EXPECTED)
    assert "the file system does not recover" in verdict.faults[0]
    assert verdict.boots == ()


def test_damage_that_a_mount_would_not_mend_is_a_fault(image: Path) -> None:
    debugfs(image, f"clri objects/{KERNEL}")
    assert any("the file system does not recover" in fault for fault in judge(image, EXPECTED).faults)
