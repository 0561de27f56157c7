"""What is mounted for a container before LXC starts it, as a list that can be read before it is done (device.md 5.4).

/volumes/<C>/<file>     root-volume and volumes: loop mount, `.bind` file, `.data` folder
/volumes/<C>/<vol>      storage: a folder of the partition (permanent, revision) or a tmpfs (boot)
/configs/<C>            the revision's `_config/<C>`, first lower directory of the root's overlay
"""

from __future__ import annotations

import os
from typing import NamedTuple

from brickless.core.container import Container
from brickless.core.disks import Disk, DiskType, Persistence, Storage
from brickless.device.supervise.jobs import Job
from brickless.linux import loop, mount
from brickless.linux.libc import MS_NODEV, MS_NOSUID, MS_RDONLY
from brickless.store.tree import safe_join

DM_PREFIX = "dm:"
OVERLAY = "lxc-overlay"
# A tmpfs without a bound lets one container's scratch take the whole device's memory.
BOOT_OPTIONS = "mode=0755,size=25%"


class Roots(NamedTuple):
    """Where things lie on this device."""

    storage: str
    volumes: str
    configs: str
    media: str
    loop_index_base: int = -1
    verity: bool = True


class Step(NamedTuple):
    """One mount. `kind` is `loop`, `bind`, `tree` (a recursive bind), `folder` (a bind, the source made) or `tmpfs`."""

    kind: str
    source: str
    target: str
    fstype: str = ""


def plan(job: Job, roots: Roots, disks: tuple[Disk, ...]) -> list[Step]:
    """The mounts of a container, in order. Raises `ValueError` for what this device cannot mount."""
    container = job.container
    trail = os.path.join(roots.storage, "trails", job.rev)
    base = os.path.join(roots.volumes, container.name)
    names = [name for name in (container.root_volume, *container.volumes) if name]
    steps = [_volume(name, os.path.join(trail, container.name), base, roots) for name in names]
    steps += [_storage(storage, container, job.rev, base, roots, disks) for storage in container.storage]
    overlay = os.path.join(trail, "_config", container.name)
    if os.path.isdir(overlay):
        steps.append(Step("tree", overlay, os.path.join(roots.configs, container.name)))
    return steps


def _volume(name: str, folder: str, base: str, roots: Roots) -> Step:
    plain = name.removeprefix(DM_PREFIX)
    if plain != name and roots.verity:
        raise ValueError(
            f"the volume {name} wants dm-verity, which this runtime cannot map: it is not mounted unverified"
        )
    source, target = safe_join(folder, plain), safe_join(base, plain)
    if plain.endswith(".bind"):
        return Step("bind", source, target)
    if plain.endswith(".data"):
        return Step("tree", source, target)
    return Step("loop", source, target, plain.rpartition(".")[2])


def _storage(
    storage: Storage, container: Container, rev: str, base: str, roots: Roots, disks: tuple[Disk, ...]
) -> Step:
    target = safe_join(base, storage.name)
    if storage.persistence is Persistence.BOOT:
        return Step("tmpfs", "tmpfs", target)
    root = _disk_root(storage, roots, disks)
    below = "perm" if storage.persistence is Persistence.PERMANENT else f"rev/{rev}"
    return Step("folder", safe_join(os.path.join(root, below, container.name), storage.name), target)


def _disk_root(storage: Storage, roots: Roots, disks: tuple[Disk, ...]) -> str:
    disk = next((disk for disk in disks if storage.disk in (disk.name, *disk.aliases)), None)
    if not storage.disk:
        disk = next((disk for disk in disks if disk.is_default), None)
        if disk is None:
            return os.path.join(roots.storage, "disks")
    if disk is None:
        raise ValueError(
            f"the storage {storage.name} lies on the disk {storage.disk}, which the revision does not have"
        )
    if disk.type == DiskType.VOLUME and not disk.provision:
        return os.path.join(roots.storage, "pv", "volume-disk", disk.name)
    raise ValueError(f"the storage {storage.name} lies on the disk {disk.name} of type {disk.type}, not supported yet")


def mount_all(steps: list[Step], roots: Roots) -> None:
    """Do the mounts of a plan; what is mounted already stays. Raises `OSError` that names the step."""
    there = mount.targets()
    for step in steps:
        if step.target in there:
            continue
        try:
            _do(step, roots)
        except OSError as error:
            raise OSError(error.errno, f"cannot mount {step.source} at {step.target}: {error}") from error


def _do(step: Step, roots: Roots) -> None:
    if step.kind == "loop":
        read_only = step.fstype == "squashfs"
        with loop.attach(step.source, read_only=read_only, index_base=roots.loop_index_base) as device:
            mount.mount(device, step.target, step.fstype, flags=MS_RDONLY if read_only else 0)
    elif step.kind == "tmpfs":
        mount.mount("tmpfs", step.target, "tmpfs", flags=MS_NOSUID | MS_NODEV, options=BOOT_OPTIONS)
    else:
        if step.kind == "folder":
            os.makedirs(step.source, exist_ok=True)
        mount.bind(step.source, step.target, recursive=step.kind == "tree")
    if os.path.basename(step.target) == OVERLAY:
        # Both halves of an overlay lie side by side; LXC looks for `upper` and makes `work` from its name.
        for half in ("upper", "work"):
            os.makedirs(os.path.join(step.target, half), exist_ok=True)


def unmount_all(name: str, roots: Roots) -> list[str]:
    """Unmount everything of a container; returns what was unmounted."""
    done = mount.unmount_beneath(os.path.join(roots.volumes, name))
    return done + mount.unmount_beneath(os.path.join(roots.configs, name))
