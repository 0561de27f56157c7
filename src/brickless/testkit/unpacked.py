"""What an image is when it is unpacked, entry by entry: by umoci as root, and as the root file system that we build."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

from brickless.linux import process
from brickless.oci import squashfs
from brickless.oci.flatten import Flattener
from brickless.oci.sources import open_image


def described(root: Path) -> dict[bytes, tuple[Any, ...]]:
    """Every entry below a folder: what there is to compare. Hard links by the set of their names."""
    found: dict[bytes, tuple[Any, ...]] = {}
    names: dict[int, list[bytes]] = {}
    base = os.fsencode(root)
    for parent, folders, files in os.walk(base):
        for name in folders + files:
            path = os.path.join(parent, name)
            info = os.lstat(path)
            relative = os.path.relpath(path, base)
            kind = stat.S_IFMT(info.st_mode)
            what: Any = None
            if kind == stat.S_IFREG:
                what = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()
                if info.st_nlink > 1:
                    names.setdefault(info.st_ino, []).append(relative)
            elif kind == stat.S_IFLNK:
                what = os.readlink(path)
            elif kind in (stat.S_IFCHR, stat.S_IFBLK):
                what = info.st_rdev
            mode = 0 if kind == stat.S_IFLNK else stat.S_IMODE(info.st_mode)
            xattrs = tuple(
                sorted(
                    (n, os.getxattr(path, n, follow_symlinks=False)) for n in os.listxattr(path, follow_symlinks=False)
                )
            )
            time_s = int(info.st_mtime) if kind == stat.S_IFREG else None
            found[relative] = (kind, mode, info.st_uid, info.st_gid, what, xattrs, time_s)
    for group in names.values():
        for name in group:
            found[name] = (*found[name], tuple(sorted(group)))
    return found


def by_umoci(layout: Path, dest: Path, tag: str = "latest") -> dict[bytes, tuple[Any, ...]]:
    """The entries of an OCI layout as umoci unpacks it."""
    process.run(["umoci", "unpack", "--image", f"{layout}:{tag}", str(dest)], purpose="unpack", timeout_s=120)
    return described(dest / "rootfs")


def by_us(source: str, folder: Path) -> dict[bytes, tuple[Any, ...]]:
    """The entries of the `root.squashfs` that we build of an image, which stays in `folder`."""
    with open_image(source, cache=folder / "cache") as image, Flattener() as flattener:
        flattener.add_all(image.layers)
        squashfs.build(flattener.squashfs_stream(), folder / "root.squashfs")
    return of_squashfs(folder / "root.squashfs", folder / "root")


def of_squashfs(path: Path, dest: Path) -> dict[bytes, tuple[Any, ...]]:
    """The entries of a squashfs."""
    argv = ["unsquashfs", "-q", "-n", "-strict-errors", "-d", str(dest), str(path)]
    process.run(argv, purpose="unpack", timeout_s=120)
    return described(dest)
