"""What is mounted for a container before LXC starts it, as a list that can be read before it is done (device.md 5.4).

/volumes/<C>/<file>     root-volume and volumes: loop mount, `.bind` file, `.data` folder
/volumes/<C>/<vol>      storage: a folder of the partition or of a disk (permanent, revision) or a tmpfs (boot)
/configs/<C>            the revision's `_config/<C>`, first lower directory of the root's overlay
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from brickless.core.canonical import JsonValue
from brickless.core.container import Container
from brickless.core.disks import Disk, Persistence, Storage
from brickless.device.disks import places
from brickless.device.supervise.jobs import Job
from brickless.linux import loop, mount
from brickless.linux.libc import MS_NODEV, MS_NOSUID, MS_RDONLY
from brickless.store import atomic
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
    exports: str = "/exports"


class Step(NamedTuple):
    """One mount.

    `kind` is `loop`, `verity`, `bind`, `tree` (a recursive bind), `folder` (a bind, the source made), `scratch` (the
    same, emptied at each boot) or `tmpfs`. `hashes`, `root_hash` and `mapped` belong to `verity`.
    """

    kind: str
    source: str
    target: str
    fstype: str = ""
    hashes: str = ""
    root_hash: str = ""
    mapped: str = ""


def plan(job: Job, roots: Roots, disks: tuple[Disk, ...], jsons: Mapping[str, JsonValue] = {}) -> list[Step]:
    """The mounts of a container, in order. `jsons` are the revision's, for the manifests of dm-verity.

    Raises `ValueError` for what this device cannot mount.
    """
    container = job.container
    trail = os.path.join(roots.storage, "trails", job.rev)
    base = os.path.join(roots.volumes, container.name)
    names = [name for name in (container.root_volume, *container.volumes) if name]
    steps = [volume(name, container.name, job.rev, base, roots, jsons) for name in names]
    steps += [_storage(storage, container, job.rev, base, roots, disks) for storage in container.storage]
    overlay = os.path.join(trail, "_config", container.name)
    if os.path.isdir(overlay):
        steps.append(Step("tree", overlay, os.path.join(roots.configs, container.name)))
    return steps


def volume(name: str, owner: str, rev: str, base: str, roots: Roots, jsons: Mapping[str, JsonValue]) -> Step:
    """How a volume of the folder `owner` (a container, or `bsp`) is mounted below `base`."""
    folder = os.path.join(roots.storage, "trails", rev, owner)
    plain = name.removeprefix(DM_PREFIX)
    source, target = safe_join(folder, plain), safe_join(base, plain)
    if plain.endswith(".bind"):
        return Step("bind", source, target)
    if plain.endswith(".data"):
        return Step("tree", source, target)
    kind = plain.rpartition(".")[2]
    if plain == name or not roots.verity:
        return Step("loop", source, target, kind)
    # From the state itself, which is signed, and not from the file on the disk that was made of it.
    manifest = jsons.get(f"{owner}/_dm/{plain}.json")
    if not isinstance(manifest, Mapping):
        raise ValueError(f"the volume {name} wants dm-verity, and the state has no {owner}/_dm/{plain}.json")
    hashes = safe_join(folder, str(manifest["hash_device"]))
    mapped = f"pv--dmverity--{owner}-{os.path.splitext(os.path.basename(plain))[0]}"
    return Step("verity", source, target, kind, hashes, str(manifest["root_hash"]), mapped)


def _storage(
    storage: Storage, container: Container, rev: str, base: str, roots: Roots, disks: tuple[Disk, ...]
) -> Step:
    return storage_step(storage, container.name, rev, base, roots, disks)


def storage_step(storage: Storage, owner: str, rev: str, base: str, roots: Roots, disks: tuple[Disk, ...]) -> Step:
    """How writable storage of `owner` is mounted below `base`; its disk must be open by then."""
    target = safe_join(base, storage.name)
    disk = _disk_of(storage, disks)
    if storage.snapshot and disk is not None:
        raise ValueError(f"the storage {storage.name} is kept with its revision, and lies on the disk {disk.name}")
    if disk is None:
        if storage.persistence is Persistence.BOOT:
            return Step("tmpfs", "tmpfs", target)
        root = os.path.join(roots.storage, "disks")
    else:
        root = places.root(disk, places.Places(roots.storage, roots.media, "", ""))
    below = {Persistence.PERMANENT: "perm", Persistence.REVISION: f"rev/{rev}", Persistence.BOOT: "boot"}
    source = safe_join(os.path.join(root, below[storage.persistence], owner), storage.name)
    return Step("scratch" if storage.persistence is Persistence.BOOT else "folder", source, target)


def _disk_of(storage: Storage, disks: tuple[Disk, ...]) -> Disk | None:
    """The disk that the storage lies on; None for the storage partition. Raises `ValueError` for one that is none."""
    disk = places.named(disks, storage.disk)
    if disk is None:
        if storage.disk:
            raise ValueError(
                f"the storage {storage.name} lies on the disk {storage.disk}, which the revision does not have"
            )
        return None
    if storage.persistence is Persistence.BOOT and not storage.disk:
        # Scratch goes into memory, unless a disk is named for it.
        return None
    if not places.is_mounted_disk(disk):
        raise ValueError(f"the storage {storage.name} lies on the disk {disk.name} of type {disk.type}")
    return disk


def disks_of(storages: Iterable[Storage], disks: tuple[Disk, ...]) -> list[Disk]:
    """The disks that must be open before these are mounted, each once. Raises `ValueError` as above."""
    found: list[Disk] = []
    for storage in storages:
        disk = _disk_of(storage, disks)
        if disk is not None and disk not in found:
            found.append(disk)
    return found


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
    elif step.kind == "verity":
        _map_and_mount(step, roots)
    elif step.kind == "tmpfs":
        mount.mount("tmpfs", step.target, "tmpfs", flags=MS_NOSUID | MS_NODEV, options=BOOT_OPTIONS)
    else:
        if step.kind == "scratch":
            atomic.remove_tree(step.source)
        if step.kind in ("folder", "scratch"):
            os.makedirs(step.source, exist_ok=True)
        mount.bind(step.source, step.target, recursive=step.kind == "tree")
    if os.path.basename(step.target) == OVERLAY:
        # Both halves of an overlay lie side by side; LXC looks for `upper` and makes `work` from its name.
        for half in ("upper", "work"):
            os.makedirs(os.path.join(step.target, half), exist_ok=True)


def _map_and_mount(step: Step, roots: Roots) -> None:
    from brickless.linux import modules, verity

    modules.ensure(verity.MODULES)
    node = verity.open_device(step.mapped, step.source, step.hashes, step.root_hash, index_base=roots.loop_index_base)
    try:
        mount.mount(node, step.target, step.fstype, flags=MS_RDONLY)
    finally:
        verity.release(step.mapped)


def unmount_all(name: str, roots: Roots) -> list[str]:
    """Unmount everything of a container; returns what was unmounted."""
    done = mount.unmount_beneath(os.path.join(roots.exports, name))
    done += mount.unmount_beneath(os.path.join(roots.volumes, name))
    return done + mount.unmount_beneath(os.path.join(roots.configs, name))
