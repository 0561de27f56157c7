"""As much of a D-Bus client as a test of a bus needs: log in, call methods with one string, read the answers.

It claims to be root (`AUTH EXTERNAL 30`, the hex of `0`): what the bus believes is for the test to see.
"""

from __future__ import annotations

import socket
import struct

TIMEOUT_S = 20.0
BUS = "org.freedesktop.DBus"
METHOD_CALL, ERROR = 1, 3


class DBusClient:
    """One connection. Raises `OSError`, `ValueError` for what is no D-Bus."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT_S)
        self._socket.connect(path)
        self._serial = 0
        self._buffer = b""
        self._socket.sendall(b"\0AUTH EXTERNAL 30\r\n")
        answer = self._line()
        if not answer.startswith(b"OK "):
            raise ValueError(f"the bus does not let us in: {answer!r}")
        self._socket.sendall(b"BEGIN\r\n")
        self.name = self.call(BUS, "Hello")

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            self._more()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _more(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionResetError("the bus hung up")
        self._buffer += data

    def call(self, destination: str, member: str, *arguments: str | int) -> str:
        """Call a method of the interface org.freedesktop.DBus, or of `destination`'s own name; the answer as text.

        An error comes back as its name: the test asks for it.
        """
        self._serial += 1
        body, signature = b"", ""
        for argument in arguments:
            signature += "s" if isinstance(argument, str) else "u"
            body = _pad(body, 4) + (_string(argument) if isinstance(argument, str) else struct.pack("<I", argument))
        fields = _pad(_field(1, "o", "/org/freedesktop/DBus"), 8) + _field(2, "s", destination)
        fields = _pad(fields, 8) + _field(3, "s", member)
        fields = _pad(fields, 8) + _field(6, "s", destination)
        if signature:
            fields = _pad(fields, 8) + struct.pack("<B", 8) + b"\x01g\0" + _signature(signature)
        head = struct.pack("<BBBBIII", ord("l"), 1, 0, 1, len(body), self._serial, len(fields)) + fields
        self._socket.sendall(_pad(head, 8) + body)
        return self._answer()

    def wait_for_call(self) -> None:
        """Read until somebody calls a method of ours."""
        while self._message()[0] != METHOD_CALL:
            continue

    def _answer(self) -> str:
        while True:
            kind, fields, body = self._message()
            if fields.get(5) != self._serial:
                continue
            if kind == ERROR:
                return str(fields.get(4))
            signature = str(fields.get(8, ""))
            if signature.startswith("s"):
                return body[4 : 4 + struct.unpack_from("<I", body)[0]].decode()
            return str(struct.unpack_from("<I", body)[0]) if signature.startswith("u") else ""

    def _message(self) -> tuple[int, dict[int, object], bytes]:
        while len(self._buffer) < 16:
            self._more()
        _, kind, _, _, body_size, _, fields_size = struct.unpack_from("<BBBBIII", self._buffer)
        start = -(-(16 + fields_size) // 8) * 8
        while len(self._buffer) < start + body_size:
            self._more()
        message, self._buffer = self._buffer[: start + body_size], self._buffer[start + body_size :]
        return kind, _parse_fields(message, 16, 16 + fields_size), message[start:]


def _parse_fields(message: bytes, at: int, end: int) -> dict[int, object]:
    found: dict[int, object] = {}
    while at < end:
        at = -(-at // 8) * 8
        code, kind = message[at], chr(message[at + 2])
        at += 4
        if kind == "g":
            size = message[at]
            found[code] = message[at + 1 : at + 1 + size].decode()
            at += size + 2
        else:
            at = -(-at // 4) * 4
            (number,) = struct.unpack_from("<I", message, at)
            found[code] = number if kind == "u" else message[at + 4 : at + 4 + number].decode()
            at += 4 + (0 if kind == "u" else number + 1)
    return found


def _pad(data: bytes, to: int) -> bytes:
    return data.ljust(-(-len(data) // to) * to, b"\0")


def _string(text: str) -> bytes:
    return struct.pack("<I", len(text)) + text.encode() + b"\0"


def _signature(text: str) -> bytes:
    return struct.pack("<B", len(text)) + text.encode() + b"\0"


def _field(code: int, kind: str, value: str) -> bytes:
    return struct.pack("<B", code) + b"\x01" + kind.encode() + b"\0" + _string(value)
