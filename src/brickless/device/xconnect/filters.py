"""What is changed on the way from a consumer to a provider: headers that say who calls, the user of a D-Bus login.

A filter takes bytes as they come and gives those to pass on. It refuses, by `HostileInputError`, whatever it cannot
read for sure: what two parsers read differently is how one caller speaks for another.
"""

from __future__ import annotations

import re
from typing import Protocol

from brickless.core.errors import HostileInputError

HEAD_MAX_BYTES = 65536
LINE_MAX_BYTES = 16384
CLIENT, ROLE = b"X-PV-Client", b"X-PV-Role"
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REQUEST = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [^\s\x00]+ HTTP/1\.[01]")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\x00]*)?")
_OURS = frozenset({b"x-pv-client", b"x-pv-role"})
# A connection that becomes something else could not be read any more.
_DROPPED = frozenset({b"upgrade", b"proxy-connection", b"keep-alive", b"trailer"})


class Filter(Protocol):
    """One direction of one connection."""

    def feed(self, data: bytes) -> bytes:
        """Bytes to pass on. Raises `HostileInputError`."""
        ...


class Plain:
    """Nothing is changed."""

    __slots__ = ()

    def feed(self, data: bytes) -> bytes:
        """Everything, as it is."""
        return data


class Requests:
    """HTTP/1 requests, each with headers that name the caller; those that the caller sent itself are taken out."""

    __slots__ = ("_buffer", "_headers", "_left", "_state")

    def __init__(self, client: str, role: str) -> None:
        self._headers = b"%s: %s\r\n%s: %s\r\n" % (CLIENT, _value(client), ROLE, _value(role))
        self._buffer = b""
        self._left = 0
        self._state = "head"

    def feed(self, data: bytes) -> bytes:
        """Requests one after the other, each followed by its body."""
        self._buffer += data
        out = []
        while (piece := self._step()) is not None:
            out.append(piece)
        return b"".join(out)

    def _step(self) -> bytes | None:
        """The next piece that is whole; None when more must come first."""
        if self._state == "head":
            return self._head()
        if self._state in ("body", "chunk"):
            return self._body()
        if self._state == "size":
            return self._size()
        return self._trailers()

    def _head(self) -> bytes | None:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            if len(self._buffer) > HEAD_MAX_BYTES:
                raise HostileInputError(f"A request's head is longer than {HEAD_MAX_BYTES} bytes")
            return None
        if len(head) > HEAD_MAX_BYTES:
            raise HostileInputError(f"A request's head is longer than {HEAD_MAX_BYTES} bytes")
        self._buffer = rest
        line, *fields = head.split(b"\r\n")
        if not _REQUEST.fullmatch(line):
            raise HostileInputError("A request does not begin with a line of HTTP/1")
        kept, lengths, codings = _sort(fields)
        self._expect(lengths, codings)
        return line + b"\r\n" + b"".join(field + b"\r\n" for field in kept) + self._headers + b"\r\n"

    def _expect(self, lengths: list[bytes], codings: list[bytes]) -> None:
        """Where the request ends (RFC 9112, section 6)."""
        if codings:
            if lengths or len(codings) != 1 or codings[0].lower() != b"chunked":
                raise HostileInputError("A request says in more than one way where it ends")
            self._state = "size"
        elif lengths:
            if len(lengths) != 1 or not lengths[0].isdigit() or len(lengths[0]) > 15:
                raise HostileInputError("A request has no Content-Length that is one number")
            self._left = int(lengths[0])
            self._state = "body" if self._left else "head"

    def _body(self) -> bytes | None:
        if not self._buffer:
            return None
        piece, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
        self._left -= len(piece)
        if not self._left:
            self._state = "size" if self._state == "chunk" else "head"
        return piece

    def _size(self) -> bytes | None:
        line = self._line()
        if line is None:
            return None
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise HostileInputError("A chunk of a request has no size")
        size = int(match[1], 16)
        if not size:
            self._state = "trailers"
            return b"0\r\n\r\n"
        self._left, self._state = size + 2, "chunk"
        return b"%x\r\n" % size

    def _trailers(self) -> bytes | None:
        """Trailers are not passed on: they could carry our headers again."""
        line = self._line()
        if line is None:
            return None
        if not line:
            self._state = "head"
        return b""

    def _line(self) -> bytes | None:
        line, end, rest = self._buffer.partition(b"\r\n")
        if not end:
            if len(self._buffer) > LINE_MAX_BYTES:
                raise HostileInputError(f"A line of a request is longer than {LINE_MAX_BYTES} bytes")
            return None
        self._buffer = rest
        return line


def _value(text: str) -> bytes:
    """A header's value: names of containers and roles have no other characters, and none gets through here."""
    return re.sub(rb"[^!-~]", b"_", text.encode("utf-8", "replace"))


def _sort(fields: list[bytes]) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """(headers to pass on, Content-Lengths, Transfer-Encodings)."""
    kept: list[bytes] = []
    lengths: list[bytes] = []
    codings: list[bytes] = []
    for field in fields:
        name, colon, value = field.partition(b":")
        if not colon or not _TOKEN.fullmatch(name) or b"\n" in value or b"\r" in value or b"\0" in value:
            raise HostileInputError("A request has a header that is none")
        # Servers that make variables of headers do not tell `_` from `-`.
        plain = name.lower().replace(b"_", b"-")
        if plain in _OURS or plain in _DROPPED:
            continue
        if plain == b"connection":
            # Its words name headers to take out on the way: none but these two may.
            kept.append(name + b": " + (b"close" if b"close" in value.lower() else b"keep-alive"))
            continue
        if plain == b"content-length":
            lengths.append(value.strip())
        elif plain == b"transfer-encoding":
            codings.append(value.strip())
        kept.append(field)
    return kept, lengths, codings


class Login:
    """The login of a D-Bus connection (SASL, D-Bus specification): whoever calls, it is for the user of its role."""

    __slots__ = ("_begun", "_buffer", "_identity", "_started")

    def __init__(self, uid: int) -> None:
        self._identity = str(uid).encode().hex().encode()
        self._buffer = b""
        self._started = False
        self._begun = False

    def feed(self, data: bytes) -> bytes:
        """Lines of the login, rewritten; after BEGIN everything as it is."""
        if self._begun:
            return data
        self._buffer += data
        out = b""
        if not self._started and self._buffer:
            if self._buffer[0]:
                raise HostileInputError("A D-Bus connection does not begin with a nul byte")
            out, self._buffer, self._started = b"\0", self._buffer[1:], True
        while b"\r\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\r\n")
            out += self._line(line) + b"\r\n"
            if self._has_begun():
                left, self._buffer = self._buffer, b""
                return out + left
        if len(self._buffer) > LINE_MAX_BYTES:
            raise HostileInputError(f"A line of a D-Bus login is longer than {LINE_MAX_BYTES} bytes")
        return out

    def _has_begun(self) -> bool:
        return self._begun

    def _line(self, line: bytes) -> bytes:
        words = line.split()
        verb = words[0] if words else b""
        if verb == b"BEGIN":
            self._begun = True
            return b"BEGIN"
        if verb == b"AUTH" and words[1:2] not in ([], [b"EXTERNAL"]):
            raise HostileInputError("A D-Bus login is by another way than EXTERNAL")
        if verb == b"AUTH" and len(words) > 2:
            return b"AUTH EXTERNAL " + self._identity
        if verb == b"DATA":
            return b"DATA " + self._identity
        return line
