"""Where a revision's disks are and what lies on them (contract device.md 1.6, 5.4). Nothing is done here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from brickless.core.disks import CRYPT, Disk, DiskType

MIB = 1 << 20
_SIZE = re.compile(r"([1-9][0-9]{0,11})([KMG]?)i?B?")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Places(NamedTuple):
    """Folders of this device: the storage partition, PV_SYSTEM_MEDIADIR, PV_SYSTEM_DISKSDIR, PV_SYSTEM_LIBDIR."""

    storage: str
    media: str
    disks: str
    lib: str
    loop_index_base: int = -1


class CryptPath(NamedTuple):
    """`<image file>,<size in MB>,<key name>` of a dm-crypt disk; `prefix` is `-v2 ` or ""."""

    image: str
    size_bytes: int
    key: str
    prefix: str = ""


def named(disks: Iterable[Disk], name: str) -> Disk | None:
    """The disk of that name or alias; the default one for "", None when the storage partition itself is meant."""
    for disk in disks:
        if (name and name in (disk.name, *disk.aliases)) or (not name and disk.is_default):
            return disk
    return None


def is_plain(disk: Disk) -> bool:
    """Whether the disk is nothing but a folder of the storage partition."""
    return disk.type == DiskType.VOLUME and not disk.provision


def root(disk: Disk, places: Places) -> str:
    """The folder that holds `perm`, `rev` and `boot` of the disk."""
    if is_plain(disk):
        return os.path.join(places.storage, "pv", "volume-disk", disk.name)
    return os.path.join(places.media, "pv", "dmcrypt", disk.name)


def is_mounted_disk(disk: Disk) -> bool:
    """Whether storage can lie on it: all but swap."""
    return disk.type in CRYPT or disk.type in (DiskType.VOLUME, DiskType.DUAL)


def crypt_path(disk: Disk) -> CryptPath:
    """Read the path of a dm-crypt disk. Raises `ValueError`."""
    prefix = "-v2 " if disk.path.startswith("-v2 ") else ""
    parts = disk.path[len(prefix) :].split(",")
    if len(parts) != 3 or not parts[1].isdecimal() or "/" in parts[2]:
        raise ValueError(f"the disk {disk.name}: {disk.path!r} is not <image file>,<size in MB>,<key name>")
    return CryptPath(parts[0], int(parts[1]) * MIB, parts[2], prefix)


def size_option(disk: Disk) -> int:
    """`size=64M` of the provision options, in bytes. Raises `ValueError` when it is missing or no size."""
    for word in disk.provision_options.replace(",", " ").split():
        key, _, value = word.partition("=")
        match = _SIZE.fullmatch(value)
        if key in ("size", "disksize") and match:
            return int(match[1]) * _UNITS[match[2]]
    raise ValueError(f"the disk {disk.name}: its provision options {disk.provision_options!r} name no size=")


def dual_marker(disk: Disk, places: Places) -> str:
    """The file that says that a dual disk was made once."""
    second = disk.disks[1] if len(disk.disks) > 1 else disk.disks[0]
    return os.path.join(places.disks, f"dual_{disk.disks[0]}_{second}.init_done")
