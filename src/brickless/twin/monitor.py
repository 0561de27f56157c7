"""QEMU's machine protocol (QMP): commands, answers, events, over an inherited socket. See QEMU's qmp-spec."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

from brickless.twin.errors import MachineEndedError, TwinError

ANSWER_TIMEOUT_S = 30.0
NEGOTIATION_ID = 0


class Monitor:
    """The client's end. A thread reads; `execute` may be called from any other."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over the connected socket. Capabilities are negotiated at once: no event comes before that."""
        self._socket = connection
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._answers: dict[int, Mapping[str, Any]] = {}
        self._events: list[Mapping[str, Any]] = []
        self._ready = False
        self._closed = False
        self._last_id = 0
        self._thread = threading.Thread(target=self._read, name="qmp", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            with self._socket.makefile("rb") as stream:
                for line in stream:
                    self._take(json.loads(line))
        except (OSError, ValueError) as error:
            with self._changed:
                self._events.append({"event": "MONITOR_LOST", "data": {"reason": str(error)}})
        finally:
            with self._changed:
                self._closed = True
                self._changed.notify_all()

    def _take(self, message: Mapping[str, Any]) -> None:
        with self._changed:
            if "event" in message:
                self._events.append(message)
            elif "id" in message:
                self._answers[int(message["id"])] = message
                self._ready = self._ready or message["id"] == NEGOTIATION_ID
            self._changed.notify_all()
        if "QMP" in message:
            self._send("qmp_capabilities", {}, NEGOTIATION_ID)

    def _send(self, command: str, arguments: Mapping[str, Any], number: int) -> None:
        message = {"execute": command, "arguments": arguments, "id": number}
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run one command and return its answer. Raises `TwinError` (refused), `MachineEndedError` (QEMU is gone)."""
        self._wait(lambda: self._ready, "its greeting")
        with self._sending:
            self._last_id += 1
            number = self._last_id
            try:
                self._send(command, arguments, number)
            except OSError as error:
                raise MachineEndedError(f"QEMU is gone, the command {command} cannot be sent: {error}") from error
        self._wait(lambda: number in self._answers, f"the answer to {command}")
        answer = self._answers.pop(number)
        if "error" in answer:
            raise TwinError(f"QEMU refused {command} {arguments}: {answer['error'].get('desc', answer['error'])}")
        return answer.get("return")

    def _wait(self, ready: Any, what: str) -> None:
        deadline_s = time.monotonic() + ANSWER_TIMEOUT_S
        with self._changed:
            while not ready():
                left_s = deadline_s - time.monotonic()
                if self._closed:
                    raise MachineEndedError(f"QEMU ended before {what} came")
                if left_s <= 0:
                    raise TwinError(f"QEMU's monitor did not give {what} within {ANSWER_TIMEOUT_S:g} s")
                self._changed.wait(left_s)

    def shutdown_reason(self) -> str:
        """Why QEMU ended, as its SHUTDOWN event says (`guest-reset`, `guest-shutdown`, ...); empty when it said none.

        Call it after QEMU has ended: it waits for the reader to see the end.
        """
        self._thread.join(ANSWER_TIMEOUT_S)
        for event in reversed(self._events):
            if event.get("event") == "SHUTDOWN":
                return str(event.get("data", {}).get("reason", ""))
        return ""

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
