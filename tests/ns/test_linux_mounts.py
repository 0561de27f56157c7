"""Real mounts: loop devices from squashfs, binds, an unmount of a whole tree."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from brickless.linux import loop, mount

pytestmark = pytest.mark.needs("root")


@pytest.fixture
def squashfs(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    (source / "hello").write_text("world")
    image = tmp_path / "root.squashfs"
    subprocess.run(
        ["mksquashfs", str(source), str(image), "-quiet", "-noappend"], check=True, stdout=subprocess.DEVNULL
    )
    return image


def test_a_squashfs_is_mounted_by_a_loop_device_that_frees_itself(squashfs: Path, tmp_path: Path) -> None:
    target = str(tmp_path / "mounted")
    with loop.attach(str(squashfs)) as device:
        mount.mount(device, target, "squashfs", flags=1)
    try:
        assert Path(target, "hello").read_text() == "world"
        assert mount.is_mountpoint(target)
    finally:
        assert mount.unmount(target)
    backing = Path("/sys/block") / Path(device).name / "loop" / "backing_file"
    assert not backing.exists() or str(squashfs) not in backing.read_text()


def test_a_read_only_bind_of_a_file_cannot_be_written(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("a")
    target = str(tmp_path / "deep" / "target")
    mount.bind(str(source), target, read_only=True)
    try:
        with pytest.raises(OSError, match="Read-only") as caught:
            Path(target).write_text("b")
        assert caught.value.errno == errno.EROFS
    finally:
        mount.unmount(target)


def test_everything_beneath_a_folder_is_unmounted_even_when_busy(tmp_path: Path) -> None:
    root = str(tmp_path / "volumes")
    mount.mount("tmpfs", f"{root}/a", "tmpfs")
    mount.mount("tmpfs", f"{root}/a/b", "tmpfs")
    busy = os.open(f"{root}/a/b", os.O_RDONLY)
    try:
        assert mount.unmount_beneath(root) == [f"{root}/a/b", f"{root}/a"]
    finally:
        os.close(busy)
    assert not [target for target in mount.targets() if target.startswith(root)]


def test_unmounting_what_is_not_mounted_says_so(tmp_path: Path) -> None:
    assert mount.unmount(str(tmp_path)) is False
