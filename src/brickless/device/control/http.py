"""HTTP/1.1 as a server, as much of it as local control needs: one request a connection, everything bounded.

Blocking, for a process that serves one connection and ends (see `listener`); time is bounded by the caller's alarm.
RFC 9112; bodies by length or in chunks. Any error of the client is an `HttpError` with its status.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from brickless.core.errors import BricklessError

MAX_HEAD_BYTES = 16 * 1024
MAX_CHUNK_LINE_BYTES = 256
READ_BYTES = 64 * 1024
#: What a client still sends after the answer is read for so long, so that it gets to see the answer.
_DRAIN_BYTES = 256 * 1024
REASONS = {
    100: "Continue",
    200: "OK",
    204: "No Content",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    411: "Length Required",
    413: "Content Too Large",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    507: "Insufficient Storage",
}


class HttpError(BricklessError):
    """An answer that is no success: the status, the text for `{"Error": ...}`, and when to try again (0: unknown)."""

    def __init__(self, status: int, text: str, *, retry_after_s: int = 0, headers: Mapping[str, str] | None = None):
        super().__init__(text)
        self.status = status
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})


class Response(NamedTuple):
    """An answer. `content` is whole, or pieces of exactly `size_bytes`; `then` is done after it was sent."""

    status: int = 200
    content: bytes | Iterator[bytes] = b""
    kind: str = "application/json"
    size_bytes: int = -1
    headers: Mapping[str, str] = {}
    then: Callable[[], None] | None = None


def json_response(value: object, status: int = 200) -> Response:
    """A value as JSON."""
    return Response(status, json.dumps(value, separators=(",", ":"), default=str).encode())


class Body:
    """What follows the head: read once, in pieces."""

    __slots__ = ("_buffer", "_chunked", "_continue", "_left", "_sock", "size_bytes")

    def __init__(self, sock: socket.socket, buffer: bytes, headers: Mapping[str, str]) -> None:
        self._sock = sock
        self._buffer = buffer
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        self._continue = headers.get("expect", "").lower() == "100-continue"
        if not self._chunked and "transfer-encoding" in headers:
            raise HttpError(400, "This transfer encoding is not understood: only chunked is")
        #: As announced; -1 when it comes in chunks.
        self.size_bytes = -1 if self._chunked else _length(headers)
        self._left = self.size_bytes

    def pieces(self) -> Iterator[bytes]:
        """All of it. Raises HttpError when it breaks off."""
        if self._continue:
            self._continue = False
            self._sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self._chunked:
            while self._left > 0:
                piece = self._take(min(self._left, READ_BYTES))
                self._left -= len(piece)
                yield piece
            return
        while size := self._chunk_size():
            while size:
                piece = self._take(min(size, READ_BYTES))
                size -= len(piece)
                yield piece
            self._line()
        while self._line():  # trailers
            continue
        self._chunked, self._left = False, 0

    def read(self, most: int) -> bytes:
        """All of it. Raises HttpError 413 when it is longer than `most` bytes."""
        if self.size_bytes > most:
            raise HttpError(413, f"The body has {self.size_bytes} bytes, at most {most} are taken")
        data = bytearray()
        for piece in self.pieces():
            data += piece
            if len(data) > most:
                raise HttpError(413, f"The body has more than {most} bytes")
        return bytes(data)

    def _take(self, most: int) -> bytes:
        if self._buffer:
            piece, self._buffer = self._buffer[:most], self._buffer[most:]
            return piece
        piece = self._sock.recv(most)
        if not piece:
            raise HttpError(400, "The body broke off")
        return piece

    def _line(self) -> bytes:
        while b"\n" not in self._buffer:
            if len(self._buffer) > MAX_CHUNK_LINE_BYTES:
                raise HttpError(400, "A line of the chunked body is too long")
            piece = self._sock.recv(READ_BYTES)
            if not piece:
                raise HttpError(400, "The body broke off")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.strip()

    def _chunk_size(self) -> int:
        text = self._line().partition(b";")[0].strip()
        if not text or len(text) > 12 or text.strip(b"0123456789abcdefABCDEF"):
            raise HttpError(400, "The size of a chunk is no number")
        return int(text, 16)


class Request(NamedTuple):
    """A request. `parts` are the segments of its path, decoded; header names are in lower case."""

    method: str
    path: str
    parts: tuple[str, ...]
    query: str
    headers: Mapping[str, str]
    body: Body


def _length(headers: Mapping[str, str]) -> int:
    text = headers.get("content-length", "0")
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise HttpError(400, "Content-Length is no number")
    return int(text)


def read_request(sock: socket.socket) -> Request | None:
    """The request; None when the client went away without one. Raises HttpError for what is none."""
    data = b""
    while b"\r\n\r\n" not in data and b"\n\n" not in data:
        if len(data) > MAX_HEAD_BYTES:
            raise HttpError(400, f"The head of the request has more than {MAX_HEAD_BYTES} bytes")
        piece = sock.recv(READ_BYTES)
        if not piece:
            if not data.strip():
                return None
            raise HttpError(400, "The request broke off in its head")
        data += piece
    mark = b"\r\n\r\n" if b"\r\n\r\n" in data else b"\n\n"
    head, _, rest = data.partition(mark)
    lines = head.decode("latin-1").splitlines()
    method, target = _first_line(lines[0] if lines else "")
    headers = _headers(lines[1:])
    path, _, query = target.partition("?")
    return Request(method, path, _parts(path), query, headers, Body(sock, rest, headers))


def _first_line(line: str) -> tuple[str, str]:
    words = line.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[0].isalpha() or not words[0].isascii():
        raise HttpError(400, "This is no HTTP/1 request")
    method, target = words[0], words[1]
    if target.startswith("http://"):
        target = "/" + target[7:].partition("/")[2]
    if not target.startswith("/") or not target.isascii() or not target.isprintable():
        raise HttpError(400, "The target of the request is no path")
    return method, target


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or not name or name != name.strip():
            raise HttpError(400, "A header is malformed")
        if name in headers and name in {"content-length", "host", "transfer-encoding", "authorization"}:
            raise HttpError(400, f"The header {name} stands twice")
        headers[name] = value.strip()
    if "content-length" in headers and "transfer-encoding" in headers:
        raise HttpError(400, "Content-Length and Transfer-Encoding exclude each other")
    return headers


def _parts(path: str) -> tuple[str, ...]:
    return tuple(unquote(part) for part in path.split("/") if part)


def unquote(text: str) -> str:
    """Percent-decoding of one segment. Raises HttpError for what is not well formed, or no text."""
    if "%" not in text:
        return text
    head, *rest = text.encode("ascii").split(b"%")
    data = bytearray(head)
    for piece in rest:
        try:
            data.append(int(piece[:2], 16))
        except ValueError:
            raise HttpError(400, "The path is badly encoded") from None
        data += piece[2:]
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise HttpError(400, "The path is no UTF-8") from None


def error_response(error: HttpError) -> Response:
    """The answer that says what went wrong."""
    headers = dict(error.headers)
    if error.retry_after_s:
        headers["Retry-After"] = str(error.retry_after_s)
    return json_response({"Error": error.message}, error.status)._replace(headers=headers)


def send(sock: socket.socket, response: Response, *, head_only: bool = False) -> None:
    """Send an answer, then no more: the connection is for one request. Raises OSError when the client is gone."""
    content = response.content
    size = len(content) if isinstance(content, bytes) else response.size_bytes
    lines = [f"HTTP/1.1 {response.status} {REASONS.get(response.status, 'Status')}"]
    if size or response.status != 204:
        lines += [f"Content-Type: {response.kind}", f"Content-Length: {size}"]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    head = "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1", "replace")
    if head_only or not size:
        sock.sendall(head)
    elif isinstance(content, bytes):
        sock.sendall(head + content)
    else:
        sock.sendall(head)
        for piece in content:
            sock.sendall(piece)


def linger(sock: socket.socket) -> None:
    """Take in a little of what the client is still sending: closing at once would reset it before it reads."""
    try:
        sock.shutdown(socket.SHUT_WR)
        left = _DRAIN_BYTES
        while left > 0:
            piece = sock.recv(READ_BYTES)
            if not piece:
                return
            left -= len(piece)
    except OSError:
        return  # it went away by itself: there is nobody to be told
