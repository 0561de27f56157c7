"""A partition that others made is taken over: booted, updated ten times, collected, and still laid out as they expect.

The real supervisor, store and collector on a fake kernel; real boots are in tests/vm.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from brickless.core import canonical
from brickless.core.canonical import JsonValue
from brickless.core.progress import Status
from brickless.core.state import parse_state
from brickless.device.config import Config
from brickless.device.supervise import revisions
from brickless.device.supervise.jobs import Job
from brickless.device.update.garbage import Garbage
from brickless.image import storage as image
from brickless.linux import process
from brickless.store.objects import ObjectStore
from brickless.testkit import storage_check
from brickless.testkit.fake_linux import Behaviour, FakeDevice, World
from brickless.testkit.hand_laid import VARIABLES, lay_out

POOL = '{"ObjectsDir":"../../objects"}'
UPDATES = 10
BAD = 4


def fill(objects: ObjectStore, version: int = 0) -> bytes:
    """A revision; `net` changes with every third version, by a reboot, `web` with each, in place."""
    shared = ("bsp/kernel.img", "bsp/pantavisor", "bsp/modules", "net/root.squashfs")
    entries: dict[str, JsonValue] = {path: objects.add([path.encode()]) for path in shared}
    entries |= {
        "#spec": "pantavisor-service-system@1",
        "bsp/run.json": {"linux": "kernel.img", "initrd": "pantavisor", "addons": ["modules"]},
        "device.json": {
            "groups": [
                {"name": "root", "restart_policy": "system", "timeout": 30},
                {"name": "app", "restart_policy": "container", "timeout": 30},
            ]
        },
        "net/run.json": {"name": "net", "group": "root", "config": "c.json", "root-volume": "root.squashfs"},
        "net/c.json": {"version": version // 3},
        "web/run.json": {"name": "web", "group": "app", "config": "c.json", "root-volume": "root.squashfs"},
        "web/c.json": {"version": version},
        "web/root.squashfs": objects.add([b"web %d" % version]),
        "_config/web/etc/name": objects.add([b"name %d" % version]),
    }
    return canonical.dumps(entries)


def by_hand(root: Path) -> None:
    lay_out(root, fill, {"PH_CREDS_HOST": "hub.example"})


def by_deploy(root: Path) -> None:
    source = root.parent / "source"
    image.populate(source, fill, {})
    for tree in (source, root):
        (tree / "trails/0/.pvr").mkdir(parents=True, exist_ok=True)
        (tree / "trails/0/.pvr/config").write_text(POOL)
    program = str(Path(sys.executable).with_name("pvr"))
    argv = [program, "deploy", str(root / "trails/0"), str(source / "trails/0/.pvr")]
    process.run(argv, purpose="deploying a partition", timeout_s=120, env={"HOME": str(root.parent)})
    (root / "boot").mkdir()
    (root / "boot/uboot.txt").write_bytes(VARIABLES)


def behave(job: Job) -> Behaviour:
    return Behaviour(exits_after_s=1.0, status=3 << 8) if job.rev == str(BAD) else Behaviour()


@pytest.mark.parametrize("make", [by_hand, by_deploy], ids=["by hand", "by pvr deploy"])
def test_a_partition_of_others_making_is_booted_and_updated_ten_times(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    root = tmp_path / "storage"
    make(root)
    assert storage_check.report_of(root).faults == ()
    world = World(str(tmp_path), behave)
    device = FakeDevice(world)
    device.power_on(verify=True)
    device.run_for(60)
    assert device.ask(op="status")["rev"] == "0"
    assert set(world.processes) == {"net", "web"}
    for version in range(1, UPDATES + 1):
        rev = str(version)
        world.storage.install(rev, parse_state(fill(world.storage.objects, version)))
        device.ask(op="try", rev=rev)
        for _ in range(12):
            device.ask(op="hub", reachable=True)
            device.run_for(20)
        progress = revisions.progress_of(world.storage, rev)
        assert progress is not None
        assert progress.status is (Status.ERROR if version == BAD else Status.DONE)
        assert storage_check.report_of(root).faults == (), f"after update {rev}"
        Garbage(world.storage, Config(), str(tmp_path / "private")).collect()
    report = storage_check.report_of(root)
    assert report.faults == ()
    assert report.revisions == ("0", str(UPDATES))
