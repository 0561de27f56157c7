"""The storage image: readable from outside, hard links kept, the same bytes every time, no root."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from brickless.core import bootenv, canonical
from brickless.core.errors import BricklessError
from brickless.image import cache, factory, storage
from brickless.store.objects import ObjectStore
from brickless.twin import disk


def fill(objects: ObjectStore) -> bytes:
    kernel = objects.add([b"kernel"])
    return canonical.dumps(
        {
            "#spec": factory.SPEC,
            "bsp/kernel.img": kernel,
            "bsp/pantavisor": objects.add([b"initramfs"]),
            "bsp/site.cpio": objects.add([b"site"]),
            "bsp/run.json": {"addons": ["site.cpio"], "initrd": "pantavisor", "linux": "kernel.img"},
            "device.json": {"groups": factory.stock_groups()},
        }
    )


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("storage") / "disk.img"
    storage.build(out, fill=fill, size_mb=16, config={"PH_CREDS_HOST": "10.0.2.100"})
    return out


def test_the_layout(image: Path) -> None:
    assert disk.check(image) == []
    state = disk.read(image, "trails/0/.pvr/json")
    assert state is not None
    assert canonical.dumps(canonical.loads(state)) == state
    assert disk.read(image, "trails/0/.pv/pv-kernel.img") == b"kernel"
    assert disk.read(image, "trails/0/.pv/pv-initrd.img") == b"initramfs"
    assert disk.read(image, "trails/0/.pv/pv-initrd.img.0") == b"site"
    assert disk.read(image, "trails/0/.pvr/config") == b'{"ObjectsDir":"/storage/objects"}'
    assert disk.read(image, "config/pantahub.config") == b"PH_CREDS_HOST=10.0.2.100\n"
    assert disk.read(image, "trails/0/.pv/done") == b""
    environment = disk.read(image, "boot/uboot.txt")
    assert environment is not None
    assert len(environment) == bootenv.SIZE_BYTES
    assert bootenv.choose(bootenv.parse(environment), "").rev == "0"
    assert disk.read(image, "trails/1/.pvr/json") is None
    assert "objects" in disk.names(image, "/")


def test_an_object_and_its_place_in_the_revision_are_one_file(image: Path) -> None:
    sha = hashlib.sha256(b"kernel").hexdigest()
    inodes = {
        disk.inode(image, path) for path in (f"objects/{sha}", "trails/0/bsp/kernel.img", "trails/0/.pv/pv-kernel.img")
    }
    assert len(inodes) == 1
    assert None not in inodes


def test_the_same_bytes_every_time(image: Path, tmp_path: Path) -> None:
    second = int(time.time())
    while int(time.time()) == second:  # another second, so that a clock in the image would show
        pass
    storage.build(tmp_path / "again.img", fill=fill, size_mb=16, config={"PH_CREDS_HOST": "10.0.2.100"})
    assert hashlib.sha256(image.read_bytes()).digest() == hashlib.sha256((tmp_path / "again.img").read_bytes()).digest()


def test_a_state_without_bsp_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BricklessError, match="bsp"):
        storage.build(tmp_path / "disk.img", fill=lambda _: canonical.dumps({"#spec": factory.SPEC}), size_mb=16)


def test_what_does_not_fit_is_an_error(tmp_path: Path) -> None:
    def large(objects: ObjectStore) -> bytes:
        objects.add([bytes([number % 251]) * 65536 for number in range(400)])
        return fill(objects)

    with pytest.raises(OSError, match="making a storage image of 16 MB failed"):
        storage.build(tmp_path / "disk.img", fill=large, size_mb=16)


def test_an_artefact_is_made_once_and_never_half(tmp_path: Path) -> None:
    made: list[Path] = []

    def broken(out: Path) -> None:
        out.write_bytes(b"half")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        cache.artefact(tmp_path, "one", broken)
    assert not (tmp_path / "one").exists()

    def make(out: Path) -> None:
        made.append(out)
        out.write_bytes(b"whole")

    for _ in range(2):
        assert cache.artefact(tmp_path, "one", make).read_bytes() == b"whole"
    assert len(made) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "one"]


def test_a_digest_changes_with_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = cache.digest([tmp_path / "a"], tmp_path)
    (tmp_path / "a").write_text("2")
    assert cache.digest([tmp_path / "a"], tmp_path) != first
