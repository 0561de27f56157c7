"""What the agent asks of the supervisor: one JSON object a line each way over `<R>/supervisor` (ARCHITECTURE.md).

Each question is a connection of its own, so that neither process has to remember the other; when the supervisor is
being started again, the question fails and is asked again in the next turn.
"""

from __future__ import annotations

import json
import os
import socket

from brickless.core.canonical import JsonValue, loads
from brickless.core.errors import BricklessError, HostileInputError

_TIMEOUT_S = 10.0
_MAX_ANSWER_BYTES = 64 * 1024


class SupervisorError(BricklessError):
    """The supervisor is not there, does not answer, or says no."""


class Supervisor:
    """The questions."""

    __slots__ = ("_path",)

    def __init__(self, run: str) -> None:
        self._path = os.path.join(run, "supervisor")

    def status(self) -> dict[str, JsonValue]:
        """What runs (`rev`, `goal`, `containers`) and what is being tried (`trying`, a revision or null)."""
        return self._ask({"op": "status"})

    def try_revision(self, rev: str) -> None:
        """Hands an installed revision over: from here on the supervisor owns its progress."""
        self._ask({"op": "try", "rev": rev})

    def hub(self, *, reachable: bool) -> None:
        """Tells whether the hub can be reached: a commit of a remote revision waits for it."""
        self._ask({"op": "hub", "reachable": reachable})

    def _ask(self, question: dict[str, JsonValue]) -> dict[str, JsonValue]:
        op = question["op"]
        try:
            answer = self._exchange(json.dumps(question).encode() + b"\n")
        except OSError as error:
            raise SupervisorError(f"The supervisor does not answer {op!r}: {error.strerror or error}") from error
        try:
            value = loads(answer, max_bytes=_MAX_ANSWER_BYTES)
        except HostileInputError as error:
            raise SupervisorError(f"The supervisor answered {op!r} with something that is not JSON") from error
        if not isinstance(value, dict):
            raise SupervisorError(f"The supervisor answered {op!r} with something that is no object")
        if value.get("ok") is False or "error" in value:
            raise SupervisorError(f"The supervisor refuses {op!r}: {value.get('error', 'no reason given')}")
        return value

    def _exchange(self, line: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(_TIMEOUT_S)
            sock.connect(self._path)
            sock.sendall(line)
            answer = bytearray()
            while not answer.endswith(b"\n"):
                piece = sock.recv(4096)
                if not piece or len(answer) > _MAX_ANSWER_BYTES:
                    break
                answer += piece
        return bytes(answer)
