"""Control groups: which layout this kernel has, the mount, whose process a pid is, and the end of a whole group.

A device of ours mounts the unified hierarchy alone (cgroups(7), version 2): one mount, no cost for each controller, and
`cgroup.kill`. On a host with version 1 or hybrid mounts (a developer's machine) what is mounted is used.
"""

from __future__ import annotations

import errno
import os
import signal

from brickless.linux import libc, mount

ROOT = "/sys/fs/cgroup"
CONTROLLERS = ("cpu", "memory", "pids", "io", "cpuset")
# What LXC calls the group of a container's processes; the part after it is the container's name.
PAYLOAD = "lxc.payload."


def mount_unified(root: str = ROOT) -> None:
    """Mount cgroup v2 at `root` and hand its controllers to the groups below; no harm when it is there already."""
    if not mount.is_mountpoint(root):
        flags = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
        mount.mount("cgroup2", root, "cgroup2", flags=flags, options="nsdelegate")
    with open(os.path.join(root, "cgroup.controllers"), encoding="ascii") as stream:
        there = set(stream.read().split())
    for controller in CONTROLLERS:
        if controller in there:
            _write(os.path.join(root, "cgroup.subtree_control"), f"+{controller}")


def layout(root: str = ROOT) -> str:
    """`unified`, `hybrid`, `legacy` or `none`: how control groups are mounted at `root`."""
    if os.path.exists(os.path.join(root, "cgroup.controllers")):
        return "unified"
    if not os.path.isdir(os.path.join(root, "devices")):
        return "none"
    return "hybrid" if os.path.exists(os.path.join(root, "unified", "cgroup.controllers")) else "legacy"


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def container_of(pid: int, proc: str = "/proc") -> str | None:
    """The container that the process belongs to, by its control group; None for a process of the host.

    Raises `OSError` when the process is gone. A container cannot forge this: it sees its own group as the root, and
    cannot move its processes out of it.
    """
    with open(f"{proc}/{pid}/cgroup", encoding="utf-8") as stream:
        text = stream.read(65536)
    return parse_container(text)


def parse_container(text: str) -> str | None:
    """The container's name in the text of /proc/PID/cgroup: the first component `lxc.payload.NAME` of any path."""
    for line in text.splitlines():
        path = line.split(":", 2)[-1]
        for part in path.split("/"):
            if part.startswith(PAYLOAD) and len(part) > len(PAYLOAD):
                return part[len(PAYLOAD) :]
    return None


def pids(group: str) -> list[int]:
    """The processes of the group at the path `group` and of the groups below it; empty when it is gone."""
    found: list[int] = []
    for folder, _, files in os.walk(group):
        if "cgroup.procs" not in files:
            continue
        try:
            with open(os.path.join(folder, "cgroup.procs"), encoding="ascii") as stream:
                found += [int(line) for line in stream]
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise
    return found


def kill_all(group: str) -> None:
    """SIGKILL to every process of the group; `cgroup.kill` does it in one step where the kernel has it (5.14)."""
    try:
        _write(os.path.join(group, "cgroup.kill"), "1")
    except FileNotFoundError:
        for pid in pids(group):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def remove(group: str) -> bool:
    """Remove the empty group and the empty groups below it; False while processes are left in it."""
    for folder, _, _ in os.walk(group, topdown=False):
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            raise
    return True
