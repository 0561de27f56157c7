"""One connection through the proxy: bytes and descriptors both ways, each way through a filter, with bounds.

Nothing is read from a side while more than `HELD_MAX_BYTES` wait for the other: a provider that does not read holds up
its own callers and not the proxy's memory.
"""

from __future__ import annotations

import array
import os
import select
import socket
from collections import deque
from typing import NamedTuple

from brickless.core.errors import HostileInputError
from brickless.device.xconnect.filters import Filter, Plain

READ_BYTES = 65536
HELD_MAX_BYTES = 262144
# The kernel's own limit for one message (SCM_MAX_FD).
FDS_MAX = 253
_SPACE = socket.CMSG_SPACE(FDS_MAX * array.array("i").itemsize)


class _Piece(NamedTuple):
    data: bytes
    fds: tuple[int, ...]


class _Way:
    """From one socket to the other."""

    __slots__ = ("_filter", "_held", "_queue", "ended", "sink", "source")

    def __init__(self, source: socket.socket, sink: socket.socket, through: Filter) -> None:
        self.source = source
        self.sink = sink
        self.ended = False
        self._filter = through
        self._queue: deque[_Piece] = deque()
        self._held = 0

    @property
    def wants_more(self) -> bool:
        return not self.ended and self._held < HELD_MAX_BYTES

    @property
    def has_some(self) -> bool:
        return bool(self._queue)

    def read(self) -> None:
        """Take what is there. Raises `OSError`, `HostileInputError`."""
        try:
            data, control, flags, _ = self.source.recvmsg(READ_BYTES, _SPACE, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        fds = _descriptors(control)
        try:
            if flags & socket.MSG_CTRUNC:
                raise HostileInputError("More descriptors in one message than the kernel passes on")
            if not data:
                self.ended = True
                if not self._queue:
                    self._finish()
            out = self._filter.feed(data) if data else b""
            if fds and not out:
                raise HostileInputError("Descriptors where none are expected")
        except HostileInputError:
            _close(fds)
            raise
        if out:
            self._queue.append(_Piece(out, tuple(fds)))
            self._held += len(out)

    def write(self) -> None:
        """Pass on what the other side takes. Raises `OSError`."""
        while self._queue:
            piece = self._queue[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", piece.fds))] if piece.fds else []
            try:
                sent = self.sink.sendmsg([piece.data], rights)
            except BlockingIOError:
                return
            _close(piece.fds)
            self._queue[0] = _Piece(piece.data[sent:], ())
            self._held -= sent
            if not self._queue[0].data:
                self._queue.popleft()
        if self.ended:
            self._finish()

    def _finish(self) -> None:
        self.sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for piece in self._queue:
            _close(piece.fds)
        self._queue.clear()


class Pump:
    """Both ways of a connection, registered with a poll."""

    __slots__ = ("_poll", "_registered", "_ways", "client", "link", "provider")

    def __init__(
        self, link: tuple[int, str], client: socket.socket, provider: socket.socket, through: Filter, poll: select.poll
    ) -> None:
        # The place of its link: a process and a path.
        self.link = link
        self.client = client
        self.provider = provider
        self._poll = poll
        self._ways = (_Way(client, provider, through), _Way(provider, client, Plain()))
        self._registered: dict[int, int] = {}
        self._register()

    def filenos(self) -> tuple[int, int]:
        """The descriptors of both sides."""
        return self.client.fileno(), self.provider.fileno()

    def serve(self, fd: int, events: int) -> bool:
        """Serve a side that is ready; False when the connection is over."""
        try:
            for way in self._ways:
                if way.source.fileno() == fd and events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                    if way.wants_more:
                        way.read()
                    way.write()
                elif way.sink.fileno() == fd and events & select.POLLOUT:
                    way.write()
        except OSError:
            # One side is gone: so is the connection.
            return False
        if all(way.ended and not way.has_some for way in self._ways):
            return False
        self._register()
        return True

    def _register(self) -> None:
        """Ask for what can be used, and no more: a side that is always ready would keep us awake."""
        wanted = dict.fromkeys(self.filenos(), 0)
        for way in self._ways:
            if way.wants_more:
                wanted[way.source.fileno()] |= select.POLLIN
            if way.has_some:
                wanted[way.sink.fileno()] |= select.POLLOUT
        for fd, events in wanted.items():
            if events and self._registered.get(fd) != events:
                self._poll.register(fd, events)
            elif not events and fd in self._registered:
                # POLLHUP cannot be masked: a side that has ended and waits for the other would report it for ever.
                self._poll.unregister(fd)
        self._registered = {fd: events for fd, events in wanted.items() if events}

    def close(self) -> None:
        """Drop both sides."""
        for fd in self._registered:
            self._poll.unregister(fd)
        for way in self._ways:
            way.close()
        self.client.close()
        self.provider.close()


def _descriptors(control: list[tuple[int, int, bytes]]) -> list[int]:
    found: list[int] = []
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
            found += numbers
    return found


def _close(fds: tuple[int, ...] | list[int]) -> None:
    for fd in fds:
        os.close(fd)
