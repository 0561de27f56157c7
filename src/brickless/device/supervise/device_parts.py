"""What a revision brings for the device itself: firmware, modules, swap, volumes (device.md 1.6, 1.7, 1.10).

Each part is brought up once after a boot. A supervisor that is started again finds them mounted and leaves them so.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from brickless.core.disks import DiskType, Storage
from brickless.device.disks import opening
from brickless.device.supervise import apart, volumes
from brickless.device.supervise.preparation import places_of
from brickless.device.supervise.revisions import Revision
from brickless.device.supervise.surroundings import BSP, Settings
from brickless.device.supervise.volumes import Roots
from brickless.linux import mount

FIRMWARE = "/lib/firmware"
FIRMWARE_VOLUME = "pv--firmware"


def bring_up(revision: Revision, roots: Roots, settings: Settings) -> list[str]:
    """Bring everything up; what failed, in words."""
    faults: list[str] = []
    disks = revision.state.disks
    for name, target in bsp_volumes(revision):
        _try(faults, f"bsp/{name}", partial(_bind_volume, name, target, revision, roots))
    where = places_of(roots, settings)
    for disk in disks:
        if disk.type == DiskType.SWAP:
            work = partial(opening.swap_on, disk, where)
            _try(faults, f"swap {disk.name}", partial(apart.run, f"opening the swap disk {disk.name}", work))
    for storage in revision.state.volumes:
        _try(faults, f"volume {storage.name}", partial(_volume, storage, revision, roots, settings))
    return faults


def _try(faults: list[str], what: str, do: Callable[[], object]) -> None:
    try:
        do()
    except (OSError, ValueError) as error:
        faults.append(f"{what}: {error}")


def bsp_volumes(revision: Revision, release: str = "") -> list[tuple[str, str]]:
    """(volume, where it is bound) of the BSP's firmware and modules; modules for this very kernel win."""
    bsp = revision.state.bsp
    if bsp is None:
        return []
    release = release or os.uname().release
    modules = bsp.modules_of.get(release, bsp.modules)
    wanted = [(bsp.firmware, FIRMWARE), (modules, f"/lib/modules/{release}")]
    return [(name, target) for name, target in wanted if name]


def _bind_volume(name: str, target: str, revision: Revision, roots: Roots) -> None:
    base = os.path.join(roots.volumes, BSP)
    step = volumes.volume(name, BSP, revision.rev, base, roots, revision.state.jsons)
    volumes.mount_all([step], roots)
    if target not in mount.targets():
        mount.bind(step.target, os.path.realpath(target), read_only=True)


def _volume(storage: Storage, revision: Revision, roots: Roots, settings: Settings) -> None:
    """A volume of the device at /volumes/bsp/<name>, and what the well-known names are for."""
    for disk in volumes.disks_of([storage], revision.state.disks):
        where = places_of(roots, settings)
        work = partial(opening.open_disk, disk, revision.state.disks, where, settings.private)
        apart.run(f"opening the disk {disk.name}", work)
    base = os.path.join(roots.volumes, BSP)
    step = volumes.storage_step(storage, BSP, revision.rev, base, roots, revision.state.disks)
    volumes.mount_all([step], roots)
    for name, folder in settings.caches:
        if name == storage.name and folder not in mount.targets():
            mount.bind(step.target, folder)
    if storage.name == FIRMWARE_VOLUME and settings.firmware_volume:
        _writable_firmware(step.target)


def _writable_firmware(upper: str) -> None:
    """The volume over the firmware: what is written below /lib/firmware stays (PV_STORAGE_FIRMWARE_VOL)."""
    target = os.path.realpath(FIRMWARE)
    for half in ("upper", "work"):
        os.makedirs(os.path.join(upper, half), exist_ok=True)
    if any(entry.target == target and entry.fstype == "overlay" for entry in mount.table()):
        return
    os.makedirs(target, exist_ok=True)
    options = f"lowerdir={target},upperdir={upper}/upper,workdir={upper}/work"
    mount.mount("overlay", target, "overlay", options=options)
