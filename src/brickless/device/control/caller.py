"""Who is at the other end of the control socket: told by the kernel, not by the caller (device.md 6.1).

The socket says which process connected (SO_PEERCRED), its control group says of which container it is. A process that
is in no container's group, yet in another PID namespace than ours, is nobody: it left its group and gains nothing.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import NamedTuple

from brickless.linux import cgroup

_PEER = struct.Struct("3i")
HOST = "_pv_"


class Peer(NamedTuple):
    """What the kernel says about the process that connected."""

    pid: int
    uid: int


class Caller(NamedTuple):
    """A caller. `container` is "" for the host; `manages`: it may do all; not `known`: it may do nothing."""

    container: str
    manages: bool
    known: bool = True
    uid: int = 0

    @property
    def name(self) -> str:
        """For logs: the container, or the reference's word for the host."""
        return self.container or HOST


NOBODY = Caller("", False, known=False)


def peer_of(sock: socket.socket) -> Peer:
    """The process at the other end."""
    pid, uid, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return Peer(pid, uid)


def container_of(peer: Peer, proc: str = "/proc") -> str | None:
    """The peer's container, "" for the host, None when it is gone or neither (see above)."""
    try:
        found = cgroup.container_of(peer.pid, proc)
        if found is not None:
            return found
        ours, theirs = os.readlink(f"{proc}/self/ns/pid"), os.readlink(f"{proc}/{peer.pid}/ns/pid")
    except OSError:
        return None
    return "" if ours == theirs else None


def identify(peer: Peer, roles: dict[str, tuple[str, ...]], proc: str = "/proc") -> Caller:
    """The caller with its rights. `roles` are those of the running containers.

    A container manages the device by its role, and within it only who owns its root folder: its root user, also where
    user namespaces shift him. Of the host's processes only root does.
    """
    container = container_of(peer, proc)
    if container is None:
        return NOBODY
    if not container:
        return Caller("", peer.uid == os.geteuid(), uid=peer.uid)
    if "mgmt" not in roles.get(container, ()):
        return Caller(container, False, uid=peer.uid)
    try:
        owner = os.stat(f"{proc}/{peer.pid}/root").st_uid
    except OSError:
        return NOBODY
    return Caller(container, peer.uid in (0, owner), uid=peer.uid)
