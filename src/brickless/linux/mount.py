"""Mounts: early ones, binds, overlays, and the table of what is mounted. Every mount can be repeated without harm.

PID 1 loads this module: it imports next to nothing.
"""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from brickless.linux import libc
from brickless.linux.libc import (
    MNT_DETACH,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_SHARED,
)

MOUNTS_FILE = "/proc/self/mounts"
MOUNTINFO_FILE = "/proc/self/mountinfo"


class Mounted(NamedTuple):
    """One line of /proc/self/mounts, unescaped."""

    source: str
    target: str
    fstype: str
    options: str


class Early(NamedTuple):
    """A mount that the host root needs before anything else runs."""

    source: str
    target: str
    fstype: str
    flags: int
    options: str


# Order matters: /dev before what lies in it. A tmpfs has a bound: a log gone wild must not eat a small device's memory.
EARLY = (
    Early("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, ""),
    Early("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, ""),
    Early("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755"),
    Early("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666"),
    Early("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=25%"),  # noqa: S108 the mount point, no file in it
    Early("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=25%"),
    Early("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=25%"),  # noqa: S108 the mount point, no file in it
)


def mount_early() -> None:
    """Mount proc, sys, dev and the temporary file systems; what is mounted already stays (device.md 3.1)."""
    for entry in EARLY:
        os.makedirs(entry.target, exist_ok=True)
        if not is_mountpoint(entry.target):
            libc.mount(entry.source, entry.target, entry.fstype, entry.flags, entry.options)


def is_mountpoint(path: str) -> bool:
    """Whether something is mounted at `path`, by its device number: works before /proc is there.

    A bind mount within one file system is not seen by this; look into `table()` for those.
    """
    try:
        here = os.lstat(path)
    except FileNotFoundError:
        return False
    above = os.lstat(os.path.dirname(os.path.abspath(path)))
    return here.st_dev != above.st_dev or here.st_ino == above.st_ino


def wait_for_mount(target: str) -> None:
    """Sleep until something is mounted at `target`. The kernel announces every change of the table by poll(2)."""
    import select

    with open(MOUNTS_FILE, "rb") as stream:
        poll = select.poll()
        poll.register(stream, select.POLLERR | select.POLLPRI)
        while not is_mountpoint(target):
            poll.poll()


def table(path: str = MOUNTS_FILE) -> list[Mounted]:
    """What is mounted in this mount namespace, oldest first."""
    with open(path, "rb") as stream:
        return [parse_line(line) for line in os.fsdecode(stream.read()).splitlines()]


def roots(path: str = MOUNTINFO_FILE) -> set[str]:
    """Which folders of file systems are mounted somewhere: the paths that binds were made of, each within its own."""
    with open(path, "rb") as stream:
        lines = os.fsdecode(stream.read()).splitlines()
    # proc(5), /proc/pid/mountinfo: number, parent, device, root, mount point, ...
    return {unescape(fields[3]) for line in lines if len(fields := line.split(" ")) > 4}


def parse_line(line: str) -> Mounted:
    """One line of /proc/self/mounts. Raises `ValueError` for a line with less than four fields."""
    fields = line.split(" ")
    if len(fields) < 4:
        raise ValueError(f"not a line of a mount table: {line!r}")
    return Mounted(*(unescape(field) for field in fields[:4]))


def unescape(field: str) -> str:
    r"""Undo the octal escapes (`\040` for a space) of the kernel's mount tables."""
    if "\\" not in field:
        return field
    out: list[str] = []
    at = 0
    while at < len(field):
        digits = field[at + 1 : at + 4]
        if field[at] == "\\" and len(digits) == 3 and all(digit in "01234567" for digit in digits):
            out.append(chr(int(digits, 8)))
            at += 4
        else:
            out.append(field[at])
            at += 1
    return "".join(out)


def targets() -> set[str]:
    """Every mountpoint of this mount namespace."""
    return {entry.target for entry in table()}


def mount(source: str, target: str, fstype: str, *, flags: int = 0, options: str = "") -> None:
    """Mount a file system at `target`, a directory that is made if need be."""
    os.makedirs(target, exist_ok=True)
    libc.mount(source, target, fstype, flags, options)


def bind(source: str, target: str, *, read_only: bool = False, recursive: bool = False) -> None:
    """Bind `source`, a file or a directory, at `target`, which is made if need be.

    The kernel ignores MS_RDONLY on the bind itself, so read-only takes a second call.
    """
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
    rec = MS_REC if recursive else 0
    libc.mount(source, target, "", MS_BIND | rec, "")
    if read_only:
        libc.mount("none", target, "", MS_BIND | MS_REMOUNT | MS_RDONLY | rec, "")


def remount_read_only(target: str) -> None:
    """Remount a file system read-only: its journal is clean when this returns."""
    libc.mount("none", target, "", MS_REMOUNT | MS_RDONLY, "")


def make_private(target: str = "/") -> None:
    """Keep mounts below `target` from travelling to other mount namespaces."""
    libc.mount("none", target, "", MS_PRIVATE | MS_REC, "")


def make_shared(target: str) -> None:
    """Let mounts below `target` travel to other mount namespaces."""
    libc.mount("none", target, "", MS_SHARED | MS_REC, "")


def unmount(target: str, *, lazy: bool = False) -> bool:
    """Unmount `target`; False when nothing is mounted there. `lazy` detaches what is busy (MNT_DETACH)."""
    try:
        libc.umount2(target, (MNT_DETACH if lazy else 0) | libc.UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return False
        raise
    return True


def unmount_beneath(root: str) -> list[str]:
    """Unmount everything at and below `root`, youngest first; what is busy is detached. Returns what was unmounted."""
    prefix = root.rstrip("/") + "/"
    found = [entry.target for entry in table() if entry.target == root or entry.target.startswith(prefix)]
    for target in reversed(found):
        try:
            unmount(target)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            unmount(target, lazy=True)
    return found[::-1]
