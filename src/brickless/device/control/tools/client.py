"""A client of the control socket for the command-line tools: one request a connection, bodies streamed."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterable
from typing import NamedTuple

from brickless.core.errors import BricklessError

#: Where the socket is looked for: on the host, on the host by the old name, in a container.
SOCKETS = ("/run/pantavisor/pv/pv-ctrl", "/pv/pv-ctrl", "/pantavisor/pv-ctrl")
TIMEOUT_S = 600.0
READ_BYTES = 64 * 1024
MAX_HEAD_BYTES = 64 * 1024


class ToolError(BricklessError):
    """A tool cannot go on; `code` is its exit status."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Reply(NamedTuple):
    """An answer. `error` is the text of `{"Error": ...}`, "" when there is none."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def error(self) -> str:
        """What the device says is wrong."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return ""
        return str(value.get("Error", "")) if isinstance(value, dict) else ""


def find_socket(given: str = "") -> str:
    """The socket that was named, or the first that is there. Raises ToolError."""
    for path in [given] if given else SOCKETS:
        if os.path.exists(path):
            return path
    raise ToolError(f"there is no control socket: looked for {given or ', '.join(SOCKETS)}")


def connect(path: str) -> socket.socket:
    """A connection. Raises ToolError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(TIMEOUT_S)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise ToolError(f"nobody answers at {path}: {error.strerror}") from error
    return sock


def request(
    path: str, method: str, target: str, body: bytes | Iterable[bytes] = b"", *, size_bytes: int | None = None
) -> Reply:
    """Ask and return the whole answer. `body` in pieces needs its size. Raises ToolError when there is no answer."""
    length = len(body) if isinstance(body, bytes) else size_bytes
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length or 0}\r\n\r\n"
    with connect(path) as sock:
        try:
            sock.sendall(head.encode())
            for piece in [body] if isinstance(body, bytes) else body:
                sock.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it answered before it had read all: the answer says why
        return read_reply(sock)


def read_reply(sock: socket.socket) -> Reply:
    """The answer, whole. Raises ToolError."""
    data = b""
    try:
        while piece := sock.recv(READ_BYTES):
            data += piece
    except OSError as error:
        if not data:
            raise ToolError(f"no answer: {error.strerror or error}") from error
    return parse_reply(data)


def parse_reply(data: bytes) -> Reply:
    """An answer in bytes. Raises ToolError when it is none."""
    while data.startswith(b"HTTP/1.1 100"):
        data = data.partition(b"\r\n\r\n")[2]
    head, mark, body = data.partition(b"\r\n\r\n")
    lines = head[:MAX_HEAD_BYTES].decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if not mark or len(words) < 2 or not words[1].isdigit():
        raise ToolError("no answer")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return Reply(int(words[1]), body, headers)


def quote(text: str) -> str:
    """Percent-encoding of one segment of a path."""
    safe = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
    return "".join(chr(byte) if chr(byte) in safe else f"%{byte:02X}" for byte in text.encode())


def write_out(data: bytes, path: str = "") -> None:
    """Data to a file, or to standard output."""
    if path:
        with open(path, "wb") as stream:
            stream.write(data)
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.flush()


def complain(tool: str, text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"{tool}: {text}\n")
