"""Disks opened: made on first use, mapped, mounted. Runs apart from the supervisor, in a child (supervise.apart).

Crash-safe by order: a dm-crypt disk counts as made when its `<key>.init_done` lies beside the image, which comes last.
Until then nobody has written to it, and it is made anew. The key is on the disk before the image that it encrypts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from brickless.core.disks import CRYPT, Disk, DiskType
from brickless.device.disks import dual, places
from brickless.device.disks.places import Places
from brickless.linux import crypt, loop, modules, mount, process, swap
from brickless.linux.libc import MS_NOATIME, MS_NODEV, MS_NOSUID
from brickless.store import atomic
from brickless.store.lock import lock

MKFS_TIMEOUT_S = 300.0
HELPER_TIMEOUT_S = 300.0
HELPER = "pv/volmount/crypt/crypt"
FLAGS = MS_NOSUID | MS_NODEV | MS_NOATIME
FORMATS = frozenset({"ext3", "ext4"})
LOCK = "disks.lock"


def open_disk(disk: Disk, disks: Sequence[Disk], where: Places, private: str) -> str:
    """Mount a disk, and make it when it was never made; returns the folder that holds its content.

    One at a time: two containers may want the same disk at once. Raises `OSError`, `ValueError`.
    """
    if places.is_plain(disk):
        folder = places.root(disk, where)
        atomic.make_dirs(folder)
        return folder
    os.makedirs(private, exist_ok=True)
    with lock(os.path.join(private, LOCK), timeout_s=None):
        return _open(disk, disks, where, create=True)


def _open(disk: Disk, disks: Sequence[Disk], where: Places, *, create: bool) -> str:
    target = places.root(disk, where)
    if target in mount.targets():
        return target
    if disk.type == DiskType.VERSATILE:
        _open_versatile(disk, target, where, create=create)
    elif disk.type in CRYPT:
        _ask_helper("mount", disk, target, where, create=create)
    elif disk.type == DiskType.VOLUME:
        _open_provisioned(disk, target, where)
    elif disk.type == DiskType.DUAL:
        dual.open_dual(disk, disks, where, _opener(disks, where))
    else:
        raise ValueError(f"the disk {disk.name} of type {disk.type} holds no storage")
    return target


def _opener(disks: Sequence[Disk], where: Places) -> Callable[[Disk, bool], str]:
    return lambda disk, create: _open(disk, disks, where, create=create)


# -- dm-crypt with a key in a file -----------------------------------------------------------------------------------


def _open_versatile(disk: Disk, target: str, where: Places, *, create: bool) -> None:
    path = places.crypt_path(disk)
    key_path = os.path.join(os.path.dirname(path.image), path.key)
    done = key_path + ".init_done"
    modules.ensure(crypt.MODULES)
    fresh = not os.path.exists(done)
    if fresh:
        if not create:
            raise OSError(f"the disk {disk.name} was never made: {done} is missing")
        _make_image(path.image, path.size_bytes, key_path)
    with open(key_path, "rb") as stream:
        key = stream.read(crypt.KEY_BYTES + 1)
    with loop.attach(path.image, read_only=False, index_base=where.loop_index_base) as device:
        node = crypt.open_device(disk.name, device, key)
    try:
        if fresh:
            make_file_system(disk, node)
        mount.mount(node, target, _format(disk), flags=FLAGS, options=disk.mount_options)
    finally:
        # From now on it lives as long as it is mounted.
        crypt.release(disk.name)
    if fresh:
        atomic.write_file(done, b"")


def _make_image(image: str, size_bytes: int, key_path: str) -> None:
    atomic.make_dirs(os.path.dirname(image), mode=0o700)
    atomic.write_file(key_path, os.urandom(crypt.KEY_BYTES), mode=0o600)
    fd = os.open(image, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        # Room is taken now: a disk that fills up the partition later would fail in mid-write.
        os.posix_fallocate(fd, 0, size_bytes)
        os.fsync(fd)
    finally:
        os.close(fd)
    atomic.sync_dir(os.path.dirname(image))


def _format(disk: Disk) -> str:
    kind = disk.format or "ext4"
    if kind not in FORMATS:
        raise ValueError(f"the disk {disk.name}: {kind} is none of {', '.join(sorted(FORMATS))}")
    return kind


def make_file_system(disk: Disk, node: str) -> None:
    """Make the disk's file system with `mke2fs`. Raises `OSError` that says what to add when it is not there."""
    tool = process.find("mke2fs")
    if tool is None:
        raise OSError(
            f"the disk {disk.name} is to be formatted, and there is no mke2fs: add the archive of disk tools to the BSP"
        )
    argv = [tool, "-q", "-F", "-t", _format(disk), *disk.format_options.split(), node]
    process.run(argv, purpose=f"formatting the disk {disk.name}", timeout_s=MKFS_TIMEOUT_S)


