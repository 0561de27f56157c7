"""Into containers and out of them: sockets that appear in a consumer, sockets and devices of a provider.

Paths come from a revision, and what lies at them from a container, which may be hostile. A path in a provider is
resolved below the provider's root, whatever links it made (openat2 with RESOLVE_IN_ROOT); one in a consumer is made by
a child that entered the consumer's mount namespace, and so cannot leave it.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct

from brickless.device.supervise import apart
from brickless.linux import cgroup, libc

BACKLOG = 16
TARGET_MODE = 0o666
ENTER_LONGEST_S = 30
PEER = struct.Struct("3i")
PASSWD_MAX_BYTES = 1 << 16
NOBODY = 65534
# Devices that may be handed on: DRM nodes alone (Documentation/admin-guide/devices.txt).
DRM_MAJOR = 226


def listen(consumer_pid: int, target: str) -> socket.socket:
    """A listening socket at `target` in the consumer. Raises `OSError` for a place that is taken by something else.

    The socket is made here and bound there: both processes share it.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        apart.run(f"making {target}", lambda: _bind(consumer_pid, made, target), longest_s=ENTER_LONGEST_S)
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def _enter(pid: int) -> None:
    fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    libc.setns(fd, libc.CLONE_NEWNS)


def _go_beside(target: str) -> str:
    """Make the folder of the target, go there, and return the last name: a socket's address is at most 107 bytes."""
    folder, name = os.path.split(target)
    os.makedirs(folder or "/", mode=0o755, exist_ok=True)
    os.chdir(folder or "/")
    return name


def _bind(pid: int, made: socket.socket, target: str) -> None:
    _enter(pid)
    name = _go_beside(target)
    _clear(name, stat.S_ISSOCK, target)
    made.bind(name)
    os.chmod(name, TARGET_MODE)


def _clear(name: str, is_ours: object, target: str) -> None:
    """Remove what an earlier link left; anything else that lies there is the container's and stays."""
    try:
        info = os.lstat(name)
    except FileNotFoundError:
        return
    if not callable(is_ours) or not is_ours(info.st_mode):
        raise OSError(errno.EEXIST, f"{target} exists in the container and is no socket or device of ours")
    os.unlink(name)


def withdraw(consumer_pid: int, target: str) -> None:
    """Take a socket away again. Harmless when the container is gone."""

    def remove() -> None:
        _enter(consumer_pid)
        _clear(_go_beside(target), stat.S_ISSOCK, target)

    try:
        apart.run(f"taking {target} away", remove, longest_s=ENTER_LONGEST_S)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESRCH):
            raise


def locate(provider_pid: int, path: str) -> int:
    """A descriptor (O_PATH) of what lies at `path` in the provider, or on the host for pid 0. Raises `OSError`."""
    if not provider_pid:
        return os.open(path, os.O_PATH | os.O_CLOEXEC)
    root = os.open(f"/proc/{provider_pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        resolve = libc.RESOLVE_IN_ROOT | libc.RESOLVE_NO_MAGICLINKS
        return libc.openat2(root, path, os.O_PATH | os.O_CLOEXEC, resolve)
    finally:
        os.close(root)


def connect(provider_pid: int, path: str, uid: int | None = None) -> socket.socket:
    """Connect to the provider's socket; as the user `uid`, which the provider then sees, unless None.

    Raises `OSError`, e.g. when nobody listens.
    """
    found = locate(provider_pid, path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(found).st_mode):
            raise OSError(errno.ENOTSOCK, f"{path} of the provider is no socket")
        if uid is None:
            made.connect(f"/proc/self/fd/{found}")
        else:
            _connect_as(made, found, uid)
    except OSError:
        made.close()
        raise
    finally:
        os.close(found)
    return made


def _connect_as(made: socket.socket, found: int, uid: int) -> None:
    """The provider sees who we are at this moment: the role's user, in no group of ours."""
    os.setegid(NOBODY)
    try:
        os.seteuid(uid)
        try:
            made.connect(f"/proc/self/fd/{found}")
        finally:
            os.seteuid(0)
    finally:
        os.setegid(0)


def is_of(pid: int, container: str) -> bool:
    """Whether the process still is the container's: numbers of processes are used again."""
    try:
        return cgroup.container_of(pid) == container
    except OSError:
        return False


def caller(client: socket.socket) -> str | None:
    """The container that a connection comes from, as the kernel says; None for a process of the host, or one gone."""
    pid, _, _ = PEER.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
    try:
        return cgroup.container_of(pid)
    except OSError:
        return None


def hand_device(provider_pid: int, path: str, consumer_pid: int, target: str) -> None:
    """A copy of the provider's DRM node at `target` in the consumer. Raises `OSError` for any other kind of device."""
    found = locate(provider_pid, path)
    try:
        info = os.fstat(found)
    finally:
        os.close(found)
    if not stat.S_ISCHR(info.st_mode) or os.major(info.st_rdev) != DRM_MAJOR:
        raise OSError(errno.ENODEV, f"{path} of the provider is no DRM device")

    def make() -> None:
        _enter(consumer_pid)
        name = _go_beside(target)
        _clear(name, stat.S_ISCHR, target)
        os.mknod(name, stat.S_IFCHR | TARGET_MODE, info.st_rdev)
        os.chmod(name, TARGET_MODE)

    apart.run(f"making the device {target}", make, longest_s=ENTER_LONGEST_S)


def uid_in(provider_pid: int, role: str) -> int:
    """The user of that name in the provider's /etc/passwd, else nobody (device.md 5.11)."""
    try:
        found = locate(provider_pid, "/etc/passwd")
        try:
            with open(f"/proc/self/fd/{found}", "rb") as stream:
                text = stream.read(PASSWD_MAX_BYTES)
        finally:
            os.close(found)
    except OSError:
        return NOBODY
    for line in text.decode("utf-8", "replace").splitlines():
        fields = line.split(":")
        # Never root: a role is what a caller may do, and no provider's word makes a caller root.
        if len(fields) > 2 and fields[0] == role and fields[2].isdecimal() and int(fields[2]) > 0:
            return int(fields[2])
    return NOBODY
