"""Volumes, exports, device nodes, remounts, limits and the data of revisions, with real containers."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from brickless.core import canonical
from brickless.core.progress import Status
from brickless.linux import cgroup, mount
from brickless.testkit.real_device import RealDevice

pytestmark = pytest.mark.needs("root", "lxc")
IDLE = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"


@pytest.fixture
def device(tmp_path: Path) -> Iterator[RealDevice]:
    with RealDevice(tmp_path) as one:
        yield one


def storage(device: RealDevice, *parts: str) -> Path:
    return Path(device.storage.root, *parts)


def test_volumes_live_as_long_as_their_persistence_says(device: RealDevice) -> None:
    base = f"{device.folder}/volumes/{device.name('one')}"
    lines = "".join(f"lxc.mount.entry = {base}/{vol} var/{vol} none bind,create=dir 0 0\n" for vol in ("p", "r", "b"))
    script = f"for v in p r b; do ls /var/$v; echo x >/var/$v/$PV_REV; done; {IDLE}"
    volumes: dict[str, canonical.JsonValue] = {
        "p": {"persistence": "permanent"},
        "r": {"persistence": "revision"},
        "b": {"persistence": "boot"},
    }
    device.install("0", device.container("one", script, lines=lines, storage=volumes))
    device.install("1", device.container("one", f"{script} # 2", lines=lines, storage=volumes))
    device.boot()
    device.run("one")
    device.until(device.inside("one", "/var/b/0").exists)
    assert device.update("1").status in (Status.DONE, Status.UPDATED), device.log()
    device.until(lambda: device.inside("one", "/var/b/1").exists())
    assert sorted(os.listdir(storage(device, "disks/perm", device.name("one"), "p"))) == ["0", "1"]
    assert os.listdir(storage(device, "disks/rev/1", device.name("one"), "r")) == ["1"]
    assert os.listdir(device.inside("one", "/var/b")) == ["1"]


def test_the_config_overlay_lies_over_the_root(device: RealDevice) -> None:
    one = device.container("one", f"cat /etc/greeting; {IDLE}", files={"etc/greeting": "from the image\n"})
    overlay = {f"_config/{device.name('one')}/etc/greeting": device.storage.objects.add([b"from the revision\n"])}
    device.install("0", one, overlay)
    device.boot()
    device.printed("one", "from the revision")


def test_exported_paths_are_seen_by_others_and_lead_nowhere_else(device: RealDevice) -> None:
    script = f"mkdir -p /srv/share; echo shared >/srv/share/file; rm -rf /srv/trap; {IDLE}"
    give = device.container("a", script, exports=["/srv/share"], files={"srv/share/base": "base\n"})
    entry = f"lxc.mount.entry = {device.folder}/exports/{device.name('a')}/srv/share mnt none bind,create=dir 0 0\n"
    take = device.container("b", f"cat /mnt/base; {IDLE}", group="later", lines=entry)
    groups: dict[str, canonical.JsonValue] = {"groups": [{"name": "first"}, {"name": "later"}]}
    give[f"{device.name('a')}/run.json"]["group"] = "first"  # type: ignore[index,call-overload]  # our own dict
    device.install("0", give, take, device=groups)
    device.boot()
    device.run("a", "b")
    device.printed("b", "base")
    exported = Path(device.folder, "exports", device.name("a"), "srv/share")
    device.until((exported / "file").exists)
    assert (exported / "file").read_text() == "shared\n"
    device.ask(op="stop", name=device.name("a"))
    device.until(lambda: device.containers()["a"]["pid"] == 0)
    assert not (exported / "file").exists()


def test_an_export_shows_the_container_and_not_the_device(device: RealDevice) -> None:
    """A link that leads out of the container leads into the container: it is resolved inside."""
    script = f"mkdir -p /tmp/own; echo own >/tmp/own/file; {IDLE}"
    one = device.container("a", script, exports=["/trap"], links={"trap": "/../../../../../../../../tmp"})
    device.install("0", one)
    device.boot()
    device.run("a")
    exported = Path(device.folder, "exports", device.name("a"), "trap")
    device.until((exported / "own/file").exists)
    assert os.listdir(exported) == ["own"]


def test_device_nodes_follow_the_rules_of_the_container(device: RealDevice) -> None:
    name = device.name("one")
    rules = {f"{name}/mdev.json": {"rules": ["loop-control 1234:4321 640", "kmsg 0:0 444"]}}
    device.install("0", device.container("one", IDLE), rules)
    device.boot()
    device.run("one")
    info = device.inside("one", "/dev/loop-control").stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (1234, 4321, 0o640)
    assert info.st_rdev == Path("/dev/loop-control").stat().st_rdev
    assert stat.S_IMODE(device.inside("one", "/dev/kmsg").stat().st_mode) == 0o444
    assert not device.inside("one", "/dev/loop0").exists()


def test_a_remount_policy_changes_the_container_s_mounts(device: RealDevice) -> None:
    entry = "lxc.mount.entry = tmpfs var tmpfs rw,create=dir 0 0\n"
    remount: dict[str, canonical.JsonValue] = {"default": [{"/va.": "noexec,nosuid"}, {"/proc": "ro"}]}
    device.install("0", device.container("one", IDLE, lines=entry, remount=remount))
    device.boot()
    device.run("one")
    table = {entry.target: entry.options.split(",") for entry in mount.table(f"/proc/{device.init('one')}/mounts")}
    assert {"noexec", "nosuid", "rw"} <= set(table["/var"])
    assert "ro" in table["/proc"]


def test_limits_are_those_of_the_control_group(device: RealDevice) -> None:
    limits: dict[str, canonical.JsonValue] = {"memory": "48M", "pids": 32}
    device.install("0", device.container("one", IDLE, limits=limits))
    device.boot()
    device.run("one")
    groups = Path(f"/proc/{device.init('one')}/cgroup").read_text()
    if cgroup.layout() == "unified":
        path = groups.split("0::")[1].splitlines()[0]
        assert Path(f"{cgroup.ROOT}{path}/memory.max").read_text().strip() == str(48 << 20)
        assert Path(f"{cgroup.ROOT}{path}/pids.max").read_text().strip() == "32"
        return
    paths = {line.split(":")[1]: line.split(":", 2)[2] for line in groups.splitlines()}
    assert Path(f"{cgroup.ROOT}/memory{paths['memory']}/memory.limit_in_bytes").read_text().strip() == str(48 << 20)
    assert Path(f"{cgroup.ROOT}/pids{paths['pids']}/pids.max").read_text().strip() == "32"


def test_a_seccomp_profile_of_the_container_is_applied(device: RealDevice) -> None:
    name = device.name("one")
    profile = device.storage.objects.add([b"2\ndenylist\n[all]\nmkdir errno 1\nmkdirat errno 1\n"])
    one = device.container("one", f"mkdir /tmp/x || echo refused; {IDLE}", lines="lxc.seccomp.profile = seccomp.txt\n")
    device.install("0", one, {f"{name}/seccomp.txt": profile})
    device.boot()
    device.printed("one", "refused")


def test_data_of_a_revision_come_back_with_it(device: RealDevice) -> None:
    base = f"{device.folder}/volumes/{device.name('db')}"
    lines = f"lxc.mount.entry = {base}/data var/data none bind,create=dir 0 0\n"
    volumes: dict[str, canonical.JsonValue] = {"data": {"persistence": "permanent", "snapshot": True}}
    device.install("0", device.container("db", f"echo old >/var/data/schema; {IDLE}", lines=lines, storage=volumes))
    migrate = "cat /var/data/schema; echo new >/var/data/schema; echo half >/var/data/broken"
    bad = device.container("db", f"{migrate}; exit 3", lines=lines, storage=volumes, auto_recovery={"policy": "no"})
    device.install("1", bad)
    device.install("2", device.container("db", f"{migrate}; {IDLE}", lines=lines, storage=volumes))
    device.boot()
    device.run("db")
    data = storage(device, "disks/perm", device.name("db"), "data")
    device.until((data / "schema").exists)
    data.joinpath("big").write_bytes(b"x" * 100_000)
    assert device.update("1").status is Status.ERROR
    device.run("db")
    assert {name: (data / name).read_text()[:4] for name in sorted(os.listdir(data))} == {
        "big": "xxxx",
        "schema": "old\n",
    }
    assert "the data that it had are back" in device.log()

    assert device.update("2").status in (Status.DONE, Status.UPDATED), device.log()
    device.until((data / "broken").exists)
    assert (data / "schema").read_text() == "new\n"
    assert device.update("0").status in (Status.DONE, Status.UPDATED), device.log()
    assert (data / "schema").read_text() == "old\n"
    assert not (data / "broken").exists()


def test_a_copy_that_does_not_fit_fails_the_update_and_not_the_data(device: RealDevice, tmp_path: Path) -> None:
    small = tmp_path / "storage" / "disks"
    shutil.rmtree(small)
    mount.mount("tmpfs", str(small), "tmpfs", options="size=3m")
    device.storage.prepare()
    volumes: dict[str, canonical.JsonValue] = {"data": {"persistence": "permanent", "snapshot": True}}
    device.install("0", device.container("db", IDLE, storage=volumes))
    device.install("1", device.container("db", f"{IDLE} # 2", storage=volumes))
    device.boot()
    device.run("db")
    data = storage(device, "disks/perm", device.name("db"), "data")
    (data / "big").write_bytes(os.urandom(2 << 20))
    progress = device.update("1")
    assert progress.status is Status.ERROR, device.log()
    assert "No space left" in progress.logs or "no copy fits" in progress.logs, progress.logs
    device.run("db")
    assert (data / "big").stat().st_size == 2 << 20
    device.close()
    device.supervisor = None
