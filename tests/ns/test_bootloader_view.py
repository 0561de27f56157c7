"""What a bootloader sees of a mounted file system: it knows no journal. Real ext4 on a loop device, read beside it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from brickless.core import bootenv
from brickless.device.boot.grub import Grub, parse
from brickless.device.boot.uboot import UBoot
from brickless.linux import journal, loop, mount
from brickless.store import atomic
from brickless.twin import disk

pytestmark = pytest.mark.needs("root")


class Mounted(NamedTuple):
    """An image, and where it is mounted."""

    image: Path
    root: Path

    def seen(self, inside: str) -> bytes | None:
        """A file as who reads the device without the journal sees it."""
        return disk.read(self.image, inside)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Mounted]:
    image, root = tmp_path / "storage.img", tmp_path / "mounted"
    with image.open("wb") as stream:
        stream.truncate(32 << 20)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", str(image)], check=True)
    with loop.attach(str(image), read_only=False) as device:
        mount.mount(device, str(root), "ext4")
    try:
        yield Mounted(image, root)
    finally:
        mount.unmount(str(root))


def test_a_rename_that_is_durable_is_not_visible_until_the_journal_is_written_out(storage: Mounted) -> None:
    atomic.write_file(str(storage.root / "revision"), b"kernel")
    assert storage.seen("revision") is None, "else this test shows nothing"
    assert journal.checkpoint(str(storage.root))
    assert storage.seen("revision") == b"kernel"


def test_a_revision_is_visible_before_the_bootloader_is_told_of_it(storage: Mounted) -> None:
    for boot, name in ((Grub(str(storage.root)), "grubenv"), (UBoot(str(storage.root)), "uboot.txt")):
        boot.commit("1")
        atomic.write_file(str(storage.root / f"kernel-for-{name}"), b"kernel")
        boot.set_try("2")
        assert storage.seen(f"kernel-for-{name}") == b"kernel"
        data = storage.seen(f"boot/{name}") or b""
        variables = parse(data) if name == "grubenv" else bootenv.parse(data)
        assert (variables["pv_rev"], variables["pv_try"]) == ("1", "2")


def test_a_change_in_place_is_visible_at_once(storage: Mounted) -> None:
    boot = Grub(str(storage.root))
    boot.commit("1")
    for rev in ("2", "3", "4"):
        boot.commit(rev)
        assert parse(storage.seen("boot/grubenv") or b"")["pv_rev"] == rev


def test_other_file_systems_are_written_out_and_said_to_have_no_such_journal(tmp_path: Path) -> None:
    root = tmp_path / "memory"
    mount.mount("tmpfs", str(root), "tmpfs")
    try:
        assert not journal.checkpoint(str(root))
    finally:
        mount.unmount(str(root))
