"""The checker of partitions: what our own store writes passes as a folder and as an image, and each fault is named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from brickless.core import bootenv, canonical
from brickless.core.canonical import JsonValue
from brickless.core.progress import Message, Progress, Status
from brickless.core.state import parse_state
from brickless.image import storage as image
from brickless.store.objects import ObjectStore
from brickless.store.trails import Storage
from brickless.testkit import storage_check
from brickless.testkit.bad_files import copy_tree


def fill(objects: ObjectStore) -> bytes:
    names = ("bsp/kernel.img", "bsp/pantavisor", "web/root.squashfs", "web/x.bind")
    entries: dict[str, JsonValue] = {name: objects.add([name.encode()]) for name in names}
    entries |= {
        "#spec": "pantavisor-service-system@1",
        "bsp/run.json": {"linux": "kernel.img", "initrd": "pantavisor", "addons": []},
        "device.json": {"groups": [{"name": "app"}]},
        "web/run.json": {"name": "web", "config": "c.json", "root-volume": "root.squashfs"},
        "web/c.json": {"a": 1},
    }
    return canonical.dumps(entries)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole") / "storage"
    image.populate(root, fill, {"PH_CREDS_HOST": "hub.example"})
    storage = Storage(str(root))
    for rev in ("3", "locals/mine"):
        storage.install(rev, parse_state(fill(storage.objects)))
        storage.write_progress(rev, Progress.of(Status.DONE, Message.DONE).to_json())
        storage.write_commit_message(rev, "what is new")
        storage.mark_done(rev)
    storage.set_current("3")
    (root / "boot/uboot.txt").write_bytes(bootenv.render({"pv_rev": "3", "pv_try": ""}).ljust(65536, b"\0"))
    (root / "logs/3").mkdir()
    (root / "logs/current").symlink_to("3")
    # A step that was refused, and what an interrupted download left.
    storage.write_state("4", b"no json")
    (root / f"objects/{'0' * 64}.part").write_bytes(b"begin")
    return root


def test_what_we_write_passes(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert storage_check.report_of(whole) == storage_check.Report(("0", "3", "4", "locals/mine"), 4, ())
    image.write_image(whole, tmp_path / "disk.img", 32)
    before = (tmp_path / "disk.img").read_bytes()
    assert storage_check.main([str(tmp_path / "disk.img"), str(whole)]) == 0
    assert capsys.readouterr().out.count("4 revisions, 4 objects: the layout holds") == 2
    assert (tmp_path / "disk.img").read_bytes() == before


def _other_object(root: Path) -> None:
    path = next(path for path in (root / "objects").iterdir() if path.name != "0" * 64 + ".part")
    path.write_bytes(b"other")


def _copy_for_a_link(root: Path) -> None:
    path = root / "trails/3/web/root.squashfs"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


def _relink(root: Path, target: str) -> None:
    (root / "trails/current").unlink()
    os.symlink(target, root / "trails/current")


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "strange name": (lambda root: (root / "extra").mkdir(), "extra: does not belong at the top"),
    "no boot": (lambda root: shutil.rmtree(root / "boot"), "boot/: is missing"),
    "no variables": (lambda root: (root / "boot/uboot.txt").unlink(), "variables of no bootloader"),
    "broken variables": (lambda root: (root / "boot/uboot.txt").write_bytes(b"pv_rev=3"), "do not end as"),
    "no pv_rev": (lambda root: (root / "boot/uboot.txt").write_bytes(b"pv_try=\0\0"), "no pv_rev is set"),
    "revision gone": (lambda root: shutil.rmtree(root / "trails/3"), "pv_rev names revision 3, which is not there"),
    "try gone": (
        lambda root: (root / "boot/uboot.txt").write_bytes(b"pv_rev=3\0pv_try=9\0\0"),
        "pv_try names revision 9, which is not there",
    ),
    "object": (_other_object, "hash to something else"),
    "object's name": (lambda root: (root / "objects/abc").write_bytes(b""), "objects/abc: is no object's name"),
    "copy": (_copy_for_a_link, "trails/3/web/root.squashfs: is no hard link"),
    "file gone": (lambda root: (root / "trails/3/web/root.squashfs").unlink(), "root.squashfs: is missing"),
    "json": (lambda root: (root / "trails/3/web/c.json").write_text("{}"), "c.json: says something else"),
    "more files": (lambda root: (root / "trails/3/web/more").write_text("x"), "web/more: is not in the state"),
    "boot link": (lambda root: (root / "trails/3/.pv/pv-kernel.img").unlink(), ".pv/pv-kernel.img: is missing"),
    "state": (lambda root: (root / "trails/3/.pvr/json").write_text("{}"), "trails/3/.pvr/json: "),
    "config": (lambda root: (root / "trails/3/.pvr/config").write_text("{}"), "where the objects are"),
    "progress": (lambda root: (root / "trails/3/.pv/progress").write_text("{"), "trails/3/.pv/progress: "),
    "marker": (lambda root: (root / "trails/3/.pv/done").write_text("x"), "is a marker"),
    "message": (lambda root: (root / "trails/3/.pv/commitmsg").write_text("x" * 257), "more than 256"),
    "strange marker": (lambda root: (root / "trails/3/.pv/x").write_text(""), ".pv/x: does not belong"),
    "name": (lambda root: (root / "trails/-x").mkdir(), "trails/-x: "),
    "current": (lambda root: _relink(root, "77"), "trails/current: leads to '77'"),
    "no current": (lambda root: (root / "trails/current").unlink(), "trails/current: is missing"),
    "logs": (lambda root: (root / "logs/12").mkdir(), "logs/12: belongs to no revision"),
}


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_each_fault_is_named(whole: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    break_it, words = FAULTS[name]
    copy_tree(str(whole), str(tmp_path / "storage"))
    break_it(tmp_path / "storage")
    assert storage_check.main([str(tmp_path / "storage")]) == 1
    assert words in capsys.readouterr().out


def test_what_is_no_partition(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "noise").write_bytes(bytes(1 << 20))
    assert storage_check.main([str(tmp_path / "noise")]) == 2
    assert storage_check.main([str(tmp_path / "missing")]) == 2
    assert storage_check.main([]) == 2
    assert "ext4" in capsys.readouterr().err
