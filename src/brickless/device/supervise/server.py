"""The socket `<R>/supervisor`: one JSON object a line each way, for the runtime's processes, never for containers."""

from __future__ import annotations

import json
import os
import select
import socket
import struct
from collections.abc import Callable

from brickless.core.canonical import JsonValue, loads
from brickless.core.errors import BricklessError, HostileInputError
from brickless.linux import cgroup

LINE_MAX_BYTES = 65536
CLIENTS_MAX = 16
PEER = struct.Struct("3i")

Answer = Callable[[dict[str, JsonValue]], dict[str, JsonValue]]


class Server:
    """Non-blocking; its descriptors are registered with the caller's poll."""

    __slots__ = ("_answer", "_buffers", "_clients", "_listener", "_poll")

    def __init__(self, path: str, poll: select.poll, answer: Answer) -> None:
        """Listen on `path`, replacing a socket that an earlier supervisor left."""
        self._answer = answer
        self._poll = poll
        self._clients: dict[int, socket.socket] = {}
        self._buffers: dict[int, bytes] = {}
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.lexists(path):
            os.unlink(path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._listener.bind(path)
        os.chmod(path, 0o600)
        self._listener.listen(CLIENTS_MAX)
        poll.register(self._listener, select.POLLIN)

    def close(self) -> None:
        """Stop listening and drop everyone."""
        for fd in list(self._clients):
            self._drop(fd)
        self._poll.unregister(self._listener)
        self._listener.close()

    def serve(self, fd: int) -> None:
        """Serve a descriptor that is ready; one that is not ours is passed over."""
        if fd == self._listener.fileno():
            self._accept()
        elif fd in self._clients:
            self._read(fd)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        if len(self._clients) >= CLIENTS_MAX or not _is_ours(client):
            client.close()
            return
        client.setblocking(False)
        self._clients[client.fileno()] = client
        self._buffers[client.fileno()] = b""
        self._poll.register(client, select.POLLIN)

    def _read(self, fd: int) -> None:
        try:
            data = self._clients[fd].recv(LINE_MAX_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._buffers[fd] += data
        if not data or len(self._buffers[fd]) > LINE_MAX_BYTES:
            self._drop(fd)
            return
        *lines, self._buffers[fd] = self._buffers[fd].split(b"\n")
        for line in lines:
            if fd in self._clients and line.strip():
                self._reply(fd, self._ask(line))

    def _ask(self, line: bytes) -> dict[str, JsonValue]:
        try:
            question = loads(line, max_bytes=LINE_MAX_BYTES)
            if not isinstance(question, dict):
                raise HostileInputError("A question is a JSON object")
            return self._answer(question)
        except (BricklessError, OSError) as error:
            return {"ok": False, "error": str(error)}

    def _reply(self, fd: int, answer: dict[str, JsonValue]) -> None:
        """Send the answer whole or drop the client: answers are shorter than a socket's buffer."""
        data = json.dumps(answer, default=str).encode() + b"\n"
        try:
            sent = self._clients[fd].send(data)
        except OSError:
            sent = 0
        if sent != len(data):
            self._drop(fd)

    def _drop(self, fd: int) -> None:
        self._poll.unregister(fd)
        self._clients.pop(fd).close()
        del self._buffers[fd]


def _is_ours(client: socket.socket) -> bool:
    """Whether the caller is a process of the runtime: root, and in no container (by its control group)."""
    pid, uid, _ = PEER.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
    try:
        return bool(uid == os.geteuid() and cgroup.container_of(pid) is None)
    except OSError:
        return False
