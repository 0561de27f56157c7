"""Every file of the partition in turn emptied, cut or filled with noise before a boot: something good runs, or it says
what is wrong and tries again slowly. The real supervisor, store and configuration; no kernel."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from brickless.core import canonical
from brickless.core.canonical import JsonValue
from brickless.core.state import parse_state
from brickless.device import config as configuration
from brickless.device.config import Sources
from brickless.device.control.steps import listing
from brickless.device.link.identity import Identity
from brickless.device.link.usermeta import UserMeta
from brickless.device.supervise import revisions
from brickless.device.supervise.jobs import Job
from brickless.device.supervise.supervisor import BAD_REVISION_DELAY_S
from brickless.linux import journal
from brickless.store.objects import ObjectStore
from brickless.store.trails import Storage
from brickless.testkit.bad_files import KINDS, copy_tree, damage, files_of
from brickless.testkit.device_life import QuickFiles
from brickless.testkit.fake_linux import Behaviour, FakeDevice, World

BOOT_S = 200.0
CRASH = Behaviour(exits_after_s=1.0, status=3 << 8)


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Power cuts are other tests' business: nothing waits for the disk here."""
    monkeypatch.setattr(journal, "checkpoint", lambda _path: True)


class Careful(FakeDevice):
    """A device that hashes at each boot, as it does unless it is told not to."""

    def restart_supervisor(self, *, verify: bool = True) -> None:
        super().restart_supervisor(verify=True)


def behave(job: Job) -> Behaviour:
    return CRASH if job.rev == "2" else Behaviour()


def state(objects: ObjectStore, rev: str) -> bytes:
    """A revision that boots from its own BSP, with a part that is its own and one that all share."""
    names = {"bsp/kernel.img": "kernel", "bsp/pantavisor": f"initrd {rev}", "web/root.squashfs": f"root {rev}"}
    entries: dict[str, JsonValue] = {path: objects.add([text.encode() * 20]) for path, text in names.items()}
    entries |= {
        "#spec": "pantavisor-service-system@1",
        "bsp/run.json": {"linux": "kernel.img", "initrd": "pantavisor", "addons": []},
        "device.json": {"groups": [{"name": "root", "restart_policy": "system", "timeout": 30}]},
        "web/run.json": {"name": "web", "config": "c.json", "root-volume": "root.squashfs"},
        "web/c.json": {"version": rev},
        "_config/web/x.json": {"rev": rev},
    }
    return canonical.dumps(entries)


@pytest.fixture(scope="module")
def partition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device in use: factory, 1 committed, 2 failed and rolled back, 3 about to be tried."""
    folder = tmp_path_factory.mktemp("partition")
    world = World(str(folder), behave)
    storage = world.storage
    for rev in ("0", "1", "2", "3"):
        storage.install(rev, parse_state(state(storage.objects, rev)))
    device = FakeDevice(world)
    device.power_on()
    device.run_for(60)
    for rev in ("1", "2"):
        device.ask(op="hub", reachable=True)
        device.ask(op="try", rev=rev)
        device.run_for(10)
        device.ask(op="hub", reachable=True)
        device.run_for(200)
    assert device.ask(op="status")["rev"] == "1"
    for path, text in (
        ("config/pantahub.config", "PH_CREDS_PRN=prn:::devices:/1\nPH_CREDS_SECRET=hidden\nPH_CREDS_ID=1\n"),
        ("config/clock", ""),
        ("cache/usrmeta/web.colour", "blue"),
        ("cache/devmeta/x", "y"),
        ("logs/1/pantavisor/pantavisor.log", "a line\n"),
        ("disks/perm/web/data/file", "the user's own"),
    ):
        target = Path(storage.root, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return Path(storage.root)


def boot(folder: Path) -> FakeDevice:
    """A boot with all that reads the partition: configuration, identity, metadata, the list of revisions."""
    world = World(str(folder), behave)
    world.storage = Storage(world.storage.root, files=QuickFiles())
    config = configuration.load(Sources(environ={}, storage=world.storage.root))
    Identity(config, world.storage.root, str(folder / "run")).credentials()
    cache = os.path.join(world.storage.root, "cache", "usrmeta")
    trail = os.path.join(world.storage.root, "trails", "current")
    UserMeta(config, cache, str(folder / "run"), trail, world.lines.append).restore()
    device = Careful(world)
    device.power_on()
    device.run_for(60.0)
    if not device.ask(op="status")["rev"]:
        device.run_for(BOOT_S - 60.0)
    listing(world.storage)
    return device


def fault(device: FakeDevice) -> str:
    """What is wrong with how the boot went, "" when nothing is."""
    storage = Storage(device.world.storage.root)
    running = device.ask(op="status")["rev"]
    if running:
        wanted = {job.fingerprint for job in revisions.load(storage, str(running)).jobs}
        if {process.job.fingerprint for process in device.world.processes.values()} != wanted:
            return f"revision {running} runs with others' containers"
        faults = storage.verify(str(running))
        return f"revision {running} runs and is broken: {faults}" if faults else ""
    if not any(line.startswith("no revision can run: tried ") for line in device.world.lines):
        return "nothing runs, and nobody says why"
    boots = device.world.boots
    return "" if 2 <= boots <= BOOT_S / BAD_REVISION_DELAY_S + 2 else f"{boots} boots in {BOOT_S:g} s"


@pytest.mark.parametrize("tried", ["", "3"], ids=["at-rest", "before-a-trial"])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_file_in_turn(partition: Path, tmp_path: Path, kind: str, tried: str) -> None:
    wrong: dict[str, str] = {}
    count = 0
    for path in files_of(str(partition)):
        folder = tmp_path / "device"
        copy_tree(str(partition), str(folder / "storage"))
        if tried:
            FakeDevice(World(str(folder))).bootloader.set_try(tried)
        if damage(str(folder / "storage"), path, kind):
            count += 1
            found = fault(boot(folder))
            if found:
                wrong[path] = found
        shutil.rmtree(folder)
    assert wrong == {}
    assert count > 30


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_with_every_state_bad_it_names_each(partition: Path, tmp_path: Path, kind: str) -> None:
    copy_tree(str(partition), str(tmp_path / "storage"))
    for rev in ("0", "1", "2", "3"):
        damage(str(tmp_path / "storage"), f"trails/{rev}/.pvr/json", kind)
    device = boot(tmp_path)
    assert fault(device) == ""
    for rev in ("0", "1"):
        assert any(line.startswith(f"revision {rev} cannot run: ") for line in device.world.lines)


def test_a_shared_object_that_is_bad_is_named(partition: Path, tmp_path: Path) -> None:
    copy_tree(str(partition), str(tmp_path / "storage"))
    kernel = parse_state(Storage(str(tmp_path / "storage")).state_bytes("0")).objects["bsp/kernel.img"]
    damage(str(tmp_path / "storage"), f"objects/{kernel}", "random")
    device = boot(tmp_path)
    assert device.ask(op="status")["rev"] == ""
    assert any(f"bsp/kernel.img: the object {kernel} is missing or damaged" in line for line in device.world.lines)