# -- keys in hardware: somebody else's program -------------------------------------------------------------------------


def _ask_helper(verb: str, disk: Disk, target: str, where: Places, *, create: bool) -> None:
    """Have the BSP's helper do it, which knows the hardware (device.md 1.6). Raises `OSError`."""
    helper = os.path.join(where.lib, HELPER)
    kind = disk.type.removeprefix("dm-crypt-")
    if not os.access(helper, os.X_OK):
        raise OSError(f"the disk {disk.name} keeps its key in hardware ({kind}): the BSP brings no helper {helper}")
    argv = [helper, verb, "--type", kind, "--mode", disk.mode or "mainline"]
    if not create:
        argv.append("--no-create")
    if disk.migrate_keyblob:
        argv.append("--migrate-keyblob")
    os.makedirs(target, exist_ok=True)
    process.run([*argv, "--", disk.path, target], purpose=f"opening the disk {disk.name}", timeout_s=HELPER_TIMEOUT_S)
    if target not in mount.targets():
        raise OSError(f"the disk {disk.name}: {helper} ended well, but mounted nothing at {target}")


# -- disks that are made anew at each boot, and swap -------------------------------------------------------------------


def _open_provisioned(disk: Disk, target: str, where: Places) -> None:
    """A volume disk with `provision` is formatted each time it is mounted (device.md 1.6)."""
    if disk.provision == "zram":
        modules.ensure(swap.ZRAM_MODULES)
        node = swap.add_zram(places.size_option(disk))
        make_file_system(disk, node)
        mount.mount(node, target, _format(disk), flags=FLAGS, options=disk.mount_options)
    elif disk.provision == "file":
        image = _file(disk, where)
        with loop.attach(image, read_only=False, index_base=where.loop_index_base) as device:
            make_file_system(disk, device)
            mount.mount(device, target, _format(disk), flags=FLAGS, options=disk.mount_options)
    else:
        node = _device(disk)
        make_file_system(disk, node)
        mount.mount(node, target, _format(disk), flags=FLAGS, options=disk.mount_options)


def _image(disk: Disk, where: Places) -> str:
    return disk.path or os.path.join(where.storage, "pv", "volume-disk", f"{disk.name}.img")


def _file(disk: Disk, where: Places) -> str:
    image = _image(disk, where)
    size_bytes = places.size_option(disk)
    atomic.make_dirs(os.path.dirname(image))
    fd = os.open(image, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if os.fstat(fd).st_size != size_bytes:
            os.ftruncate(fd, 0)
        # The kernel swaps to no file with holes.
        os.posix_fallocate(fd, 0, size_bytes)
        os.fsync(fd)
    finally:
        os.close(fd)
    return image


def _device(disk: Disk) -> str:
    if not disk.path.startswith("/dev/"):
        raise ValueError(f"the disk {disk.name}: {disk.path!r} is no device, and the provision {disk.provision!r} none")
    return disk.path


def swap_on(disk: Disk, where: Places) -> str:
    """Use a swap disk; returns the area. What is in use already stays. Raises `OSError`, `ValueError`."""
    there = swap.active()
    if disk.provision == "zram":
        if any(name.startswith("/dev/zram") for name in there):
            return "zram"
        modules.ensure(swap.ZRAM_MODULES)
        area, fresh = swap.add_zram(places.size_option(disk)), True
    elif _image(disk, where) in there or disk.path in there:
        return disk.path
    elif disk.provision == "file":
        area, fresh = _file(disk, where), False
    else:
        area, fresh = disk.path, False
    if not fresh and not swap.is_swap(area) and not disk.provision:
        raise OSError(f"the disk {disk.name}: {area} holds no swap area, and without `provision` none is made")
    if fresh or not swap.is_swap(area):
        swap.make(area)
    swap.on(area)
    return area
