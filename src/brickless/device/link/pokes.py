"""Words by which local control wakes the agent: datagrams to a socket in a folder that no container sees."""

from __future__ import annotations

import os
import socket

from brickless.device.control.places import AGENT
from brickless.device.link.wakeup import Wakeup

_MAX_WORD_BYTES = 64
_MAX_WORDS = 64


class Pokes:
    """The socket. A word that came while nobody waited is there at the next `take`."""

    __slots__ = ("_socket", "_wakeup")

    def __init__(self, private: str, wakeup: Wakeup) -> None:
        """Listen; a socket that a dead agent left is replaced. Raises OSError."""
        os.makedirs(private, mode=0o700, exist_ok=True)
        path = os.path.join(private, AGENT)
        if os.path.lexists(path):
            os.unlink(path)
        self._wakeup = wakeup
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._socket.bind(path)
        os.chmod(path, 0o600)
        wakeup.watch(self._socket.fileno())

    def take(self) -> set[str]:
        """The words since the last time."""
        words: set[str] = set()
        for _ in range(_MAX_WORDS):
            try:
                words.add(self._socket.recv(_MAX_WORD_BYTES).decode("ascii", "replace"))
            except BlockingIOError:
                break
        return words

    def close(self) -> None:
        """No longer listen."""
        self._wakeup.forget(self._socket.fileno())
        self._socket.close()
