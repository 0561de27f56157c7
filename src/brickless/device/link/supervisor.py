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
    """The supervisor is not there, does not answer, or says no (`refused`, with its `reason`)."""

    refused = False
    reason = ""


class Supervisor:
    """The questions."""

    __slots__ = ("_path",)

    def __init__(self, run: str) -> None:
        self._path = os.path.join(run, "supervisor")

    def status(self) -> dict[str, JsonValue]:
        """What runs (`rev`, `goal`, `containers`) and what is being tried (`trying`, a revision or null)."""
        return self.ask("status")

    def try_revision(self, rev: str, *, reboot: bool = False) -> None:
        """Hands an installed revision over: from here on the supervisor owns its progress."""
        self.ask("try", rev=rev, reboot=reboot)

    def hub(self, *, reachable: bool) -> None:
        """Tells whether the hub can be reached: a commit of a remote revision waits for it."""
        self.ask("hub", reachable=reachable)

    def ask(self, op: str, **more: object) -> dict[str, JsonValue]:
        """One question. Raises SupervisorError when it is not answered, or answered with no."""
        try:
            answer = self._exchange(json.dumps({"op": op, **more}).encode() + b"\n")
        except OSError as error:
            raise SupervisorError(f"The supervisor does not answer {op!r}: {error.strerror or error}") from error
        try:
            value = loads(answer, max_bytes=_MAX_ANSWER_BYTES)
        except HostileInputError as error:
            raise SupervisorError(f"The supervisor answered {op!r} with something that is not JSON") from error
        if not isinstance(value, dict):
            raise SupervisorError(f"The supervisor answered {op!r} with something that is no object")
        if value.get("ok") is False or "error" in value:
            refusal = SupervisorError(f"The supervisor refuses {op!r}: {value.get('error', 'no reason given')}")
            refusal.refused, refusal.reason = True, str(value.get("error", ""))
            raise refusal
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
