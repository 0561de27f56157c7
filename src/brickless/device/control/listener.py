"""The door of local control: accepts, and gives each connection a process of its own, made by fork.

Lives in the supervisor, whose loop never blocks, and which must not read what strangers send: the child does. A child
costs memory only while it serves; what it had to import, and whatever goes wrong in it, ends with it (ADR 0080).
A client that is slow holds its own process, for a bounded time; no container gets more than its share of them.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
from collections.abc import Callable
from typing import NamedTuple

from brickless.device.control import caller
from brickless.linux import libc
from brickless.store import atomic

MAX_CHILDREN = 8
MAX_PER_CALLER = 3
BACKLOG = 16
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
    b'Content-Length: 47\r\nConnection: close\r\n\r\n{"Error":"Too many requests at the same moment"}'
)


class Door(NamedTuple):
    """One listening socket. `serve` runs in the child; `who` names the caller whose share of children counts."""

    listener: socket.socket
    serve: Callable[[socket.socket], None]
    who: Callable[[socket.socket], str]


class _Child(NamedTuple):
    pid: int
    who: str


class Listener:
    """Doors and the children behind them; descriptors are registered with the caller's poll."""

    __slots__ = ("_children", "_doors", "_poll", "_say", "_waiting")

    def __init__(self, poll: select.poll, say: Callable[[str], None]) -> None:
        self._poll = poll
        self._say = say
        self._doors: dict[int, Door] = {}
        self._children: dict[int, _Child] = {}
        self._waiting = False

    def add(self, door: Door) -> None:
        """Begin to accept there."""
        door.listener.setblocking(False)
        self._doors[door.listener.fileno()] = door
        self._poll.register(door.listener, select.POLLIN)

    def close(self) -> None:
        """Stop accepting; children go on to their end."""
        for fd, door in self._doors.items():
            if not self._waiting:
                self._poll.unregister(fd)
            door.listener.close()
        self._doors.clear()

    def serve(self, fd: int) -> None:
        """Serve a descriptor that is ready; one that is not ours is passed over."""
        if fd in self._doors:
            self._accept(self._doors[fd])
        elif fd in self._children:
            self._bury(fd)

    def _accept(self, door: Door) -> None:
        try:
            client, _ = door.listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        with client:
            who = door.who(client)
            if sum(child.who == who for child in self._children.values()) >= MAX_PER_CALLER:
                _turn_away(client)
                return
            self._start(door, client, who)
        if len(self._children) >= MAX_CHILDREN and not self._waiting:
            self._waiting = True  # whoever comes now waits in the kernel's queue
            for fd in self._doors:
                self._poll.unregister(fd)

    def _start(self, door: Door, client: socket.socket, who: str) -> None:
        pid = os.fork()
        if pid == 0:
            _be_child(door, client)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = _Child(pid, who)
        self._poll.register(pidfd, select.POLLIN)

    def _bury(self, pidfd: int) -> None:
        child = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(child.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGALRM:
            self._say(f"control: a request of {child.who} took too long and was ended")
        elif code:
            self._say(f"control: a request of {child.who} ended with {code}")
        if self._waiting:
            self._waiting = False
            for fd in self._doors:
                self._poll.register(fd, select.POLLIN)


def _turn_away(client: socket.socket) -> None:
    client.setblocking(False)
    try:
        client.send(_BUSY)
    except OSError:
        return  # it is gone, or takes nothing: then it gets nothing


def _be_child(door: Door, client: socket.socket) -> None:
    """In the child: never returns. Nothing of the supervisor's is left open."""
    code = 70
    try:
        gc.freeze()
        libc.set_process_name("pv-control")
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        mine = client.fileno()
        os.closerange(3, mine)
        os.closerange(mine + 1, 4096)
        client.setblocking(True)
        door.serve(client)
        code = 0
    except BaseException as error:
        os.write(2, f"brickless: control: {type(error).__name__}: {error}\n".encode("utf-8", "replace")[:900])
    finally:
        os._exit(code)


def unix_door(path: str, serve: Callable[[socket.socket], None]) -> Door:
    """Listen on a unix socket. An earlier one is replaced in one step, so that its path never leads nowhere.

    Anyone may connect: who may do what is decided by who it is (see `caller`).
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.new"
    if os.path.lexists(temporary):
        os.unlink(temporary)
    listener.bind(temporary)
    os.chmod(temporary, 0o666)  # noqa: S103 the caller is judged by who it is, not by whether it gets in
    listener.listen(BACKLOG)
    atomic.rename(temporary, path)
    return Door(listener, serve, _who)


def tcp_door(where: str, serve: Callable[[socket.socket], None]) -> Door:
    """Listen on `ADDRESS:PORT` (IPv6 in brackets). Raises OSError, and ValueError for what is no address."""
    host, colon, port = where.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{where!r} is not of the form ADDRESS:PORT")
    host = host.strip("[]")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, int(port)))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return Door(listener, serve, _address)


def _address(client: socket.socket) -> str:
    try:
        return str(client.getpeername()[0])
    except OSError:
        return "nobody"  # it is gone again


def _who(client: socket.socket) -> str:
    found = caller.container_of(caller.peer_of(client))
    return "the host" if found == "" else found or "nobody"
