"""The device's storage: install, verify and mend, garbage; what a power cut leaves is installable again."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from brickless.core.errors import HostileInputError
from brickless.core.state import State, parse_state
from brickless.store import atomic
from brickless.store.trails import Storage, boot_links
from brickless.testkit.power_cut import PowerCutError, PowerCutFiles

CONTENTS = {
    "bsp/kernel.img": b"kernel",
    "bsp/pantavisor": b"initrd",
    "bsp/addon.cpio": b"addon",
    "web/root.squashfs": b"squash" * 100,
    "web/lxc.container.conf": b"lxc.init.cmd = /init\n",
}
RUN = {"#spec": "service-manifest-run@1", "name": "web", "type": "lxc", "config": "lxc.container.conf",
       "root-volume": "root.squashfs", "volumes": [], "storage": {}}  # fmt: skip
BSP = {"linux": "kernel.img", "initrd": "pantavisor", "addons": ["addon.cpio"]}


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_state(contents: dict[str, bytes] = CONTENTS, **jsons: object) -> State:
    entries: dict[str, object] = {"#spec": "pantavisor-service-system@1", "web/run.json": RUN, "bsp/run.json": BSP}
    entries |= {path: sha(data) for path, data in contents.items()}
    entries |= jsons
    return parse_state(json.dumps(entries, sort_keys=True, separators=(",", ":")).encode())


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = Storage(str(tmp_path / "S"))
    storage.prepare()
    for data in CONTENTS.values():
        storage.objects.add([data])
    return storage


def test_an_installed_revision_is_the_state_linked_and_expanded(storage: Storage) -> None:
    state = make_state()
    storage.install("1", state)
    root = Path(storage.revision_dir("1"))
    assert storage.state_bytes("1") == state.raw
    assert json.loads((root / ".pvr/config").read_bytes()) == {"ObjectsDir": storage.objects.root}
    for path, data in CONTENTS.items():
        assert (root / path).read_bytes() == data
        assert (root / path).stat().st_ino == os.stat(storage.objects.path(sha(data))).st_ino
    assert json.loads((root / "web/run.json").read_bytes()) == RUN
    assert (root / ".pv/pv-kernel.img").read_bytes() == b"kernel"
    assert (root / ".pv/pv-initrd.img").read_bytes() == b"initrd"
    assert (root / ".pv/pv-initrd.img.0").read_bytes() == b"addon"
    assert storage.revisions() == ["1"]
    assert storage.verify("1") == []


def test_boot_links_of_every_kind() -> None:
    contents = CONTENTS | {"bsp/a.fit": b"1", "bsp/fdt": b"2", "bsp/pi.gz": b"3", "bsp/k": b"4", "bsp/i": b"5"}
    state = make_state(
        contents, **{"bsp/run.json": {"fit": "a.fit", "fdt": "fdt", "rpiab": "pi.gz", "kernel": "k", "initrd": "i"}}
    )
    assert boot_links(state) == {
        "pantavisor.fit": "bsp/a.fit",
        "pv-kernel.img": "bsp/k",
        "pv-initrd.img": "bsp/i",
        "pv-fdt.dtb": "bsp/fdt",
        "rpiboot.img.gz": "bsp/pi.gz",
    }


def test_a_missing_object_is_named_and_nothing_is_installed(storage: Storage) -> None:
    state = make_state({**CONTENTS, "web/b": b"new", "web/a": b"new"})
    assert storage.missing(state) == [("web/a", sha(b"new"))]
    with pytest.raises(FileNotFoundError, match="web/a"):
        storage.install("1", state)
    assert storage.revisions() == []


def test_a_bind_object_is_copied(storage: Storage) -> None:
    storage.objects.add([b"writable"])
    storage.install("1", make_state({**CONTENTS, "web/data.bind": b"writable"}))
    path = Path(storage.revision_dir("1")) / "web/data.bind"
    assert path.stat().st_ino != os.stat(storage.objects.path(sha(b"writable"))).st_ino
    path.write_bytes(b"changed by the container")
    assert storage.verify("1") == []
    path.unlink()
    healed: list[str] = []
    assert storage.verify("1", healed=healed) == []
    assert path.read_bytes() == b"writable"
    assert healed


def test_an_install_over_another_state_leaves_nothing_of_it(storage: Storage) -> None:
    storage.objects.add([b"old"])
    storage.install("1", make_state({**CONTENTS, "old/file": b"old"}, **{"old.json": {"x": 1}}))
    storage.write_progress("1", b"{}")
    Path(storage.revision_dir("1"), "bsp", "addon2").write_bytes(b"stray")
    second = make_state(**{"bsp/run.json": {"linux": "kernel.img", "initrd": "pantavisor"}})
    storage.install("1", second)
    root = Path(storage.revision_dir("1"))
    found = {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()}
    expected = {*CONTENTS, "web/run.json", "bsp/run.json", ".pvr/json", ".pvr/config", ".pv/progress"}
    assert found == expected | {".pv/pv-kernel.img", ".pv/pv-initrd.img"}


def test_a_power_cut_anywhere_in_an_install_is_put_right_by_the_next(tmp_path: Path) -> None:
    state = make_state()
    for stop in range(2000):
        root = str(tmp_path / str(stop))
        ready = Storage(root)
        ready.prepare()
        for data in CONTENTS.values():
            ready.objects.add([data])
        files = PowerCutFiles(stop)
        finished = True
        try:
            Storage(root, files=files).install("1", state)
        except PowerCutError:
            finished = False
        files.settle()
        after = Storage(root)
        after.prepare()
        if not finished:
            after.install("1", state)
        assert after.verify("1", healed=(healed := [])) == []
        assert not healed
        tree = Path(after.revision_dir("1"))
        assert not [p for p in tree.rglob("*") if p.is_file() and atomic.is_temporary(p.name)]
        if finished:
            assert stop > 20
            return
    pytest.fail("never finished")


# Integrity


def test_a_lost_or_foreign_file_is_linked_again(storage: Storage) -> None:
    storage.install("1", make_state())
    root = Path(storage.revision_dir("1"))
    (root / "web/root.squashfs").unlink()
    (root / "bsp/kernel.img").unlink()
    (root / "bsp/kernel.img").write_bytes(b"evil")
    (root / "web/run.json").write_bytes(b"{}")
    healed: list[str] = []
    assert storage.verify("1", healed=healed) == []
    assert len(healed) == 3
    assert (root / "bsp/kernel.img").read_bytes() == b"kernel"
    assert json.loads((root / "web/run.json").read_bytes()) == RUN
    assert storage.verify("1", healed=(again := [])) == []
    assert not again


def test_a_lost_object_is_recovered_from_the_tree(storage: Storage) -> None:
    storage.install("1", make_state())
    name = sha(b"kernel")
    os.unlink(storage.objects.path(name))
    assert storage.verify("1", healed=(healed := [])) == []
    assert any("recovered" in note for note in healed)
    assert storage.objects.verify(name)


def test_a_damaged_object_is_a_fault_that_names_the_file(storage: Storage) -> None:
    storage.install("1", make_state())
    with open(storage.objects.path(sha(b"kernel")), "r+b") as file:
        file.write(b"K")
    faults = storage.verify("1")
    assert len(faults) == 1
    assert "bsp/kernel.img" in faults[0]
    assert storage.verify("1", skip={"bsp/kernel.img"}) == []


def test_a_symlink_in_the_tree_is_no_valid_file(storage: Storage, tmp_path: Path) -> None:
    storage.install("1", make_state())
    path = Path(storage.revision_dir("1"), "web/run.json")
    content = path.read_bytes()
    path.unlink()
    (tmp_path / "outside.json").write_bytes(content)
    path.symlink_to(tmp_path / "outside.json")
    assert storage.verify("1", healed=(healed := [])) == []
    assert healed
    assert not path.is_symlink()


# Revisions


def test_revisions_are_numbers_first_then_local_ones(storage: Storage) -> None:
    for rev in ("10", "9", "0", "locals/b", "locals/a"):
        storage.install(rev, make_state())
    os.makedirs(os.path.join(storage.root, "trails", "77"))
    assert storage.revisions() == ["0", "9", "10", "locals/a", "locals/b"]


@pytest.mark.parametrize("rev", ["", "..", "../x", "locals/../x", "locals/a/b", "a", "-1", "locals/", "01x"])
def test_names_that_are_no_revision_are_refused(storage: Storage, rev: str) -> None:
    with pytest.raises(HostileInputError):
        storage.write_state(rev, b"{}")


def test_current_done_and_progress(storage: Storage) -> None:
    assert storage.current() is None
    storage.install("locals/x", make_state())
    storage.set_current("locals/x")
    assert storage.current() == "locals/x"
    assert (Path(storage.root) / "trails/current/.pvr/json").exists()
    storage.set_current("3")
    assert storage.current() == "3"
    assert not storage.is_done("locals/x")
    storage.mark_done("locals/x")
    assert storage.is_done("locals/x")
    assert storage.progress("locals/x") is None
    storage.write_progress("locals/x", b'{"status":"DONE"}')
    assert storage.progress("locals/x") == b'{"status":"DONE"}'


def test_a_current_link_that_names_no_revision_is_none(storage: Storage) -> None:
    os.symlink("../../etc", os.path.join(storage.root, "trails", "current"))
    assert storage.current() is None


def test_garbage_keeps_factory_current_and_the_given(storage: Storage) -> None:
    for number in range(6):
        storage.objects.add([b"only in %d" % number])
        storage.install(str(number), make_state({**CONTENTS, "web/own": b"only in %d" % number}))
        os.makedirs(f"{storage.root}/logs/{number}")
    storage.install("locals/x", make_state())
    storage.objects.add([b"being fetched"])
    storage.write_state("7", make_state({**CONTENTS, "new/file": b"being fetched"}).raw)
    loose = storage.objects.add([b"loose"])
    storage.set_current("2")
    assert storage.collect_garbage({"4", "7"}) >= 0
    assert storage.revisions() == ["0", "2", "4", "7"]
    assert sorted(os.listdir(f"{storage.root}/logs")) == ["0", "2", "4"]
    assert not storage.objects.has(loose)
    assert storage.objects.has(sha(b"being fetched"))
    assert not storage.objects.has(sha(b"only in 1"))
    for rev in ("0", "2", "4"):
        assert storage.verify(rev) == []


def test_volumes_of_a_collected_revision_stay_while_they_are_in_use(storage: Storage) -> None:
    for rev in ("0", "1", "2", "locals/x", "locals/y"):
        storage.install(rev, make_state())
        os.makedirs(f"{storage.root}/disks/rev/{rev}/web/data")
    os.makedirs(f"{storage.root}/disks/rev/9/web/data")  # of one that went earlier
    storage.set_current("2")
    storage.collect_garbage(set(), in_use={"1", "locals/x"})
    assert storage.revisions() == ["0", "2"]
    assert sorted(os.listdir(f"{storage.root}/disks/rev")) == ["0", "1", "2", "locals"]
    assert os.listdir(f"{storage.root}/disks/rev/locals") == ["x"]
    storage.collect_garbage(set())
    assert os.listdir(f"{storage.root}/disks/rev/locals") == []
    assert not os.path.exists(f"{storage.root}/disks/rev/1")


def test_free_and_total_space_are_bytes(storage: Storage) -> None:
    assert 0 < storage.free_bytes() <= storage.total_bytes()


def test_a_state_that_is_too_large_is_refused(storage: Storage) -> None:
    storage.write_state("1", b" " * (16 << 20) + b"{}")
    with pytest.raises(HostileInputError, match="larger"):
        storage.state_bytes("1")
