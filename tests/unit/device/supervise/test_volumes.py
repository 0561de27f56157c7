"""Which mounts a container gets, before anything is mounted."""

from __future__ import annotations

from pathlib import Path

import pytest

from brickless.core import canonical
from brickless.core.state import parse_state
from brickless.device.supervise.jobs import Job
from brickless.device.supervise.volumes import Roots, Step, plan

SHA = "a" * 64


def steps(tmp_path: Path, *, verity: bool = False, disks: list[object] | None = None, **run: object) -> list[Step]:
    files = {name.removeprefix("dm:"): SHA for name in ["root.squashfs", *run.get("volumes", [])]}  # type: ignore[misc]  # plain values that the test knows
    device = {"groups": [{"name": "app"}], **({"disks": disks} if disks else {})}
    entries = {
        "#spec": "pantavisor-service-system@1",
        "device.json": device,
        "web/run.json": {"name": "web", "config": "lxc.container.conf", "root-volume": "root.squashfs", **run},
        "web/lxc.container.conf": SHA,
        **{f"web/{name}": sha for name, sha in files.items()},
    }
    state = parse_state(canonical.dumps(entries))
    roots = Roots(f"{tmp_path}", "/volumes", "/configs", "/media", -1, verity)
    return plan(Job(state.containers["web"], "7", ""), roots, state.disks)


def test_the_root_is_a_loop_mount_of_the_trail(tmp_path: Path) -> None:
    assert steps(tmp_path) == [
        Step("loop", f"{tmp_path}/trails/7/web/root.squashfs", "/volumes/web/root.squashfs", "squashfs")
    ]


def test_binds_and_folders(tmp_path: Path) -> None:
    found = steps(tmp_path, volumes=["a.bind"])
    assert found[1] == Step("bind", f"{tmp_path}/trails/7/web/a.bind", "/volumes/web/a.bind")


@pytest.mark.parametrize(
    ("persistence", "step"),
    [
        ("permanent", Step("folder", "{}/disks/perm/web/data", "/volumes/web/data")),
        ("revision", Step("folder", "{}/disks/rev/7/web/data", "/volumes/web/data")),
        ("boot", Step("tmpfs", "tmpfs", "/volumes/web/data")),
    ],
)
def test_storage(tmp_path: Path, persistence: str, step: Step) -> None:
    found = steps(tmp_path, storage={"data": {"persistence": persistence}})[1]
    assert found == step._replace(source=step.source.format(tmp_path))


def test_a_volume_disk_is_a_folder_of_the_partition(tmp_path: Path) -> None:
    found = steps(
        tmp_path,
        disks=[{"name": "extra", "type": "volume-disk"}],
        storage={"data": {"persistence": "permanent", "disk": "extra"}},
    )
    assert found[1].source == f"{tmp_path}/pv/volume-disk/extra/perm/web/data"


def test_storage_lies_on_its_disk(tmp_path: Path) -> None:
    disks: list[object] = [{"name": "safe", "type": "dm-crypt-versatile", "path": "img,8,key", "aliases": ["s"]}]
    found = steps(tmp_path, disks=disks, storage={"data": {"persistence": "permanent", "disk": "s"}})[1]
    assert found == Step("folder", "/media/pv/dmcrypt/safe/perm/web/data", "/volumes/web/data")
    scratch = steps(tmp_path, disks=disks, storage={"tmp": {"persistence": "boot", "disk": "safe"}})[1]
    assert scratch == Step("scratch", "/media/pv/dmcrypt/safe/boot/web/tmp", "/volumes/web/tmp")


def test_swap_holds_no_storage(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="swap-disk"):
        steps(
            tmp_path,
            disks=[{"name": "s", "type": "swap-disk", "path": "/dev/vdb"}],
            storage={"data": {"persistence": "permanent", "disk": "s"}},
        )


def test_data_of_a_revision_lie_on_no_disk(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="kept with its revision"):
        steps(
            tmp_path,
            disks=[{"name": "extra", "type": "volume-disk", "default": "yes"}],
            storage={"data": {"persistence": "permanent", "snapshot": True}},
        )


def test_the_config_overlay_is_mounted_when_the_revision_has_one(tmp_path: Path) -> None:
    (tmp_path / "trails" / "7" / "_config" / "web").mkdir(parents=True)
    assert steps(tmp_path)[-1] == Step("tree", f"{tmp_path}/trails/7/_config/web", "/configs/web")
